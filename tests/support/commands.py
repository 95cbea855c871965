"""The smallest job that exercises every part of the commands, and ways to call them."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import re
import resource
import signal
import sys
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from nasaug.cli import main as cli
from nasaug.core.signals import Stopped
from nasaug.training import to_end

SPACE = """
format = "nasaug-space/1"
name = "tiny"
resolution = [8, 12]

[[stage]]
name = "stem"
block = "conv"
width = [8, 16]
kernel = 3
stride = [2, 1]
act = "relu6"

[[stage]]
name = "s1"
block = "inverted"
width = [8, 16]
depth = [1, 2]
expand = [1, 2]
kernel = [3, 5]
stride = 2
act = "relu6"

[[stage]]
name = "pool"
block = "pool"
"""
RECIPE = """
epochs = 2
batch = 16
calibration_images = 32
space = "tiny.toml"

[data]
name = "digits"
train_images = 48
val_images = 40

[search]
trials = 4
score_images = 20
calibration_images = 32
finalists = 2
finalist_macs = 1.6e7
"""
QUICK = ("--recipe", "quick.toml")
SEARCH = ("search", *QUICK, "--mac-budget", "100k")
TRAIN = ("netaug-train", *QUICK, "--arch", "found.json")
LOADED = (  # imported by the process that the others are forked from
    "nasaug.nas.stages nasaug.training.train optuna.samplers sqlalchemy.dialects.sqlite matplotlib.pyplot "
    "pydantic sklearn.datasets torch.utils.tensorboard"
)


@dataclass(frozen=True)
class Called:
    """A command's exit code and output."""

    code: int
    out: str
    err: str


def lay_out(folder: Path) -> None:
    """Write the recipe and the space into `folder`."""
    (folder / "tiny.toml").write_text(SPACE)
    (folder / "quick.toml").write_text(RECIPE)


def call(*args: str) -> Called:
    """`nasaug ARGS` in this process and working directory."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["nasaug", *args]):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
    return Called(code, out.getvalue(), err.getvalue())


def done(*args: str) -> Called:
    """`call`, which must succeed."""
    called = call(*args)
    assert called.code == 0, called.err
    return called


def tree(folder: Path = Path(".")) -> dict[str, str]:
    """Every file and folder below, with a hash of its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        held = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        found[str(path.relative_to(folder))] = held
    return found


def refused(*args: str) -> str:
    """The one line printed by a command that is refused. No file but a run's lock may have changed."""
    before = tree()
    called = call(*args)
    assert called.code == 2, (called.code, called.err)
    assert re.fullmatch(r"nasaug: [^\n]+\n", called.err), called.err
    after = tree()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path for path in changed if not path.endswith(".lock")} == set()
    return called.err


def faulty(called: Called) -> str:
    """The one line that a failed run ends with, after its earlier output."""
    lines = called.err.splitlines()
    assert called.code == 1 and "Traceback" not in called.err, called.err
    assert [line for line in lines if line.startswith("nasaug: ")] == lines[-1:], called.err
    return lines[-1]


def calls_of(monkeypatch, *methods: tuple[type, str]) -> list[str]:
    """A list to which every later call of these methods, each a (class, name), appends its name."""
    events: list[str] = []

    def note(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def noted(*args, **kwargs):
            events.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    for owner, name in methods:
        note(owner, name)
    return events


VARYING = ("seconds", "search_seconds", "time", "peak_memory")


def timeless(value):
    """Figures without the times, which differ in every run."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in VARYING}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def stop(*args, **kwargs):
    raise Stopped(signal.SIGTERM)


def stop_in_the_second(end_epoch):
    return lambda trainer: stop() if trainer.history else end_epoch(trainer)


# --- in a separate process, forked from one that has imported everything, so that it starts at once --------


class Child:
    """`nasaug ARGS` in `folder`; checkpoints every `save_every` seconds, no file over `largest` bytes."""

    def __init__(self, folder: Path, *args: str, save_every: float = 60.0, largest: int | None = None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED.split())
        self._told, told = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(folder, told, args, save_every, largest))
        self._process.start()
        told.close()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def signal_group(self, number: int) -> None:
        """Signal its child processes too, as `timeout` and schedulers do."""
        os.killpg(self._process.pid, number)

    def running(self, seconds: float) -> bool:
        """Whether it is still running after that many seconds."""
        self._process.join(seconds)
        return self._process.exitcode is None

    def end(self) -> Called:
        """Wait for it to exit; the code is minus the signal's number if a signal killed it."""
        said = b"".join(iter(lambda: os.read(self._told.fileno(), 65536), b""))
        self._process.join()
        return Called(self._process.exitcode, "", said.decode())


def _run(folder: Path, told: Connection, args: tuple, save_every: float, largest: int | None) -> None:
    os.chdir(folder)
    os.setsid()  # a process group of its own, with its children
    multiprocessing.set_start_method("fork", force=True)  # as if started by a shell
    for stream in (1, 2):
        os.dup2(told.fileno(), stream)
    told.close()
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # not ignored, however the tests were started
    sys.argv = ["nasaug", *args]
    to_end.fit = partial(to_end.fit, save_every=save_every)
    cli.main()


def wait_for(path: Path, said: str, child: Child, times: int = 1) -> None:
    """Wait until the file exists and contains the text that many times."""
    while not path.is_file() or path.read_text(errors="replace").count(said) < times:
        assert child.running(0.002), child.end().err
