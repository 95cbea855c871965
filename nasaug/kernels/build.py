"""Compiles the C sources (csrc/) once, given a C compiler and a supported vector unit.

NASAUG_KERNELS=FOLDER sets the folder for compiled libraries (default: the user's cache); NASAUG_KERNELS=off disables
them. NASAUG_MARCH=x86-64-v3 (any value of the compiler's -march) compiles for a less capable processor.
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

# Environment variables that limit torch, its libraries and these kernels to a vector unit, for tests and benchmarks.
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
# Features in /proc/cpuinfo that a vector unit requires.
_NEEDS = {
    "AVX-512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, "AVX2": {"avx2", "fma"}, "NEON": {"asimd"},
}  # fmt: skip

_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "norm_act": [_P, _P, _L, _L, _P, _P, _F, _I, _F, _P, _P, _P, _P, _F, _I],
    "norm_act_back": [_P, _P, _P, _L, _L, _P, _P, _I, _F, _P, _P, _P, _P, _I],
    "depthwise_back": [_P, _P, _P, _P, _P, _P, _P, *[_L] * 8, _I],
    "chain": [_P, _L, _P, _I],
    "chain_back": [_P, _L, *[_P] * 4, _L, _I],
    "inverted_eval": [_P] * 3 + [_I],
    "operators": [_P] * 4 + [_L] * 4 + [_I],
}


class Library(NamedTuple):
    """The compiled library, its vector unit, and the JSON file with its checksum and the self-test's choices."""

    functions: ctypes.CDLL
    unit: str
    notes: Path


def call(name: str, *given) -> None:
    """Call a C function. Tensors are passed as pointers; torch's number of threads is appended as the last argument."""
    values = [g.data_ptr() if isinstance(g, Tensor) else g for g in given]
    if getattr(library().functions, name)(*values, torch.get_num_threads()):
        raise MemoryError(f"{name}: no memory for its working space")


def library() -> Library | None:
    """The library for this machine, from the cache or compiled now; None if unavailable (see `why_not`)."""
    return _loaded()[0]


def why_not() -> str:
    """Why there is no library, in a few words; empty if there is one."""
    return _loaded()[1]


class _Unfit(Exception):
    """A compiled library cannot be used."""


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
        first = next((line for line in lines if "error" in line.lower()), (lines or ["it printed no message"])[0])
        reason = f"{_compiler()} failed: {first.strip()[:200]}"
    except OSError as error:
        where = error.filename or _folder_named()
        reason = f"{error.strerror or error}: {where}; set NASAUG_KERNELS=FOLDER to another folder"
    except (_Unfit, BadInput, RunFault, AttributeError) as error:
        reason = str(error)
    # Unless the program has configured logging, Python's handler of last resort writes this to stderr.
    logging.getLogger("nasaug").warning(
        "nasaug: warning: no compiled kernels (%s); torch's operations do the same, slower", reason
    )
    return None, reason


def unsupported() -> str:
    """Why compiling is not even attempted on this machine, in a few words; empty if it is."""
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
    """The processor's feature flags."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _compiler() -> str:
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""


def _command() -> list[str]:
    """The compiler's command line without files."""
    x86, wanted = platform.machine() == "x86_64", os.environ.get("NASAUG_MARCH")
    target = [f"-march={wanted}"] if wanted else ["-march=native"] if x86 else ["-mcpu=native"]
    wide = ["-mprefer-vector-width=512"] if x86 else []
    return [*_compiler().split(), "-O3", *target, *wide, "-pthread", "-fPIC"]


def _folder_named() -> str:
    try:
        return os.environ.get("NASAUG_KERNELS") or str(cache_folder() / "kernels")
    except BadInput as error:
        raise BadInput(f"{error}, or NASAUG_KERNELS") from None


def _from_cache_or_compiled(command: list[str]) -> Library:
    notes = Path(_folder_named()) / f"{_key(command)}.json"
    if notes.is_file():
        try:
            return _load(notes)
        except (_Unfit, BadInput, OSError, KeyError, TypeError, AttributeError) as error:
            logging.getLogger("nasaug").warning("nasaug: warning: %s; the kernels are compiled again", error)
    _compile(command, notes)
    return _load(notes)


def _key(command: list[str]) -> str:
    """A hash of everything that the compiled code and the self-test depend on: sources, command, processor, torch."""
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    flags = sorted(line for line in processor.splitlines() if line.startswith(("model", "flags", "Features")))
    sources = [path.read_text() for path in sorted(SOURCES.iterdir())]
    held = [f"{name}={os.environ.get(name)}" for name in sorted(HELD_TO["AVX2"])]
    text = "\n".join([*sources, *command, platform.machine(), *flags, torch.__version__, *held])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _compile(command: list[str], notes: Path) -> None:
    """Compile the library next to its notes. Its name contains its hash, so concurrent processes do not interfere."""
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
        try:  # in a subprocess, because an illegal instruction would kill the caller
            _run([sys.executable, "-I", "-S", "-c", probe])
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
            raise _Unfit(f"the library made by {_compiler()} does not run on this machine: {told[-1][:200]}") from error
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        made.replace(notes.with_name(f"{notes.stem}-{digest[:12]}.so"))
    write_json(notes, {"format": FORMAT, "sha256": digest, "choices": {}})


def _run(command: list[str]) -> None:
    """Run a command. On a timeout, kill its whole process group: a compiler driver does not end its subprocesses."""
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
        raise _Unfit(f"{path} is for {unit}, which this processor lacks")
    for name, types in _SIGNATURES.items():
        getattr(functions, name).argtypes = types
    return Library(functions, unit, notes)
