"""Train one network with any method: from a recipe, an arch file and data to a plain, evaluated network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import data as datasets
from ..arch.archfile import ArchFile
from ..arch.cost import cost, describe
from ..arch.plan import Plan, whole
from ..arch.space import Arch, Space
from ..augment import at_magnitude
from ..core import tensorfile
from ..core.boxes import CLASS
from ..core.errors import BadInput, Diverged, arg
from ..core.progress import Progress, say
from ..core.signals import deferred_stop
from ..core.units import format_duration, format_quantity
from ..data import Data, DataConfig, Info, Record, Split
from ..data.stream import CENTRE
from ..int8.imitation import Imitation
from ..kernels import choice
from ..methods import Base, Method, Outlook
from ..nets.net import Net
from ..nets.store import load_net, other_classes, save_net
from ..rundirs.folder import RunDir
from ..rundirs.result import CORRECT, ERROR, ROWS, TrainingResult
from ..tasks import Segment, Settings, Task, chosen
from . import memory
from .device import Runtime
from .length import Length, length_of
from .loop import Trainer, fit
from .provenance import SEVERAL, curves_of, like_sources, of_other_splits, warn_of_curves, warn_of_other_splits
from .quantised import (
    FLOAT,
    TABLE,
    Before,
    Deployed,
    imitation_of,
    read_before,
    scores_before,
    table_of,
    with_statistics,
    write_float,
)  # fmt: skip
from .recipe import Recipe
from .scoring import Scorer
from .skipped import note_skipped
from .start import inherited_from, names_of
from .teacher import Resolved, Teacher, resolve
from .timing import time_steps

SHOWN = 12  # validation images of which a detection keeps what was found


@dataclass(frozen=True)
class Job:
    """One training, fully specified before anything is written or loaded: network, method, length."""

    recipe: Recipe
    asked: Method  # as the recipe has it
    method: Method  # as prepared for this network and batch
    base: Base
    space: Space  # the trained Net covers it
    arch: Arch  # the base network in it
    length: Length
    inherit: Path | None = None  # the file with the weights to start from
    begun: bool = False  # whether it resumes from its own checkpoint, which holds all weights
    teacher: Resolved | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the Net that is trained."""
        return whole(self.space, self.base.plan.classes)

    def check_classes(self, data: Data) -> None:
        """Raises BadInput if the method fine-tunes a net that was trained on other classes."""
        if self.method.in_int8 and self.inherit is not None:
            reason = other_classes(self.inherit, self.plan.classes, "the net", data.classes)
            if reason:
                rule, remedy = f"fine-tunes a trained net, but {reason}", f"give {arg.method} netaug+qat"
                raise BadInput.of(field="method", value="qat", rule=rule, remedy=remedy)

    def check_trunk(self) -> None:
        """Raises BadInput if a trunk that is not trained as the head is does not suit the method, or has no weights."""
        trunk, factor = self.recipe.trunk, self.recipe.trunk_lr
        name = "trunk" if trunk != "train" else "trunk_lr"
        refused = partial(BadInput.of, field=name, value=getattr(self.recipe, name), apart=True)
        if (trunk != "train" or factor != 1) and (self.method.in_int8 or self.recipe.ends_in_int8):
            raise refused(rule="sets the trunk apart, but qat trains all layers alike", remedy="leave one of them out")
        if trunk != "train" and self.plan != self.base.plan:
            rule = "keeps trained weights, but this method trains a larger net, most of it fresh"
            raise refused(rule=rule, remedy=f"give {arg.method} baseline or gradaug")
        if trunk != "train" and self.inherit is None:
            remedy = "give init = RUN, the folder of a finished run, or torchvision:NAME"
            raise refused(rule="keeps trained weights, but this training starts from fresh ones", remedy=remedy)

    def check_teacher(self, read: Callable[[], Data]) -> None:
        """Raises BadInput if the teacher does not fit the data, which are only read if the check needs them."""
        if self.teacher is not None:
            self.teacher.check_classes(read)


