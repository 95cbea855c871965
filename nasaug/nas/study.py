"""The study: Optuna looks for the best subnet of a trained supernet under the budget.

Every candidate is rejected by the cost model, answered from a cache, or extracted with `narrow`, calibrated and scored
on the validation split. The Optuna study holds all state, so a resumed search continues exactly where it stopped, and
several processes can work on one search: each proposes by what all have found, and claims what it is about to judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from typing import Any

from ..arch.binding import Bound
from ..arch.cost import (
    LABELS,
    NAMES,
    Budget,
    Cost,
    Reach,
    all_within,
    cost_of,
    describe,
    most_macs,
    neighbours,
    sample_near,
)
from ..arch.plan import Outputs, Plan, plan
from ..arch.space import Arch, Axis, Space, resolve
from ..core.errors import BadInput, arg
from ..core.metric import WORST
from ..core.progress import Progress
from ..core.signals import Pending
from ..data import Split
from ..nets.net import Net
from ..pool.shared import SharedStudy
from ..tasks import Metric, Task
from ..training.recipe import ACCURACY, SearchConfig
from ..training.scoring import Judged, Scorer
from .front import knee, spread, unbeaten
from .predictor import propose

STARTUP = 20  # candidates drawn by size before a sampler other than `random` learns from scores
EXPLORE = 4  # afterwards every EXPLORE-th candidate is still drawn by size, close below a MAC budget
POOL, BEST = 100, 4  # architectures drawn, and best candidates varied, among which the predictor chooses
SLACK = 1.2  # draws reach up to this factor above the budget, so that trained and tried subnets surround it
ASKS = 50  # maximum number of asks per evaluated candidate
STALE = 25  # consecutive asks without a new candidate after which an unjudged one is enqueued
AUGMENTED = 0.05  # ParEGO's weight of the sum of all objectives beside the largest
CLOSE = 0.75  # draws close below a MAC budget have this part of it or more
POLL_S = 0.5  # how often a search looks whether others have finished, when nothing else is left to do
KNOWN = 1000  # the networks within the budget are enumerated if there are at most this many


@dataclass(frozen=True, slots=True)
class Candidate:
    """One judged architecture. `score` and `loss` are on the scoring images and `full_score` on the whole validation
    split, all with the supernet's weights; `trained_score` is on the whole split after the finalist's own training of
    `rounds` rounds and `epochs` epochs."""

    arch: Arch
    cost: Cost
    score: float | None
    full_score: float | None = None
    trained_score: float | None = None
    loss: float | None = None
    rounds: int = 0
    epochs: float = 0.0
    rank: float | None = None  # by the latest of these judgements, the lower the better


@dataclass
class Search:
    """Stage 2 on a trained supernet. `storage` is an Optuna storage URL."""

    space: Space
    budget: Budget
    config: SearchConfig
    scorer: Scorer
    images: Split
    storage: str
    seed: int = 0
    timeout: float | None = None
    net: Net | None = None  # the supernet, by which `run` judges
    always: tuple[Arch, ...] = ()  # judged first, and finalists whatever their scores
    of: Mapping[str, Any] = field(default_factory=dict)  # what the scores depend on, noted in the study
    run_path: Path = Path()  # the run's folder, noted in the study
    helps: bool = False  # whether another process leads the search
    scores: dict[Arch, Judged] = field(default_factory=dict)
    _archs: dict[Plan, Arch] = field(default_factory=dict)
    _study: Any = None  # in memory: what is asked; it knows all finished trials
    _shared: Any = None  # the study in the storage
    _known: set[int] = field(default_factory=set)  # ids of the storage's trials that are finished
    _pending: dict[int, Arch] = field(default_factory=dict)  # what is being judged, here or elsewhere, by trial id
    _waiting: bool = False  # whether some of it waits for a process, because its own has ended
    _news: list[Arch] = field(default_factory=list)  # judged, and not logged yet
    _again: int = 0  # proposals in a row that are being judged elsewhere
    _stale: int = 0  # asks since a candidate was last judged

    @property
    def metric(self) -> Metric:
        return self.scorer.task.metric

    def rank(self, judged: Judged) -> float:
        """A sort key: better ones have lower ranks."""
        return judged.loss if self.config.by == "loss" else self.metric.rank(judged.score)

    @property
    def several(self) -> bool:
        """Whether there are objectives beside accuracy."""
        return len(self.config.objectives) > 1

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs that a front weighs against accuracy: the other objectives; MACs if there are none."""
        return tuple(NAMES[name] for name in self.config.objectives if name != ACCURACY) or ("macs",)

    def point(self, c: Candidate) -> tuple[float, ...]:
        """What a front compares: log costs, and the latest judgement."""
        assert c.rank is not None
        return (*(math.log(getattr(c.cost, key)) for key in self.costs), c.rank)

    def front(self, finalists: list[Candidate]) -> list[Candidate]:
        """The Pareto front of the finalists that were trained for the most rounds, since only those compare; of all
        finalists if none was trained."""
        last, worst = max(c.rounds for c in finalists), self.metric.worst  # the worst: its training diverged
        return unbeaten([c for c in finalists if c.rounds == last and c.rank is not None and c.trained_score != worst],
                        self.point)  # fmt: skip

    def picked(self, finalists: list[Candidate]) -> list[Candidate]:
        """The same finalists, the best first, with the one that search.pick chooses before it."""
        front, rule = self.front(finalists), self.config.pick
        if rule == "best" or not front:
            return finalists
        chosen = self.by_rule(rule, front)
        return [chosen, *(c for c in finalists if c is not chosen)]

    def by_rule(self, rule: str, front: list[Candidate]) -> Candidate:
        """The net of a front that a rule of search.pick other than best chooses."""
        if rule == "knee":
            return knee(front, self.point)
        key = NAMES[rule.removeprefix("min-")]
        return min(front, key=lambda c: (getattr(c.cost, key), c.rank))

    def range(self) -> tuple[float, float]:
        """The MACs range from which candidates are drawn by size."""
        return macs_range(self.space, self.budget, self.scorer.task.head)

    @cached_property
    def goal(self) -> int:
        return candidates_of(self.space, self.budget, self.scorer.task.head, self.config.trials)

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
                pending.check()
                if self.timeout is not None and time.monotonic() - begun > self.timeout:
                    break
                if self.helps and (self._shared.closed or not self._left):
                    break
                if self._left:
                    self._trial()
                else:
                    time.sleep(POLL_S)
        if self.helps:
            return []
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

    @property
    def _unfinished(self) -> bool:
        return len(self.scores) < self.goal and self._trials_told < ASKS * self.config.trials

    @property
    def _left(self) -> bool:
        """Whether there is something that no process is judging."""
        return self._waiting or len(self.scores) + len(set(self._pending.values())) < self.goal

    def _candidate(self, arch: Arch, judged: Judged) -> Candidate:
        loss = judged.loss if self.config.by == "loss" else None  # otherwise it is not recorded
        return Candidate(arch, self._cost(arch), judged.score, loss=loss, rank=self.rank(judged))

    def finalists(self, ranked: list[Candidate], val: Split) -> list[Candidate]:
        """The best few, scored on the whole validation split: the supernet's choice first, then those that are always
        finalists, then by score.

        They are taken from each resolution in turn, since scores at different resolutions are not comparable in a
        supernet (docs/results/resolution.md). Within a resolution they alternate between the largest of those that tie
        with its best (are within the standard error) and the best. A supernet hardly distinguishes subnets of similar
        size, so ties are broken by size: the first finalist is the largest of those that tie
        (docs/results/main_job.md).

        With several objectives they are those near the front and spread along it, in such an order."""
        groups: dict[int, list[Candidate]] = {}
        for c in ranked:
            groups.setdefault(int(resolve(self.space.resolution, c.arch.values)), []).append(c)
        task = self.scorer.task
        turns = zip_longest(*(
            spread(group, self.point) if self.several else _in_turn(group, self.images, task)
            for group in groups.values()
        ))  # fmt: skip
        sure = [c for c in ranked if c.arch in self.always][: self.config.finalists]
        others = [c for c in chain.from_iterable(turns) if c is not None and c not in sure]
        chosen = [*others[: self.config.finalists - len(sure)], *sure]
        whole = {c.arch: self._judge(c.arch, val) for c in chosen}
        chosen.sort(key=lambda c: self.rank(whole[c.arch]))
        judged = [replace(c, full_score=whole[c.arch].score, rank=self.rank(whole[c.arch])) for c in chosen]
        least = worst_tied(task, judged[0].full_score, val)
        found = max((c for c in judged if self.metric.rank(c.full_score) <= least), key=lambda c: c.cost.macs)
        sure = [c for c in judged if c.arch in self.always and c is not found]
        if self.several:
            judged = spread(judged, self.point)
        return [found, *sure, *(c for c in judged if c is not found and c not in sure)]

    def drawn(self, count: int) -> list[Candidate]:
        """Candidates drawn by size within the budget, without a score: `count`, or all networks if they are fewer."""
        limits, high = self.budget.beside_macs, self._explored()[1]
        low = max(high * CLOSE, self._cost(self.space.smallest).macs)
        known = all_within(self.space, self.budget, self.scorer.task.head, KNOWN)
        nets = {plan(self.space, arch, self.scorer.task.head): arch for arch in self.always}
        for i in range(ASKS * count):
            if len(nets) >= (count if known is None else min(count, len(known))):
                break
            rng, space = Random(f"{self.seed}/drawn/{i}"), self._spaces[self._resolution(i)]
            arch = sample_near(space, rng, low, high, self.scorer.task.head, limits)
            if self.budget.holds(self._cost(arch)):
                nets.setdefault(plan(self.space, arch, self.scorer.task.head), arch)
        if not nets:
            raise BadInput(f"no architecture within {self.budget} was found; raise the budget")
        return [self.undecided(arch) for arch in nets.values()]

    def undecided(self, arch: Arch) -> Candidate:
        """A candidate without a score."""
        return Candidate(arch, self._cost(arch), None)

    @property
    def seconds(self) -> float:
        """Total duration of the trials, including those before the run was resumed."""
        trials = self._study.get_trials(deepcopy=False) if self._study else ()
        return sum(t.duration.total_seconds() for t in trials)

    # --- one trial -------------------------------------------------------------------------------------------

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

    def _explored(self) -> tuple[float, float]:
        """The MACs range of later draws by size: close below the MAC budget, or with several objectives up to all of
        it; without one, as at the start."""
        low, high = self.range()
        if self.budget.macs is None:
            return low, high
        top = min(high, float(self.budget.macs))
        return min(low, top) if self.several else top * CLOSE, top

    def _draw(self, number: int, low: float, high: float) -> Arch:
        space, rng = self._spaces[self._resolution(number)], Random(f"{self.seed}/draw/{number}")
        return sample_near(space, rng, low, high, self.scorer.task.head, self.budget.beside_macs)

    def _predicted(self, number: int) -> Arch:
        """The architecture within the budget that the scores so far promise most, among draws by size and those that
        differ from one of the best by one or two rungs; with several objectives, for one random weighting of them."""
        resolution, classes = self._resolution(number), self.scorer.task.head
        space, rng, (low, high) = self._spaces[resolution], Random(f"{self.seed}/pool/{number}"), self._explored()
        pool = {sample_near(space, rng, low, high, classes, self.budget.beside_macs) for _ in range(POOL)}
        alike = [arch for arch in self.scores if not resolution or resolve(space.resolution, arch.values) == resolution]
        worth = self._worth(rng) if self.several else lambda score, _: score
        best = sorted(alike, key=lambda arch: -worth(-self.rank(self.scores[arch]), self._cost(arch)))[:BEST]
        for arch in best:
            for step in neighbours(space, arch):
                pool |= {step, rng.choice(neighbours(space, step))}
        known = {plan(self.space, arch, classes) for arch in (*self.scores, *self._pending.values())}
        costs = {arch: self._cost(arch) for arch in pool}
        fresh = (
            (arch, cost) for arch, cost in costs.items()
            if self.budget.holds(cost) and plan(self.space, arch, classes) not in known
        )  # fmt: skip
        judged = {arch: (self._cost(arch), -self.rank(score)) for arch, score in self.scores.items()}
        return propose(self.space, judged, fresh, worth) or self._unseen(number)

    def _worth(self, rng: Random) -> Callable[[float, Cost], float]:
        """What a score (the higher the better) is worth at a cost, for one random weighting of the objectives: the
        augmented Chebyshev function of objectives scaled to 0 to 1 (ParEGO: Knowles, IEEE Trans. Evol. Comput. 2006).
        """
        points = [self.point(self._candidate(arch, judged)) for arch, judged in self.scores.items()]
        weights = [rng.expovariate(1.0) for _ in points[0]]  # uniform over the simplex, once divided by their sum
        lows, highs = (list(map(end, *points, points[0])) for end in (min, max))

        def worth(score: float, cost: Cost) -> float:
            point = (*(math.log(getattr(cost, key)) for key in self.costs), -score)
            parts = [
                weight / sum(weights) * (value - low) / ((high - low) or 1.0)
                for weight, value, low, high in zip(weights, point, lows, highs, strict=True)
            ]
            return -max(parts) - AUGMENTED * sum(parts)

        return worth

    def _unseen(self, number: int) -> Arch:
        """A candidate without a score if all are enumerated, otherwise one of any size within all budgets."""
        rng, classes = Random(f"{self.seed}/unseen/{number}"), self.scorer.task.head
        known = all_within(self.space, self.budget, classes, KNOWN)
        if known is not None:
            there = {*self.scores, *self._pending.values()}
            return rng.choice([arch for p, arch in known.items() if self._archs.get(p) not in there])
        space = self._spaces[self._resolution(number)]
        return sample_near(space, rng, self._cost(space.smallest).macs, self.range()[1], classes, self.budget)

    @cached_property
    def _resolutions(self) -> tuple[int, ...]:
        """Resolutions at which some architecture is within the budget; each gets its share of the candidates."""
        least = {r: self._cost(space.smallest) for r, space in self._spaces.items() if r}
        return tuple(r for r, cost in least.items() if self.budget.holds(cost)) or tuple(least)

    @cached_property
    def _spaces(self) -> dict[int, Space]:
        """The space restricted to each of its resolutions; key 0 is the unrestricted space."""
        axis = self._resolution_axis
        return {0: self.space} | {r: self.space.trimmed({axis.name: (r,)}) for r in (axis.choices if axis else ())}

    @property
    def _resolution_axis(self) -> Axis | None:
        return next((axis for axis in self.space.axes if axis.kind == "resolution"), None)

    def _resolution(self, number: int) -> int:
        """A candidate's resolution in px; 0 if the space has no choice. Each block of n candidates has all n in random
        order.
        """
        among = self._resolutions or (0,)
        turn, place = divmod(number, len(among))
        return Random(f"{self.seed}/px/{turn}").sample(among, len(among))[place]

    def _fixed(self, number: int) -> dict[str, int]:
        """Optuna's parameter for the candidate's resolution; the sampler chooses all others."""
        axis = self._resolution_axis
        return {axis.name: axis.choices.index(self._resolution(number))}

    def _judge(self, arch: Arch, split: Split) -> Judged:
        p = plan(self.space, arch, self.scorer.task.head)
        return self.scorer.measured(self.scorer.calibrated(self.net, p), split)

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

    def _cost(self, arch: Arch) -> Cost:
        return cost_of(self.space, arch, self.scorer.task.head)

    # --- optuna's view: one integer per ladder ----------------------------------------------------------------

    def _distributions(self) -> dict:
        from optuna.distributions import IntDistribution

        return {a.name: IntDistribution(0, len(a.choices) - 1) for a in self.space.axes if len(a.choices) > 1}

    def _arch(self, params: dict[str, int]) -> Arch:
        """The architecture with these parameters. Several choices can yield the same network (expand ratios that round
        to one width); the first one asked for represents them.
        """
        values = tuple(axis.choices[params.get(axis.name, 0)] for axis in self.space.axes)
        arch = self.space.canonical(Arch(self.space.name, values))
        return self._archs.setdefault(plan(self.space, arch, self.scorer.task.head), arch)

    def _params(self, arch: Arch) -> dict[str, int]:
        pairs = zip(self.space.axes, arch.values, strict=True)
        return {axis.name: axis.choices.index(value) for axis, value in pairs if len(axis.choices) > 1}

    def _sampler(self, told: int):
        """A new sampler for each ask, seeded by (seed, trials told), so that a resumed study draws the same."""
        import optuna

        seed = Random(f"{self.seed}/sampler/{told}").getrandbits(31)
        if self.config.sampler == "nsga2":

            class Ordered(optuna.samplers.NSGAIISampler):
                """Sorts parents by trial number. Optuna returns them in another order once they are cached, which would
                make a resumed study diverge from an uninterrupted one."""

                def get_parent_population(self, study, generation):
                    return sorted(super().get_parent_population(study, generation), key=lambda t: t.number)

            return Ordered(seed=seed, population_size=STARTUP)
        if self.config.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        return optuna.samplers.RandomSampler(seed=seed)

    def _open(self) -> None:
        """Open the study in the storage, which all processes of the search share, and the one in memory that is asked.

        Only finished trials enter the one in memory, so that what is proposed depends on them alone."""
        import optuna

        directions = [self._direction, *("minimize" for _ in self.costs)] if self.several else [self._direction]
        self._shared = SharedStudy(self.storage, None if self.helps else directions)
        self._study = optuna.create_study(directions=directions)
        if self.of:
            self._shared.belong(dict(self.of), self.run_path)
        self._sync()
        self._news.clear()
        if self._unfinished and not self.helps:
            self._shared.reopen()


