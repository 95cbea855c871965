"""Pruning a trained net in steps, each followed by fine-tuning with its own magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..arch.archfile import ArchFile
from ..arch.channels import channel_groups
from ..arch.cost import cost, describe
from ..arch.plan import Plan
from ..core import tensorfile
from ..core.metric import Metric
from ..core.progress import expect, say, stages_of
from ..core.units import format_duration, format_quantity
from ..data import Data
from ..methods import Base
from ..nets.store import load_net, save_net
from ..reporting import tables
from ..rundirs.folder import RunDir
from ..rundirs.result import TrainingResult
from ..training.device import Runtime
from ..training.job import (
    Job,
    announce,
    make_job,
    make_scorer,
    make_trainer,
    preprocessing,
)
from ..training.provenance import (
    SEVERAL,
    of_other_splits,
)
from ..training.recipe import Recipe
from ..training.scoring import Scorer
from ..training.skipped import note_skipped
from ..training.teacher import Resolved
from ..training.to_end import train_to_end
from ..training.whole import test_of
from . import selection
from .setting import Setting


def net_of_other_splits(found: ArchFile, source: str, recipe: Recipe, data: Data) -> list[str]:
    """The net to prune and its teacher, if they were trained with other validation images; each by its description."""
    others, had = of_other_splits(found, replace(recipe, init="scratch"), data), found.facts["source"]
    known = had["val_key"] == data.val_key if had.get("val_key") else had["data_key"] == data.key
    return others if known else [source, *others]


def least_macs(plan: Plan, divisor: int) -> int:
    """The MACs of the smallest net that pruning can reach."""
    return cost(selection.with_sizes(plan, selection.least_sizes(plan, divisor))).macs


def some_plan(plan: Plan, macs: float, divisor: int, least: Mapping | None = None) -> Plan:
    """A plan of about the MACs of a future step, whose actual plan depends on weights that are not trained yet."""
    scores = {name: torch.arange(group.size) / group.size for name, group in channel_groups(plan).items()}
    return selection.smaller(plan, scores, macs, least or selection.least_sizes(plan, divisor), divisor)


def step_job(
    recipe: Recipe, plan: Plan, teacher: Resolved | None, runtime: Runtime, images: int, *, pruned: float = 0.0,
    start: Path | None = None,
) -> Job:  # fmt: skip
    """The fine-tuning job of one step."""
    return make_job(
        recipe, recipe.chosen_method(), Base(plan, pruned=pruned), images=images, runtime=runtime, inherit=start,
        teacher=teacher,
    )  # fmt: skip


class Pruning:
    """A pruning run in progress: executes the remaining steps and writes the result."""

    def __init__(
        self, found: ArchFile, setting: Setting, recipe: Recipe, data: Data, runtime: Runtime, run: RunDir,
        teacher: Resolved | None,
    ):  # fmt: skip
        self.found, self.setting, self.recipe = found, setting, recipe
        self.data, self.runtime, self.run = data, runtime, run
        self.scorer: Scorer = make_scorer(recipe, data, runtime)
        self.resolved = teacher
        self.teacher = None if teacher is None else teacher.ready(data, runtime, self.scorer)
        self.least = selection.least_sizes(found.plan, setting.round)
        self.magnitudes = selection.magnitudes(setting.magnitude, setting.steps)
        if setting.target_macs:
            self.goals = selection.targets(cost(found.plan).macs, setting.target_macs, setting.steps)
        else:  # the remaining weights, as a share
            there = 1 - found.facts["source"]["sparsity"]
            self.goals = selection.targets(there, 1 - setting.target_sparsity, setting.steps)

    def carry_through(self) -> None:
        """Run all remaining steps and write the result."""
        rows = tensorfile.read(self.run.tuned_file)[1]["steps"]
        begun = len(rows)
        with stages_of(*map(self._title, range(self.setting.steps))):
            for i in range(begun, self.setting.steps):
                rows = [*rows, self._step(i, rows, announced=i == begun)]
        self._finish(rows)

    def _title(self, i: int) -> str:
        return f"step {i + 1} of {self.setting.steps}"

    def _step(self, i: int, rows: list[dict], announced: bool) -> dict:
        """Prune, fine-tune, and save the net and all rows in one file, so that a kill leaves only whole steps."""
        title = self._title(i)
        before = self._cut(i)
        plan = load_net(self.run.cut_file).plan
        recipe = self.setting.step_recipe(self.recipe, self.magnitudes[i])
        pruned, images = self._pruned(plan, self.goals[i]), len(self.data.train)
        job = step_job(recipe, plan, self.resolved, self.runtime, images, pruned=pruned, start=self.run.cut_file)
        trainer = make_trainer(job, self.data, self.runtime, self.scorer, teacher=self.teacher)
        if self.setting.target_sparsity:
            kept = selection.masks(trainer.net)
            trainer.optimizer.register_step_post_hook(lambda *_: selection.apply_masks(trainer.net, kept))
        metric = self.scorer.task.metric
        shown = f"validation {metric.label} {metric.show(before)} before"
        per_step = announce(trainer, title, f"{describe(cost(plan))}, {shown}")
        if announced:
            self._announce_all(i, job, per_step)
        train_to_end(trainer, self.run, title)
        net = trainer.product()
        total, view = cost(plan), trainer.views["train"]
        row = {
            "step": i + 1, "macs": total.macs, "params": total.params,
            "magnitude": view.magnitude(0.0) if view.policy == "randaugment" else self.magnitudes[i],
            "sparsity": selection.sparsity(net)["prunable"], "goal": self.goals[i],
            f"{metric.key('val')}_before": before, metric.key("val"): trainer.best_score,
            metric.key("train"): trainer.best_row()[metric.key("train")],
            "epochs": trainer.step / job.length.steps_per_epoch,
            "train_macs": trainer.macs, "seconds": round(trainer.seconds, 2), "history": trainer.history,
        }  # fmt: skip
        save_net(self.run.tuned_file, net, steps=[*rows, row])
        return row

    def _pruned(self, plan: Plan, left: float) -> float:
        """The share of the original, never pruned net that is gone: of its MACs, or of its weights if a share `left`
        remains.
        """
        of_start = cost(plan).macs / cost(self.found.plan).macs if self.setting.target_macs else left
        return 1 - (1 - self.found.pruned) * of_start

    def _cut(self, i: int) -> float:
        """Write the pruned net that step `i` fine-tunes, unless it exists; returns its validation score."""
        path = self.run.cut_file
        if path.is_file() and (state := tensorfile.read(path)[1])["step"] == i:
            return state[self.scorer.task.metric.key("val")]
        self.run.checkpoint_file.unlink(missing_ok=True)  # belongs to the previous step
        net = load_net(self.run.tuned_file)
        if self.setting.target_macs:
            scores = selection.importance(net, self.setting.criterion)
            plan = selection.smaller(net.plan, scores, self.goals[i], self.least, self.setting.round)
            net = selection.narrowed(net, plan, scores)
        else:
            net = selection.sparsify(net, 1 - self.goals[i], self.setting.criterion)
        judged = self.scorer.calibrated(net.to(self.runtime.device), net.plan)
        val = self.scorer.score(judged, self.data.val)
        save_net(path, net, step=i, **{self.scorer.task.metric.key("val"): val})
        return val

    def _announce_all(self, i: int, job: Job, per_step: float) -> None:
        """Print an estimate of the duration of all remaining steps, from the current step's time per forward MAC."""
        left, plan = self.setting.steps - i, job.base.plan
        rate, seconds = per_step / (job.length.batch * job.length.macs_per_image), 0.0
        for at, goal, magnitude in zip(range(i, self.setting.steps), self.goals[i:], self.magnitudes[i:], strict=True):
            then = some_plan(plan, goal, self.setting.round, self.least) if self.setting.target_macs else plan
            recipe = self.setting.step_recipe(self.recipe, magnitude)
            length = step_job(recipe, then, self.resolved, self.runtime, len(self.data.train)).length
            expect(self._title(at), each := length.seconds or rate * length.macs)
            seconds += each
        say(f"  all {left} steps that are left: about {format_duration(seconds)}")

    def _start(self) -> dict:
        """The cost and scores of the net that pruning starts from, as recorded in its own run."""
        return {**cost(self.found.plan).known, **self.found.facts["source"]}

    def _finish(self, rows: list[dict]) -> None:
        """Evaluate on the test images, once, and write the result."""
        setting, run, data = self.setting, self.run, self.data
        for passed in (run.checkpoint_file, run.cut_file):
            passed.unlink(missing_ok=True)
        net = load_net(run.tuned_file).to(self.runtime.device)
        name, total, zeros = setting.name(self.found), cost(net.plan), selection.sparsity(net)
        others = net_of_other_splits(self.found, "", self.recipe, data)
        known = {**preprocessing(data, self.recipe.data), **self.scorer.task.facts}
        save_net(run.model_file, net, **known, val_key=SEVERAL if others else data.val_key)
        # later training need not keep the zeros, so unstructured pruning does not count as pruned there
        pruned = self._pruned(net.plan, 1.0)
        facts = {"data": self.recipe.data.name, "pruned_from": self.found.name, "pruned": pruned}
        ArchFile(net.plan, name, weights=run.model_file, facts=facts).save(run.arch_file)
        test = data.finish()
        metric, (test_score, figures) = self.scorer.task.metric, test_of(net, test, self.scorer, run)
        summed = {key: sum(row[key] for row in rows) for key in ("epochs", "train_macs", "seconds")}
        more = {
            "asked": asdict(setting), "sparsity": zeros, "start": self._start(),
            "steps": [{key: value for key, value in row.items() if key != "history"} for row in rows],
            **known, **figures, **note_skipped(data, run, self.runtime.ranks),
        }  # fmt: skip
        result = TrainingResult(
            arm=self.recipe.arm, method=self.recipe.method, arch=name, data=data.name, data_key=data.key,
            seed=self.recipe.seed, init="inherit", **total.known, metric=metric,
            val_score=rows[-1][metric.key("val")], train_score=rows[-1][metric.key("train")],
            history=tuple(_history(rows)), test_score=test_score, test_images=len(test), **summed,
            peak_memory=self.runtime.peak_memory(), device=self.runtime.describe(), more=more, path=run.path,
        )  # fmt: skip
        run.finish(result.to_json())
        say(table(rows, self._start(), metric))
        if setting.target_sparsity:
            say(
                f"{100 * zeros['prunable']:.2f} % of the weights of convolutions (not depthwise) and linear layers are "
                f"zero, {100 * zeros['all']:.2f} % of all parameters:"
            )
            layers = list(zeros)[:-2]
            say("\n".join(f"  {layer:{max(map(len, layers))}s}{100 * zeros[layer]:8.2f} %" for layer in layers))
            say(f"MACs are unchanged, {format_quantity(total.macs, 'macs')}: dense kernels multiply zeros too")
        say(f"{result}; model, arch and figures in {run.path}")


