"""What every training method is given, and what it must have: the contract between methods and the trainer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..arch.cost import UNLIMITED, Budget, sample_near
from ..arch.plan import Plan
from ..arch.space import KINDS, Arch, Space

if TYPE_CHECKING:
    from torch import Tensor

    from ..nets.net import Net
    from ..tasks import Target

DRAWS = 1000  # steps drawn to know a method's mean cost before it starts


@dataclass(frozen=True)
class Base:
    """The network to be trained: its plan, its place in a search space where it has one, and what share of it was
    pruned. `supernet`: whether its arch file names a supernet of that space."""

    plan: Plan
    space: Space | None = None
    arch: Arch | None = None
    pruned: float = 0.0
    supernet: bool = True


class Pass(NamedTuple):
    """One forward and backward pass of a training step: an architecture on a share of the images of a view."""

    arch: Arch
    share: float = 1.0
    view: str = "train"

    def images(self, batch: int) -> int:
        """How many of a batch's images it sees: at least 2, for the sake of its batch norms."""
        return batch if self.share == 1 else max(2, round(self.share * batch))


@dataclass
class Draw:
    """What the passes of one training step may depend on. Seeded, no tensors."""

    space: Space
    base: Arch
    classes: int
    step: int
    progress: float
    rng: Random

    def sample(self, low: Arch, free: Iterable[str] = KINDS) -> Arch:
        """An architecture of the space, at or above `low` on the axes of a `free` kind."""
        return self.space.sample(self.rng, low=low, free=free)

    def near(self, low: float, high: float, limits: Budget = UNLIMITED) -> Arch:
        """An architecture within the limits whose log MACs are about uniform between `low` and `high`."""
        return sample_near(self.space, self.rng, low, high, self.classes, limits)


class Step(Protocol):
    """What a method sees of a training step. With `Pass` it is all that methods and the trainer share."""

    space: Space
    base: Arch
    classes: int
    step: int
    progress: float
    """The part of training that is over, 0 to 1."""

    @property
    def passes(self) -> Sequence[Pass]:
        """What the method's own `passes` drew for this step, the same each time."""
        ...

    def view(self, name: str) -> tuple[Tensor, Target]:
        """(images [N, 3, H, W], target) of the recipe's `[views.NAME]`, drawn from (seed, step, name). Raises BadInput
        where the recipe has none."""
        ...

    def transform(self, name: str, x: Tensor) -> Tensor:
        """The recipe's `[transforms.NAME]` of a view's images, drawn anew for every pass; x itself without one."""
        ...

    def run(self, x: Tensor, arch: Arch) -> Tensor:
        """The architecture's output on x, which is resized to its resolution; its MACs are counted."""
        ...

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """The task's loss, a mean over the images."""
        ...

    def soft(self, out: Tensor) -> Tensor:
        """An output as another net's target, detached."""
        ...

    def match(self, out: Tensor, soft: Tensor) -> Tensor:
        """How far an output is from such a target, a mean over the images."""
        ...

    def sample(self, low: Arch, free: Iterable[str] = KINDS) -> Arch:
        """`Draw.sample`, from the step's own generator."""
        ...

    def near(self, low: float, high: float, limits: Budget = UNLIMITED) -> Arch:
        """`Draw.near`, from the step's own generator."""
        ...


class Course(Protocol):
    """What a method sees of a training between its epochs."""

    @property
    def net(self) -> Net: ...

    @property
    def space(self) -> Space: ...

    @property
    def progress(self) -> float: ...

    @property
    def inherited(self) -> bool:
        """Whether the training began with weights that were trained before."""
        ...

    def companions(self) -> list[dict[str, Tensor]]:
        """What has to be permuted with the weights, by their names: momentum, then averages where there are any."""
        ...


@dataclass(frozen=True)
class Outlook:
    """What is known of a training before it starts."""

    base: Base
    space: Space
    arch: Arch  # the base network in the space
    asked: Method  # as the recipe has it
    method: Method  # as it will run: what `prepare` made of it
    macs: float  # of one image in all passes of a step, the mean over training, without a teacher's
    seconds: float  # the estimate of how long training takes
    instead: Callable[[Method], Outlook]  # the same training by another method, which is prepared for it


class Description(NamedTuple):
    """What a method has to say of a training: lines for the user, and facts for its result.json."""

    lines: Sequence[str] = ()
    facts: Mapping[str, object] = MappingProxyType({})


class Method(Protocol):
    """A way to train: a frozen dataclass whose fields are its keys in a recipe, all with defaults.

    A subclass writes `space`, `passes` and `losses`; the rest has defaults that suit most. `register` names it."""

    __slots__ = ()

    @property
    def cycle(self) -> int:
        """Steps after which the kinds of passes repeat: a training is timed in whole cycles."""
        return 1

    @property
    def reorders(self) -> bool:
        """Whether `on_epoch` moves channels, which a mask over single weights cannot follow."""
        return False

    @abstractmethod
    def space(self, base: Base) -> tuple[Space, Arch]:
        """The space whose largest net is trained, and the base architecture in it. Raises BadInput where the method
        can do nothing with this base."""

    @abstractmethod
    def passes(self, draw: Draw) -> list[Pass]:
        """What a step runs, in order; at random by `draw.rng` alone.

        The cost, the length of a training, how often a teacher is asked, and the step itself are all counted from
        these."""

    @abstractmethod
    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        """(name, loss) pairs, from the `step.passes` and no others.

        The trainer runs backward after each, so memory is that of one pass where a loss is yielded before the next."""

    def prepare(self, space: Space, base: Arch, classes: int, batch: int) -> Method:
        """The method as it will run, in its space and with so many images a step."""
        return self

    def describe(self, outlook: Outlook) -> Description:
        """What is said of a training before it starts; called on the method as it will run."""
        return Description()

    def check_views(self, views: Collection[str]) -> None:
        """Raises BadInput where the method needs another view than the recipe's `views`."""

    def on_epoch(self, trainer: Course) -> None:
        """Called before each epoch."""


def drawn(
    method: Method, space: Space, base: Arch, classes: int, seed: str = "length"
) -> Iterator[list[Pass]]:
    """The passes of DRAWS seeded steps, spread evenly over training: what a method's mean cost is told by."""
    for i in range(DRAWS):
        yield method.passes(Draw(space, base, classes, i, i / DRAWS, Random(f"{seed}/{i}")))
