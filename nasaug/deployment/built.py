"""Exported files built and run by programs that may be on this machine: C compilers, ExecuTorch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from ..core.errors import RunFault

CORTEX_M = ("arm-none-eabi-gcc", "arm-none-eabi-size")
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")


def installed(package: str) -> bool:
    return find_spec(package) is not None


def _sources(folder: Path, header: str, source: str, name: str) -> Path:
    for suffix, text in ((".h", header), (".c", source)):
        (folder / name).with_suffix(suffix).write_text(text, encoding="utf-8")
    return (folder / name).with_suffix(".c")


def _compile(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no reason given"])[0]
        raise RunFault(f"{command[0]} cannot build the C source: {reason}; leave the format c out")


def outputs_here(header: str, source: str, name: str, images: np.ndarray, outputs: int) -> np.ndarray | None:
    """int8 [n, outputs] that the C source computes for int8 images [n, h, w, 3], built by this machine's compiler; None
    if there is none."""
    with runner_here(header, source, name, outputs) as run:
        return None if run is None else run(images)


@contextlib.contextmanager
def runner_here(
    header: str, source: str, name: str, outputs: int
) -> Iterator[Callable[[np.ndarray], np.ndarray] | None]:
    """`outputs_here` as a function of the images, for several calls."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or os.name == "nt":
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        code, library = _sources(Path(folder), header, source, name), Path(folder) / "library.so"
        _compile(compiler, *FLAGS, "-O2", "-shared", "-fPIC", code, "-o", library)
        called: Any = getattr(ctypes.CDLL(str(library)), f"{name}_run")

        def run(images: np.ndarray) -> np.ndarray:
            results = np.zeros((len(images), outputs), np.int8)
            for image, result in zip(np.ascontiguousarray(images), results, strict=True):
                called(image.ctypes.data_as(ctypes.c_void_p), result.ctypes.data_as(ctypes.c_void_p))
            return results

        yield run


def cortex_m(header: str, source: str, name: str, processor: str = "cortex-m4") -> dict[str, int] | None:
    """Bytes of text, rodata, data and bss of the source built with -Os for a Cortex-M; None without its compiler."""
    if not all(map(shutil.which, CORTEX_M)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        code, built = _sources(Path(folder), header, source, name), Path(folder) / "net.o"
        _compile(CORTEX_M[0], *FLAGS, "-Os", f"-mcpu={processor}", "-mthumb", "-c", code, "-o", built)
        told = subprocess.run([CORTEX_M[1], "-A", str(built)], capture_output=True, text=True, check=True).stdout
    sizes = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    for section, size in re.findall(r"^\.(text|rodata|data|bss)\S*\s+(\d+)", told, re.M):
        sizes[section] += int(size)
    return sizes


def executorch_program(folded: GraphModule, resolution: int) -> bytes:
    """An ExecuTorch program of a folded net for one image at a time, lowered to XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # type: ignore
    from executorch.exir import to_edge_transform_and_lower  # type: ignore

    program = torch.export.export(folded, (torch.zeros(1, 3, resolution, resolution),))
    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


def executorch_runner(program: bytes) -> Any:
    """A function of one image [1, 3, h, w] that runs the program."""
    from executorch.runtime import Runtime  # type: ignore

    method = Runtime.get().load_program(program).load_method("forward")

    def run(image: Tensor, held: bytes = program) -> Tensor:  # the runtime reads these bytes, but does not hold them
        return method.execute([image])[0]

    return run