def make_job(
    recipe: Recipe, method: Method, base: Base, *, images: int, runtime: Runtime, inherit: Path | None = None,
    teacher: Resolved | None = None,
) -> Job:  # fmt: skip
    """The job of training `base` by a method, which is prepared for this number of training images."""
    recipe = recipe.in_int8() if method.in_int8 else recipe
    if method.in_int8 and not runtime.ranks.alone:
        raise BadInput(f"qat trains in one process, but {runtime.ranks.count} were started; start it without torchrun")
    runtime.ranks.check_batch(min(recipe.batch, images))
    space, arch = method.space(base)
    prepared = method.prepare(space, arch, base.plan.classes, min(recipe.batch, images))

    def taught(views: Set[str]) -> float:
        return teacher.macs * recipe.teacher_passes(views) if teacher else 0.0

    if not runtime.accelerated:
        memory.check(whole(space, base.plan.classes), base.plan, min(recipe.batch, images) // runtime.ranks.count)
    length = length_of(recipe, prepared, space, arch, base.plan, images, not runtime.accelerated, taught)
    job = Job(recipe, method, prepared, base, space, arch, length, inherit, teacher=teacher)
    job.check_trunk()
    return job


def start_net(job: Job, classes: Sequence[str] | None = None) -> Net:
    """The initial net: fresh weights from the run's seed, or a slice of the inherited net, grown where the job's net is
    larger. The classifier is fresh if the inherited one is for other `classes` (None means only their number
    counts)."""
    recipe = job.recipe
    if job.inherit is None or job.begun:
        net = Net(job.plan, recipe.seed)
        if recipe.zero_init_residual:
            net.start_as_identities()
        return net
    source = load_net(job.inherit)
    if other_classes(job.inherit, job.plan.classes, "", classes):
        source = source.with_fresh_classifier(job.plan.classes, recipe.seed)
    if source.plan.holds(job.plan):
        return source.narrow(job.plan)
    if not source.plan.holds(job.base.plan):
        raise BadInput(f"{job.inherit} does not hold the net that is trained; restore it, or use {arg.from_scratch}")
    return source.narrow(job.base.plan).grow(job.plan, recipe.seed, recipe.zero_init_residual)


def start_of(found: ArchFile, job: Job, data: Data) -> tuple[str, str]:
    """The origin of the initial weights: its name in result.json, and a line for the user on what is inherited."""
    if job.inherit is None:
        return "scratch", "weights: fresh"
    whose = "the supernet" if job.inherit == found.supernet else "the net"
    told = f"weights: those of {whose} in {job.inherit}"
    reason = other_classes(job.inherit, job.plan.classes, whose, names_of(job.inherit, data))
    if reason:
        return "inherit trunk", f"{told}; classifier: fresh weights, since {reason}"
    return "inherit", told


def make_trainer(
    job: Job, data: Data, runtime: Runtime, scorer: Scorer, *, keep_best: bool = True, teacher: Teacher | None = None
) -> Trainer:
    """The trainer of a job. `teacher` is the job's if it has been loaded already."""
    if teacher is None and job.teacher is not None:
        teacher = job.teacher.ready(data, runtime, scorer)
    recipe, of_net = job.recipe, (cost(job.base.plan).macs, job.base.pruned)
    net = start_net(job, names_of(job.inherit, data))
    net = imitation_of(net, scorer) if job.method.in_int8 else net
    if recipe.trunk == "frozen":  # a slice, or a net at another resolution, has no statistics of its own
        net = with_statistics(net, scorer).train()
    views = dict(recipe.views)
    for name, view in recipe.views.items():
        driven = name == "train" and recipe.difficulty.policy == "drive"  # its magnitude may start at 0
        if view.policy == "randaugment" and not driven:
            views[name] = at_magnitude(view, view.magnitude.of_net(*of_net))
    return Trainer(
        net, job.method, job.space, job.arch, task=scorer.task, data=data, views=views,
        training=recipe, length=job.length, runtime=runtime, scorer=scorer, seed=recipe.seed,
        inherited=job.inherit is not None, keep_best=keep_best, noise=recipe.noise, teacher=teacher,
        transforms=recipe.transforms, difficulty=recipe.difficulty,
    )  # fmt: skip


def task_of(recipe: Recipe, info: Info) -> type[Task]:
    """The task that a recipe names, or that follows from the data. Raises BadInput if the two do not fit, or if the
    recipe uses classification features for a regression."""
    task = chosen(recipe.task, info)
    for name, view in recipe.views.items() if info.targets != "boxes" else ():
        for key, plain in (("iou_crop", 0.0), ("zoom_out", 1.0)):
            if (value := getattr(view, key)) != plain:
                rule, remedy = f"is for boxes, but {info.name} has {info.targets}", "leave it out"
                raise BadInput.of(field=f"views.{name}.{key}", value=value, rule=rule, remedy=remedy)
    if info.targets == "classes":
        return task
    has, remedy = f"{info.name} has {info.targets}, not classes", "leave it out"
    for name, view in recipe.views.items() if info.targets == "boxes" else ():
        for key, plain in (("policy", "none"), ("mixup", 0.0), ("cutmix", 0.0)):
            if (value := getattr(view, key)) != plain:
                rule = f"moves or mixes pixels without their boxes, and {info.name} has boxes"
                raise BadInput.of(field=f"views.{name}.{key}", value=value, rule=rule, remedy=remedy)
    if recipe.difficulty:
        asked = f"difficulty.policy = {recipe.difficulty.policy}"
        raise BadInput(f"{asked} uses the probability of an image's class, but {has}; {remedy}")
    if recipe.label_smoothing not in (0.0, Recipe().label_smoothing):
        raise BadInput(f"label_smoothing = {recipe.label_smoothing:g} needs classes, but {has}; {remedy}")
    if getattr(task, "two_stage", False):
        if recipe.teacher.source:
            rule, remedy = f"cannot teach task = {task.name}: two nets' proposals do not match", "leave it out"
            raise BadInput.of(field="teacher.source", value=recipe.teacher.source, rule=rule, remedy=remedy)
        if recipe.ends_in_int8:
            rule = f"trains for int8 models, and task = {task.name} has none"
            raise BadInput.of(field="method", value="qat", rule=rule, remedy="use another method")
    if recipe.teacher.source.startswith("torchvision:"):
        asked = f"teacher.source = {recipe.teacher.source}"
        raise BadInput(f"{asked} is a classifier, but {has}; give the folder of a run that was trained on them")
    return task


def make_scorer(recipe: Recipe, data: Data, runtime: Runtime, calibration: int | None = None) -> Scorer:
    t = recipe.teacher
    settings = Settings(recipe.label_smoothing, t.temperature, t.hard, t.soft, recipe.segment)
    task = chosen(recipe.task, data.info).of_data(data, settings)
    return Scorer(data, task, runtime, calibration or recipe.calibration_images, recipe.data.split_seed)


def train_to_end(trainer: Trainer, run: RunDir, title: str, checkpoint: str | None = None) -> None:
    """Train from the run's checkpoint, or from the start, to the end, with progress, log and checkpoints."""
    path = run.checkpoint_file if checkpoint is None else run.path / checkpoint
    if path.is_file():
        trainer.load(path)
        say(f"resumed {title} at step {trainer.step} of {trainer.length.steps}")
    run.rewind(title, step=trainer.step)
    length, last, metric = trainer.length, 0.0, trainer.task.metric
    with (
        _profiled(trainer, title), _tensorboard(run.path, trainer.step, title) as plot, deferred_stop() as pending,
        Progress(title, length.steps, begun=trainer.step, unit="images", per_step=length.batch) as bar,
    ):  # fmt: skip
        def on_epoch(row: dict) -> None:
            run.log("epoch", stage=title, **row)
            note_skipped(trainer.data, run, trainer.runtime.ranks)
            plot(row)
            val = f"validation {metric.label} {metric.show(row[metric.key('val')])}"
            say(f"{title}: epoch {row['epoch']} of {length.epochs:.4g}, {val}", detail=True)

        def tick(t: Trainer) -> None:
            nonlocal last
            if t.seconds - last > 0.5 or t.seconds < last or t.step == length.steps:
                last = t.seconds
                bar.update(t.step, **t.losses())

        if trainer.method.in_int8 and not trainer.step and not trainer.history:  # so as never to end worse than begun
            on_epoch(trainer.end_epoch())
            trainer.save(path)
        try:
            fit(trainer, pending, save=lambda: trainer.save(path), on_epoch=on_epoch, tick=tick)
        except Diverged as error:
            kept = f"; {path} keeps step {tensorfile.facts(path)['step']}" if path.is_file() else ""
            raise Diverged(f"{title}: {error.line}{kept}") from error


@contextlib.contextmanager
def _profiled(trainer: Trainer, title: str) -> Iterator[None]:
    """Report where the time of the training inside the block went, if its stages are timed."""
    step, started, before, batch = trainer.step, time.perf_counter(), _decoded(trainer.data), trainer.length.batch
    yield
    if not trainer.stages.on:
        return
    say(choice.told())
    say(f"{title}, where the time went ({batch} images per step):")
    say(trainer.stages.table((trainer.step - step) * batch, time.perf_counter() - started))
    images, seconds = (now - then for now, then in zip(_decoded(trainer.data), before, strict=True))
    if seconds:
        rate = f"{images / seconds:,.0f} per second and worker"
        say(f"decoding: {images:,} images, {rate}; load is the time spent waiting for them")


def _decoded(data: Data) -> tuple[int, float]:
    """Training images decoded from files so far, and the seconds that took, summed over all workers."""
    return (data.train.decoded, data.train.decoding) if data.streamed else (0, 0.0)


@contextlib.contextmanager
def _tensorboard(path: Path, step: int, title: str) -> Iterator[Callable[[dict], None]]:
    """A function that writes an epoch's figures for TensorBoard, if that extra is installed. Events after `step` are
    purged: they will be written again."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(path / "tensorboard"), purge_step=step + 1 if step else None)
    except ImportError:
        yield lambda row: None
        return
    except UnicodeEncodeError:
        say(f"no TensorBoard files are written, because TensorBoard accepts only folder names in UTF-8: {path}")
        yield lambda row: None
        return

    def plot(row: dict) -> None:
        for key, value in row.items():
            writer.add_scalar(f"{title}/{key}", value, row["step"])

    with contextlib.closing(writer):
        yield plot


def announce(trainer: Trainer, title: str, inputs: str) -> float:
    """Report how long the training will take, estimated from a few timed steps; returns seconds per step."""
    seconds = time_steps(trainer)
    if trainer.length.seconds:  # the number of steps follows from their duration, which is only known now
        epochs = trainer.length.seconds / seconds / trainer.length.steps_per_epoch
        trainer.length = replace(trainer.length, epochs=epochs)
    length = trainer.length
    whole = seconds * length.steps
    say(
        f"{title}: {inputs}; {length.epochs:.4g} epochs of {length.steps_per_epoch} steps, "
        f"{format_quantity(length.macs, 'macs')} MACs, about {format_duration(whole)} "
        f"({length.batch / seconds:.0f} images/s on {trainer.runtime.describe()})"
    )
    t = trainer.training
    most = t.most_epochs(len(trainer.data.train))
    if length.epochs < most and t.epochs == "auto" and t.stop == "epochs" and t.times == 1:
        longer = format_duration(whole * most / length.epochs)
        say(f"  {most} epochs would take {longer}: start with {arg.set} epochs={most}")
    return seconds


def outlook_of(
    job: Job, seconds_per_mac: float, images: int, runtime: Runtime, task: Task | None = None
) -> Outlook:  # fmt: skip
    """What is known about a training before it starts, for `Method.describe`; `images` is the number trained on."""
    length = job.length

    def instead(method: Method) -> Outlook:
        other = make_job(job.recipe, method, job.base, images=images, runtime=runtime, teacher=job.teacher)
        return outlook_of(other, seconds_per_mac, images, runtime, task)

    own, seconds = length.macs_per_image - length.teacher_macs, length.seconds or seconds_per_mac * length.macs
    aligned, moved = getattr(task, "aligned", True), getattr(task, "moved", "boxes")
    known = job.base, job.space, job.arch, job.asked, job.method, own, seconds, length.epochs, instead
    return Outlook(*known, aligned, moved)


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
    recipe, data = ready.recipe, ready.data
    scorer = make_scorer(recipe, data, ready.runtime)
    twice = recipe.ends_in_int8 and recipe.method != "qat"
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


def job_for(
    found: ArchFile, recipe: Recipe, runtime: Runtime, images: int, begun: bool = False,
    teacher: Resolved | None = None,
) -> Job:  # fmt: skip
    """The job of training an arch file's network by a recipe. Raises BadInput if the two do not fit.

    `begun`: resume from its checkpoint. `teacher` is the recipe's if it has been resolved already."""
    base, method = base_of(found), recipe.chosen_method()
    inherit = inherited_from(found, recipe.init, begun)
    if method.in_int8 and inherit is None and not begun:
        rule = f"fine-tunes a trained net, and {found.name} would start from fresh weights"
        remedy = f"give {arg.arch} the arch.json of a finished run, or train before, with {arg.method} netaug+qat"
        raise BadInput.of(field="method", value="qat", rule=rule, remedy=remedy)
    job = make_job(
        recipe, method, base, images=images, runtime=runtime, inherit=inherit,
        teacher=teacher or resolve(found, recipe.teacher),
    )  # fmt: skip
    return replace(job, begun=begun)


def base_of(found: ArchFile) -> Base:
    return Base(found.plan, found.space, found.arch, found.pruned, supernet=found.supernet is not None)


def preprocessing(data: Data, config: DataConfig) -> dict:
    """The preprocessing that images need before the network, for deployment."""
    central = CENTRE if data.streamed else 1.0  # side of the central crop, as a fraction of the image's shorter side
    return {
        "mean": list(data.mean), "std": list(data.std), "classes": list(data.classes), "central": central,
        "background": config.background,
    }  # fmt: skip


def load_data(
    recipe: Recipe, resolution: int, begun: Record | None = None, sources: Iterable[Path] = (),
    parent: Record | None = None,
) -> Data:  # fmt: skip
    """Load the recipe's data (streamed images at `resolution`) and report them in a line.

    A resumed run uses the splits that it has `begun` with. A new one follows, as far as possible, the splits of the
    weights it inherits (`sources`), so that no image they were trained on is used for validation or test. A training
    that is part of a job uses the splits of that `parent`."""
    like = None if begun or parent else like_sources(sources, recipe.data)
    masks = recipe.task == Segment.name
    data = datasets.load(recipe.data, size=resolution, begun=begun, parent=parent, like=like, masks=masks)
    say(data.told())
    return data
