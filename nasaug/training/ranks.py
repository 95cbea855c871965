"""Several processes that train one net together, each on its share of every batch, as torchrun starts them.

Nothing is wrapped. A step's gradients lie in one buffer, which is reduced once; architectures are drawn from (seed,
step) and so are equal on all ranks; whatever depends on a clock or a signal is decided once and shared. A batch is as
large on many ranks as on one, so a run may go on with another number of them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..core.errors import BadInput, RunFault, arg
from ..core.launch import launched, restarts

PATIENCE = timedelta(hours=1)  # the longest that one rank waits for another: rank 0 alone writes files and pictures
LOST = f"the connection to another of the processes that train together is lost; go on with {arg.resume}"
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    count: int = 1
    local: int = 0  # its number on its machine

    @property
    def alone(self) -> bool:
        return self.count == 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def key(self) -> str:
        """What sets this rank's random draws apart from the others'; nothing for the first, as if it were alone."""
        return "" if self.first else f"/rank {self.rank}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th of a sequence or tensor, from number `rank` on."""
        return items if self.alone else items[self.rank :: self.count]

    def check_batch(self, batch: int) -> None:
        """Raises BadInput unless every rank gets at least two images of a batch, without which norms are undefined."""
        if batch < 2 * self.count:
            rule, remedy = f"is too small for {self.count} processes", f"give at least {2 * self.count}"
            raise BadInput.of(field="batch", value=batch, rule=rule, remedy=f"{remedy}, or start fewer of them")

    def sum_(self, gradients: Tensor) -> None:
        """Replace one buffer of gradients by its sum over all ranks."""
        with _others():
            dist.all_reduce(gradients)

    def sums(self, *values: float) -> list[float]:
        """The sum of each value over all ranks, in double precision."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, *values: float) -> list[float]:
        """The largest of each value on any rank."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def mean(self, value: float) -> float:
        """The mean of a value over all ranks."""
        return self.sums(value)[0] / self.count

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        if self.alone:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        with _others():
            dist.all_reduce(reduced, how)
        return reduced.tolist()

    def of_first(self, value: T) -> T:
        """The first rank's value, on all ranks; it is pickled, between processes of one run alone."""
        if self.alone:
            return value
        held: list[Any] = [value]
        with _others():
            dist.broadcast_object_list(held, src=0)
        return held[0]

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on all ranks; they are pickled, as with `of_first`."""
        held: list[Any] = [value] * self.count
        if not self.alone:
            with _others():
                dist.all_gather_object(held, value)
        return held


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """torch's errors about the other processes as a RunFault."""
    try:
        yield
    except RuntimeError as error:
        raise RunFault(LOST) from error


def of_process() -> Ranks:
    """This process among those that it has `joined`; alone otherwise."""
    if not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def joined() -> Ranks:
    """This process among those that were started together; the first call waits for them. Only what several processes
    do together calls this: anything else that torchrun starts does all of its work in each of them."""
    rank, count = launched()
    if count > 1 and not dist.is_initialized():
        # its functions have the group that is there when it is imported as a default; an optimizer imports it, and a
        # group that is held for ever never ends its threads, which abort the process at its end, now and then
        import torch.distributed.nn  # noqa: F401

        # a store of its own for each restart: torchrun's still has the addresses of the processes that have ended
        store, *_ = next(rendezvous("env://", timeout=PATIENCE))
        store = dist.PrefixStore(f"nasaug/{restarts()}", store)
        with _others():  # gloo for tensors on the CPU, NCCL for those on GPUs
            dist.init_process_group(store=store, rank=rank, world_size=count, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return of_process()
