"""An Optuna study that several processes work on, on one machine or many.

Claims (a trial is RUNNING, or WAITING until a process takes it), heartbeats and retries are Optuna's own. What is
added: a process of this machine that has ended is noticed at once and not only when its heartbeat is overdue; what a
process tells after its trial was taken from it is dropped; and a database server that restarts is waited for.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..core.errors import BadInput, arg
from ..core.progress import say
from ..core.units import format_duration
from ..rundirs.folder import without_passwords
from .storage import STUDY, heartbeat_s, hidden, on_a_server, open_storage, storage_faults, unchecked_storage

OWNER, ERROR = "owner", "error"  # attributes of a trial: the process that works on it; why its work failed
CLAIM = "claim by "  # and a process: whether it is trying to become the owner; only in storages without heartbeats
HISTORY = "retry_history"  # Optuna's, of a trial that is tried again: the numbers of those before it
FORMAT, OF = "format", "of"  # attributes of a study: its version, and what its trials depend on
VERSION = "nasaug-study/1"
PATIENCE_S = 60.0  # how long a server that does not answer is waited for
Value = TypeVar("Value")


class SharedStudy:
    """The study in a storage; in memory if `url` is None. Trials are Optuna's FrozenTrial, named by their id.

    Without `directions` the study must exist. Raises BadInput if it does not."""

    def __init__(self, url: str | None, directions: Sequence[Any] | None = None):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.url, self._told = url, False
        self._storage: Any  # not all storages have heartbeats
        make = open_storage if directions is None else unchecked_storage
        storage = self._patiently(lambda: None if url is None else make(url, retry=_again))
        self._storage = optuna.storages.get_storage(storage)
        self._study = self._patiently(lambda: self._opened(directions))
        self._id = self._storage.get_study_id_from_name(STUDY)
        self.beats = hasattr(self._storage, "record_heartbeat")
        self._seen: set[int] = set()
        self._looked = -float("inf")

    def _opened(self, directions: Sequence[Any] | None) -> Any:
        import optuna

        if directions is not None:
            return optuna.create_study(
                storage=self._storage, study_name=STUDY, directions=directions, load_if_exists=True
            )
        try:
            return optuna.load_study(storage=self._storage, study_name=STUDY)
        except KeyError:
            shown, remedy = without_passwords(str(self.url)), "begin the run first, or give the storage that it has"
            raise BadInput.of(argument="study", value=shown, rule="holds no study", remedy=remedy) from None

    # --- the study ---------------------------------------------------------------------------------------------

    def belong(self, of: dict[str, Any], run: Path) -> None:
        """Note what the trials depend on, as plain values by name, and the run. Raises BadInput if a study that was
        begun before depends on something else; one of an older version, which noted nothing, is accepted."""
        facts = self.facts
        check_facts(self.url, facts, of)
        for name, value in {OF: of, "run": str(run.resolve()), FORMAT: VERSION}.items():
            if facts.get(name) != value:
                self.note(name, value)

    @property
    def facts(self) -> dict[str, Any]:
        return self._patiently(lambda: self._storage.get_study_user_attrs(self._id))

    def note(self, name: str, value: Any) -> None:
        self._patiently(lambda: self._storage.set_study_user_attr(self._id, name, value))

    def trials(self) -> list[Any]:
        return self._patiently(lambda: self._storage.get_all_trials(self._id, deepcopy=False))

    def add(self, trial: Any) -> int:
        """Add a trial, finished or waiting; returns its id. If the server is lost meanwhile it may be added twice."""
        return self._patiently(lambda: self._storage.create_new_trial(self._id, template_trial=trial))

    def trial(self, trial: int) -> Any:
        return self._patiently(lambda: self._storage.get_trial(trial))

    # --- this process's trials ---------------------------------------------------------------------------------

    def claim(self, trial: Any) -> int:
        """Add a running trial that this process works on; returns its id."""
        trial = copy.copy(trial)
        trial.user_attrs = {**trial.user_attrs, OWNER: this_process()}
        claimed = self.add(trial)
        self.beat(claimed)
        return claimed

    def take(self, suits: Callable[[Any], bool] = lambda trial: True) -> Any | None:
        """A waiting trial that `suits`, the first one added first, on which this process works from now on; None if
        there is none."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        waiting = (trial for trial in self.trials() if trial.state == TrialState.WAITING)
        for trial in [trial._trial_id for trial in waiting if suits(trial)]:
            with contextlib.suppress(UpdateFinishedTrialError):
                # a trial at work whose owner is not known yet would be taken for one whose process has ended
                if not self.beats:
                    self._set(trial, CLAIM + this_process(), True)
                if self._patiently(partial(self._storage.set_trial_state_values, trial, TrialState.RUNNING)):
                    self._set(trial, OWNER, this_process())
                    self.beat(trial)
                    return self.trial(trial)
                if not self.beats:
                    self._set(trial, CLAIM + this_process(), False)
        return None

    def _set(self, trial: int, name: str, value: Any) -> None:
        self._patiently(lambda: self._storage.set_trial_user_attr(trial, name, value))

    def is_mine(self, trial: int) -> bool:
        return self.trial(trial).user_attrs.get(OWNER) == this_process()

    def has(self, trial: int) -> bool:
        """Whether this process's claim of a trial still holds."""
        known = self.trial(trial)
        return not known.state.is_finished() and known.user_attrs.get(OWNER) == this_process()

    def tell(self, trial: int, values: Sequence[float], **attrs: Any) -> bool:
        """End a trial with its values and user attributes; False if it was taken from this process before."""
        from optuna.trial import TrialState

        return self._ended(trial, TrialState.COMPLETE, list(map(float, values)), attrs)

    def drop(self, trial: int, **attrs: Any) -> None:
        """End a trial without values, so that it counts nowhere."""
        from optuna.trial import TrialState

        self._ended(trial, TrialState.FAIL, None, attrs)

    def give_back(self, trial: int) -> None:
        """Let another process do a trial, or this one later, unless it was given back already."""
        from optuna.trial import TrialState

        if self._ended(trial, TrialState.FAIL, None, {}):
            known = copy.deepcopy(self.trial(trial))
            if not any(known.number in each.system_attrs.get(HISTORY, ()) for each in self.trials()):
                _again(self._study, known)

    def _ended(self, trial: int, state: Any, values: list[float] | None, attrs: dict[str, Any]) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        def end() -> None:
            for name, value in attrs.items():
                self._storage.set_trial_user_attr(trial, name, value)
            self._storage.set_trial_state_values(trial, state, values)

        try:
            self._patiently(end)
            return True
        except UpdateFinishedTrialError:
            known = self.trial(trial)  # it may be that the answer alone was lost
            return known.state == state and known.values == values and known.user_attrs.get(OWNER) == this_process()

    @contextlib.contextmanager
    def working(self, trial: int) -> Iterator[None]:
        """Records heartbeats of a claimed trial inside the block. It is given back if the block is left by an
        exception."""
        done = threading.Event()

        def beats() -> None:
            while not done.wait(heartbeat_s()):
                with contextlib.suppress(Exception):  # a lost server is told where the result is
                    self._storage.record_heartbeat(trial)

        thread = threading.Thread(target=beats, daemon=True) if self.beats else None
        if thread:
            thread.start()
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.give_back(trial)
            raise
        finally:
            done.set()
            if thread:
                thread.join()

    def beat(self, trial: int) -> None:
        if self.beats:
            self._patiently(lambda: self._storage.record_heartbeat(trial))

    # --- those of others ---------------------------------------------------------------------------------------

    def revive(self, now: bool = True, here: bool = False) -> None:
        """Let the trials of processes that have ended wait for another one; if not `now`, at most once a heartbeat.

        Trials are told by their overdue heartbeat. A trial whose process ended before the first one gets it here,
        once. `here`: all that can be at work is of this machine since it was started, so that any other has ended."""
        if not now and time.monotonic() - self._looked < heartbeat_s():
            return
        import optuna
        from optuna.trial import TrialState

        self._looked = time.monotonic()
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER) != this_process():
                gone = here or not self.beats
                if owners := _owners(trial):
                    gone = all(ended(owner) or here and not of_this_machine(owner) for owner in owners)
                if gone:
                    self.give_back(trial._trial_id)
                elif trial._trial_id not in self._seen:
                    self._seen.add(trial._trial_id)
                    self.beat(trial._trial_id)
        with warnings.catch_warnings(action="ignore"):  # it is an experimental function
            self._patiently(lambda: optuna.storages.fail_stale_trials(self._study))

    def close(self) -> None:
        """End all unfinished trials, so that they count nowhere, and let no process begin another."""
        self.note("closed", True)
        for trial in self.trials():
            if not trial.state.is_finished():
                self.drop(trial._trial_id)

    def reopen(self) -> None:
        if self.closed:
            self.note("closed", False)

    @property
    def closed(self) -> bool:
        return bool(self.facts.get("closed"))

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """What the call returns. While a server does not answer, the call is repeated for up to PATIENCE_S."""
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not on_a_server(self.url) or time.monotonic() > end:
                    raise
                if not self._told:
                    self._told = True
                    reason = hidden(str(error.__cause__ or error).splitlines()[0], str(self.url))
                    say(f"{without_passwords(str(self.url))} does not answer ({reason}); trying for {PATIENCE_S:g} s")
                time.sleep(1.0)


