"""The final choice of a search: each finalist is fine-tuned briefly on its own, from the supernet's weights.

A supernet's scores say which subnets are worth a closer look, not which of the best is best: scores at different
resolutions are not comparable, and nets of similar size are hardly distinguished (docs/results/resolution.md,
docs/results/ranking.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch.plan import plan
from ..core import files
from ..core.errors import Diverged
from ..core.progress import say
from ..core.units import format_duration, format_quantity
from ..data import Data
from ..methods import Base, Baseline
from ..rundirs.folder import RunDir
from ..training.device import Runtime
from ..training.job import make_job, make_trainer, train_to_end
from ..training.length import Length
from ..training.recipe import Recipe
from .study import Candidate, Search, macs_range

SHARE = 0.2  # share of the supernet's forward MACs that `finalist_macs = "auto"` gives all finalists together
LEAST = 100  # steps each; an "auto" fine-tuning shorter than this is skipped, since it would be uninformative
FORMAT = "nasaug-finalists/1"


@dataclass(frozen=True)
class PlayOff:
    """How to fine-tune the finalists; `supernet_macs` are the forward MACs of the supernet's own training."""

    recipe: Recipe
    data: Data
    runtime: Runtime
    search: Search
    supernet: Path
    supernet_macs: float

    def length(self, macs: Sequence[int]) -> Length | None:
        """The training length for nets with these MACs, the same number of steps for all: whole epochs, or part of one.

        None means no fine-tuning: it is turned off, too short to be informative, or there is only one finalist."""
        asked = self.recipe.search.finalist_macs
        given, least = (SHARE * self.supernet_macs, LEAST) if asked == "auto" else (asked, 1)
        batch = min(self.recipe.batch, len(self.data.train))
        steps, whole = int(given / (sum(macs) * batch)), self.data.train.steps(batch)
        if steps < least or len(macs) < 2:
            return None
        return Length(max(1, round(steps / whole)), min(steps, whole), sum(macs) / len(macs), batch)

    def estimate(self, seconds_per_mac: float) -> str:
        """Say how long `decide` will take, for nets as large as the search may find, at this many seconds per MAC."""
        search = self.search
        largest = macs_range(search.space, search.budget, search.scorer.task.head)[1]
        macs = [round(min(largest, search.budget.macs or largest))] * search.config.finalists
        length = self.length(macs)
        if length is None:
            return "then the finalists are not fine-tuned (search.finalist_macs is 0, or gives too few steps each)"
        whole = format_duration(len(macs) * length.macs * seconds_per_mac)
        return f"then {len(macs)} finalists, each trained for {length.steps} steps, about {whole} in all"

    def decide(self, finalists: list[Candidate], run: RunDir) -> list[Candidate]:
        """The finalists ranked by their score after fine-tuning; unchanged if they are not fine-tuned.

        A finalist whose training diverges comes last; if all diverge, the order is unchanged."""
        length = self.length([c.cost.macs for c in finalists])
        if length is None:
            say("the finalists are not fine-tuned: only one, too few steps for each, or search.finalist_macs = 0")
            return finalists
        say(
            f"{len(finalists)} finalists, each trained for {length.steps} steps from the supernet's weights, "
            f"{format_quantity(len(finalists) * length.macs, 'macs')} MACs in all"
        )
        metric = self.search.scorer.task.metric
        begun = begun_with(run) or {"format": FORMAT, "candidates": len(self.search.scores), metric.name: {}}
        files.write_json(run.finalists_file, begun)
        known = begun[metric.name]
        for i, c in enumerate(finalists, 1):
            name = self.search.space.id(c.arch)
            if name not in known:
                known[name] = self._train(c, length, run, _title(i, len(finalists)), name)
                files.write_json(run.finalists_file, begun)
            (run.path / _checkpoint(name)).unlink(missing_ok=True)
        if all(score == metric.worst for score in known.values()):
            return finalists
        judged = [replace(c, trained_score=known[self.search.space.id(c.arch)]) for c in finalists]
        return sorted(judged, key=lambda c: (metric.rank(c.trained_score), -c.cost.macs))

    def _train(self, c: Candidate, length: Length, run: RunDir, title: str, name: str) -> float:
        """The validation score of one finalist after fine-tuning; the metric's worst score if training diverged."""
        space, classes, metric = self.search.space, self.search.scorer.task.head, self.search.scorer.task.metric
        base = Base(plan(space, c.arch, classes), space, c.arch)
        job = make_job(
            self.recipe, Baseline(), base, images=len(self.data.train), runtime=self.runtime, inherit=self.supernet
        )
        job = replace(job, length=replace(length, macs_per_image=c.cost.macs))
        trainer = make_trainer(job, self.data, self.runtime, self.search.scorer, keep_best=False)
        try:
            train_to_end(trainer, run, title, _checkpoint(name))
        except Diverged as fault:
            say(f"{title} is out: {fault}")
            return metric.worst
        return trainer.history[-1][metric.key("val")]


def begun_with(run: RunDir) -> dict | None:
    """The finalists' scores so far and the number of candidates they were chosen from; None if not started."""
    path = run.finalists_file
    return files.read_json(path, FORMAT) if path.is_file() else None


def forget(run: RunDir, count: int) -> None:
    """Delete the files and log entries of a fine-tuning of `count` finalists, before another among more candidates."""
    for i in range(1, count + 1):
        run.rewind(_title(i, count), step=0)
    for path in (run.finalists_file, *run.path.glob(_checkpoint("*"))):
        path.unlink(missing_ok=True)


def _title(i: int, count: int) -> str:
    return f"finalist {i} of {count}"


def _checkpoint(name: str) -> str:
    return f"finalist-{name}.safetensors"