def macs_range(space: Space, budget: Budget, classes: Outputs) -> tuple[float, float]:
    """The MACs range in which subnets are trained and first drawn, within the space: up to 1.2 times the most that all
    budgets allow, from an eighth of that most; without a MAC budget, from the smallest net."""
    low, high = (cost_of(space, end, classes).macs for end in (space.smallest, space.largest))
    most = most_macs(space, budget, classes)
    return float(low if budget.macs is None else max(low, most / 8)), float(min(high, SLACK * most))


def candidates_of(space: Space, budget: Budget, classes: Outputs, trials: int) -> int:
    """The number of candidates to judge: `trials`, or all networks within the budget if they are fewer."""
    known = all_within(space, budget, classes, KNOWN)
    return trials if known is None else min(trials, len(known))


def _in_turn(group: list[Candidate], images: Split, task: Task) -> Iterator[Candidate]:
    """Ranked candidates of one resolution: the largest that ties with the best, the best, the next largest, …"""
    least = worst_tied(task, group[0].score, images)
    tied = sorted((c for c in group if task.metric.rank(c.score) <= least), key=lambda c: -c.cost.macs)
    both = chain.from_iterable(zip_longest(tied, group))
    return iter(dict.fromkeys(c for c in both if c is not None))


def worst_tied(task: Task, best: float, split: Split) -> float:
    """The rank of the worst score that ties with `best`, that is, within its standard error on `split`."""
    return task.metric.rank(best) + task.standard_error(best, len(split))


