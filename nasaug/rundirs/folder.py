"""Run directories: the resolved recipe, the environment, a log, checkpoints, and the result, which is written last.

A run without `result.json` is unfinished. Only one process at a time can hold a run's lock.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

from ..config import layers
from ..core.errors import BadInput, RunFault, arg
from ..core.files import DATA_SETS, read_json, to_json, write_error, write_json, write_whole, write_with_names
from ..core.progress import say
from ..core.streams import this_command

RESULT_FORMAT, ENV_FORMAT = "nasaug-result/1", "nasaug-env/1"
LOCK, RESULT, JOB, RECIPE, ENV = ".lock", "result.json", "job.json", "recipe.toml", "env.json"
RECORD = "data.safetensors"  # which image is in which split: nasaug.data.record
_PACKAGES = "torch torchvision optuna numpy scipy thop safetensors pydantic cyclopts nasaug".split()


def _file(name: str) -> property:
    return property(lambda run: run.path / name, doc=f"{name} in the run's folder.")


class RunDir:
    """A run directory and the paths of its files. `create`, `resume` and `hold` return it locked by this process, until
    it is closed."""

    # every run
    recipe_file, env_file, log_file = _file(RECIPE), _file(ENV), _file("log.jsonl")
    result_file, job_file, record_file = _file(RESULT), _file(JOB), _file(RECORD)
    # training: the requested network, the current weights, the best weights, and which test images are correct
    base_file, checkpoint_file = _file("base.json"), _file("checkpoint.safetensors")
    model_file, arch_file, test_file = _file("model.safetensors"), _file("arch.json"), _file("test.safetensors")
    shown_file = _file("shown.safetensors")  # of a detection: some validation images, and what was found on them
    # pruning: the net after the last finished step, and the net pruned in the current step, before fine-tuning
    tuned_file, cut_file = _file("tuned.safetensors"), _file("cut.safetensors")
    # search
    supernet_file, found_file = _file("supernet.safetensors"), _file("found.json")
    candidates_file, pareto_file = _file("candidates.json"), _file("pareto.json")
    finalists_file, pareto_picture = _file("finalists.json"), _file("pareto.png")
    shapes_file, search_page = _file("shapes.json"), _file("search.html")
    latency_file = _file("latency.json")  # a copy of the device's latency table
    start_file = _file("start.safetensors")  # the weights that a training of the found net starts from
    front_folder = _file("front")  # an arch file for each net of the front, and its own weights if it was trained
    # comparison and sweep: figures, page or picture; a sweep's trainings with their paths, and its pruned policies
    comparison_file, comparison_page = _file("comparison.json"), _file("comparison.html")
    sweep_file, sweep_picture = _file("sweep.json"), _file("sweep.png")
    swept_file, pruned_file = _file("sweep.csv"), _file("pruned.json")

    def __init__(self, path: str | Path, lock: IO[str] | None = None):
        self.path = Path(path)
        self._lock = lock

    @classmethod
    def create(cls, verb: str, settings: Any, run: str | Path | None = None) -> RunDir:
        """Create a run: `runs/VERB-N` with the next free N, or the folder `run`, which must be new or empty.

        `settings` is the resolved recipe, a dataclass. Call this only after all other checks have passed.
        """
        path = _next_free(Path("runs"), verb) if run is None else _named(Path(run))
        try:
            lock = _hold(path)
            write_json(path / ENV, {"format": ENV_FORMAT} | describe_environment())
            write_with_names(path / RECIPE, layers.dump(settings))
        except RunFault:
            for name in (LOCK, ENV):
                (path / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: the user's hidden files
                path.rmdir()
            raise
        return cls(path, lock)

    @classmethod
    def resume(cls, run: str | Path) -> RunDir:
        """Open an existing run to resume it, and remove temporary files and partial log lines left by a kill."""
        path = Path(run)
        if not (path / RECIPE).is_file():
            found = sorted(str(begun.parent) for begun in path.parent.glob(f"*/{RECIPE}"))
            raise BadInput(f"{path} is not a run that can be resumed; choices: {', '.join(found) or 'none'}")
        resumed = cls(path, _hold(path))
        for leftover in path.glob(".*.tmp"):
            leftover.unlink()
        resumed.rewind()
        return resumed

    @classmethod
    def hold(cls, path: Path) -> RunDir:
        """Lock a folder regardless of its content. Raises BadInput, naming the process, if another one holds it."""
        return cls(path, _hold(path))

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            with contextlib.suppress(OSError, ValueError):
                os.truncate(self._lock.fileno(), 0)  # what is left in it tells of a process that was killed
            self._lock.close()

    def environment(self) -> dict[str, Any]:
        """The content of env.json; only its format if the file does not exist."""
        path = self.env_file
        return read_json(path, ENV_FORMAT) if path.is_file() else {"format": ENV_FORMAT}

    def note(self, **facts: Any) -> None:
        """Add facts to env.json that are only known once the run has started."""
        write_json(self.env_file, self.environment() | facts)

    def check_settings(self, settings: Any, aside: Sequence[str] = ()) -> None:
        """Raises BadInput, naming the keys, if the recipe differs from the one that the run was started with. Keys in
        `aside` may differ, and so may the path of an image folder if the run recorded the images themselves."""
        begun = layers.load(self.recipe_file, type(settings))
        if self.record_file.is_file() and not {begun.data.name, settings.data.name} & set(DATA_SETS):
            aside = (*aside, "data.name")
        differing = layers.differing(begun, settings, aside)
        if differing:
            remedy = "resume with the same settings, or start a new run"
            raise BadInput(f"{self.path} was begun with other settings: {', '.join(differing)}; {remedy}")

    def go_on_with(self, settings: Any) -> None:
        """Store the recipe that `check_settings` accepted, so that the next resume uses it too."""
        if layers.differing(layers.load(self.recipe_file, type(settings)), settings):
            write_with_names(self.recipe_file, layers.dump(settings))

    def log(self, event: str, **figures: Any) -> None:
        """Append a line to log.jsonl: Unix time in seconds, the event and its figures."""
        path = self.log_file
        line = to_json({"time": round(time.time(), 3), "event": event} | figures)
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise write_error(path, error) from error

    def read_log(self) -> list[dict[str, Any]]:
        """The events so far, in order, without a partial last line left by a kill."""
        path = self.log_file
        whole = path.read_text("utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
        return [self._event(number, line) for number, line in enumerate(whole, 1)]

    def _event(self, number: int, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                return event
        except (ValueError, RecursionError):
            pass
        raise BadInput(f"{self.log_file}, line {number} is damaged; remove that line, or restore the file")

    def rewind(self, stage: str | None = None, **last: int) -> None:
        """Truncate the log before the first event of `stage` beyond `last`, such as step=120, so that resuming does not
        log anything twice.

        Also removes a partial last line left by a kill. Events without the key never count as beyond it.
        """
        events = self.read_log()
        meant = [event if event.get("stage") == stage else {} for event in events]
        past = (i for i, event in enumerate(meant) if any(event.get(k, v) > v for k, v in last.items()))
        kept = events[: next(past, len(events))]
        write_whole(self.log_file, "".join(to_json(event) + "\n" for event in kept))

    def finish(self, result: dict[str, Any]) -> None:
        """Write result.json, which marks the run as finished. Call this last."""
        write_json(self.result_file, {"format": RESULT_FORMAT} | result)

    @property
    def finished(self) -> bool:
        return self.result_file.is_file()

    @property
    def in_use(self) -> bool:
        """Whether a process holds the run."""
        return _is_held(self.path / LOCK)

    def result(self) -> dict[str, Any]:
        """The result of a finished run. Raises BadInput if there is none."""
        return read_json(self.result_file, RESULT_FORMAT)


def _next_free(folder: Path, verb: str) -> Path:
    endings = [path.name.removeprefix(f"{verb}-") for path in folder.glob(f"{verb}-*")]
    number = max((int(ending) for ending in endings if ending.isdecimal()), default=0) + 1
    while True:
        path = folder / f"{verb}-{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:  # another process was faster
            number += 1
        except OSError as error:
            raise write_error(path, error) from error


def _named(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_new(path)
    except OSError as error:
        raise write_error(path, error) from error
    return path


def check_new(path: Path) -> None:
    """Raises BadInput if a folder is not empty. Hidden files do not count: a run that never started leaves its lock."""
    if any(not item.name.startswith(".") for item in path.iterdir()):
        if (path / LOCK).is_file():
            _hold(path).close()  # raises a more specific error if a process is using it
        if (path / RECIPE).is_file() and not (path / JOB).is_file():
            rule, remedy = "was interrupted before it started", f"remove it, or give another {arg.run}"
            raise BadInput.of(argument="run", value=path, rule=rule, remedy=remedy, apart=True)
        resume = f"{arg.resume} to go on with it, or " if (path / RECIPE).is_file() else ""
        rule, remedy = "exists and is not empty", f"give {resume}another {arg.run}"
        raise BadInput.of(argument="run", value=path, rule=rule, remedy=remedy, apart=True)


# This process's open lock files by path: the kernel's locks are between processes only, and closing any descriptor of a
# file releases its lock.
_held: WeakValueDictionary[str, IO[str]] = WeakValueDictionary()


def _hold(path: Path) -> IO[str]:
    """Open and lock the run's lock file. The kernel releases the lock when the process ends, so it is never stale."""
    place = os.path.realpath(path / LOCK)
    ours = _held.get(place)
    if ours is not None and not ours.closed:
        raise _in_use(path, os.getpid())
    try:
        lock = open(path / LOCK, "a+")
    except OSError as error:
        raise write_error(path, error) from error
    try:
        _lock_soon(lock)
    except (BlockingIOError, PermissionError) as error:
        lock.seek(0)
        holder = lock.read()
        lock.close()
        raise _in_use(path, holder) from error
    except OSError as error:  # for example, a file system without locks
        lock.close()
        raise write_error(path / LOCK, error) from error
    try:
        lock.seek(0)
        _warn_of_other_host(path, lock.read())
        os.truncate(lock.fileno(), 0)
        process = f"{os.getpid()} on {platform.node()}"
        os.write(lock.fileno(), process.encode())  # unbuffered: closing must not fail again
    except OSError as error:
        lock.close()
        raise write_error(path, error) from error
    _held[place] = lock
    return lock


