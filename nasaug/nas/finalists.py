"""The final choice of a search: finalists are trained on their own, from the supernet's weights, and the better half
goes on (successive halving: Jamieson and Talwalkar, AISTATS 2016).

A supernet's scores say which subnets are worth a closer look, not which of the best is best: scores at different
resolutions are not comparable, and nets of similar size are hardly distinguished (docs/results/resolution.md,
docs/results/ranking.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from ..arch.plan import plan
from ..arch.space import Arch
from ..core import files, tensorfile
from ..core.errors import Diverged
from ..core.metric import WORST
from ..core.progress import expect, say, share_of_stage
from ..core.units import counted, format_duration, format_quantity
from ..data import Data
from ..methods import Base, Baseline
from ..nets.net import Net
from ..nets.store import load_net, save_net
from ..rundirs.folder import RunDir
from ..training.device import Runtime
from ..training.job import make_job, make_trainer
from ..training.length import Length
from ..training.loop import Trainer
from ..training.recipe import Recipe
from ..training.scoring import Judged
from ..training.timing import time_steps
from ..training.to_end import train_to_end
from .candidates import Candidate
from .front import spread
from .ranges import macs_range
from .study import Search

FINALIST, SHAPE = "finalist", "shape"
FRONT = 6  # with several objectives, at least so many nets have all rounds, so that their front has trained figures
LEAST = 100  # steps each; an "auto" training shorter than this is skipped, since it would be uninformative
FORMAT, ONE_ROUND = "nasaug-finalists/2", "nasaug-finalists/1"  # the second is that of version 1: no rounds, no losses


@dataclass(frozen=True)
class PlayOff:
    """How to train the finalists; `supernet_macs` are the forward MACs of the supernet's own training. Without a
    `supernet` their weights are fresh."""

    recipe: Recipe
    data: Data
    runtime: Runtime
    search: Search
    supernet: Path | None
    supernet_macs: float
    facts: Mapping[str, Any] = field(default_factory=dict)  # about the weights kept, where there is no supernet
    given: float | None = None  # forward MACs for all rounds; None: what the recipe gives the finalists
    word: str = FINALIST  # what the nets are called

    @property
    def several(self) -> bool:
        """Whether the nets go on by several objectives."""
        return self.word == FINALIST and self.search.several

    @property
    def _inherited(self) -> Path | None:
        """The supernet whose weights the nets start from; None: fresh weights."""
        return self.supernet if self.recipe.search.finalists_from == "supernet" else None

    @property
    def macs(self) -> float:
        """Forward MACs for all rounds together."""
        config = self.recipe.search
        if self.given is not None:
            return self.given
        if config.finalist_macs != "auto":
            return config.finalist_macs
        share = config.finalist_share + (self.supernet is None)  # without a supernet its MACs are the finalists' too
        return share * self.supernet_macs

    def sizes(self, macs: Sequence[int]) -> list[int]:
        """The number of nets in each round, for finalists with these MACs, the best first; more than these in the first
        if others are suggested during it. Empty: no training, because it is turned off, too short to be informative, or
        there is only one finalist."""
        counts, fewest = [len(macs)], FRONT if self.several else 2
        while len(counts) < self.recipe.search.rounds and counts[-1] > fewest:
            counts.append(max(math.ceil(counts[-1] / 2), fewest))
        ways = [counts[start:] for start in range(len(counts))]
        if self.word == FINALIST and self.recipe.search.suggested and len(macs) > 1:
            ways.insert(0, [len(macs) + self.recipe.search.suggested, *counts[1:]])
        for way in ways:
            begun = macs[: way[0]]
            if way[0] > 1 and min(self._steps(each, begun, way[0], len(way)) for each in begun) >= self._least:
                return way
        return []

    @property
    def _least(self) -> int:
        """The fewest steps of a net in a round."""
        return LEAST if self.recipe.search.finalist_macs == "auto" or self.given is not None else 1

    def _why_not(self, macs: Sequence[int]) -> str:
        """Why `sizes` is empty."""
        if len(macs) < 2:
            return "there is only one"
        if not self.macs:
            return "search.finalist_macs is 0" if self.given is None else "they have no MACs"
        begun = macs[: FRONT if self.several else 2]
        steps = counted(min(self._steps(each, begun, len(begun), 1) for each in begun), "step")
        return f"with {steps} each, fewer than {self._least}, they would tell little; allow more epochs or train_macs"

    def _steps(self, macs: int, begun: Sequence[int], count: int, rounds: int) -> int:
        """The steps of a net with these MACs in one of so many rounds, which begins with nets of the MACs `begun` and
        has `count` in all.

        They are in proportion to the epochs that each net's own training will have: equal for all, except where that
        training is limited by its MACs, so that a larger net is trained for fewer epochs."""
        batch = min(self.recipe.batch, len(self.data.train))
        whole = batch * mean(self._own_epochs(each) * each for each in begun) * count
        return int(self.macs / rounds * self._own_epochs(macs) / whole)

    def _own_epochs(self, macs: int) -> float:
        """The epochs of a plain training of a net with these MACs, not rounded."""
        training, images = self.recipe, len(self.data.train)
        if training.stop != "epochs" or training.epochs != "auto":
            return 1.0
        most, asked = float(training.most_epochs(images)), training.macs_for(not self.runtime.accelerated)
        return min(most, asked / (macs * training.steps_of(images) * min(training.batch, images)))

    def length(self, macs: int, begun: Sequence[int], count: int, rounds: int) -> Length:
        """The training length of a net in one of so many rounds (see `_steps`): whole epochs, or part of one."""
        batch, steps = min(self.recipe.batch, len(self.data.train)), self._steps(macs, begun, count, rounds)
        whole = self.data.train.steps(batch)
        return Length(max(1, round(steps / whole)), min(steps, whole), macs, batch)

    def lengths(self, macs: Sequence[int], count: int, rounds: int) -> list[Length]:
        """Those of the nets that the round begins with."""
        return [self.length(each, macs, count, rounds) for each in macs]

    def estimate(self, seconds_per_mac: float, macs: Sequence[int] = ()) -> str:
        """Say how long `decide` will take at this many seconds per MAC, for nets with these MACs (by default finalists
        as large as the search may find), and expect its stage to."""
        search = self.search
        if not macs:
            largest = macs_range(search.space, search.budget, search.scorer.task.head)[1]
            macs = [round(min(largest, search.budget.macs or largest))] * search.config.finalists
        counts = self.sizes(macs)
        if not counts:
            expect(f"{self.word}s", 0.0)
            return f"the {self.word}s are not trained: {self._why_not(macs)}"
        lengths = [self.lengths(macs[:count], count, len(counts)) for count in counts]
        spent = [mean(each.macs for each in round_) * count for count, round_ in zip(counts, lengths, strict=True)]
        seconds = sum(spent) * seconds_per_mac
        expect(f"{self.word}s", seconds)
        whole = format_duration(seconds)
        steps = " + ".join(str(round_[0].steps) for round_ in lengths)
        return f"{self._counted(counts, len(macs))}, trained for {steps} steps, about {whole} in all"

    def decide(self, finalists: list[Candidate], run: RunDir) -> list[Candidate]:
        """The finalists, the winner first: those of later rounds before those of earlier ones, each by its score or
        loss after it; unchanged if they are not trained. The winner's weights are left in `run.start_file`, and those
        of each net of their front in `run.front_folder`.

        With several objectives those near the front and spread along it go on. search.pick may choose another winner
        than the best. A finalist whose training diverges comes last; if all of a round diverge, the order is unchanged.
        """
        counts = self.sizes([c.cost.macs for c in finalists])
        if not counts:
            say(f"the {self.word}s are not trained: {self._why_not([c.cost.macs for c in finalists])}")
            return self._picked(finalists)
        spent = format_quantity(self.macs, "macs")
        start = "the supernet's" if self._inherited else "fresh"
        say(f"{self._counted(counts, len(finalists))}, trained from {start} weights, {spent} MACs in all")
        begun = begun_with(self.path(run)) or {"format": FORMAT, "candidates": len(self.search.scores), "rounds": []}
        files.write_json(self.path(run), begun)
        left, out = finalists[: counts[0]], finalists[counts[0] :]
        for i, count in enumerate(counts):
            if i == len(begun["rounds"]):
                begun["rounds"].append({})
            ranked = self._round(i, left[:count], count, len(counts), run, begun)
            if ranked is None:
                break
            last = i + 1 == len(counts)
            if self.several and not last:
                lost = [c for c in ranked if c.trained_score == self.search.metric.worst]  # diverged
                ranked = [*spread([c for c in ranked if c not in lost], self.search.point), *lost]
            keep = 1 if last else counts[i + 1]
            left, out = ranked[:keep], ranked[keep:] + out
        decided = self._picked(left + out)
        self._clean(run, decided)
        return decided

    def _picked(self, finalists: list[Candidate]) -> list[Candidate]:
        return self.search.picked(finalists) if self.word == FINALIST else finalists

    def _round(
        self, number: int, nets: list[Candidate], count: int, rounds: int, run: RunDir, begun: dict[str, Any]
    ) -> list[Candidate] | None:  # fmt: skip
        """The nets of one round, the best first; None if all of them diverged. Where `count` is more than the nets,
        others follow, each suggested by the results of all before it."""
        known, metric, whole = begun["rounds"][number], self.search.metric, self.data.train
        trained: dict[Arch, Candidate] = {}
        judged: dict[Arch, Judged] = {}
        macs = [c.cost.macs for c in nets]
        lengths = [length.macs for length in self.lengths(macs, count, rounds)]
        spent, all_macs = 0.0, mean(lengths) * count
        while len(trained) < count:
            i = len(trained)
            c = nets[i] if i < len(nets) else self._suggested(i, judged)
            if c is None:
                break
            name, length = self.search.space.id(c.arch), self.length(c.cost.macs, macs, count, rounds)
            if name not in known:
                # rounds have the same MACs
                parts = (number + min(1.0, each / all_macs) for each in (spent, spent + length.macs))
                with share_of_stage(*(part / rounds for part in parts)):
                    known[name] = self._train(c, length, run, self._title(i + 1, count, number, rounds), name, number)
                files.write_json(self.path(run), begun)
            (run.path / self._checkpoint(name)).unlink(missing_ok=True)
            spent += length.macs
            judged[c.arch] = Judged(*known[name])
            trained[c.arch] = replace(
                c, trained_score=judged[c.arch].score, rank=self.search.rank(judged[c.arch]), rounds=number + 1,
                epochs=c.epochs + length.steps / whole.steps(length.batch),
            )  # fmt: skip
        if all(each.score == metric.worst for each in judged.values()):
            return None
        smooth = self.search.smoothed(judged) if count > len(nets) and not self.several else {}
        return sorted(trained.values(), key=lambda c: (smooth.get(c.arch, c.rank), -c.cost.macs))

    def _suggested(self, number: int, judged: Mapping[Arch, Judged]) -> Candidate | None:
        """A net that the results so far promise much of, scored with the supernet if there is one; None if they promise
        nothing new."""
        arch = self.search.suggested(number, judged)
        if arch is None:
            return None
        c = self.search.undecided(arch)
        return c if self.search.net is None else replace(c, full_score=self.search.of_whole(arch, self.data.val).score)

    def _train(self, c: Candidate, length: Length, run: RunDir, title: str, name: str, number: int) -> Judged:
        """A finalist's score and loss after one round, whose weights are left in the run; the worst ones if it
        diverged."""
        metric, before = self.search.metric, run.path / self._weights(name, number - 1)
        trainer = self._trainer(c, length, number, before if before.is_file() else self._inherited)
        try:
            train_to_end(trainer, run, title, self._checkpoint(name))
        except Diverged as fault:
            say(f"{title} is out: {fault}")
            return Judged(metric.worst, WORST)
        save_net(run.path / self._weights(name, number), trainer.average or trainer.net)
        return Judged(trainer.history[-1][metric.key("val")], trainer.history[-1]["val_loss"])

    def _trainer(self, c: Candidate, length: Length, number: int, start: Path | None) -> Trainer:
        space, classes = self.search.space, self.search.scorer.task.head
        # each round has images in an order of its own: a part of an epoch would otherwise have the same ones again
        seed = Random(f"{self.recipe.seed}/round/{number}").getrandbits(31) if number else self.recipe.seed
        recipe, base = replace(self.recipe, seed=seed), Base(plan(space, c.arch, classes), space, c.arch)
        job = make_job(recipe, Baseline(), base, images=len(self.data.train), runtime=self.runtime, inherit=start)
        job = replace(job, length=length)
        return make_trainer(job, self.data, self.runtime, self.search.scorer, keep_best=False)

    def seconds_per_mac(self, c: Candidate) -> float:
        """Measured on a few training steps of a candidate."""
        length = self.length(c.cost.macs, [c.cost.macs], 1, 1)
        return time_steps(self._trainer(c, length, 0, None)) / (length.batch * c.cost.macs)

    def _clean(self, run: RunDir, decided: list[Candidate]) -> None:
        """Keep the weights of the front, and the winner's also as a slice of the supernet if they came from it or there
        is none; delete the others."""
        winner = decided[0]
        if self.word == FINALIST and winner.rounds:
            for c in {c.arch: c for c in (winner, *self.search.front(decided))}.values():
                name = self.search.space.id(c.arch)
                path, kept = run.path / self._weights(name, c.rounds - 1), front_weights(run, name)
                if path.is_file():
                    kept.parent.mkdir(exist_ok=True)
                    save_net(kept, load_net(path), **self.facts)
                if c is winner and kept.is_file() and self._inherited == self.supernet and not run.start_file.is_file():
                    keep_start(run.start_file, load_net(kept), self.supernet, self.facts)
        for path in run.path.glob(self._checkpoint("*")):  # weights too
            path.unlink(missing_ok=True)

    def path(self, run: RunDir) -> Path:
        return run.finalists_file if self.word == FINALIST else run.shapes_file

    def _counted(self, counts: Sequence[int], given: int) -> str:
        """24 finalists, then the best 12, 6 and 3; with several objectives 24 finalists, then 12 and 6 along the front;
        12 finalists and 12 nets that their results suggest, then …"""
        first, *later = counts
        told = f"{min(first, given)} {self.word}s"
        if first > given:
            told = f"{told} and {first - given} nets that their results suggest"
        if not later:
            return told
        *most, last = map(str, later)
        fewer = " and ".join(filter(None, [", ".join(most), last]))
        return f"{told}, then {f'{fewer} along the front' if self.several else f'the best {fewer}'}"

    def _title(self, i: int, count: int, number: int, rounds: int) -> str:
        return f"{self.word} {i} of {count}" + (f", round {number + 1} of {rounds}" if rounds > 1 else "")

    def _checkpoint(self, name: str) -> str:
        return f"{self.word}-{name}.safetensors"

    def _weights(self, name: str, number: int | str) -> str:
        """The file of a net's weights after a round."""
        return f"{self.word}-{name}-after-{number}.safetensors"


