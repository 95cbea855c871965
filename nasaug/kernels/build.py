"""The C sources (csrc/), compiled once where there is a C compiler and a vector unit that they are written for.

NASAUG_KERNELS=FOLDER says where what was compiled is kept, else it is the user's cache; NASAUG_KERNELS=off: none.
NASAUG_MARCH=x86-64-v3 (any value of the compiler's -march) compiles for less than this processor has.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import BadInput, RunFault
from ..core.files import cache_folder, read_json, write_json

SOURCES = Path(__file__).with_name("csrc")
FORMAT = "nasaug-kernels/1"
HANGS_AFTER_S = 120.0

# What holds torch, its libraries and these kernels to a vector unit, for tests and benchmarks on processors with more.
HELD_TO = {
    "AVX2": {
        "NASAUG_MARCH": "x86-64-v3", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "AVX-512": {
        "NASAUG_MARCH": "x86-64-v4", "ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}  # fmt: skip
# What /proc/cpuinfo must name for a unit.
_NEEDS = {
    "AVX-512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, "AVX2": {"avx2", "fma"}, "NEON": {"asimd"},
}  # fmt: skip

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "norm_act": [_P, _P, _L, _L, _P, _P, _F, _I, _F, _P, _P, _P, _P, _F, _I],
    "norm_act_back": [_P, _P, _P, _L, _L, _P, _P, _I, _F, _P, _P, _P, _P, _I],
    "depthwise_back": [_P, _P, _P, _P, _P, _P, _P, *[_L] * 8, _I],
    "inverted": [_P] * 6 + [_I],
    "inverted_back": [_P] * 7 + [_I],
    "inverted_eval": [_P] * 3 + [_I],
    "operators": [_P] * 4 + [_L] * 4 + [_I],
}


class Library(NamedTuple):
    """What was compiled, the vector unit that it is for, and the file that says so and keeps what was chosen of it."""

    functions: ctypes.CDLL
    unit: str
    notes: Path


def call(name: str, *given) -> None:
    """Run the function of that name. Tensors are given by their address; its last argument, threads, is torch's."""
    values = [g.data_ptr() if isinstance(g, Tensor) else g for g in given]
    if getattr(library().functions, name)(*values, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for its working space")


def library() -> Library | None:
    """csrc compiled for this machine, from the cache if it is there; None where that cannot be had (`why_not`)."""
    return _loaded()[0]


def why_not() -> str:
    """Why there is no library, in a few words; empty where there is one."""
    return _loaded()[1]


class _Unfit(Exception):
    """What was compiled cannot be used."""


@cache
def _loaded() -> tuple[Library | None, str]:
    reason = unsupported()
    if reason:
        return None, reason
    try:
        return _from_cache_or_compiled(_command()), ""
    except subprocess.TimeoutExpired:
        reason = f"{_compiler()} did not end within {HANGS_AFTER_S:.0f} seconds"
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.decode(errors="replace").splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line.lower()), (lines or ["it says nothing"])[0])
        reason = f"{_compiler()} failed: {first.strip()[:200]}"
    except OSError as error:
        reason = f"{error.strerror or error}: {error.filename or _folder_named()}; NASAUG_KERNELS=FOLDER names another"
    except (_Unfit, BadInput, RunFault, AttributeError) as error:
        reason = str(error)
    # Python's last resort writes this line to stderr where a program has set up no logging of its own.
    logging.getLogger("nasaug").warning(
        "nasaug: warning: no compiled kernels (%s); torch's operations do the same, slower", reason
    )
    return None, reason


def unsupported() -> str:
    """Why nothing is to be compiled here, in a few words; empty where it is to be tried."""
    if os.environ.get("NASAUG_KERNELS") == "off":
        return "NASAUG_KERNELS=off"
    if platform.system() != "Linux":
        return f"they are not written for {platform.system()}"
    if not any(map(has, _NEEDS)):
        return "this processor has neither AVX2 with FMA nor NEON"
    return "" if _compiler() else "no C compiler"