def run_of(url: str) -> Path:
    """The folder of the run whose study is in a storage. Raises BadInput if there is none."""
    with storage_faults(url):
        facts = SharedStudy(url).facts
    check_facts(url, facts, {})
    if "run" not in facts:
        shown, remedy = without_passwords(url), "begin the run first, with this version of nasaug"
        raise BadInput.of(argument="study", value=shown, rule="holds no study that notes its run", remedy=remedy)
    if not Path(facts["run"]).is_dir():
        rule = f"belongs to the run {facts['run']}, which is not on this machine"
        raise BadInput.of(argument="study", value=without_passwords(url), rule=rule, remedy=f"give {arg.run} too")
    return Path(facts["run"])


def wait_for(there: Callable[[], bool], what: str, wait_s: float) -> None:
    """Raises BadInput, saying that `what` is missing, if it is not there after `wait_s` seconds."""
    if there():
        return
    if wait_s:
        say(f"waiting for {what}, up to {format_duration(wait_s)}")
    end = time.monotonic() + wait_s
    while not there():
        if time.monotonic() >= end:
            raise BadInput(f"{what} is not there yet; try again later, or give {arg.wait} with a time to wait, like 2h")
        time.sleep(1.0)


def is_begun(url: str) -> bool:
    """Whether a storage has a study that a run has noted its facts in."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).is_file():
        return False  # opening it would make the file
    try:
        return FORMAT in SharedStudy(url).facts
    except BadInput:
        return False


def check_facts(url: str | None, facts: dict[str, Any], of: dict[str, Any]) -> None:
    """Raises BadInput if a study's facts are those of another version of nasaug, or name other values than `of`."""
    version, shown = facts.get(FORMAT), without_passwords(str(url))
    if version not in (None, VERSION):
        rule = f"holds a study of format {version}, and this version of nasaug reads {VERSION}"
        remedy = "use the version that began it, or give another storage"
        raise BadInput.of(argument="storage", value=shown, rule=rule, remedy=remedy)
    begun = facts.get(OF, {})
    other = [name for name, value in of.items() if name in begun and begun[name] != value]
    if other:
        rule = f"holds the study of another run: its {' and '.join(other)} {'differs' if len(other) == 1 else 'differ'}"
        remedy = f"{arg.resume} that run, or give another storage"
        raise BadInput.of(argument="storage", value=shown, rule=rule, remedy=remedy)


