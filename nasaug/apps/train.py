"""`train` and `netaug-train`."""

from __future__ import annotations

from pathlib import Path

from .. import archfile
from .. import data as datasets
from ..archfile import ArchFile
from ..errors import BadInput, unknown
from ..methods import METHODS
from ..recipe import load
from ..rundir import RunDir
from ..runtime import open_runtime
from ..settings import Recipe
from ..train import inherited_from, job_for, load_data, load_net, run_training, say
from .begin import read_job, refuse_existing, run_to_resume, stopping, write_job

BASE = "base.json"


def command(verb: str, common, arch: str | None, method: str | None, from_scratch: bool, resolution: int | None) -> dict:
    """Check everything, open the run, train, and print where the result is."""
    if common.resume:
        return _resume(verb, common, arch)
    if arch is None:
        raise BadInput(f"{verb} needs --arch: an arch file such as found.json, or a named architecture")
    if method is not None and method not in METHODS:
        raise unknown("--method", method, METHODS)
    refuse_existing(common.run)
    found = archfile.read(arch)
    sets = (f"method={method}",) * (method is not None) + ("init=scratch",) * from_scratch
    recipe = common.settings(sets=sets, data=found.facts.get("data"))
    runtime = open_runtime(common.device, recipe.bf16)
    found = fitted(arch, recipe, resolution)
    check(found, recipe, runtime)
    data = load_data(recipe, found.plan.resolution)
    with RunDir.create(verb, recipe, common.run) as run, stopping(verb, run):
        write_job(run, verb)
        found.save(run.path / BASE)
        return _finish(found, recipe, runtime, run, data, verb)


def fitted(arch: str, recipe: Recipe, resolution: int | None) -> ArchFile:
    """The network made for the data's classes; a named one runs at the data's resolution unless told."""
    info = datasets.describe(recipe.data)
    named = not (Path(arch).is_file() or arch.endswith(".json"))
    if resolution is None and named and not info.streamed:
        resolution = info.size
    if resolution is not None and not 8 <= resolution <= 1024:
        raise BadInput(f"--resolution {resolution} must be 8 to 1024 px")
    return archfile.read(arch, resolution=resolution, classes=info.classes)


def check(found: ArchFile, recipe: Recipe, runtime) -> None:
    """What can be refused before the data are read: the method's space, and the supernet to inherit from."""
    supernet = inherited_from(found, recipe)
    if supernet is not None and not load_net(supernet).plan.holds(found.plan):
        raise BadInput(f"{supernet} does not contain {found.name}; restore the right one, or use --from-scratch")
    job_for(found, recipe, runtime, recipe.batch)


def _resume(verb: str, common, arch: str | None) -> dict:
    path = run_to_resume(verb, common.run)
    with RunDir.resume(path) as run, stopping(verb, run):
        read_job(path, verb)
        found = archfile.read(str(path / BASE))
        recipe = load(path / "recipe.toml", Recipe)
        if arch is not None and archfile.read(arch, classes=found.plan.classes).plan != found.plan:
            raise BadInput(f"--arch {arch} is not what {path} trains; leave --arch out, or start a new run")
        if common.data or common.recipe or common.set or common.seed is not None:
            run.check_settings(common.settings(sets=(f"method={recipe.method}", f"init={recipe.init}")))
        if run.finished:
            say(f"{path} is finished already")
            return run.result()
        runtime = open_runtime(common.device, recipe.bf16)
        return _finish(found, recipe, runtime, run, load_data(recipe, found.plan.resolution), verb)


def _finish(found: ArchFile, recipe: Recipe, runtime, run: RunDir, data, verb: str) -> dict:
    result = run_training(found, recipe, runtime, run, data, verb)
    say(
        f"test top-1 {result['test_top1']:.2f} % on {result['test_images']} images "
        f"(validation {result['val_top1']:.2f} %); model, arch and figures in {run.path}"
    )
    return result
