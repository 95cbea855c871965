"""What every training method is given, and what it must have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from ..arch.cost import UNLIMITED, Budget, sample_near
from ..arch.plan import Plan
from ..arch.space import KINDS, Arch, Space


@dataclass(frozen=True)
class Base:
    """The network to be trained: its plan, its place in a search space where it has one, and what share of it was
    pruned."""

    plan: Plan
    space: Space | None = None
    arch: Arch | None = None
    pruned: float = 0.0


@dataclass
class Draw:
    """The architectures of one training step: all that its cost depends on. Seeded, no tensors."""

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


class Method(Protocol):
    """A way to train: the space whose largest net is trained, and the losses of a step."""

    share: float  # of a step's images: what every pass but its first sees

    def space(self, base: Base) -> tuple[Space, Arch]:
        """The space that the trained Net covers, and the base architecture in it."""
        ...

    def nets(self, draw: Draw) -> list[Arch]:
        """The architectures that a step runs, in order, one forward pass each: what its MACs are counted from."""
        ...

    def losses(self, step) -> Iterator[tuple[str, object]]:
        """(name, loss) pairs; the engine runs backward between them, so memory is that of one pass."""
        ...

    def on_epoch(self, trainer) -> None:
        """Called before each epoch."""
        ...