def _owners(trial: Any) -> list[str]:
    """The process that works on a running trial; while it is not noted yet, those that it may be."""
    if OWNER in trial.user_attrs:
        return [trial.user_attrs[OWNER]]
    return [name.removeprefix(CLAIM) for name, holds in trial.user_attrs.items() if name.startswith(CLAIM) and holds]


def _again(study: Any, trial: Any) -> None:
    """Add a failed trial again, waiting."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    trial.user_attrs = {k: v for k, v in trial.user_attrs.items() if k != OWNER and not k.startswith(CLAIM)}
    with warnings.catch_warnings(action="ignore"):  # it is an experimental class
        RetryHeartbeatStaleTrialCallback()(study, trial)


# --- processes -------------------------------------------------------------------------------------------------


def this_process() -> str:
    return _process(os.getpid())


@functools.cache
def _process(pid: int) -> str:
    return f"{_machine()} {pid} {_begun(pid)}"


def ended(owner: str) -> bool:
    """Whether a process of this machine has ended for certain; False for one of another machine."""
    _, pid, begun = owner.rsplit(" ", 2)
    return of_this_machine(owner) and begun != "?" and _begun(int(pid)) != begun


def of_this_machine(owner: str) -> bool:
    """Whether a process is, or was, of this machine, since it was last started."""
    return owner.rsplit(" ", 2)[0] == _machine()


@functools.cache
def _machine() -> str:
    """This boot of this machine, and the container: the same number names other processes in another one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: heartbeats alone tell
        return f"{os.uname().nodename if hasattr(os, 'uname') else 'unknown'} ?"


def _begun(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none, ? if that cannot be told."""
    if not Path("/proc/self/stat").exists():
        return "?"
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
