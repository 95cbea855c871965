"""Teachers: trained networks whose soft output on a view is an additional target of every pass on that view. A teacher
is a run's net, the largest net of a supernet, or a torchvision model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from .. import data as datasets
from ..arch.archfile import ArchFile
from ..arch.cost import cost, cost_of, sample_near
from ..arch.plan import Plan, plan
from ..core import tensorfile
from ..core.checked import NotNegative, Positive, checked
from ..core.errors import BadInput, arg, told_by, unknown
from ..data import Data
from ..nets.from_torchvision import pretrained
from ..nets.store import listed, load_net, load_plan, model_file, other_classes, teacher_digest
from ..tasks import Settings, chosen
from .device import Runtime, out_of_memory
from .scoring import Scorer


@checked("teacher")
class TeacherConfig:
    """The recipe's `[teacher]` table (Hinton et al. 2015). Searches do not support teachers."""

    source: str = ""
    """A run's folder or a model file written by nasaug; "supernet": the largest net of the arch's supernet;
    torchvision:NAME, like torchvision:resnet18; empty: no teacher."""
    macs: NotNegative = 0.0
    """For "supernet": use the largest net found with at most these MACs; 0: the largest of all."""
    temperature: Positive = 1.0
    """Divides the logits of teacher and net before they are matched."""
    hard: NotNegative = 1.0
    """Weight of the cross-entropy with the labels."""
    soft: NotNegative = 1.0
    """Weight of the teacher's soft target, multiplied by temperature squared."""

    def __post_init__(self):
        if self.macs and self.source != "supernet":
            rule = f'applies to teacher.source = "supernet", not to {self.source!r}'
            raise BadInput.of(field="teacher.macs", value=self.macs, rule=rule, remedy="leave it out")


@dataclass(frozen=True)
class Teacher:
    """`net` in evaluation mode and its MACs per image. `scale` and `shift` [3] convert this data set's normalisation to
    that of the teacher's training; None if they are the same."""

    net: nn.Module
    macs: int
    scale: Tensor | None = None
    shift: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Logits [n, classes] for a view [n, 3, h, w]."""
        if self.scale is not None:
            x = torch.addcmul(self.shift.view(1, 3, 1, 1), x, self.scale.view(1, 3, 1, 1))
        return self.net(x)


def renormalised(net: nn.Module, macs: int, device: torch.device, given: tuple, wanted: tuple) -> Teacher:
    """A teacher trained with normalisation `wanted`, a (mean, std) pair, for views normalised with `given`."""
    net = net.to(device).eval()
    if given == wanted:
        return Teacher(net, macs)
    (mean, std), (other_mean, other_std) = (torch.tensor(pair, dtype=torch.float32) for pair in (given, wanted))
    return Teacher(net, macs, (std / other_std).to(device), ((mean - other_mean) / other_std).to(device))


@dataclass(frozen=True)
class Resolved:
    """The teacher named in a recipe, located and validated as far as possible without the data."""

    source: str
    macs: int
    """Forward MACs per image."""
    make: Callable[[Data, Runtime, Scorer], Teacher]
    path: Path | None = None
    """Its model file, if it is a net of nasaug's."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What that file says of it, like the names of its classes."""

    def check_classes(self, read: Callable[[], Data]) -> None:
        """Raises BadInput if a net of nasaug's was trained on other classes. `read` loads the data, for their class
        names; it is only called for such nets."""
        if self.path is None:
            return
        data = read()
        theirs, ours = self.facts.get("classes"), list(data.classes)
        if theirs is not None and list(theirs) != ours:
            apart = f"was trained on the classes {listed(theirs)}, but {data.name} has {listed(ours)}"
            raise _refused(self.source, apart, "give a teacher that was trained on the same")
        if data.targets != "classes":
            scale = chosen("auto", data.info).of_data(data, Settings()).facts
            if {key: self.facts.get(key) for key in scale} != scale:
                what = f"was trained on other images, so its outputs mean other {data.targets}"
                remedy = "give a teacher that was trained on the training images of this one"
                raise _refused(self.source, what, remedy)

    def ready(self, data: Data, runtime: Runtime, scorer: Scorer) -> Teacher:
        """The teacher, on the device. Raises BadInput if it does not fit the data."""
        self.check_classes(lambda: data)
        return self.make(data, runtime, scorer)


def _refused(source: str, rule: str, remedy: str) -> BadInput:
    return BadInput.of(field="teacher.source", value=source, rule=rule, remedy=remedy, apart=True)


def resolve(found: ArchFile, config: TeacherConfig) -> Resolved | None:
    """The recipe's teacher for this network; None if the recipe has none. Raises BadInput if the teacher is missing or
    does not fit, as far as that can be checked without the data.

    This loads the teacher's net if it is a run's, so callers should pass the result on instead of resolving again."""
    if not config.source:
        return None
    if config.source == "supernet":
        return _supernet(found, config)
    if config.source.startswith("torchvision:"):
        return _torchvision(found, config.source)
    return _finished(found, config.source)


def _supernet(found: ArchFile, config: TeacherConfig) -> Resolved:
    larger = checked_subnet(found, config)

    def make(data: Data, runtime: Runtime, scorer: Scorer) -> Teacher:
        net = scorer.calibrated(load_net(found.supernet).to(runtime.device), larger)
        return renormalised(net, cost(larger).macs, runtime.device, _normalisation(data), _normalisation(data))

    return Resolved(config.source, cost(larger).macs, make, found.supernet, tensorfile.facts(found.supernet))