def keep_start(path: Path, winner: Net, supernet: Path | None, facts: Mapping[str, Any]) -> None:
    """Write the weights that a training of the found net starts from: the supernet's, with the winner's own as its
    slice, so that NetAug has wider nets around them; without a supernet the winner's alone."""
    net = winner
    if supernet is not None:
        net, facts = load_net(supernet), {k: v for k, v in tensorfile.facts(supernet).items() if k != "plan"}
        net.put(winner)
    save_net(path, net, **facts)


def front_weights(run: RunDir, name: str) -> Path:
    """The file with the own weights of a net of the front, by its id."""
    return run.front_folder / f"{name}.safetensors"


def begun_with(path: Path) -> dict | None:
    """The rounds so far, {arch: [score, loss]} each, and the number of candidates that the finalists were chosen from;
    None if not started."""
    if not path.is_file():
        return None
    kept = files.read_json(path, FORMAT, ONE_ROUND)
    if kept["format"] == FORMAT:
        return kept
    scores = next(value for value in kept.values() if isinstance(value, dict))
    rounds = [{name: [score, WORST] for name, score in scores.items()}]
    return {"format": FORMAT, "candidates": kept["candidates"], "rounds": rounds}


def forget(run: RunDir) -> None:
    """Delete the files and log entries of the finalists' training, before another among more candidates."""
    for title in {event["stage"] for event in run.read_log() if event.get("stage", "").startswith(f"{FINALIST} ")}:
        run.rewind(title, step=0)
    weights = run.path.glob(f"{FINALIST}-*.safetensors")
    for path in (run.finalists_file, run.start_file, *weights, *run.front_folder.glob("*.safetensors")):
        path.unlink(missing_ok=True)