def _history(rows: list[dict]) -> list[dict]:
    """The epochs of all steps joined as if they were one training."""
    joined, past = [], dict.fromkeys(("epoch", "step", "train_macs", "seconds"), 0)
    for row in rows:
        joined += [epoch | {key: epoch[key] + past[key] for key in past} for epoch in row["history"]]
        past = {key: joined[-1][key] for key in past}
    return joined


def table(rows: list[dict], start: dict, metric: Metric) -> str:
    """The steps as a table, after the initial net: the validation scores after pruning and after fine-tuning."""
    head = ("step", "MACs", "params", "zeros", "magnitude", "pruned", "tuned")
    lines = []
    shown = [i for i, name in enumerate(head) if name != "zeros" or any(row["sparsity"] for row in rows)]
    val = metric.key("val")
    for row in ({"step": "start", f"{val}_before": None, "magnitude": None, "sparsity": None, **start}, *rows):
        zeros = "-" if row["sparsity"] is None else f"{100 * row['sparsity']:.2f} %"
        pruned, tuned = ("-" if x is None else metric.show(x) for x in (row[f"{val}_before"], row[val]))
        magnitude = "-" if row["magnitude"] is None else f"{row['magnitude']:.3g}"
        counts = (format_quantity(row[key], key) for key in ("macs", "params"))
        lines.append((str(row["step"]), *counts, zeros, magnitude, pruned, tuned))
    return tables.text([head[i] for i in shown], ([line[i] for i in shown] for line in lines))