def _finished(found: ArchFile, source: str) -> Resolved:
    """A net from a run's folder or a model file."""
    path = model_file(source)
    net, facts = load_net(path), tensorfile.facts(path)
    theirs, ours = (f"{p.classes} classes at {p.resolution} px" for p in (net.plan, found.plan))
    if theirs != ours:
        rule = f"has {theirs}, but {found.name} has {ours}"
        raise _refused(source, rule, "give a teacher with the same classes and resolution")

    def make(data: Data, runtime: Runtime, scorer: Scorer) -> Teacher:
        ready = net.to(runtime.device)
        if not net.has_statistics:  # a supernet of averaged weights
            ready = scorer.calibrated(ready, net.plan)
        wanted = tuple(facts.get("mean", data.mean)), tuple(facts.get("std", data.std))
        return renormalised(ready, cost(net.plan).macs, runtime.device, _normalisation(data), wanted)

    return Resolved(source, cost(net.plan).macs, make, path, facts)


def _torchvision(found: ArchFile, source: str) -> Resolved:
    macs = torchvision_macs(torchvision_weights(source, found.plan.classes), found.plan.resolution)
    return Resolved(source, macs, lambda data, runtime, _: torchvision_teacher(source, found.plan, data, runtime))


def _normalisation(data: Data) -> tuple[tuple, tuple]:
    return tuple(data.mean), tuple(data.std)


def moved_teacher(noted: str | None, config: TeacherConfig) -> tuple[str, ...]:
    """The recipe keys that may differ on resuming: teacher.source, if the teacher at its new path has the digest that
    was `noted` when the run started."""
    return ("teacher.source",) if noted and noted == teacher_digest(config.source) else ()


def checked_subnet(found: ArchFile, config: TeacherConfig) -> Plan:
    """The `larger_subnet` used as the teacher. Raises BadInput if its supernet is missing, broken or does not fit."""
    px, refused = found.plan.resolution, partial(_refused, config.source)
    if found.supernet is None:
        raise refused(f": {found.name} names no supernet", "give a finished run's folder")
    if not found.supernet.is_file():
        missing = f"the supernet {found.supernet} that {found.name} names is missing"
        raise refused(f": {missing}", "restore it, or start anew with a finished run's folder")
    differs = other_classes(found.supernet, found.plan.classes, "the supernet")
    if differs:
        raise refused(f": {differs}", "give the folder of a run that was trained on them")
    if found.space is None:
        rule = f": {found.name} at {px} px is not part of the space that it was found in"
        raise refused(rule, f"leave {arg.resolution} out, or give the folder of a run at {px} px")
    larger = larger_subnet(found, config.macs or tensorfile.facts(found.supernet).get("most", 0.0))
    if not load_plan(found.supernet).holds(larger):
        rule = f": {found.supernet} does not hold the nets of the space that {found.name} was found in"
        raise refused(rule, "restore the right one, or give a finished run's folder")
    return larger


def larger_subnet(found: ArchFile, macs: float) -> Plan:
    """The largest net of a found net's space at its resolution; given `macs`, the largest of 200 samples within it."""
    space, classes, px = found.space, found.plan.classes, found.plan.resolution
    if "resolution" in space.index:
        space = space.trimmed({"resolution": (px,)})
    if not macs:
        return plan(space, space.largest, classes)
    rng = Random("teacher")
    drawn = (sample_near(space, rng, 0.8 * macs, macs, classes) for _ in range(200))
    fits = [arch for arch in drawn if cost_of(space, arch, classes).macs <= macs]
    if not fits:
        rule = f": no net of space {space.name} at {px} px is that small"
        raise BadInput.of(field="teacher.macs", value=macs, rule=rule, remedy="give more, or 0", apart=True)
    return plan(space, max(fits, key=lambda arch: cost_of(space, arch, classes).macs), classes)


def torchvision_weights(source: str, classes: int):
    """The default weights of torchvision:NAME. Raises BadInput if the name is unknown or the number of classes
    differs."""
    import torchvision

    name = source.partition(":")[2]
    known = torchvision.models.list_models(torchvision.models)
    if name not in known:
        raise unknown("torchvision model", name, known, field="teacher.source")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    theirs = len(weights.meta["categories"])
    if theirs != classes:
        rule = f"has {theirs} classes, not the {classes} of these data"
        raise _refused(source, rule, "give the folder of a run that was trained on them")
    return weights


def torchvision_macs(weights, resolution: int) -> int:
    """torchvision's MAC count for the weights' own resolution, scaled by the number of pixels."""
    return round(1e9 * weights.meta["_ops"] * (resolution / weights.transforms().crop_size[0]) ** 2)


def torchvision_teacher(source: str, base: Plan, data: Data, runtime: Runtime) -> Teacher:
    """A torchvision model with its default weights, which are downloaded unless they are cached."""
    weights, refused = torchvision_weights(source, base.classes), partial(_refused, source)
    net = pretrained(source.partition(":")[2], weights, refused)
    try:
        with torch.inference_mode():
            net(torch.zeros(1, 3, base.resolution, base.resolution))
    except (AssertionError, RuntimeError, ValueError) as error:  # what models raise for unsupported sizes
        if out_of_memory(error):
            raise
        rule = f"does not accept images of {base.resolution} px ({told_by(error)})"
        raise refused(rule, "give another teacher") from error
    ours, theirs = (tuple(data.mean), tuple(data.std)), (datasets.IMAGENET_MEAN, datasets.IMAGENET_STD)
    return renormalised(net, torchvision_macs(weights, base.resolution), runtime.device, ours, theirs)
