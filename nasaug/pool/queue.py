"""Works that several processes share, on one machine or many: each is a trial of a shared study.

A process claims a work before it starts it, and records heartbeats while it runs. What a process that has ended was at
waits for another one. The files of a work say whether it is finished; the study says who is at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..core.progress import say
from ..rundirs.folder import RunDir
from .processes import Queue, Work
from .shared import ERROR, SharedStudy, check_facts
from .storage import heartbeat_s

NAME, TITLE = "cell", "title"  # attributes of a trial: its work's folder; what it is called
POLL_S = 1.0  # how often a process without a work to start looks for one
APPEARS_S = 120.0  # how long a network disk may take to show what another machine has written


class SharedQueue(Queue):
    """The works in a study. `score` tells the figure that the study keeps of a finished one. The process that leads
    hears by `follow` of each work that another process has ended.

    One process leads: it puts the works into the study, and leaves when all have ended. The others leave when none
    waits."""

    def __init__(
        self, study: SharedStudy, works: Sequence[Work], score: Callable[[Work], float],
        follow: Callable[[Work], None] | None = None,
    ):  # fmt: skip
        super().__init__([])
        self._study, self._score, self._follow = study, score, follow
        self._works = {work.path.name: work for work in works}
        self._mine: dict[Work, tuple[int, ExitStack]] = {}
        self._checked: dict[Work, float] = {}
        self._trials: list[Any] = []
        self._ended: set[int] = set()  # ids of the trials whose end is known
        self._told: dict[int, float] = {}  # when the leader was told of the end of works that it cannot see yet
        self._looked = self._tried = -float("inf")
        self._lost = False  # whether the storage does not answer

    def lead(self, of: dict[str, Any], run: Path) -> None:
        """Let every unfinished work wait that no process is at. Raises BadInput if the study was begun for something
        else than `of`."""
        check_facts(self._study.url, self._study.facts, of)
        self._study.revive(here=not self._study.beats)  # nothing else would tell that another machine was restarted
        trials = self._study.trials()
        self._ended = {trial._trial_id for trial in trials if trial.state.is_finished()}
        there = {trial.user_attrs.get(NAME) for trial in trials if not trial.state.is_finished()}
        for name, work in self._works.items():
            if name not in there and not work.finished:
                self._study.add(_waiting(name, work.title))
        self._study.belong(of, run)  # last: a study that notes what it is of has all of its trials

    @property
    def waiting(self) -> list[Work]:
        """To the process that leads, the works of others too."""
        self._look()
        mine = {trial for trial, _ in self._mine.values()}
        left = (t for t in self._trials if t._trial_id not in self._ended and t._trial_id not in mine)
        return [self._works[t.user_attrs[NAME]] for t in left if self._leads or t.state.name == "WAITING"]

    @property
    def unknown(self) -> list[str]:
        """The names of works in the study that are not finished and not among those given."""
        names = {t.user_attrs.get(NAME, "") for t in self._study.trials() if not t.state.is_finished()}
        return sorted(names - self._works.keys())

    @property
    def _leads(self) -> bool:
        return self._follow is not None

    def take(self) -> Work | None:
        if time.monotonic() - self._tried < POLL_S or not self.waiting:
            return None
        trial = self._study.take(self._free)
        if trial is None:
            self._tried = time.monotonic()
            return None
        work, claimed = self._works[trial.user_attrs[NAME]], ExitStack()
        claimed.enter_context(self._study.working(trial._trial_id))
        self._mine[work], self._checked[work] = (trial._trial_id, claimed), time.monotonic()
        self._look(now=True)
        return work

    def _free(self, trial: Any) -> bool:
        """Whether a work can be started: a process that was silent, or has just been killed, may still be at it."""
        work = self._works.get(trial.user_attrs.get(NAME))
        return work is not None and not RunDir(work.path).in_use

    def leave_out(self, work: Work) -> None:
        for trial in self._trials:
            if trial.user_attrs[NAME] == work.path.name and not trial.state.is_finished():
                self._study.drop(trial._trial_id)
        self._look(now=True)

    def lost(self, work: Work) -> str | None:
        if time.monotonic() - self._checked[work] < heartbeat_s():
            return None
        self._checked[work] = time.monotonic()
        if self._study.has(self._mine[work][0]):
            return None
        return "given up: it was left out, or this process was silent for long and another one took it"

    def end(self, work: Work, failed: str | None, given_up: bool = False) -> None:
        trial = self._release(work)
        if failed:
            self._study.drop(trial, **{ERROR: failed})
            self.failed.append((work, failed))
        elif given_up:
            self._study.drop(trial)
        else:
            self._study.tell(trial, [self._score(work)])

    def give_back(self, work: Work) -> None:
        trial = self._release(work)
        try:
            if not self._lost:
                self._study.give_back(trial)
        except Exception:  # its heartbeat will be missed
            self._lost = True

    def _release(self, work: Work) -> int:
        trial, claimed = self._mine.pop(work)
        claimed.close()
        self._ended.add(trial)
        self._looked = -float("inf")
        return trial

    def _look(self, now: bool = False) -> None:
        """Learn from the study what is waiting, and what others have ended."""
        if not now and time.monotonic() - self._looked < POLL_S:
            return
        self._study.revive(now=all(trial.state.name != "WAITING" for trial in self._trials))
        self._trials = [t for t in self._study.trials() if t.user_attrs.get(NAME) in self._works]
        self._looked = time.monotonic()
        for trial in self._trials:
            if trial.state.is_finished() and trial._trial_id not in self._ended:
                self._hear(trial, self._works[trial.user_attrs[NAME]])

    def _hear(self, trial: Any, work: Work) -> None:
        """Another process has ended a work, or has given it back."""
        failed, done = trial.user_attrs.get(ERROR), trial.state.name == "COMPLETE"
        if self._follow is not None and done and not work.finished:
            if time.monotonic() - self._told.setdefault(trial._trial_id, time.monotonic()) < APPEARS_S:
                return
            failed = f"another process has finished it, but {work.path} is not there; put it on a disk that all share"
        self._ended.add(trial._trial_id)
        if self._follow is None or not (done or failed):
            return
        if failed:
            self.failed.append((work, failed))
        self._follow(work)
        say(f"{work.title}: {f'failed: {failed}' if failed else work.told()}; by another process")


def _waiting(name: str, title: str) -> Any:
    from optuna.trial import TrialState, create_trial

    return create_trial(state=TrialState.WAITING, user_attrs={NAME: name, TITLE: title})
