"""Estimates the duration of a training's steps by timing a few of them before it starts."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain, count
from statistics import mean

from ..core.errors import RunFault, arg
from .device import out_of_memory
from .loop import Trainer


def time_steps(trainer: Trainer) -> float:
    """Mean seconds per step, after one step of warm-up. Runs on a twin and leaves the trainer unchanged.

    Raises RunFault if memory runs out, with a batch that fits: one that was tried."""
    try:
        return _time_steps(trainer)
    except RuntimeError as error:
        if not out_of_memory(error) or not trainer.runtime.ranks.alone:
            raise
    fits = _fitting(trainer)  # outside the handler, whose traceback holds the tensors of the step that failed
    batch = trainer.length.batch
    if fits is None:
        raise RunFault(f"out of memory, and no lower batch than {batch} fits; start anew where more memory is free")
    tried = f"{fits} was tried and fits: start anew with {arg.set} batch={fits}"
    raise RunFault(f"out of memory with a batch of {batch}; {tried}")


def _fitting(trainer: Trainer) -> int | None:
    """The largest half, quarter and so on of the batch with which a step fits into memory; None if none does."""
    batch = trainer.length.batch
    images, labels, _ = next(iter(trainer.data.train.batches(batch, seed=trainer.seed, epoch=0)))
    while batch > 2:
        batch = max(2, batch // 2)
        trainer.runtime.release()
        try:
            trainer.twin().train_step(images[:batch], labels[:batch])
            trainer.runtime.synchronize()
            return batch
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
    return None


def _time_steps(trainer: Trainer) -> float:
    """Mean seconds per step.

    The timed steps are spread over training, because the nets that a method samples change in its course: a whole cycle
    of the method at up to 4 points, at fewer if these would be more than 8 steps."""
    trainer = trainer.twin()
    cycle = min(32, trainer.method.cycle)
    places = max(1, min(4, 8 // cycle))
    times = []
    ranks = trainer.runtime.ranks
    batches = partial(trainer.data.train.batches, trainer.length.batch, seed=trainer.seed, share=ranks.share)
    for images, labels, _ in chain.from_iterable(batches(epoch=epoch) for epoch in count()):
        place, within = divmod(max(0, len(times) - 1), cycle)
        if within == 0:
            _go_to(trainer, (place + 0.5) / places, cycle)
        start = time.perf_counter()
        trainer.train_step(images, labels)
        trainer.runtime.synchronize()
        times.append(time.perf_counter() - start)
        if len(times) > cycle * places:
            break
    return ranks.of_first(mean(times[1:] or times))


def _go_to(trainer: Trainer, share: float, cycle: int) -> None:
    """Pretend that this share of training is done, rounded down to the start of a cycle."""
    length = trainer.length
    trainer.step = round(share * length.steps) // cycle * cycle
    trainer.macs, trainer.seconds = share * length.whole_macs, share * length.seconds
