"""`train` and `netaug-train`: one network trained by one method."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data as datasets
from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import load
from ..core.errors import BadInput, arg
from ..core.progress import Listener, heard_by, say
from ..int8.onnxfile import need_onnx
from ..nets.store import teacher_digest
from ..rundirs.folder import RunDir
from ..rundirs.job import verb_of
from ..rundirs.result import TrainingResult, read_result
from ..tasks import Segment
from .begin import at_path, begun_record, create_or_resume, of_parent
from .device import Runtime, open_runtime
from .job import Job, job_for, load_data, task_of
from .options import Options
from .provenance import of_other_splits, sources_of
from .recipe import CHANGE_NOTHING, Recipe
from .start import check_start
from .teacher import moved_teacher
from .whole import Ready, run_training

CAP = "netaug.aug_compute"  # the recipe key of the argument `aug_compute`


def train(
    arch: str | os.PathLike[str] | None = None, *, method: str | None = None, from_scratch: bool = False,
    resolution: int | None = None, aug_compute: float | None = None, data_fraction: float | None = None,
    shots: int | None = None, data: str | Path | None = None, recipe: str | Path | None = None,
    set: Mapping[str, object] | Sequence[str] = (), seed: int | None = None, device: str = "auto",
    run: str | Path | None = None, resume: bool = False, on_event: Listener | None = None,
) -> TrainingResult:  # fmt: skip
    """Train one network and evaluate it once on the test images. Returns the finished run.

    Args:
        arch: an arch file's path (found.json), a named architecture, or what `nasaug.search` found.
        method: baseline, netaug, gradaug, qat or any arm of `compare`, several joined by +; None means the recipe's.
            qat fine-tunes a trained net in int8, netaug+qat does so after NetAug.
        from_scratch: start from fresh weights, not from the weights named in the arch file.
        resolution: image size in px; None means the arch file's, or the data's for a named architecture.
        aug_compute: cap on the cost of NetAug's augmented passes, in multiples of the base's MACs; 0: no cap.
        data_fraction, shots: train on this share of the training images, or on so many of each class.
        data, recipe, set, seed, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping. A
            run to resume may be one of `netaug-train` too.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput, RunFault, or Stopped if a signal ends the run.
    """
    options = Options.of(data, recipe, set, seed, device, run, resume)
    path = None if arch is None else archfile.path_of(arch)
    begun = verb_of(options.run) if resume and options.run else None
    verb = "netaug-train" if begun == "netaug-train" else "train"
    job = TrainJob(verb, path, method, from_scratch, resolution, aug_compute, data_fraction, shots, options)
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class TrainJob:
    """What to train and how; None means not given."""

    verb: str
    arch: str | None = None
    method: str | None = None
    from_scratch: bool = False
    resolution: int | None = None
    aug_compute: float | None = None
    data_fraction: float | None = None
    shots: int | None = None
    options: Options = Options()
    extends, together = False, True

    @property
    def sets(self) -> dict[str, object]:
        """The recipe keys that the job's own fields set."""
        little = {"data.fraction": self.data_fraction, "data.shots": self.shots}
        return {"arm": self.method, "init": self.init, CAP: self.aug_compute, **little}

    @property
    def init(self) -> str | None:
        return "scratch" if self.from_scratch else None

    def default_recipe(self) -> str | None:
        """The recipe if none is given; None: the one of the data."""
        return None

    def prepare(self) -> Ready:
        if self.arch is None:
            raise BadInput(f"{self.verb} needs {arg.arch}: an arch file like found.json, or a named architecture")
        of_arch = archfile.read(self.arch).facts.get("data")
        recipe = self.options.settings(self.sets, arm=self.method, data=of_arch, default=self.default_recipe())
        method = CAP.partition(".")[0]
        if self.aug_compute and recipe.method != method:
            rule = f"caps NetAug's augmented passes, but the method is {recipe.method}"
            remedy = f"leave it out, or give {arg.method} {method}"
            raise BadInput.of(argument="aug_compute", value=self.aug_compute, rule=rule, remedy=remedy)
        runtime = open_runtime(self.options.device, recipe.bf16, self.options.profile)
        found = fitted(self.arch, self.resolution, recipe)
        job = check(found, recipe, runtime)
        data = load_data(recipe, found.plan.resolution, None, sources_of(found, recipe).values(), of_parent())
        job.check_teacher(lambda: data)
        job.check_classes(data)
        others = of_other_splits(found, recipe, data)  # raises for weights that were trained on test images
        return Ready(found, recipe, runtime, data, job.teacher, others)

    def write(self, run: RunDir, ready: Ready) -> dict[str, Any]:
        ready.found.save(run.base_file)
        run.note(teacher=teacher_digest(ready.recipe.teacher.source))
        return {}

    def restore(self, run: RunDir, kept: dict[str, Any]) -> Ready | None:
        found, options = archfile.read(str(run.base_file)), self.options
        recipe = load(run.recipe_file, Recipe)
        recipe = options.settings(self.sets, arm=self.method, data=recipe.data.name, default=run.recipe_file)
        # before the first checkpoint, `init` may change: the weights to start from may be missing by now
        start = () if run.checkpoint_file.is_file() or run.finished else ("init",)
        teacher = moved_teacher(run.environment().get("teacher"), recipe.teacher)
        run.check_settings(recipe, (*CHANGE_NOTHING, *start, *teacher))
        recipe = recipe if run.finished else at_path(recipe, options.data)
        refuse_other_net(run, found, self.arch, self.resolution, recipe)
        if run.finished:
            return None
        runtime = open_runtime(options.device, recipe.bf16, options.profile)
        data = load_data(recipe, found.plan.resolution, begun_record(run, recipe))
        run.go_on_with(recipe)
        return Ready(found, recipe, runtime, data)

    def carry_out(self, run: RunDir, ready: Ready) -> None:
        result = run_training(ready, run, self.verb)
        say(f"{result}; model, arch and figures in {run.path}")

    def result(self, run: RunDir) -> TrainingResult:
        return read_result(run.path)


