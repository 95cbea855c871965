"""What a task must have: the network's end, what its data are, how wrong an output is, and how good a network."""

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
    """What a view's images should give: the labels of the split [N], or what a mixing view made of them; where the
    recipe names a teacher, its soft output on that view, at the task's temperature; and what each image counts [N],
    None: all alike."""

    labels: Tensor
    soft: Tensor | None = None
    weight: Tensor | None = None

    def first(self, n: int) -> Target:
        """That of the first n images."""
        soft, weight = (None if t is None else t[:n] for t in (self.soft, self.weight))
        return Target(self.labels[:n], soft, weight)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a recipe says of a task's loss: `label_smoothing`, and of its [teacher] the temperature and both weights."""

    label_smoothing: float = 0.0
    temperature: float = 1.0
    hard: float = 1.0
    soft_weight: float = 0.0


class Task(Protocol):
    """A task, made for one data set. Of outputs [N, …] and labels [N, …], all on one device, images first."""

    name: ClassVar[str]
    targets: ClassVar[str]
    """What it learns from: "classes" (labels int64 [N]) or "numbers" (float32 [N]), as `Data.targets` says it."""
    metric: ClassVar[Metric]
    temperature: float
    soft_weight: float
    """Of the teacher's target; 0: none is wanted."""

    @property
    def head(self) -> Outputs:
        """The end of its networks, for `arch.plan.plan`."""
        ...

    @classmethod
    def outputs(cls, info: Info) -> Outputs:
        """The same before the data are read."""
        ...

    @classmethod
    def of_data(cls, data: Data, settings: Settings) -> Task: ...

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Task:
        """From what the file of a trained network says: the inverse of `facts`, with no settings of a loss."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the file of a trained network says so that its outputs can be understood, beside its classes."""
        ...

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """Mean over the batch, with the teacher's part where the target has one."""
        ...

    def soft(self, out: Tensor, temperature: float = 1.0) -> Tensor:
        """Detached: what another net is to match."""
        ...

    def match(self, out: Tensor, soft: Tensor, weight: Tensor | None = None) -> Tensor:
        """How far an output is from another net's `soft` one, mean over the batch by each image's weight."""
        ...

    def judge(self, out: Tensor, labels: Tensor) -> Tensor:
        """[N]: what is kept of each image, of which `score` makes a figure; test.safetensors holds it of the test
        images. Bool, or a float where the score is the mean."""
        ...

    def score(self, judged: Sequence[Tensor]) -> float:
        """The metric, of what `judge` gave for all batches of a split. Finite."""
        ...

    def standard_error(self, score: float, images: int) -> float:
        """About that of a score that was measured on so many images."""
        ...

    def answer(self, out: Tensor) -> Tensor:
        """What an output means: the index of a class [N], or a number in the data's own unit [N]."""
        ...


TASKS: dict[str, type[Task]] = {}
T = TypeVar("T")


def register(task: type[T]) -> type[T]:
    """Makes a task known by its name, for a recipe's `task`. Of several for data of one kind the first is the one that
    task = "auto" takes. Raises BadInput for a name that another one has. Also a decorator."""
    made = cast("type[Task]", task)
    if TASKS.setdefault(made.name, made) is not made:
        raise BadInput(f"a task named {made.name!r} is registered already; give yours another name")
    return task


def chosen(name: str, info: Info) -> type[Task]:
    """The task of a recipe's `task` for these data; "auto": the first that was registered for what they serve. Raises
    BadInput where there is none, and where the data are of another kind."""
    fits = [task for task in TASKS.values() if task.targets == info.targets]
    if name == "auto":
        return fits[0]
    if name not in TASKS:
        raise unknown("task", name, [*TASKS, "auto"])
    if TASKS[name] not in fits:
        has = f"{info.name} has {info.targets}" if info.targets else f"{info.name} has none"
        choices = ", ".join(task.name for task in fits)
        raise BadInput(f"task = {name} learns from {TASKS[name].targets}, and {has}; choices: {choices}, auto")
    return TASKS[name]


def of_facts(facts: Mapping[str, Any]) -> Task:
    """The task of a trained network, from what its file says; those of older versions are classifiers."""
    name = facts.get("task", next(iter(TASKS)))
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name].of_facts(facts)