def pareto(candidates: list[Candidate], metric: Metric) -> list[Candidate]:
    """The Pareto front: candidates whose score no other beats at fewer or equal MACs, in order of MACs."""
    return unbeaten(candidates, lambda c: (c.cost.macs, metric.rank(c.score)))


def report_reach(reach: Reach, budget: Budget, bounds: Sequence[Bound] = ()) -> str:
    """What the space offers under the budget, in four lines; with several budgets, which of them leaves out what, and
    which one binds."""
    rows = [f"  {name:8s} {describe(getattr(reach, name))}" for name in ("smallest", "middle", "largest")]
    share = f"  {100 * reach.feasible:.0f} % of {reach.samples} uniform samples are within: {budget}"
    return "\n".join([*rows, share, *_binding(bounds, budget.holds(reach.largest))])


def _binding(bounds: Sequence[Bound], free: bool) -> Iterator[str]:
    """Two lines about several budgets; `free`: even the largest net of the space is within all."""
    if not bounds:
        return
    over = (f"{100 * b.over:.0f} % by {LABELS[b.key]} ({100 * b.alone:.0f} % by that alone)" for b in bounds)
    yield f"  left out: {', '.join(over)}"
    first, *others = sorted(bounds, key=lambda b: -b.used)
    used = ", ".join(f"{100 * b.used:.0f} % of {LABELS[b.key]}" for b in (first, *others))
    yield f"  binding: {'none' if free else LABELS[first.key]}; the largest nets within all budgets use {used}"

