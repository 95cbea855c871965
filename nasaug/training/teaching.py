"""The teacher that a recipe names: a run's net, the largest net of a supernet, or a model of torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import torch

from .. import data as datasets
from ..arch.archfile import ArchFile
from ..arch.cost import cost, cost_of, sample_near
from ..arch.plan import Plan, plan
from ..core import tensorfile
from ..core.errors import BadInput, told_by, unknown
from ..data import Data
from ..nets.net import Net
from ..nets.store import listed, load_net, load_plan, model_file, other_classes, teacher_digest
from ..tasks import Settings, chosen
from .device import Runtime
from .recipe import Recipe
from .scoring import Scorer
from .teacher import Teacher, TeacherConfig, renormalised


def teacher_macs(found: ArchFile, config: TeacherConfig) -> int:
    """MACs of one image's pass through the recipe's teacher, 0 without one. Raises BadInput for one that is absent or
    does not fit, as far as can be told without the data."""
    here = f"teacher.source = {config.source}"
    if not config.source:
        return 0
    if config.source == "supernet":
        return cost(checked_subnet(found, config)).macs
    if config.source.startswith("torchvision:"):
        return torchvision_macs(torchvision_weights(config.source, found.plan.classes), found.plan.resolution)
    net, _ = finished_net(config.source)
    theirs, ours = (f"{p.classes} classes at {p.resolution} px" for p in (net.plan, found.plan))
    if theirs != ours:
        raise BadInput(f"{here} tells {theirs}, {found.name} {ours}; give a teacher of the same")
    return cost(net.plan).macs


def teacher_of(found: ArchFile, recipe: Recipe, data: Data, runtime: Runtime, scorer: Scorer) -> Teacher | None:
    """The recipe's teacher, ready; None where it names none. Raises BadInput where it does not fit."""
    config, own = recipe.teacher, (tuple(data.mean), tuple(data.std))
    macs = teacher_macs(found, config)
    if not config.source:
        return None
    check_teacher(found, recipe, lambda: data)
    if config.source == "supernet":
        net = scorer.calibrated(load_net(found.supernet).to(runtime.device), larger_subnet(found, config.macs))
        return renormalised(net, macs, runtime.device, own, own)
    if config.source.startswith("torchvision:"):
        return torchvision_teacher(config.source, found.plan, data, runtime)
    net, facts = finished_net(config.source)
    if not net.has_statistics:  # a supernet of averaged weights
        net = scorer.calibrated(net.to(runtime.device), net.plan)
    theirs = (tuple(facts.get("mean", data.mean)), tuple(facts.get("std", data.std)))
    return renormalised(net, macs, runtime.device, own, theirs)


def check_teacher(found: ArchFile, recipe: Recipe, read: Callable[[], Data]) -> None:
    """Raises BadInput where the recipe's teacher is a net of nasaug's that tells other classes apart; only the data,
    which are read where that has to be known, say their names."""
    source = recipe.teacher.source
    if not source or source.startswith("torchvision:"):
        return
    data, path = read(), found.supernet if source == "supernet" else model_file(source)
    ours, theirs = list(data.classes), list(tensorfile.facts(path).get("classes", data.classes))
    if ours != theirs:
        what = f"teacher.source = {source} tells the classes {listed(theirs)} apart, {data.name} has {listed(ours)}"
        raise BadInput(f"{what}; give a teacher that was trained on the same")
    if data.targets != "classes":
        ours = chosen(recipe.task, data.info).of_data(data, Settings()).facts
        theirs = {key: tensorfile.facts(path).get(key) for key in ours}
        if ours != theirs:
            what = f"teacher.source = {source} was trained on other images, so its outputs mean other {data.targets}"
            raise BadInput(f"{what}; give a teacher that was trained on the training images of this one")


def finished_net(source: str) -> tuple[Net, dict]:
    """The net of a run's folder or of a model's file, and what is said of its images. Raises BadInput."""
    path = model_file(source)
    return load_net(path), tensorfile.facts(path)


def moved_teacher(noted: str | None, recipe: Recipe) -> tuple[str, ...]:
    """The key by which a resumed run may name its teacher anew: where that is the same, by the digest noted of it."""
    return ("teacher.source",) if noted and noted == teacher_digest(recipe.teacher.source) else ()