def _warn_of_other_host(path: Path, holder: str) -> None:
    """The kernel has given the lock, so who is named in it has ended. Only on another host might it be running, in a
    network folder whose locks the hosts do not share."""
    host = holder.partition(" on ")[2]
    if host and host != platform.node():
        doubt = f"if that one still runs, stop one of the two: {path} must be locked by one alone"
        say(f"warning: the lock of process {holder} was left behind and is taken over; {doubt}")


def _in_use(path: Path, process: object) -> BadInput:
    return BadInput(f"{path} is in use by process {process}; wait for it, or give another {arg.run}")


MOMENT_S = 0.05  # longer than a process that asks whether a run is in use holds its lock


def _lock_soon(file: IO[str]) -> None:
    """`_lock`, tried a second time after a moment."""
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        time.sleep(MOMENT_S)
        _lock(file)


def _lock(file: IO[str]) -> None:
    """Lock the file for this process. Raises BlockingIOError or PermissionError if another process holds the lock."""
    try:
        import fcntl
    except ImportError:  # Windows, where other processes cannot read a locked byte: lock one far beyond the content
        import msvcrt

        file.seek(2**30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    # unlike flock, record locks are not inherited by forked loader workers, which may outlive a kill
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock file; tried with a lock for reading, which changes nothing and needs no right to
    write. On Windows, where that cannot be asked, False."""
    place = os.path.realpath(lock)
    if place in _held and not _held[place].closed:
        return True
    try:
        import fcntl

        with open(lock) as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except (ImportError, OSError):
        return False
    return False


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment() -> dict[str, Any]:
    """Versions, machine, commit and command line, determined without importing any package."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "commit": _commit(),
        "command": without_passwords(this_command()),
    }


def _processor() -> str:
    """The processor's name; by Linux where that knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


HIDDEN = "***"  # replaces passwords


def without_passwords(text: str) -> str:
    """The text with passwords in URLs, such as a database's, replaced: `user:PASSWORD@` and `?password=PASSWORD`."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", rf"\1:{HIDDEN}@", text)  # to the last @: a password may contain one
    return re.sub(r"(?i)([?&](?:password|passwd|pwd)=)[^&\s'\"]*", rf"\1{HIDDEN}", text)


def _commit() -> str | None:
    """The git commit of the checkout this package runs from ("-dirty" if modified); None outside a checkout."""
    here = Path(__file__).resolve().parent.parent.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
