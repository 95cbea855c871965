"""Estimates the duration of a training's steps by timing a few of them before it starts."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain, count
from statistics import mean

from .loop import Trainer


def time_steps(trainer: Trainer) -> float:
    """Mean seconds per step, after one step of warm-up. Runs on a twin and leaves the trainer unchanged.

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