def checked_subnet(found: ArchFile, config: TeacherConfig) -> Plan:
    """The `larger_subnet` that teaches. Raises BadInput where its supernet is absent, broken or of other nets."""
    here, px = f"teacher.source = {config.source}", found.plan.resolution
    if found.supernet is None:
        raise BadInput(f"{here}: {found.name} names no supernet; give a finished run's folder")
    if not found.supernet.is_file():
        missing = f"the supernet {found.supernet} that {found.name} names is missing"
        raise BadInput(f"{here}: {missing}; restore it, or start anew with a finished run's folder")
    differs = other_classes(found.supernet, found.plan.classes, "the supernet")
    if differs:
        raise BadInput(f"{here}: {differs}; give the folder of a run that was trained on them")
    if found.space is None:
        rule = f"{found.name} at {px} px has no place in the space that it was found in"
        raise BadInput(f"{here}: {rule}; leave --resolution out, or give the folder of a run at {px} px")
    larger = larger_subnet(found, config.macs)
    if not load_plan(found.supernet).holds(larger):
        rule = f"{found.supernet} does not hold the nets of the space that {found.name} was found in"
        raise BadInput(f"{here}: {rule}; restore the right one, or give a finished run's folder")
    return larger


def larger_subnet(found: ArchFile, macs: float) -> Plan:
    """The largest net of a found net's space, at its resolution; where `macs` is given, the largest drawn within."""
    space, classes, px = found.space, found.plan.classes, found.plan.resolution
    if "resolution" in space.index:
        space = space.trimmed({"resolution": (px,)})
    if not macs:
        return plan(space, space.largest, classes)
    rng = Random("teacher")
    drawn = (sample_near(space, rng, 0.8 * macs, macs, classes) for _ in range(200))
    fits = [arch for arch in drawn if cost_of(space, arch, classes).macs <= macs]
    if not fits:
        raise BadInput(f"teacher.macs = {macs:g}: no net of space {space.name} at {px} px has as few; give more, or 0")
    return plan(space, max(fits, key=lambda arch: cost_of(space, arch, classes).macs), classes)


def torchvision_weights(source: str, classes: int):
    """The default weights of torchvision:NAME. Raises BadInput where there are none, or for other classes."""
    import torchvision

    name = source.partition(":")[2]
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    theirs = len(weights.meta["categories"])
    if theirs != classes:
        rule = f"tells {theirs} classes apart, not the {classes} of these data"
        raise BadInput(f"teacher.source = {source} {rule}; give the folder of a run that was trained on them")
    return weights


def torchvision_macs(weights, resolution: int) -> int:
    """What torchvision counted at the weights' own resolution, in proportion to the pixels."""
    return round(1e9 * weights.meta["_ops"] * (resolution / weights.transforms().crop_size[0]) ** 2)


def torchvision_teacher(source: str, base: Plan, data: Data, runtime: Runtime) -> Teacher:
    """A model of torchvision's with its default weights, downloaded where they are not there yet."""
    import torchvision

    weights, here = torchvision_weights(source, base.classes), f"teacher.source = {source}"
    if torch.hub.get_dir().startswith("~"):  # else torch makes a folder of that name
        raise BadInput(f"{here}: there is no home folder to keep its weights in; name a folder by TORCH_HOME")
    try:
        net = torchvision.models.get_model(source.partition(":")[2], weights=weights).eval()
    except Exception as error:  # no network, or a damaged file: torch has a kind of error for each
        folder = Path(torch.hub.get_dir(), "checkpoints")
        remedy = f"put {weights.url} into {folder}, or give another teacher"
        raise BadInput(f"{here}: its weights cannot be had ({told_by(error)}); {remedy}") from None
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, base.resolution, base.resolution))
    except Exception as error:  # whatever a model of torchvision's says of a size that it is not made for
        told = f"{here} takes no images of {base.resolution} px ({told_by(error)})"
        raise BadInput(f"{told}; give another teacher") from None
    ours, theirs = (tuple(data.mean), tuple(data.std)), (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD)
    return renormalised(net, torchvision_macs(weights, base.resolution), runtime.device, ours, theirs)
