"""All of `train`: from checked inputs to the net that is saved and evaluated on the test images."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..arch.archfile import ArchFile
from ..arch.cost import cost, describe
from ..core import tensorfile
from ..core.boxes import CLASS
from ..core.progress import say, stages_of
from ..data import Data, Record, Split
from ..int8.imitation import Imitation
from ..nets.net import Net
from ..nets.store import save_net
from ..rundirs.folder import RunDir
from ..rundirs.result import CORRECT, ERROR, ROWS, TrainingResult
from .device import Runtime
from .job import (
    announce,
    base_of,
    job_for,
    make_job,
    make_scorer,
    make_trainer,
    outlook_of,
    preprocessing,
    start_net,
    start_of,
)
from .loop import Trainer
from .provenance import SEVERAL, curves_of, of_other_splits, warn_of_curves, warn_of_other_splits
from .quantised import (
    FLOAT,
    TABLE,
    Before,
    Deployed,
    read_before,
    scores_before,
    table_of,
    with_statistics,
    write_float,
)  # fmt: skip
from .recipe import Recipe
from .scoring import Scorer
from .skipped import note_skipped
from .teacher import Resolved, resolve
from .to_end import train_to_end

SHOWN = 12  # validation images of which a detection keeps what was found


@dataclass(frozen=True)
class Ready:
    """A training whose inputs have all been validated."""

    found: ArchFile
    recipe: Recipe
    runtime: Runtime
    data: Data
    teacher: Resolved | None = None
    """None: none, or not resolved yet."""
    other_splits: list[str] | None = None
    """What `of_other_splits` gives; None: not looked up yet."""

    @property
    def record(self) -> Record:
        return self.data.record


def run_training(ready: Ready, run: RunDir, title: str) -> TrainingResult:
    """All of `train` and `netaug-train` after validation; returns the content of result.json."""
    recipe = ready.recipe
    scorer = make_scorer(recipe, ready.data, ready.runtime)
    twice = recipe.ends_in_int8 and recipe.method != "qat"
    with stages_of(title, "qat") if twice else contextlib.nullcontext():
        return _run_training(ready, run, scorer, title, twice)


def _run_training(ready: Ready, run: RunDir, scorer: Scorer, title: str, twice: bool) -> TrainingResult:
    data = ready.data
    if twice and (run.path / FLOAT).is_file():  # the first phase is over
        start = run.environment()["start"]
    else:
        trainer, start, told = _trained(ready, run, scorer, title)
        if not twice:
            return _finished(ready, trainer, run, start, told)
        epochs = _epochs(trainer)
        before = Before(epochs, trainer.step, trainer.macs, trainer.seconds, trainer.history, dict(told))
        write_float(run.path, trainer.product(), before, list(data.classes))
        val = trainer.task.metric.show(trainer.best_score)
        say(f"{title}: {epochs:.4g} epochs, validation {trainer.task.metric.label} {val}; now in int8")
    trainer = _trained_in_int8(ready, run, scorer)
    return _finished(ready, trainer, run, start, {})


def _trained(
    ready: Ready, run: RunDir, scorer: Scorer, title: str
) -> tuple[Trainer, Mapping[str, Any], Mapping[str, Any]]:
    """The trainer at the end of the recipe's method, where its weights started from, and the method's facts."""
    found, recipe, runtime, data = ready.found, ready.recipe, ready.runtime, ready.data
    # on resuming, taken from env.json: the file with the initial weights may be gone
    start = run.environment().get("start") if run.checkpoint_file.is_file() else None
    job = job_for(found, recipe, runtime, len(data.train), begun=start is not None, teacher=ready.teacher)
    told_start = None if start else start_of(found, job, data)
    if job.method.in_int8:
        if start is None:
            write_float(run.path, with_statistics(start_net(job), scorer), Before(), list(data.classes))
        job = replace(job, inherit=run.path / FLOAT, begun=False)
    trainer = make_trainer(job, data, runtime, scorer)
    per_step = announce(trainer, title, f"{found.name}, {describe(cost(found.plan))}")
    warn_of_curves(curves_of(recipe), lambda: data)
    if told_start is not None:
        init, line = told_start
        say(f"  {line}")
        others = of_other_splits(found, recipe, data) if ready.other_splits is None else ready.other_splits
        start = {"init": init, "other_splits": others}
        run.note(start=start)
    assert start is not None
    warn_of_other_splits(start["other_splits"])
    per_mac = per_step / (job.length.batch * job.length.macs_per_image)
    told = job.method.describe(outlook_of(job, per_mac, len(data.train), runtime, scorer.task))
    for line in told.lines:
        say(line)
    facts = {**told.facts, **_of_trunk(trainer)}
    if getattr(scorer.task, "two_stage", False):
        two_stage: Any = trainer.net.two_stage
        parts = two_stage.costs([block.out_size[0] for block in found.plan.head])
        line, more = scorer.task.beside(found.plan, parts)  # type: ignore[attr-defined]
        say(f"  {line}")
        facts |= more
    train_to_end(trainer, run, title)
    return trainer, start, facts


def _of_trunk(trainer: Trainer) -> dict[str, Any]:
    """Tells how a trunk that is not trained like the head is; returns the facts for result.json."""
    training = trainer.training
    if training.trunk == "train" and training.trunk_lr == 1:
        return {}
    trained, whole = (sum(p.numel() for p in ps) for ps in (trainer.weights.parameters, trainer.net.parameters()))
    how = {"train": "trained", "norms": "only its norms are trained", "frozen": "frozen"}[training.trunk]
    rate = f", at {training.trunk_lr:g} times the learning rate" if training.trunk_lr != 1 else ""
    rate = rate if training.trunk != "frozen" else ""
    say(f"  trunk: {how}{rate}; {trained:,} of {whole:,} parameters are trained, but forward passes run all of them")
    return {"trained_params": trained}


def _trained_in_int8(ready: Ready, run: RunDir, scorer: Scorer) -> Trainer:
    """The trainer at the end of the phase that fine-tunes the net of the first one."""
    recipe, runtime, data = ready.recipe, ready.runtime, ready.data
    job = make_job(
        recipe, recipe.qat, base_of(ready.found), images=len(data.train), runtime=runtime, inherit=run.path / FLOAT,
        teacher=ready.teacher or resolve(ready.found, recipe.teacher),
    )  # fmt: skip
    trainer = make_trainer(job, data, runtime, scorer)
    announce(trainer, "qat", f"{ready.found.name} in int8")
    train_to_end(trainer, run, "qat", "qat.safetensors")
    return trainer


def _epochs(trainer: Trainer) -> float:
    length = trainer.length
    return trainer.step / length.steps_per_epoch if length.open_ended else length.epochs


def _finished(
    ready: Ready, trainer: Trainer, run: RunDir, start: Mapping[str, Any], told: Mapping[str, Any]
) -> TrainingResult:
    """Save the trained net, evaluate it on the test images and finish the run. `start` is the run's, `told` the
    method's facts."""
    found, recipe, runtime, data, scorer = ready.found, ready.recipe, ready.runtime, ready.data, trainer.scorer
    product, facts = trainer.product(), {**preprocessing(data, recipe.data), **scorer.task.facts}
    in_int8 = isinstance(product, Imitation)
    kept = {TABLE: table_of(product)} if in_int8 else {}
    val_key = SEVERAL if start["other_splits"] else data.val_key
    save_net(run.model_file, product.plain() if in_int8 else product, **facts, **kept, val_key=val_key)
    replace(found, supernet=None, weights=run.model_file).save(run.arch_file)
    final = Deployed.trained(product) if in_int8 else product
    if scorer.task.name == "detect":
        tensorfile.write(run.shown_file, shown_of(final, scorer), {})
    test = data.finish()
    metric, more, before = scorer.task.metric, {**told, **facts, "val_key": data.val_key}, Before()
    if data.few:
        more["train_images"] = len(data.train)
    if in_int8:
        before = read_before(run.path)
        scores = scores_before(run.path, test, scorer)
        more |= {**before.told, "before_qat": scores}
        shown = [metric.show(scores[key]) for key in ("float", "post_training")]
        say(f"qat: before it test {metric.label} {shown[0]} in float, {shown[1]} in int8 (post-training quantisation)")
    test_score, figures = test_of(final, test, scorer, run)
    more |= note_skipped(data, run, runtime.ranks)
    result = TrainingResult(
        arm=recipe.arm or recipe.method, method=recipe.method, arch=found.name, data=data.name, data_key=data.key,
        seed=recipe.seed, init=start["init"], **cost(found.plan).known, metric=metric,
        val_score=trainer.best_score, train_score=trainer.best_row()[metric.key("train")],
        history=before.followed_by(trainer.history), test_score=test_score, test_images=len(test),
        epochs=before.epochs + _epochs(trainer), train_macs=before.train_macs + trainer.macs,
        seconds=round(before.seconds + trainer.seconds, 2), peak_memory=runtime.peak_memory(),
        device=runtime.describe(), path=run.path, more={**more, **figures},
    )  # fmt: skip
    run.finish(result.to_json())
    return result


