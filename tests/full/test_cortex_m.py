"""The C source of an exported net on a Cortex-M3 under qemu: the same bits as here, and the memory of the plan.

With the environment variable NASAUG_RUN it is the net of that run, on its first validation images."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.cost import cost
from nasaug.deployment import built, csource, qdq
from nasaug.deployment.source import Source
from nasaug.rundirs.folder import RunDir
from support.exported import int8_model, ready
from support.nets import images

NEEDED = ("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
IMAGES = 10
LINK = """
MEMORY { flash : ORIGIN = 0, LENGTH = 4M  ram : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > flash
    .data : { *(.data*) } > ram
    .bss : { *(.bss*) *(COMMON) } > ram
}
"""
DRIVER = """
#include "net.h"

static const int8_t given[%d][NET_INPUT] = {%s};
static int8_t logits[NET_OUTPUTS];

/* Semihosting: the emulator writes the character, or ends. */
static void host(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void number(int value)
{
    char text[8], *at = text + 7;
    int size = value < 0 ? -value : value;
    *at = 0;
    do
        *--at = (char)('0' + size %% 10);
    while (size /= 10);
    if (value < 0)
        *--at = '-';
    *--at = ' ';
    host(4, at);
}

void reset(void)
{
    for (unsigned i = 0; i < sizeof given / sizeof *given; i++) {
        net_run(given[i], logits);
        for (int j = 0; j < NET_OUTPUTS; j++)
            number(logits[j]);
    }
    host(0x18, (const void *)0x20026); /* a normal end */
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {(void *)0x20400000, (void *)reset};
"""


@pytest.fixture(scope="module")
def made():
    """(plan, integer net, int8 images, header, source) of a run, or of a small MobileNetV3 with squeeze-excite and hard
    swish."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)} (Debian's gcc-arm-none-eabi and qemu-system-arm)")
    if run := os.environ.get("NASAUG_RUN"):
        source = Source.of(RunDir(Path(run)), None, True)
        plan, net = archfile.read(str(Path(run, "arch.json"))).plan, qdq.of_onnx(source.int8)
        x = source.images[0][:IMAGES]
    else:
        plan = archfile.read("mobilenetv3-w0.35", resolution=24, classes=10).plan
        net = qdq.of_onnx(int8_model(ready(plan)))
        x = images(plan, IMAGES, torch.float32, seed=3)
    header, source = csource.to_c(net, "net", [0.5] * 3, [0.25] * 3, version="0", title="a test")
    return plan, net, net.input.of(x.permute(0, 2, 3, 1).numpy()), header, source


@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_a_cortex_m3_computes_the_same_bits(made, tmp_path, level):
    _, net, given, header, source = made
    rows = ", ".join("{" + ", ".join(map(str, image.reshape(-1).tolist())) + "}" for image in given)
    (tmp_path / "net.h").write_text(header)
    (tmp_path / "net.c").write_text(source)
    (tmp_path / "driver.c").write_text(DRIVER % (IMAGES, rows))
    (tmp_path / "link.ld").write_text(LINK)
    target = ["-mcpu=cortex-m3", "-mthumb", "-nostartfiles", "-nostdlib", "-T", "link.ld"]
    files = ["driver.c", "net.c", "-lgcc", "-o", "net.elf"]
    subprocess.run([NEEDED[0], "-std=gnu99", "-Wall", "-Wextra", level, *target, *files], cwd=tmp_path, check=True)
    machine = "-machine mps2-an385 -nographic -monitor none -serial none -semihosting-config enable=on,target=native"
    told = subprocess.run(
        [NEEDED[2], *machine.split(), "-kernel", "net.elf"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    found = np.array([int(word) for word in (told.stdout + told.stderr).split()], np.int8).reshape(IMAGES, -1)
    assert np.array_equal(found, net.run(given)) and len(np.unique(found)) > 10
    here = built.outputs_here(header, source, "net", given, net.output.size)
    assert here is None or np.array_equal(found, here)


def test_its_memory_is_what_the_plan_says(made):
    plan, net, _, header, source = made
    sizes, c = built.cortex_m(header, source, "net"), cost(plan)
    assert sizes["bss"] == net.arena <= c.peak and sizes["data"] == 0
    channels = sum(op.bias.size for op in net.ops)
    tables = sum(op.table.size for op in net.ops) + 3 * 256  # of hard swish and gates, and of the pixels
    beside = sizes["rodata"] - c.flash - 5 * channels - tables  # a multiplier and a shift for each channel
    assert 0 <= beside <= 80 * len(net.ops) and sizes["text"] < 6000
