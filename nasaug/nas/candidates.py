"""Candidates of a search: how they are judged and ranked, which of them become finalists, and which one is chosen."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from itertools import chain, zip_longest

from ..arch.cost import NAMES, Budget, Cost, cost_of
from ..arch.plan import plan
from ..arch.space import Arch, Space, resolve
from ..data import Split
from ..nets.net import Net
from ..tasks import Metric, Task
from ..training.recipe import ACCURACY, SearchConfig
from ..training.scoring import Judged, Scorer
from .front import knee, spread, unbeaten
from .ranges import candidates_of, macs_range


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
class Candidates:
    """What a search chooses from, and by what."""

    space: Space
    budget: Budget
    config: SearchConfig
    scorer: Scorer
    images: Split
    _: KW_ONLY
    net: Net | None = None  # the supernet, by which candidates are judged
    always: tuple[Arch, ...] = ()  # judged first, and finalists whatever their scores

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

    def _candidate(self, arch: Arch, judged: Judged) -> Candidate:
        loss = judged.loss if self.config.by == "loss" else None  # otherwise it is not recorded
        return Candidate(arch, self._cost(arch), judged.score, loss=loss, rank=self.rank(judged))

    def finalists(self, ranked: list[Candidate], val: Split) -> list[Candidate]:
        """The best few, scored on the whole validation split: the supernet's choice first, then those that are always
        finalists, then by score.

        The first is the largest of those that tie with the best (are within the standard error) at each resolution,
        since scores at different resolutions are not comparable in a supernet (docs/results/resolution.md), and nets of
        similar size are hardly distinguished (docs/results/main_job.md). So that their trainings tell as much as
        possible, the others are unlike each other: of the better half at each resolution, always the one that differs
        in most choices from those before it (Gonzalez, Theor. Comput. Sci. 1985).

        With several objectives they are those near the front and spread along it, from each resolution in turn."""
        groups: dict[int, list[Candidate]] = {}
        for c in ranked:
            groups.setdefault(int(resolve(self.space.resolution, c.arch.values)), []).append(c)
        task = self.scorer.task
        # at least one place is for the supernet's own choice
        sure = [c for c in ranked if c.arch in self.always][: self.config.finalists - 1]
        turns = zip_longest(*(spread(group, self.point) if self.several else group for group in groups.values()))
        in_turn = [c for c in chain.from_iterable(turns) if c is not None]
        if self.several:
            others = [c for c in in_turn if c not in sure]
        else:
            firsts = [_largest_tied(group, self.images, task) for group in groups.values()]
            halves = [group[: math.ceil(len(group) / 2)] for group in groups.values()]
            others = _unlike(firsts, [c for half in halves for c in half], in_turn, sure)
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

    def undecided(self, arch: Arch) -> Candidate:
        """A candidate without a score."""
        return Candidate(arch, self._cost(arch), None)

    def of_whole(self, arch: Arch, val: Split) -> Judged:
        """A judgement with the supernet's weights on the whole validation split."""
        return self._judge(arch, val)

    def _judge(self, arch: Arch, split: Split) -> Judged:
        p = plan(self.space, arch, self.scorer.task.head)
        return self.scorer.measured(self.scorer.calibrated(self.net, p), split)

    def _cost(self, arch: Arch) -> Cost:
        return cost_of(self.space, arch, self.scorer.task.head)


def _largest_tied(group: list[Candidate], images: Split, task: Task) -> Candidate:
    """Of ranked candidates of one resolution, the largest of those that tie with the best."""
    least = worst_tied(task, group[0].score, images)
    return max((c for c in group if task.metric.rank(c.score) <= least), key=lambda c: c.cost.macs)


def _unlike(
    firsts: list[Candidate], better: list[Candidate], every: list[Candidate], beside: list[Candidate]
) -> list[Candidate]:
    """`every` candidate but those `beside`: the `firsts`, then of the `better` ones always the one that differs most
    from these and from all before it, then the rest."""
    order = [c for c in firsts if c not in beside]
    left = [c for c in better if c not in order and c not in beside]
    apart = [min((_differ(c.arch, other.arch) for other in (*order, *beside)), default=0) for c in left]
    while left:
        at = apart.index(max(apart))
        chosen = left.pop(at)
        del apart[at]
        order.append(chosen)
        apart = [min(known, _differ(c.arch, chosen.arch)) for known, c in zip(apart, left, strict=True)]
    return [*order, *(c for c in every if c not in order and c not in beside)]


def _differ(a: Arch, b: Arch) -> int:
    """The number of choices in which two architectures differ."""
    return sum(one != other for one, other in zip(a.values, b.values, strict=True))


def worst_tied(task: Task, best: float, split: Split) -> float:
    """The rank of the worst score that ties with `best`, that is, within its standard error on `split`."""
    return task.metric.rank(best) + task.standard_error(best, len(split))


def pareto(candidates: list[Candidate], metric: Metric) -> list[Candidate]:
    """The Pareto front: candidates whose score no other beats at fewer or equal MACs, in order of MACs."""
    return unbeaten(candidates, lambda c: (c.cost.macs, metric.rank(c.score)))
