"""The final choice of a search: finalists are trained on their own, and after each round the better half goes on
(successive halving: Jamieson and Talwalkar, AISTATS 2016), with each round doubling what a net has been trained for.

Each has one training, with one schedule of the learning rate, that is halted after a round and taken up again (Swersky
et al., arXiv:1406.3896). With search.schedule above 1 it is longer than the rounds, as the net's own training will be:
a short training brought to its end flatters nets that learn fast and end low (docs/explanation/ranking.md).

A supernet's scores say which subnets are worth a closer look, not which of the best is best: scores at different
resolutions are not comparable, and nets of similar size are hardly distinguished (docs/results/resolution.md,
docs/results/ranking.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
FORMAT = "nasaug-finalists/4"
# Older: rounds of equal MACs, with which the schedule ended; a training for each round; a single round
EQUAL, ANNEALED, ONE_ROUND = "nasaug-finalists/3", "nasaug-finalists/2", "nasaug-finalists/1"


@dataclass(frozen=True)
class Course:
    """The training of a finalist, and the steps at which its rounds end."""

    length: Length
    ends: tuple[int, ...]

    def steps(self, number: int) -> int:
        """The steps of one round."""
        return self.ends[number] - (self.ends[number - 1] if number else 0)

    def macs(self, number: int) -> float:
        """The forward MACs of one round."""
        return self.steps(number) * self.length.batch * self.length.macs_per_image


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
        """The number of nets in each round, for finalists with these MACs, the best first. Empty: no training, because
        it is turned off, too short to be informative, or there is only one finalist."""
        for way in self._ways(macs):
            begun = macs[: way[0]]
            if way[0] > 1 and min(self._steps(each, begun, way) for each in begun) >= self._least:
                return way
        return []

    def _ways(self, macs: Sequence[int]) -> list[list[int]]:
        """The numbers of nets in each round, for so many finalists and for fewer."""
        counts, fewest = [len(macs)], FRONT if self.several else 2
        while len(counts) < self.recipe.search.rounds and counts[-1] > fewest:
            counts.append(max(math.ceil(counts[-1] / 2), fewest))
        return [counts[start:] for start in range(len(counts))]

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
        way = self._ways(macs)[-1]
        begun = macs[: way[0]]
        steps = counted(min(self._steps(each, begun, way) for each in begun), "step")
        return f"with {steps} each, fewer than {self._least}, they would tell little; allow more epochs or train_macs"

    def _steps(self, macs: int, begun: Sequence[int], counts: Sequence[int]) -> int:
        """The steps of a net with these MACs in the first of rounds of so many nets, which begin with nets of the MACs
        `begun`. Each later round doubles them.

        They are in proportion to the epochs that each net's own training will have: equal for all, except where that
        training is limited by its MACs, so that a larger net is trained for fewer epochs."""
        batch = min(self.recipe.batch, len(self.data.train))
        whole = batch * mean(self._own_epochs(each) * each for each in begun) * sum(_firsts(counts))
        return int(self.macs * self._own_epochs(macs) / whole)

    def own_macs(self, macs: int) -> float:
        """Forward MACs of a plain training of a net with these MACs; infinite if time limits it."""
        training, steps = self.recipe, self.recipe.steps_of(len(self.data.train))
        if training.stop == "seconds":
            return math.inf
        if training.stop == "macs":
            return training.macs_for(not self.runtime.accelerated, macs) * training.times
        epochs = self._own_epochs(macs) if training.epochs == "auto" else training.epochs
        return epochs * training.times * steps * min(training.batch, len(self.data.train)) * macs

    def _own_epochs(self, macs: int) -> float:
        """The epochs of a plain training of a net with these MACs, not rounded."""
        training, images = self.recipe, len(self.data.train)
        if training.stop != "epochs" or training.epochs != "auto":
            return 1.0
        most, asked = float(training.most_epochs(images)), training.macs_for(not self.runtime.accelerated, macs)
        return min(most, asked / (macs * training.steps_of(images) * min(training.batch, images)))

    def course(self, macs: int, begun: Sequence[int], counts: Sequence[int]) -> Course:
        """The training of a net, where rounds of so many nets begin with nets of the MACs `begun` (see `_steps`). Its
        schedule is search.schedule times as long as the rounds, but no longer than the net's own training will be;
        nor are the rounds, even where there are MACs for it."""
        batch = min(self.recipe.batch, len(self.data.train))
        first = max(1, self._steps(macs, begun, counts))
        ends = [first * 2**number for number in range(len(counts))]
        most = max(1.0, self.own_macs(macs) / (batch * macs))
        ends = [max(1, int(end * min(1.0, most / ends[-1]))) for end in ends]
        steps = int(min(most, self.recipe.search.schedule * ends[-1]))
        epoch = min(self.data.train.steps(batch), steps)
        return Course(Length(steps / epoch, epoch, macs, batch), tuple(ends))

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
        begun = macs[: counts[0]]
        courses = [self.course(each, begun, counts) for each in begun]
        spent = [mean(course.macs(i) for course in courses[:count]) * count for i, count in enumerate(counts)]
        seconds = sum(spent) * seconds_per_mac
        expect(f"{self.word}s", seconds)
        whole = format_duration(seconds)
        first = courses[0]
        steps = " + ".join(str(first.steps(i)) for i in range(len(counts))) + " steps"
        if first.length.steps > first.ends[-1]:
            steps += f" of a schedule of {first.length.steps}"
        return f"{self._counted(counts)}, trained for {steps}, about {whole} in all"

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
        say(f"{self._counted(counts)}, trained from {start} weights, {spent} MACs in all")
        begun = begun_with(self.path(run)) or {"format": FORMAT, "candidates": len(self.search.scores), "rounds": []}
        if begun["format"] != FORMAT and not _over(begun["rounds"], counts):
            begun |= {"format": FORMAT, "rounds": []}
        files.write_json(self.path(run), begun)
        if not begun["rounds"]:  # left by a version that trained otherwise
            self._forget_checkpoints(run)
        left, out = finalists[: counts[0]], finalists[counts[0] :]
        macs = [c.cost.macs for c in left]
        for i, count in enumerate(counts):
            if i == len(begun["rounds"]):
                begun["rounds"].append({})
                files.write_json(self.path(run), begun)
            ranked = self._round(i, left[:count], counts, macs, run, begun)
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
        self, number: int, nets: list[Candidate], counts: Sequence[int], macs: Sequence[int], run: RunDir,
        begun: dict[str, Any],
    ) -> list[Candidate] | None:  # fmt: skip
        """The nets of one round, the best first; None if all of them diverged. `macs` are those of the first round's
        nets."""
        known, metric, count, rounds = begun["rounds"][number], self.search.metric, counts[number], len(counts)
        trained: dict[Arch, Candidate] = {}
        judged: dict[Arch, Judged] = {}
        spent, all_macs = 0.0, mean(self.course(c.cost.macs, macs, counts).macs(number) for c in nets) * count
        shares = [part / sum(_firsts(counts)) for part in _firsts(counts)]  # of all rounds' MACs
        for i, c in enumerate(nets):
            name, course = self.search.space.id(c.arch), self.course(c.cost.macs, macs, counts)
            if name not in known:
                parts = (min(1.0, each / all_macs) for each in (spent, spent + course.macs(number)))
                with share_of_stage(*(sum(shares[:number]) + shares[number] * part for part in parts)):
                    known[name] = self._train(c, course, run, self._title(i + 1, count, number, rounds), name, number)
                files.write_json(self.path(run), begun)
            spent += course.macs(number)
            judged[c.arch] = Judged(*known[name])
            trained[c.arch] = replace(
                c, trained_score=judged[c.arch].score, rank=self.search.rank(judged[c.arch]), rounds=number + 1,
                epochs=course.ends[number] / self.data.train.steps(course.length.batch),
            )  # fmt: skip
        if all(each.score == metric.worst for each in judged.values()):
            return None
        return sorted(trained.values(), key=lambda c: (c.rank, -c.cost.macs))

    def _train(self, c: Candidate, course: Course, run: RunDir, title: str, name: str, number: int) -> Judged:
        """A finalist's score and loss after one round, whose weights are left in the run; the worst ones if it
        diverged. The loss is the mean of those on the validation split and in training, which for a net that under-fits
        tells what a longer training will reach (Ru et al., arXiv:2006.04492)."""
        metric, begun = self.search.metric, course.ends[number - 1] if number else 0
        trainer = self._trainer(c, course.length)
        try:
            train_to_end(trainer, run, title, self._checkpoint(name), begun=begun, until=course.ends[number])
        except Diverged as fault:
            say(f"{title} is out: {fault}")
            return Judged(metric.worst, WORST)
        save_net(run.path / self._weights(name), trainer.average or trainer.net)
        last = trainer.history[-1]
        return Judged(last[metric.key("val")], (last["val_loss"] + late_loss(trainer.history, course.length)) / 2)

    def _trainer(self, c: Candidate, length: Length) -> Trainer:
        space, classes = self.search.space, self.search.scorer.task.head
        base = Base(plan(space, c.arch, classes), space, c.arch)
        job = make_job(
            self.recipe, Baseline(), base, images=len(self.data.train), runtime=self.runtime, inherit=self._inherited
        )
        job = replace(job, length=length)
        return make_trainer(job, self.data, self.runtime, self.search.scorer, keep_best=False)

    def seconds_per_mac(self, c: Candidate) -> float:
        """Measured on a few training steps of a candidate."""
        length = self.course(c.cost.macs, [c.cost.macs], [1]).length
        return time_steps(self._trainer(c, length)) / (length.batch * c.cost.macs)

    def _clean(self, run: RunDir, decided: list[Candidate]) -> None:
        """Keep the weights of the front, and the winner's also among those of the supernet; delete the others."""
        winner = decided[0]
        if self.word == FINALIST and winner.rounds:
            for c in {c.arch: c for c in (winner, *self.search.front(decided))}.values():
                name = self.search.space.id(c.arch)
                path, kept = run.path / self._weights(name), front_weights(run, name)
                if path.is_file():
                    kept.parent.mkdir(exist_ok=True)
                    save_net(kept, load_net(path), **self.facts)
                if c is winner and kept.is_file() and not run.start_file.is_file():
                    keep_start(run.start_file, load_net(kept), self.supernet, self.facts)
        self._forget_checkpoints(run)

    def _forget_checkpoints(self, run: RunDir) -> None:
        """And the weights beside them."""
        for path in run.path.glob(self._checkpoint("*")):
            path.unlink(missing_ok=True)

    def path(self, run: RunDir) -> Path:
        return run.finalists_file if self.word == FINALIST else run.shapes_file

    def _counted(self, counts: Sequence[int]) -> str:
        """24 finalists, then the best 12, 6 and 3; with several objectives 24 finalists, then 12 and 6 along the
        front."""
        first, *later = counts
        told = f"{first} {self.word}s"
        if not later:
            return told
        *most, last = map(str, later)
        fewer = " and ".join(filter(None, [", ".join(most), last]))
        return f"{told}, then {f'{fewer} along the front' if self.several else f'the best {fewer}'}"

    def _title(self, i: int, count: int, number: int, rounds: int) -> str:
        return f"{self.word} {i} of {count}" + (f", round {number + 1} of {rounds}" if rounds > 1 else "")

    def _checkpoint(self, name: str) -> str:
        return f"{self.word}-{name}.safetensors"

    def _weights(self, name: str) -> str:
        """The file of a net's weights after its last round so far."""
        return f"{self.word}-{name}-trained.safetensors"