def has(unit: str) -> bool:
    """Whether this processor has a vector unit: "AVX-512", "AVX2" or "NEON"."""
    return _NEEDS[unit] <= _features()


@cache
def _features() -> frozenset[str]:
    """What the processor says that it has."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _compiler() -> str:
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""


def _command() -> list[str]:
    """What compiles, but for the files."""
    x86, wanted = platform.machine() == "x86_64", os.environ.get("NASAUG_MARCH")
    target = [f"-march={wanted}"] if wanted else ["-march=native"] if x86 else ["-mcpu=native"]
    wide = ["-mprefer-vector-width=512"] if x86 else []
    return [*_compiler().split(), "-O3", *target, *wide, "-pthread", "-fPIC"]


def _folder_named() -> str:
    try:
        return os.environ.get("NASAUG_KERNELS") or str(cache_folder() / "kernels")
    except BadInput as error:
        raise BadInput(f"{error}, or by NASAUG_KERNELS") from None


def _from_cache_or_compiled(command: list[str]) -> Library:
    notes = Path(_folder_named()) / f"{_key(command)}.json"
    if notes.is_file():
        try:
            return _load(notes)
        except (_Unfit, BadInput, OSError, KeyError, TypeError, AttributeError) as error:
            logging.getLogger("nasaug").warning("nasaug: warning: %s; the kernels are compiled anew", error)
    _compile(command, notes)
    return _load(notes)


def _key(command: list[str]) -> str:
    """What the compiled code and what is chosen of it depend on: sources, command, processor and torch."""
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    flags = sorted(line for line in processor.splitlines() if line.startswith(("model", "flags", "Features")))
    sources = [path.read_text() for path in sorted(SOURCES.iterdir())]
    held = [f"{name}={os.environ.get(name)}" for name in sorted(HELD_TO["AVX2"])]
    text = "\n".join([*sources, *command, platform.machine(), *flags, torch.__version__, *held])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _compile(command: list[str], notes: Path) -> None:
    """The library beside its notes, which name it by its content: two processes may do this at a time."""
    notes.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=notes.parent, prefix=".compile-") as folder:
        made = Path(folder, "made.so")
        objects = {source: str(Path(folder, f"{source.stem}.o")) for source in sorted(SOURCES.glob("*.c"))}
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: _run([*command, "-c", str(one), "-o", objects[one]]), objects))
        _run([*command, "-shared", *objects.values(), "-o", str(made), "-lm"])
        if not made.is_file():
            raise _Unfit(f"{_compiler()} made no file")
        probe = f"import ctypes; raise SystemExit(ctypes.CDLL({str(made)!r}).probe())"
        try:  # in a process of its own, since what is of another machine can end the one that calls it
            _run([sys.executable, "-I", "-S", "-c", probe])
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
            raise _Unfit(f"what {_compiler()} made does not run on this machine: {told[-1][:200]}") from error
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        made.replace(notes.with_name(f"{notes.stem}-{digest[:12]}.so"))
    write_json(notes, {"format": FORMAT, "sha256": digest, "choices": {}})


def _run(command: list[str]) -> None:
    """Run to its end. What hangs is ended with all that it began: a compiler's driver does not end the compiler."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, told = process.communicate(timeout=HANGS_AFTER_S)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=told)


def _load(notes: Path) -> Library:
    digest = str(read_json(notes, FORMAT)["sha256"])
    path = notes.with_name(f"{notes.stem}-{digest[:12]}.so")
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise _Unfit(f"{path} is damaged")
    functions = ctypes.CDLL(str(path))
    functions.unit.restype = ctypes.c_char_p
    unit = functions.unit().decode()
    if not has(unit):
        raise _Unfit(f"{path} is for {unit}, which this processor has not")
    for name, types in _SIGNATURES.items():
        getattr(functions, name).argtypes = types
    return Library(functions, unit, notes)
