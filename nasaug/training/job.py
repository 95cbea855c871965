"""One training, specified: its job, its initial weights, its trainer, and what is known of it before it starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .. import data as datasets
from ..arch.archfile import ArchFile
from ..arch.cost import cost
from ..arch.plan import Plan, whole
from ..arch.space import Arch, Space
from ..augment import at_magnitude
from ..core.errors import BadInput, arg
from ..core.progress import expect, say
from ..core.units import counted, format_duration, format_quantity
from ..data import Data, DataConfig, Info, Record
from ..data.stream import CENTRE
from ..methods import Base, Method, Outlook
from ..nets.net import Net
from ..nets.store import load_net, other_classes
from ..tasks import Segment, Settings, Task, chosen
from . import memory
from .device import Runtime
from .length import Length, length_of
from .loop import Trainer
from .provenance import like_sources
from .quantised import imitation_of, with_statistics
from .recipe import Recipe
from .scoring import Scorer
from .start import inherited_from, names_of
from .teacher import Resolved, Teacher, resolve
from .timing import time_steps


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
    told = f"weights: those of {whose} in {os.path.normpath(job.inherit)}"
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
        for key, plain in (("iou_crop", 0.0), ("zoom_out", 1.0), ("scale_jitter", 1.0)):
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


def announce(trainer: Trainer, title: str, inputs: str) -> float:
    """Report how long the training will take, estimated from a few timed steps; returns seconds per step."""
    seconds = time_steps(trainer)
    if trainer.length.seconds:  # the number of steps follows from their duration, which is only known now
        epochs = trainer.length.seconds / seconds / trainer.length.steps_per_epoch
        trainer.length = replace(trainer.length, epochs=epochs)
    length = trainer.length
    whole = seconds * length.steps
    expect(title, whole)
    say(
        f"{title}: {inputs}; {counted(length.epochs, 'epoch')} of {counted(length.steps_per_epoch, 'step')}, "
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
    known = job.base, job.space, job.arch, job.asked, job.method, own, seconds, length.epochs, images, instead
    return Outlook(*known, aligned, moved)


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