def _firsts(counts: Sequence[int]) -> list[float]:
    """The compute of each of the rounds of so many nets, in first rounds of one net."""
    return [float(count * 2 ** max(0, number - 1)) for number, count in enumerate(counts)]


def _over(rounds: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> bool:
    """Whether all rounds of so many nets are over."""
    return len(rounds) == len(counts) and all(len(each) == count for each, count in zip(rounds, counts, strict=True))


def late_loss(history: Sequence[Mapping[str, Any]], length: Length) -> float:
    """The mean training loss over the last epoch's steps, or somewhat more: since the evaluation before it began."""
    total, steps, rows = 0.0, 0, [{"step": 0}, *history]
    for before, row in zip(reversed(rows[:-1]), reversed(rows[1:]), strict=True):
        count = row["step"] - before["step"]
        total, steps = total + count * row["loss_base"], steps + count
        if steps >= length.steps_per_epoch:
            break
    return total / steps


def keep_start(path: Path, winner: Net, supernet: Path | None, facts: Mapping[str, Any]) -> None:
    """Write the weights that a training of the found net starts from: the supernet's, with the winner's own as its
    slice, so that NetAug has wider nets around them; without a supernet the winner's alone.

    So the winner's training goes on, even if it began with fresh weights, which the wider nets' do not fit at first.
    With the first seed it ended higher than from its slice of the supernet, with NetAug too (docs/results/start.md)."""
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
    kept = files.read_json(path, FORMAT, EQUAL, ANNEALED, ONE_ROUND)
    if kept["format"] in (FORMAT, EQUAL):
        return kept
    if kept["format"] == ANNEALED:
        return {"format": FORMAT, "candidates": kept["candidates"], "rounds": []}
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
