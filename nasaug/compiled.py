"""The C sources (csrc/), compiled once where the machine has a C compiler; without one torch does the same.

NASAUG_KERNELS=FOLDER says where the compiled file is kept, else it is the user's cache; NASAUG_KERNELS=off: none.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .files import cache_folder

SOURCES = Path(__file__).with_name("csrc")

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "norm_act": [_P, _P, _L, _L, _P, _P, _F, _I, _F, _P, _P, _P, _P, _F, _I],
    "norm_act_back": [_P, _P, _P, _L, _L, _P, _P, _I, _F, _P, _P, _P, _P, _I],
    "depthwise_back": [_P, _P, _P, _P, _P, _P, _P, *[_L] * 8, _I],
    "inverted": [_P] * 6 + [_I],
    "inverted_back": [_P] * 7 + [_I],
    "inverted_eval": [_P] * 3 + [_I],
    "shift": [_P] * 5 + [_L] * 4 + [_I],
    "operators": [_P] * 4 + [_L] * 4 + [_I],
    "to_float": [_P] * 3 + [_L] * 4 + [_I],
}


def serves(*tensors: Tensor) -> bool:
    """Whether C can take them: on the CPU, and compiled."""
    return all(t.device.type == "cpu" for t in tensors) and library() is not None


def call(name: str, *given) -> None:
    """Run the function of that name. Tensors are given by their address; its last argument, threads, is torch's."""
    values = [g.data_ptr() if isinstance(g, Tensor) else g for g in given]
    if getattr(library(), name)(*values, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for its working space")


@cache
def library() -> ctypes.CDLL | None:
    """csrc compiled for this machine, from the cache if it is there; None where that cannot be had."""
    command = _command()
    if command is None:
        return None
    try:
        path = Path(os.environ.get("NASAUG_KERNELS") or cache_folder() / "kernels") / f"{_key(command)}.so"
        if not path.is_file():
            _compile(command, path)
        found = ctypes.CDLL(str(path))
        for name, types in _SIGNATURES.items():
            getattr(found, name).argtypes = types
    except (OSError, RuntimeError, subprocess.SubprocessError, AttributeError):  # RuntimeError: there is no home
        return None  # torch's operations do the same
    return found


def _command() -> list[str] | None:
    """What compiles; None where nothing can, or is to."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or platform.system() != "Linux" or os.environ.get("NASAUG_KERNELS") == "off":
        return None
    wide = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
    return [*compiler.split(), "-O3", "-march=native", *wide, "-fopenmp", "-shared", "-fPIC"]


def _key(command: list[str]) -> str:
    """What the compiled code depends on: the sources, the command and the processor, since it is made for that."""
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    flags = sorted(line for line in processor.splitlines() if line.startswith(("model", "flags", "Features")))
    sources = [path.read_text() for path in sorted(SOURCES.iterdir())]
    text = "\n".join([*sources, *command, platform.machine(), *flags])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _compile(command: list[str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compile-") as folder:
        made = Path(folder, path.name)
        units = sorted(map(str, SOURCES.glob("*.c")))
        subprocess.run([*command, *units, "-o", str(made), "-lm"], check=True, capture_output=True, timeout=120)
        made.replace(path)