def shown_of(net: Net | Deployed, scorer: Scorer) -> dict[str, Tensor]:
    """What a page shows of a detection: `images` uint8 [SHOWN, C, H, W] of the validation split, evenly spread over
    those with objects; their boxes, `there`, as in `core.boxes`; and what was `found` (`Detect.answer`)."""
    val = scorer.data.val
    there = (val.labels[..., CLASS] >= 0).any(1).nonzero()[:, 0]
    some = val.subset(there[torch.linspace(0, max(0, len(there) - 1), min(SHOWN, len(there))).long()])
    if not len(some):
        return {}
    size = net.plan.resolution if scorer.data.streamed else None
    images = torch.cat([images for images, _ in some.ordered(len(some), size)])
    found = scorer.of_each(net, some, lambda out, _: scorer.task.answer(out))
    return {"images": images, "there": some.labels, "found": torch.cat(found)}


def test_of(net: Net | Deployed, test: Split, scorer: Scorer, run: RunDir) -> tuple[float, dict[str, Any]]:
    """The score of a finished net on the test images, and the task's further figures, if it has any; stores those of
    the single images as well."""
    judged = torch.cat(scorer.judged(net, test)).cpu()
    name = CORRECT if judged.dtype == torch.bool else ERROR if judged.dim() == 1 else ROWS
    tensorfile.write(run.test_file, {name: judged.to(torch.uint8) if name == CORRECT else judged}, {})
    more = scorer.task.figures([judged]) if hasattr(scorer.task, "figures") else {}
    return scorer.task.score([judged]), more
