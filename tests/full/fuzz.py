"""Many altered inputs for every reader: `python tests/full/fuzz.py --inputs 1000000`.

The inputs are numbered, and an input follows from the reader's name and its number, so a run can be made in pieces
(`--piece 3/8`) and a find can be repeated (`--only arch --number 4711`). `--atheris` lets Atheris choose the
alterations by the code that they reach, in an environment of its own that has it. Prints a row of JSON per reader.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.fuzzing import READERS, Reader, altered, forget, lay_out, tried  # noqa: E402

MEMORY = 6 << 30  # bytes of address space: a size that a file declares must not be believed before
SLOW_S = 10
SHOWN = 20
FOLLOWED = {"nasaug", "json", "tomllib", "csv", "xml", "PIL", "pycocotools"}  # what Atheris follows


class Slow(Exception):
    """An input takes longer than SLOW_S."""


def _slow(*_) -> None:
    raise Slow


def fuzz(name: str, reader: Reader, count: int, piece: tuple[int, int], folder: Path) -> dict:
    """How many inputs the reader took, refused and failed on, and the finds."""
    found = {"reader": name, "inputs": 0, "taken": 0, "refused": 0, "finds": []}
    valid = reader.valid()
    for content in valid:
        tried(reader, content, folder)  # so that no input's time is that of an import
    begun = time.monotonic()
    for number in range(piece[0], count, piece[1]):
        content = altered(random.Random(f"{name}/{number}"), valid, reader.kind)
        signal.setitimer(signal.ITIMER_REAL, SLOW_S)
        try:
            found["taken" if tried(reader, content, folder) else "refused"] += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            own = next((f for f in reversed(where) if "/nasaug/" in f.filename), where[-1])
            line = f"{type(error).__name__} {error!s:.120} at {Path(own.filename).name}:{own.lineno}"
            if len(found["finds"]) < SHOWN:
                found["finds"].append({"number": number, "error": line})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        found["inputs"] += 1
        if number % 512 == piece[0] % 512:
            forget()
    return found | {"seconds": round(time.monotonic() - begun, 1)}


def counts(total: int, names: list[str]) -> dict[str, int]:
    """Inputs per reader: in proportion to its share."""
    whole = sum(READERS[name].share for name in names)
    return {name: -(-total * READERS[name].share // whole).__trunc__() for name in names}


def by_atheris(names: list[str], seconds: float, folder: Path) -> None:
    import atheris

    valid = {name: READERS[name].valid() for name in names}
    _instrument(atheris)
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        provider = atheris.FuzzedDataProvider(data)
        name = names[provider.ConsumeIntInRange(0, len(names) - 1)]
        tried(READERS[name], altered(Drawn(provider), valid[name], READERS[name].kind), folder)
        done += 1
        if done % 512 == 0:
            forget()

    limits = {"max_total_time": int(seconds), "max_len": 256, "len_control": 0, "rss_limit_mb": 6000, "timeout": SLOW_S}
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in limits.items())], one)
    atheris.Fuzz()


def _instrument(atheris) -> None:
    """Let Atheris see which branches of nasaug, and of the readers written in Python, an input reaches. With
    instrument_all, torch's 30,000 functions would take minutes and drown the rest."""
    functions = [each for each in gc.get_objects() if isinstance(each, types.FunctionType)]
    for function in functions:
        if str(function.__module__).partition(".")[0] in FOLLOWED:
            atheris.instrument_func(function)


class Drawn(random.Random):
    """The random numbers of an alteration, taken from Atheris's bytes."""

    def __init__(self, provider):
        super().__init__(0)
        self.provider = provider

    def random(self) -> float:
        return self.provider.ConsumeIntInRange(0, (1 << 24) - 1) / (1 << 24)

    def getrandbits(self, k: int) -> int:
        return self.provider.ConsumeIntInRange(0, (1 << k) - 1)

    def _randbelow(self, n: int) -> int:
        return self.provider.ConsumeIntInRange(0, n - 1)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--inputs", type=int, default=1_000_000)
    asked.add_argument("--piece", default="0/1")
    asked.add_argument("--only", choices=READERS, action="append")
    asked.add_argument("--number", type=int, help="show this input of --only, and what happens with it")
    asked.add_argument("--atheris", type=float, metavar="SECONDS")
    given = asked.parse_args()
    names = given.only or list(READERS)
    first, step = map(int, given.piece.split("/"))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        folder = Path(place)
        lay_out(folder)
        if given.number is not None:
            reader = READERS[names[0]]
            content = altered(random.Random(f"{names[0]}/{given.number}"), reader.valid(), reader.kind)
            print(content[:3000])
            print("taken" if tried(reader, content, folder) else "refused")
            return
        if given.atheris:
            by_atheris(names, given.atheris, folder)
            return
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, _slow)
        for name, count in counts(given.inputs, names).items():
            print(json.dumps(fuzz(name, READERS[name], count, (first, step), folder)), flush=True)


if __name__ == "__main__":
    main()
