"""Where the initial weights of a training come from: the recipe's `init`, found and checked before data are read."""

from __future__ import annotations

from pathlib import Path

from ..arch.archfile import ArchFile
from ..core import tensorfile
from ..core.errors import BadInput, arg
from ..data import Data
from ..nets import from_torchvision
from ..nets.from_torchvision import PREFIX
from ..nets.store import load_plan
from ..rundirs.result import finished_training
from ..tasks import Classify, Task

WORDS = ("auto", "inherit", "scratch")  # any other `init` names a run or torchvision's weights
CHOICES = f"{', '.join(WORDS)}, torchvision:NAME or the folder of a finished run"


def named(init: str) -> bool:
    """Whether `init` names weights of its own rather than those of the arch file, or fresh ones."""
    return init not in WORDS


def inherited_from(found: ArchFile, init: str, begun: bool = False) -> Path | None:
    """The file with the initial weights, or None for fresh ones. Raises BadInput if they are required but missing.

    A training that has `begun` resumes from its checkpoint and no longer needs the file."""
    if named(init):
        return _named_file(init, begun)
    if init == "scratch" or (init == "auto" and found.start is None):
        return None
    if found.start is None:
        raise BadInput(f"init = inherit: the arch {found.name} names no weights; leave it out, or give init=scratch")
    if not begun and not found.start.is_file():
        what = f"the model {found.weights}" if found.weights else f"the supernet {found.supernet}"
        raise BadInput(f"{what} that the arch file names is missing; restore it, or use {arg.from_scratch}")
    return found.start


def _named_file(init: str, begun: bool) -> Path:
    if init.startswith(PREFIX):
        return from_torchvision.weight_file(init, begun)
    if begun:
        return Path(init) / "model.safetensors"
    if not Path(init).is_dir():
        raise BadInput.of(field="init", value=init, rule="is no folder", remedy=f"give {CHOICES}", apart=True)
    return finished_training(init, argument=None, field="init").model_file


def check_start(found: ArchFile, init: str, task: type[Task]) -> None:
    """Raises BadInput if the initial weights do not hold the network, or were trained for a task whose trunk this one
    does not take: a classifier's serves every task, any other's only its own."""
    start = inherited_from(found, init)
    if start is None:
        return
    holds = load_plan(start).of_classes(found.plan.classes).holds(found.plan)
    if not named(init):
        if not holds:
            raise BadInput(f"{start} does not hold {found.name}; restore the right one, or use {arg.from_scratch}")
        return
    if init.startswith(PREFIX):
        equal = from_torchvision.plan_of(init).of_classes(found.plan.classes).at(found.plan.resolution)
        if equal != found.plan:
            rule = f"is {from_torchvision.equal_of(init)}, not {found.name}"
            remedy = f"give {arg.arch} {from_torchvision.equal_of(init)}"
            raise BadInput.of(field="init", value=init, rule=rule, remedy=remedy)
    theirs = tensorfile.facts(start).get("task", Classify.name)
    if theirs not in (Classify.name, task.name):
        rule = f"was trained to {theirs}, and these data are for task = {task.name}"
        raise BadInput.of(field="init", value=init, rule=rule, remedy=f"give a run of {task.name} or {Classify.name}")
    if not holds:
        rule, remedy = f"does not hold {found.name}", f"give {arg.arch} {Path(init) / 'arch.json'}"
        raise BadInput.of(field="init", value=init, rule=rule, remedy=remedy)


def names_of(start: Path | None, data: Data) -> tuple[str, ...] | None:
    """The classes that those of the initial weights are compared with; None: only their number is. torchvision names
    ImageNet's classes in words, in the order in which ImageNet's folders are sorted."""
    same = start is not None and data.name == from_torchvision.DATA
    return None if same and tensorfile.facts(start).get("data") == data.name else data.classes