def fitted(arch: str, resolution: int | None, recipe: Recipe) -> ArchFile:
    """The network with one output per class of the data; a named one uses the data's resolution unless one is given.

    Raises BadInput if the images' size is outside the range that networks support."""
    info = datasets.describe(recipe.data)
    if resolution is None and not archfile.is_path(arch) and not info.streamed:
        resolution = info.size
        if not archfile.SMALLEST <= resolution <= archfile.LARGEST:
            rule = f"a network takes {archfile.SMALLEST} to {archfile.LARGEST} px"
            raise BadInput(
                f"the images of {recipe.data.name} have {resolution} px, but {rule}; "
                f"give {arg.resolution} 32"
            )
    task = task_of(recipe, info)
    outputs = task.outputs(info, recipe.segment) if issubclass(task, Segment) else task.outputs(info)
    return archfile.read(arch, resolution=resolution, classes=outputs)


def check(found: ArchFile, recipe: Recipe, runtime: Runtime) -> Job:
    """Validate, before the data are read, the method's space, the initial weights and the teacher.

    The job returned assumes one batch of training images, because their number is not known yet."""
    if recipe.ends_in_int8:
        need_onnx(f"{arg.method} qat", "onnxruntime")
    check_start(found, recipe.init, task_of(recipe, datasets.describe(recipe.data)))
    return job_for(found, recipe, runtime, recipe.batch)


def refuse_other_net(run: RunDir, found: ArchFile, arch: str | None, resolution: int | None, recipe: Recipe) -> None:
    """Raises BadInput if a run to resume trains a different network from the one now requested (None means its own) or
    the one that its data, which may have changed, require."""
    px = found.plan.resolution if resolution is None else resolution
    now = fitted(str(run.base_file) if arch is None else arch, px, recipe)
    if now.plan == found.plan:
        return
    trained = f"{run.path} trains {found.name} at {found.plan.resolution} px"
    if arch is None and resolution is None:
        changed = f"for {found.plan.classes} classes, and {recipe.data.name} has {now.plan.classes} now"
        raise BadInput(f"{trained} {changed}; give it the same classes again, or start anew")
    raise BadInput(f"{trained}, not what was asked for; leave {arg.arch} and {arg.resolution} out, or start anew")
