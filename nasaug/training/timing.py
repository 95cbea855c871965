"""How long a training's steps take, from a few that are timed before it starts."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain, count
from statistics import mean

from .loop import Trainer


def time_steps(trainer: Trainer) -> float:
    """Seconds a step takes, the mean over steps spread over training, since the nets that a method draws change in its
    course; one step before warms up. They are a twin's: the trainer is left alone.

    At each of up to 4 places a whole cycle of the method; where that is more than one step, 8 steps at most."""
    trainer = trainer.twin()
    cycle = min(32, trainer.method.cycle)
    places = max(1, min(4, 8 // cycle))
    times = []
    batches = partial(trainer.data.train.batches, trainer.length.batch, seed=trainer.seed)
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
    return mean(times[1:] or times)


def _go_to(trainer: Trainer, share: float, cycle: int) -> None:
    """Pretend that this share of training is over, at the beginning of a cycle."""
    length = trainer.length
    trainer.step = round(share * length.steps) // cycle * cycle
    trainer.macs, trainer.seconds = share * length.whole_macs, share * length.seconds
