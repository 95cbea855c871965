"""`train` and `netaug-train`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .. import data as datasets
from ..arch import archfile
from ..arch.archfile import ArchFile
from ..config.layers import load
from ..core.errors import BadInput
from ..core.progress import say
from ..nets.store import inherited_from, load_plan, teacher_digest
from ..rundirs.folder import RunDir
from ..rundirs.result import TrainingResult, read_result
from .begin import at_path, begun_record, of_parent, refuse_existing, resumed, stopping, write_job
from .device import open_runtime
from .job import CHECKPOINT, job_for, load_data, run_training, task_of
from .provenance import of_other_splits, sources_of
from .recipe import CHANGE_NOTHING, Recipe
from .teaching import check_teacher, moved_teacher

BASE = "base.json"


@dataclass(frozen=True)
class Request:
    """What to train and how, beside the recipe; None: not given."""

    verb: str
    arch: str | None
    method: str | None
    from_scratch: bool
    resolution: int | None
    aug_compute: float | None = None

    @property
    def sets(self) -> dict:
        """What it says of the recipe, by key."""
        init = "scratch" if self.from_scratch else None
        return {"arm": self.method, "init": init, "netaug.aug_compute": self.aug_compute}


def command(request: Request, common) -> TrainingResult:
    """Check everything, open the run, train, and print where the result is; the run's result."""
    if common.resume:
        return _resume(request, common)
    if request.arch is None:
        raise BadInput(f"{request.verb} needs --arch: an arch file like found.json, or a named architecture")
    refuse_existing(common.run)
    recipe = common.settings(request.sets, arm=request.method, data=archfile.read(request.arch).facts.get("data"))
    if request.aug_compute and recipe.method != "netaug":
        rule = f"caps NetAug's augmented passes, and the method is {recipe.method}"
        raise BadInput(f"--aug-compute {request.aug_compute:g} {rule}; leave it out, or give --method netaug")
    runtime = open_runtime(common.device, recipe.bf16, common.profile)
    found = fitted(request, recipe)
    check(found, recipe, runtime)
    data = load_data(recipe, found.plan.resolution, of_parent(), sources_of(found, recipe).values())
    check_teacher(found, recipe, lambda: data)
    of_other_splits(found, recipe, data)  # refuses weights that were trained on test images
    with RunDir.create(request.verb, recipe, common.run) as run, stopping(request.verb, run):
        found.save(run.path / BASE)
        run.note(teacher=teacher_digest(recipe.teacher.source))
        write_job(run, request.verb, data.record)
        return _finish(found, recipe, runtime, run, data, request.verb)


def fitted(request: Request, recipe: Recipe) -> ArchFile:
    """The network made for the data's classes; a named one runs at the data's resolution unless told."""
    info, resolution = datasets.describe(recipe.data), request.resolution
    if resolution is None and not archfile.is_path(request.arch) and not info.streamed:
        resolution = info.size
        if not archfile.SMALLEST <= resolution <= archfile.LARGEST:
            rule = f"a network takes {archfile.SMALLEST} to {archfile.LARGEST} px"
            raise BadInput(f"the images of {recipe.data.name} have {resolution} px, and {rule}; give --resolution 32")
    return archfile.read(request.arch, resolution=resolution, classes=task_of(recipe, info).outputs(info))


def check(found: ArchFile, recipe: Recipe, runtime) -> None:
    """What can be refused before the data are read: the method's space, and the weights to start from."""
    start = inherited_from(found, recipe.init)
    if start is not None and not load_plan(start).of_classes(found.plan.classes).holds(found.plan):
        raise BadInput(f"{start} does not hold {found.name}; restore the right one, or use --from-scratch")
    job_for(found, recipe, runtime, recipe.batch)


def _resume(request: Request, common) -> TrainingResult:
    with resumed(request.verb, common, request) as (run, _, common, request):
        path = run.path
        found, begun = archfile.read(str(path / BASE)), path / "recipe.toml"
        recipe = load(begun, Recipe)
        recipe = common.settings(request.sets, arm=request.method, data=recipe.data.name, begun=begun)
        # before anything was trained, fresh weights are as good a start as those that may be missing now
        start = () if (path / CHECKPOINT).is_file() or run.finished else ("init",)
        teacher = moved_teacher(run.environment().get("teacher"), recipe)
        run.check_settings(recipe, (*CHANGE_NOTHING, *start, *teacher))
        recipe = recipe if run.finished else at_path(recipe, common.data)
        refuse_other_net(path, found, _asked_again(request, path / BASE, found, recipe), request, recipe)
        if run.finished:
            say(f"{path} is finished already")
            return read_result(run.path)
        runtime = open_runtime(common.device, recipe.bf16, common.profile)
        data = load_data(recipe, found.plan.resolution, begun_record(run, recipe))
        run.go_on_with(recipe)
        return _finish(found, recipe, runtime, run, data, request.verb)


def refuse_other_net(path: Path, found: ArchFile, now: ArchFile, asked, recipe: Recipe) -> None:
    """Raises BadInput where a run to resume trains another net than `now`, by what is asked or by data that changed."""
    if now.plan == found.plan:
        return
    trained = f"{path} trains {found.name} at {found.plan.resolution} px"
    if asked.arch is None and asked.resolution is None:
        changed = f"for {found.plan.classes} classes, and {recipe.data.name} has {now.plan.classes} now"
        raise BadInput(f"{trained} {changed}; give it the same again, or start anew")
    raise BadInput(f"{trained}, not what is asked; leave --arch and --resolution out, or start anew")


def _asked_again(request: Request, base: Path, found: ArchFile, recipe: Recipe) -> ArchFile:
    """The network that a request to resume names; what it leaves out is the run's own."""
    arch = str(base) if request.arch is None else request.arch
    px = found.plan.resolution if request.resolution is None else request.resolution
    return fitted(replace(request, arch=arch, resolution=px), recipe)


def _finish(found: ArchFile, recipe: Recipe, runtime, run: RunDir, data, verb: str) -> TrainingResult:
    result = run_training(found, recipe, runtime, run, data, verb)
    say(
        f"test {result.metric.label} {result.metric.show(result.test_score)} on {result.test_images} images "
        f"(validation {result.metric.show(result.val_score)}); model, arch and figures in {run.path}"
    )
    return result
