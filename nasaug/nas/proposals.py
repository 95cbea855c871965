"""Which architecture a search judges next: a function of what it knows, the seed and the number of the candidate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from random import Random

from ..arch.cost import Cost, neighbours, sample_near
from ..arch.plan import Plan, plan
from ..arch.space import Arch, Axis, Space, resolve
from ..core.errors import BadInput
from ..core.metric import WORST
from ..data import Split
from ..training.scoring import Judged
from .candidates import Candidate, Candidates
from .predictor import propose
from .ranges import known_within
from .shapes import KINDS

STARTUP = 20  # candidates drawn by size before a sampler other than `random` learns from scores
POOL, BEST = 100, 4  # architectures drawn, and best candidates varied, among which the predictor chooses
ASKS = 50  # maximum number of asks per evaluated candidate
AUGMENTED = 0.05  # ParEGO's weight of the sum of all objectives beside the largest
CLOSE = 0.75  # draws close below a MAC budget have this part of it or more


@dataclass
class Proposals(Candidates):
    """`scores` and `_pending` are what is known: what was judged, and what is being judged, here or elsewhere, by trial
    id."""

    _: KW_ONLY
    seed: int = 0
    scores: dict[Arch, Judged] = field(default_factory=dict)
    _archs: dict[Plan, Arch] = field(default_factory=dict)
    _pending: dict[int, Arch] = field(default_factory=dict)

    def drawn(self, count: int) -> list[Candidate]:
        """Candidates without a score: those that are always finalists, and others drawn by size within the budget;
        `count`, or all networks if they are fewer."""
        limits, high = self.budget.beside_macs, self._explored()[1]
        low = max(high * CLOSE, self._cost(self.space.smallest).macs)
        known = known_within(self.space, self.budget, self.scorer.task.head)
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
        rng = Random(f"{self.seed}/filled")
        return [self.undecided(arch) for arch in self._filled(list(nets.values()), rng.choice)]

    def filled(self, finalists: list[Candidate], val: Split) -> list[Candidate]:
        """The finalists with their choices raised until the budget is full, judged with the supernet's weights: always
        by the rung that the scores so far promise most. The shape of a net, its resolution and strides, stays."""
        known = {arch: (self._cost(arch), -self.rank(score)) for arch, score in self._sound(self.scores).items()}

        def promising(larger: list[Arch]) -> Arch:
            pool = [(arch, self._cost(arch)) for arch in larger]
            best = propose(self.space, known, pool) if known else None
            return best or max(pool, key=lambda pair: pair[1].macs)[0]

        def judged(c: Candidate, arch: Arch) -> Candidate:
            if arch == c.arch:
                return c
            whole = self._judge(arch, val)
            raised = self._candidate(arch, self.scores.get(arch) or self._judge(arch, self.images))
            return replace(raised, full_score=whole.score, rank=self.rank(whole))

        archs = self._filled([c.arch for c in finalists], promising)
        return [judged(*pair) for pair in zip(finalists, archs, strict=True)]

    def _filled(self, archs: list[Arch], choose: Callable[[list[Arch]], Arch]) -> list[Arch]:
        """The architectures with one choice after another raised by a rung as long as the budget holds them; `choose`
        is asked which. No two become the same network. They are as given where the recipe does not ask for it, where
        costs are objectives, or where nothing limits them."""
        if not self.config.filled or self.several or not self.budget.limits:
            return archs
        classes, shape = self.scorer.task.head, [i for i, axis in enumerate(self.space.axes) if axis.kind in KINDS]
        taken, full = {plan(self.space, arch, classes) for arch in archs}, []

        def larger(arch: Arch) -> list[Arch]:
            return [
                each for each in neighbours(self.space, arch)
                if self._cost(each).macs > self._cost(arch).macs and self.budget.holds(self._cost(each))
                and all(each.values[i] == arch.values[i] for i in shape)
                and plan(self.space, each, classes) not in taken
            ]  # fmt: skip

        for arch in archs:
            while above := larger(arch):
                arch = choose(above)
            taken.add(plan(self.space, arch, classes))
            full.append(arch)
        return full

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
        """The most promising architecture at this candidate's resolution by the scores so far."""
        resolution, rng = self._resolution(number), Random(f"{self.seed}/pool/{number}")
        px, known = self.space.resolution, self._sound(self.scores)
        alike = [arch for arch in known if not resolution or resolve(px, arch.values) == resolution]
        best = self._promising(rng, self._spaces[resolution], known, alike, beside=self.scores) if known else None
        return best or self._unseen(number)

    def _sound(self, trained: Mapping[Arch, Judged]) -> dict[Arch, Judged]:
        """Without those that diverged, whose figures would swamp all others."""
        return {
            arch: judged for arch, judged in trained.items()
            if judged.score != self.metric.worst and self.rank(judged) < WORST
        }  # fmt: skip

    def _promising(
        self, rng: Random, space: Space, scores: Mapping[Arch, Judged], alike: Iterable[Arch], beside: Iterable[Arch]
    ) -> Arch | None:
        """The architecture within the budget that the scores promise most, among draws by size and those that differ
        from one of the best `alike` by one or two rungs; with several objectives, for one random weighting of them. It
        is none that has a score, nor one of those `beside`."""
        classes, (low, high) = self.scorer.task.head, self._explored()
        pool = {sample_near(space, rng, low, high, classes, self.budget.beside_macs) for _ in range(POOL)}
        worth = self._worth(rng, scores) if self.several else lambda score, _: score
        best = sorted(alike, key=lambda arch: -worth(-self.rank(scores[arch]), self._cost(arch)))[:BEST]
        for arch in best:
            for step in neighbours(space, arch):
                pool |= {step, rng.choice(neighbours(space, step))}
        known = {plan(self.space, arch, classes) for arch in (*scores, *beside, *self._pending.values())}
        costs = {arch: self._cost(arch) for arch in pool}
        fresh = (
            (arch, cost) for arch, cost in costs.items()
            if self.budget.holds(cost) and plan(self.space, arch, classes) not in known
        )  # fmt: skip
        judged = {arch: (self._cost(arch), -self.rank(score)) for arch, score in scores.items()}
        return propose(self.space, judged, fresh, worth)

    def _worth(self, rng: Random, scores: Mapping[Arch, Judged]) -> Callable[[float, Cost], float]:
        """What a score (the higher the better) is worth at a cost, for one random weighting of the objectives: the
        augmented Chebyshev function of objectives scaled to 0 to 1 (ParEGO: Knowles, IEEE Trans. Evol. Comput. 2006).
        """
        points = [self.point(self._candidate(arch, judged)) for arch, judged in scores.items()]
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
        known = known_within(self.space, self.budget, classes)
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
