"""The study: Optuna looks for the best subnet of a trained supernet under the budget.

Every candidate is rejected by the cost model, answered from a cache, or extracted with `narrow`, calibrated and scored
on the validation split. The Optuna study holds all state, so a resumed search continues exactly where it stopped, and
several processes can work on one search: each proposes by what all have found, and claims what it is about to judge.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from ..arch.space import Arch
from ..core.errors import BadInput, arg
from ..core.metric import WORST
from ..core.progress import Progress
from ..core.signals import Pending
from ..pool.shared import SharedStudy
from ..rundirs.folder import RunDir
from ..training.ranks import of_process
from ..training.scoring import Judged
from .candidates import Candidate
from .proposals import ASKS, STARTUP, Proposals

EXPLORE = 4  # after STARTUP every EXPLORE-th candidate is still drawn by size, close below a MAC budget
STALE = 25  # consecutive asks without a new candidate after which an unjudged one is enqueued
JOINED = "joined"  # the study's note that another process judged candidates too
POLL_S = 0.5  # how often a search looks whether others have finished, when nothing else is left to do


@dataclass
class Search(Proposals):
    """Stage 2 on a trained supernet. `storage` is an Optuna storage URL."""

    storage: str
    _: KW_ONLY
    timeout: float | None = None
    of: Mapping[str, Any] = field(default_factory=dict)  # what the scores depend on, noted in the study
    run_path: Path = Path()  # the run's folder, noted in the study
    helps: bool = False  # whether another process leads the search
    _study: Any = None  # in memory: what is asked; it knows all finished trials
    _shared: Any = None  # the study in the storage
    _known: set[int] = field(default_factory=set)  # ids of the storage's trials that are finished
    _waiting: bool = False  # whether some pending one waits for a process, because its own has ended
    _news: list[Arch] = field(default_factory=list)  # judged, and not logged yet
    _joined: bool = False  # whether it is noted that this process helps
    _again: int = 0  # proposals in a row that are being judged elsewhere
    _stale: int = 0  # asks since a candidate was last judged

    def run(self, pending: Pending, log) -> list[Candidate]:
        """Ask, cost, score and tell until `goal` candidates are judged; returns them best first. `log` gets the id, the
        judgement and the MACs of each, also of those that other processes have judged meanwhile."""
        self._open()
        begun = time.monotonic()
        with Progress("candidates", self.goal, begun=len(self.scores), unit="candidates") as bar:
            while True:
                # first, so that what a killed process had begun is judged before anything is proposed
                self._shared.revive(now=not self._left)
                self._sync()
                for arch in self._news:
                    log(self.space.id(arch), self.scores[arch], self._cost(arch).macs)
                    best = self.metric.best_told(judged.score for judged in self.scores.values())
                    bar.update(len(self.scores), best=best)
                self._news.clear()
                if not self._unfinished:
                    break
                if self._over(pending, begun):
                    break
                if self.helps and (self._shared.closed or not self._left):
                    break
                if self._left:
                    self._trial()
                else:
                    time.sleep(POLL_S)
        if self.helps:
            return []
        if self.of and self._shared.facts.get(JOINED):
            RunDir(self.run_path).note(joined=True)  # which candidates were proposed depends on who was faster
        if self._unfinished:  # what others are judging comes too late
            self._shared.close()
        if not self.scores and self.timeout is not None and self._unfinished:
            raise BadInput(
                f"{arg.timeout} {self.timeout:g}s ended the search before a candidate was judged; "
                f"give it more"
            )
        if not self.scores:
            tried = f"no architecture within {self.budget} was found in {self._trials_told} tries"
            raise BadInput(f"{tried}; raise the budget or {arg.trials}")
        ranked = sorted(self.scores, key=lambda arch: (self.rank(self.scores[arch]), self._cost(arch).macs))
        return [self._candidate(arch, self.scores[arch]) for arch in ranked]

    def _over(self, pending: Pending, begun: float) -> bool:
        """Whether the time that began at `begun` is over; raises Stopped if a stop was requested. Processes that search
        together agree on both: one that went on alone would wait for the others, or score other nets with them."""
        late = self.timeout is not None and time.monotonic() - begun > self.timeout
        signum, over = of_process().most(pending.signum or 0, late)
        if signum:  # otherwise nothing is assigned: a signal may have arrived by now
            pending.signum = pending.signum or round(signum)
        pending.check()
        return bool(over)

    @property
    def _unfinished(self) -> bool:
        return len(self.scores) < self.goal and self._trials_told < ASKS * self.config.trials

    @property
    def _left(self) -> bool:
        """Whether there is something that no process is judging."""
        return self._waiting or len(self.scores) + len(set(self._pending.values())) < self.goal

    @property
    def seconds(self) -> float:
        """Total duration of the trials, including those before the run was resumed."""
        trials = self._study.get_trials(deepcopy=False) if self._study else ()
        return sum(t.duration.total_seconds() for t in trials)

    def _trial(self) -> None:
        """Propose one candidate and judge it, unless it is rejected or known; or judge one whose process has ended."""
        taken = self._shared.take() if self._waiting else None
        if taken is not None:
            arch = self._arch(taken.params)
            claimed = self._mine(taken._trial_id, arch)
            if claimed is not None and self._judge_claimed(claimed, arch) is not None:
                self._study.add_trial(self._shared.trial(claimed))
            return
        trial = self._asked(self._trials_told + len(self._pending) + self._again)
        arch = self._arch(trial.params)
        for key, over in self.budget.excess(self._cost(arch)).items():
            trial.set_constraint(key, over)
        judged = self.scores.get(arch)
        if arch in self._pending.values():
            self._again += 1
            self._forget(trial)
        elif judged is not None or not self.budget.holds(self._cost(arch)):
            self._note(arch)
            self._tell(trial, arch, judged)
            self._known.add(self._shared.add(self._study.get_trials(deepcopy=False)[-1]))
        else:
            self._again = 0
            claimed = self._mine(self._shared.claim(self._study.get_trials(deepcopy=False)[-1]), arch)
            judged = None if claimed is None else self._judge_claimed(claimed, arch)
            if judged is None:
                self._forget(trial)
            else:
                self._tell(trial, arch, judged)

    def _asked(self, number: int) -> Any:
        """The trial that is proposed as the candidate of this number, by what is known."""
        if number < len(self.always):
            self._study.enqueue_trial(self._params(self.always[number]))
        elif self._stale + self._again >= STALE:
            self._study.enqueue_trial(self._params(self._unseen(number)))
        elif self.config.sampler == "random" or len(self.scores) < STARTUP:
            self._study.enqueue_trial(self._params(self._draw(number, *self.range())))
        elif number % EXPLORE == 0:
            self._study.enqueue_trial(self._params(self._draw(number, *self._explored())))
        elif Random(f"{self.seed}/predict/{number}").random() < self.config.predicted:
            self._study.enqueue_trial(self._params(self._predicted(number)))
        elif len(self._resolutions) > 1:
            self._study.enqueue_trial(self._fixed(number))
        self._study.sampler = self._sampler(number)
        return self._study.ask(self._distributions())

    def _mine(self, claimed: int, arch: Arch) -> int | None:
        """The claim by which this process judges an architecture; None if another process was faster, or if so many are
        judged or claimed already that it would be one too many.

        All see the same order of claims, so of several that were made at once the first one counts for all."""
        self._sync()
        before = {at: other for at, other in self._pending.items() if at < claimed}
        same = [at for at, other in before.items() if other == arch]
        enough = len(self.scores) + len(set(before.values())) >= self.goal
        if not same and arch not in self.scores and not enough and not (self.helps and self._shared.closed):
            return claimed
        self._shared.drop(claimed)
        # the same claim twice: the server was lost when it had noted the first one
        return same[0] if same and self._shared.is_mine(same[0]) else None

    def _judge_claimed(self, claimed: int, arch: Arch) -> Judged | None:
        """What is found, and told to all; None if it was taken from this process, which was silent for long."""
        if self.helps and not self._joined:
            self._shared.note(JOINED, True)
            self._joined = True
        with self._shared.working(claimed):
            judged = self._judge(arch, self.images)
        if not self._shared.tell(claimed, self._values(arch, judged), **self._attrs(judged)):
            return None
        self._note(arch)
        self._known.add(claimed)
        self._pending.pop(claimed, None)
        self.scores[arch] = judged
        self._news.append(arch)
        return judged

    def _tell(self, trial: Any, arch: Arch, judged: Judged | None) -> None:
        """Tell the study in memory what it has asked for."""
        for name, value in self._attrs(judged).items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, self._values(arch, judged))

    def _forget(self, trial: Any) -> None:
        """Let what the study in memory has asked for count nowhere."""
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def _values(self, arch: Arch, judged: Judged | None) -> list[float]:
        """What Optuna is told. A rejected candidate has no score; the worst value is what every sampler accepts."""
        value = self._worst if judged is None else judged.loss if self.config.by == "loss" else judged.score
        return [value, *(getattr(self._cost(arch), key) for key in self.costs if self.several)]

    def _attrs(self, judged: Judged | None) -> dict[str, float]:
        return {} if judged is None or self.config.by != "loss" else {"score": judged.score}

    def _sync(self) -> None:
        """Learn from the storage what other processes have found, and what is being judged."""
        from optuna.trial import TrialState

        pending, self._pending, self._waiting = self._pending, {}, False
        for trial in self._shared.trials():
            at = trial._trial_id
            if at in self._known:
                continue
            if not trial.state.is_finished():
                self._pending[at] = pending.get(at) or self._arch(trial.params)
                self._waiting |= trial.state == TrialState.WAITING
                continue
            self._known.add(at)
            if trial.state == TrialState.FAIL:
                continue
            self._study.add_trial(trial)
            arch = self._arch(trial.params)
            if self._note(arch):
                self.scores[arch] = self._judged(trial)
                self._news.append(arch)

    def _note(self, arch: Arch) -> bool:
        """Whether a proposed architecture needs a score: it is within the budget and has none yet."""
        fresh = self.budget.holds(self._cost(arch)) and arch not in self.scores
        self._stale = 0 if fresh else self._stale + 1
        return fresh

    @property
    def _trials_told(self) -> int:
        """Trials scored, rejected or answered from the cache so far."""
        from optuna.trial import TrialState

        return len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    @property
    def _direction(self) -> str:
        return "minimize" if self.config.by == "loss" else self.metric.direction

    @property
    def _worst(self) -> float:
        return WORST if self.config.by == "loss" else self.metric.worst

    def _judged(self, trial: Any) -> Judged:
        """What a recorded trial found. Where the score ranks, the loss is not recorded."""
        by_loss = self.config.by == "loss"
        value = trial.values[0]
        return Judged(trial.user_attrs["score"], value) if by_loss else Judged(value, WORST)

    def _open(self) -> None:
        """Open the study in the storage, which all processes of the search share, and the one in memory that is asked.

        Only finished trials enter the one in memory, so that what is proposed depends on them alone."""
        import optuna

        directions = [self._direction, *("minimize" for _ in self.costs)] if self.several else [self._direction]
        self._shared = SharedStudy(self.storage, None if self.helps else directions)
        self._study = optuna.create_study(directions=directions)
        if self.of:
            self._shared.belong(dict(self.of), self.run_path)
        if not self.helps:
            # without heartbeats nothing else would tell that another machine was restarted; and each of several
            # processes that search together has a study of its own, copied from the first one's when it was resumed
            self._shared.revive(here=not self._shared.beats or not of_process().alone)
        self._sync()
        self._news.clear()
        if self._unfinished and not self.helps:
            self._shared.reopen()
