"""The interface between training methods and the trainer: what a method receives and what it must implement."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..arch.cost import UNLIMITED, Budget, sample_near
from ..arch.plan import Outputs, Plan
from ..arch.space import KINDS, Arch, Space

if TYPE_CHECKING:
    from torch import Tensor

    from ..nets.net import Net
    from ..tasks import Target

DRAWS = 1000  # steps sampled to estimate a method's mean cost before training


@dataclass(frozen=True)
class Base:
    """The network to train: its plan, its search space and architecture there (None if it has none), and the fraction
    of it that was pruned. `supernet`: whether its arch file names a supernet of that space."""

    plan: Plan
    space: Space | None = None
    arch: Arch | None = None
    pruned: float = 0.0
    supernet: bool = True


class Pass(NamedTuple):
    """One forward and backward pass of a training step: an architecture on a fraction `share` of a view's images."""

    arch: Arch
    share: float = 1.0
    view: str = "train"

    def images(self, batch: int) -> int:
        """The number of a batch's images that the pass uses: at least 2, which its batch norms need."""
        return batch if self.share == 1 else max(2, round(self.share * batch))


@dataclass
class Draw:
    """Everything that the choice of a step's passes may depend on. Seeded, without tensors."""

    space: Space
    base: Arch
    classes: Outputs
    step: int
    progress: float
    rng: Random

    def sample(self, low: Arch, free: Iterable[str] = KINDS) -> Arch:
        """A random architecture, at or above `low` on the axes whose kind is in `free`, equal to it on the others."""
        return self.space.sample(self.rng, low=low, free=free)

    def near(self, low: float, high: float, limits: Budget = UNLIMITED) -> Arch:
        """A random architecture within the limits, with log MACs about uniformly distributed from `low` to `high`."""
        return sample_near(self.space, self.rng, low, high, self.classes, limits)


class Step(Protocol):
    """A training step as seen by a method."""

    space: Space
    base: Arch
    classes: Outputs
    step: int
    progress: float
    """The fraction of training that is done, 0 to 1."""

    @property
    def passes(self) -> Sequence[Pass]:
        """The passes that `Method.passes` drew for this step; the same on every access."""
        ...

    def view(self, name: str) -> tuple[Tensor, Target]:
        """(images [N, 3, H, W], target) of the recipe's `[views.NAME]`, drawn from (seed, step, name). Raises BadInput
        if the recipe has no such view."""
        ...

    def transform(self, name: str, x: Tensor) -> Tensor:
        """Apply the recipe's `[transforms.NAME]`, with new draws for every pass; returns x itself if there is none."""
        ...

    @property
    def aligned(self) -> bool:
        """Whether the outputs of nets of several resolutions can be matched with each other; boxes' cannot."""
        ...

    def retold(self, name: str, x: Tensor, target: Target, soft: Tensor) -> tuple[Tensor, Tensor | Target]:
        """`transform` of x, and what to `match` an output on it with: `soft`, another net's output on x; or, if the
        task's outputs on two views do not align (boxes), the target moved with the images."""
        ...

    def run(self, x: Tensor, arch: Arch) -> Tensor:
        """The architecture's output on x, which is resized to its resolution. Counts the MACs."""
        ...

    def loss(self, out: Tensor, target: Target) -> Tensor:
        """The task's loss, averaged over the images."""
        ...

    def soft(self, out: Tensor) -> Tensor:
        """An output converted to a soft target for another net; detached."""
        ...

    def match(self, out: Tensor, soft: Tensor | Target) -> Tensor:
        """The loss of an output against a soft target, averaged over the images; the task's loss against a target."""
        ...


class Course(Protocol):
    """A training as seen by a method between epochs."""

    @property
    def net(self) -> Net: ...

    @property
    def space(self) -> Space: ...

    @property
    def progress(self) -> float: ...

    @property
    def inherited(self) -> bool:
        """Whether training started from inherited weights."""
        ...

    def companions(self) -> list[dict[str, Tensor]]:
        """Tensors to permute along with the weights, by parameter name: momentum, then averaged weights if any."""
        ...


@dataclass(frozen=True)
class Outlook:
    """What is known about a training before it starts."""

    base: Base
    space: Space
    arch: Arch  # the base network in the space
    asked: Method  # as configured in the recipe
    method: Method  # as it will run: the result of `prepare`
    macs: float  # forward MACs per image over all passes of a step, averaged over training, without a teacher's
    seconds: float  # estimated duration of the training
    epochs: float  # its length
    images: int  # an epoch has
    instead: Callable[[Method], Outlook]  # the outlook of the same training by another method, which it prepares
    aligned: bool = True  # whether the task's outputs on two views of an image can be matched with each other
    moved: str = "boxes"  # if not, the targets that are moved with the images instead


class Description(NamedTuple):
    """A method's description of a training: lines for the user, and facts for result.json."""

    lines: Sequence[str] = ()
    facts: Mapping[str, object] = MappingProxyType({})


class Method(Protocol):
    """A training method: a frozen dataclass whose fields, all with defaults, are its keys in a recipe.

    Subclasses implement `space`, `passes` and `losses`; the defaults of the rest suit most methods. `register` makes
    one available by name."""

    __slots__ = ()

    @property
    def cycle(self) -> int:
        """Period of the kinds of passes, in steps: training is timed in whole cycles."""
        return 1

    @property
    def reorders(self) -> bool:
        """Whether `on_epoch` permutes channels, which is incompatible with a mask over single weights."""
        return False

    @property
    def in_int8(self) -> bool:
        """Whether the net that is trained imitates its int8 model."""
        return False

    @abstractmethod
    def space(self, base: Base) -> tuple[Space, Arch]:
        """The space whose largest net holds the trained weights, and the base architecture in it. Raises BadInput if
        the method is not applicable to this base."""

    @abstractmethod
    def passes(self, draw: Draw) -> list[Pass]:
        """The passes of a step, in order. `draw.rng` must be the only source of randomness.

        They determine the cost and length of a training and the number of teacher passes, as well as the step."""

    @abstractmethod
    def losses(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, loss) pairs, computed from exactly the `step.passes`.

        The trainer runs backward after each, so yielding a loss before the next pass keeps memory to one pass."""

    def prepare(self, space: Space, base: Arch, classes: Outputs, batch: int) -> Method:
        """The method as it will run, given its space, its base architecture and `batch` images per step."""
        return self

    def describe(self, outlook: Outlook) -> Description:
        """Describe a training before it starts; called on the method that `prepare` returned."""
        return Description()

    def check_views(self, views: Collection[str]) -> None:
        """Raises BadInput if the method needs a view that is not among the recipe's `views`."""

    def on_epoch(self, trainer: Course) -> None:
        """Called before each epoch."""


def drawn(
    method: Method, space: Space, base: Arch, classes: Outputs, seed: str = "length"
) -> Iterator[list[Pass]]:
    """The passes of DRAWS seeded steps, spread evenly over training, to estimate a method's mean cost."""
    for i in range(DRAWS):
        yield method.passes(Draw(space, base, classes, i, i / DRAWS, Random(f"{seed}/{i}")))
