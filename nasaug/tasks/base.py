"""The interface of a task: the network's head, its data, its loss and its metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

from torch import Tensor

from ..arch.plan import Outputs
from ..core.errors import BadInput, unknown
from ..core.metric import Metric
from ..data import Data, Info

__all__ = ["TASKS", "Metric", "Settings", "Target", "Task", "chosen", "of_facts", "register"]


class Target(NamedTuple):
    """The targets of a view's images.

    `labels` are those of the split [N, …], or the mixed or moved ones of the view. `soft` is the teacher's soft output
    on that view at the task's temperature, if the recipe has a teacher. `weight` [N] weighs the images; None means
    equal weights."""

    labels: Tensor
    soft: Tensor | None = None
    weight: Tensor | None = None

    def first(self, n: int) -> Target:
        """The targets of the first n images."""
        soft, weight = (None if t is None else t[:n] for t in (self.soft, self.weight))
        return Target(self.labels[:n], soft, weight)


@dataclass(frozen=True, slots=True)
class Settings:
    """The recipe's settings for a loss: `label_smoothing`, and from [teacher] the temperature and both weights."""

    label_smoothing: float = 0.0
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0
    sizes: Any = None
    """Of the task's own table in the recipe, if it has one."""


class Task(Protocol):
    """A task, made for one data set. Outputs [N, …] and labels [N, …] are on one device.

    A task may also have `aligned` = False, if its outputs on two views of an image cannot be matched with each other,
    and `figures`, from what `judge` gave to further figures of a finished net for result.json. With `two_stage` = True
    its outputs cannot be matched at all, so that it has no teacher, and `beside` tells the MACs that no plan counts."""

    name: ClassVar[str]
    targets: ClassVar[str]
    """What it learns from: "classes" (labels int64 [N]), "numbers" (float32 [N]) or "boxes" (float32 [N, most, 6]), as
    in `Data.targets`."""
    metric: ClassVar[Metric]
    temperature: float
    soft_weight: float
    """Weight of the teacher's target; 0 means no teacher is needed."""

    @property
    def head(self) -> Outputs:
        """The end of its networks, for `arch.plan.plan`."""
        ...

    @classmethod
    def outputs(cls, info: Info) -> Outputs:
        """The head, before the data are read."""
        ...

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Task: ...

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Task:
        """The inverse of `facts`, with default loss settings."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What a model file stores, besides the classes, to interpret the network's outputs."""
        ...

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the batch, including the teacher's term if the target has a soft output."""
        ...

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """The detached output in the form that another net can match."""
        ...

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """The distance of an output from another net's `soft` one: a mean over the batch, weighted per image."""
        ...

    def judge(self, out: Tensor, labels: Tensor) -> Tensor:
        """[N, …]: the per-image values from which `score` is computed, also stored for the test images in
        test.safetensors.

        Bool [N], or float [N] if the score is their mean."""
        ...

    def score(self, judged: Sequence[Tensor]) -> float:
        """The metric, from the outputs of `judge` for all batches of a split. Always finite."""
        ...

    def standard_error(self, score: float, images: int) -> float:
        """The approximate standard error of a score measured on this many images."""
        ...

    def answer(self, out: Tensor) -> Tensor:
        """The meaning of an output: a class index [N], a number in the data's own unit [N], or detections [N, …]."""
        ...


TASKS: dict[str, type[Task]] = {}
PARTS = (
    "name", "targets", "metric", "head", "outputs", "of_data", "of_facts", "facts", "loss", "soft", "match", "judge",
    "score", "standard_error", "answer",
)  # fmt: skip
T = TypeVar("T")


def register(task: type[T]) -> type[T]:
    """Register a task under its name, for a recipe's `task`; can be used as a decorator.

    If several tasks suit the same kind of data, `auto` takes the first one registered. Raises BadInput for a name in
    use, and for a class that lacks a part of `Task`."""
    lacking = [part for part in PARTS if not hasattr(task, part)]
    if lacking:
        raise BadInput(f"register({task.__name__}): the class lacks {', '.join(lacking)}; define it, as in Task")
    made = cast("type[Task]", task)
    if TASKS.setdefault(made.name, made) is not made:
        raise BadInput(f"a task named {made.name!r} is registered already; give yours another name")
    return task


def chosen(name: str, info: Info) -> type[Task]:
    """The task that a recipe's `task` selects for these data; "auto" takes the first registered one that suits them.

    Raises BadInput for an unknown task, or one that does not suit the data."""
    fits = [task for task in TASKS.values() if task.targets == info.targets]
    if name == "auto":
        return fits[0]
    if name not in TASKS:
        raise unknown("task", name, [*TASKS, "auto"])
    if TASKS[name] not in fits:
        has = f"{info.name} has {info.targets}"
        choices = ", ".join(task.name for task in fits)
        raise BadInput(f"task = {name} learns from {TASKS[name].targets}, but {has}; choices: {choices}, auto")
    return TASKS[name]


def of_facts(facts: Mapping[str, Any]) -> Task:
    """The task of a trained network, from the facts in its file; files of older versions are classifiers."""
    name = facts.get("task", next(iter(TASKS)))
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name].of_facts(facts)
