"""Every convolution that a space can draw, forward and backward, with out-of-bounds writes aborting the process.

oneDNN 3.12 does that on AVX2 in strided 1x1 convolutions of few channels (uxlfoundation/oneDNN#6035), which nets of
usual width do not have. Each kind of layer runs in a separate process, restricted to AVX2, with glibc's checking
allocator. The processes are forked from one that has imported torch.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from itertools import product
from random import Random

import pytest

from nasaug.arch import spacefile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.plan import plan
from nasaug.core.files import bundled
from nasaug.kernels import build

CHECKER = "libc_malloc_debug.so.0"  # glibc 2.34 and newer; older versions have the checks built in
PROGRAM = """
import os, sys, torch
from torch.nn import functional as F
from nasaug.kernels import choice
from nasaug.kernels.fused import conv_norm_act, convolve
from nasaug.arch.blocks import Layer
torch.set_num_threads(1)
for line in sys.stdin:
    if not os.fork():
        break
    print("exit code", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
kernel, stride, depthwise = map(int, line.split())
for cin in (1, 2, 4, 7, 8, 17):
    for out in (cin,) if depthwise else (1, 8):
        for side in (1, 3, 8):
            end = (side - 1) // stride + 1
            layer = Layer("it", "conv", cin, out, end, end, kernel, stride, cin if depthwise else 1, act="relu6")
            print(f"{cin} to {out} channels at {side} px", flush=True)
            x = torch.randn(12, cin, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
            w = torch.randn(out, 1 if depthwise else cin, kernel, kernel, requires_grad=True)
            one, zero = torch.ones(out, requires_grad=True), torch.zeros(out, requires_grad=True)
            for use in (True, False):
                with choice.forced(use):
                    for _ in range(5):
                        for t in (w, one, zero):
                            t.grad = torch.zeros_like(t)
                        conv_norm_act(x, layer, w, one, zero, (None, None, 0.0), 1e-5).square().sum().backward()
            for _ in range(5):
                convolve(x, w, None, layer).square().sum().backward()
            x.grad = w.grad = None
            convolve(x, w, None, layer).square().sum().backward()
            twins = [t.detach().double().requires_grad_() for t in (x, w)]
            F.conv2d(*twins, None, stride, kernel // 2, 1, layer.groups).square().sum().backward()
            for ours, right in zip((x, w), twins):
                assert (ours.grad - right.grad).abs().max() <= 1e-4 * right.grad.abs().max(), "wrong gradient"
print("ended well", flush=True)
"""


def drawn():
    """(kernel, stride, depthwise) of every convolution of every shipped space."""
    found = set()
    for path in sorted(bundled("search_spaces").glob("*.toml")):
        space = spacefile.load(path.stem, BLOCKS)
        for arch in (space.smallest, space.largest, *(space.sample(Random(seed)) for seed in range(20))):
            for block in plan(space, arch, 10).blocks:
                layers = [*block.layers, *([block.project] if block.project else [])]
                found |= {(x.kernel, x.stride, x.groups > 1) for x in layers if x.op == "conv"}
    return found


DRAWN = sorted(drawn() | set(product((1, 3, 5, 7), (1, 2), (True,))) | {(1, 2, False)})


def environment():
    """With the checking allocator if this machine has it, restricted to AVX2 on x86."""
    found = dict(os.environ) | (build.HELD_TO["AVX2"] if build.has("AVX2") else {})
    with contextlib.suppress(OSError):  # LD_PRELOAD silently ignores a library that cannot be loaded
        ctypes.CDLL(CHECKER)
        found |= {"LD_PRELOAD": CHECKER, "MALLOC_CHECK_": "3"}
    return found


@pytest.fixture(scope="module")
def parent():
    """A process that forks one for each kind of layer that it is given."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, bufsize=1, env=environment(), **pipes) as process:
        yield process
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize(("kernel", "stride", "depthwise"), DRAWN)
def test_a_convolution_stays_within_its_memory_and_its_gradients_are_right(parent, kernel, stride, depthwise):
    print(kernel, stride, int(depthwise), file=parent.stdin)
    told = []
    while not told or not told[-1].startswith("exit code"):
        told.append(parent.stdout.readline())
        assert told[-1], "the parent process has ended"
    assert told[-2:] == ["ended well\n", "exit code 0\n"], told[-20:]
