"""Carries a training to its end, with progress, log and checkpoints."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core import tensorfile
from ..core.errors import Diverged
from ..core.progress import Progress, say, stage
from ..core.signals import deferred_stop
from ..data import Data
from ..kernels import choice
from ..rundirs.folder import RunDir
from .loop import Trainer, fit
from .skipped import note_skipped


def train_to_end(
    trainer: Trainer, run: RunDir, title: str, checkpoint: str | None = None, *, begun: int = 0,
    until: int | None = None,
) -> None:  # fmt: skip
    """Train from the run's checkpoint, or from the start, to the end, with progress, log and checkpoints. A part of it,
    from step `begun` until step `until`, ends with an evaluation and a checkpoint that the next part goes on from."""
    path = run.checkpoint_file if checkpoint is None else run.path / checkpoint
    if path.is_file():
        trainer.load(path)
    if trainer.step > begun:
        say(f"resumed {title} at step {trainer.step} of {trainer.length.steps}")
    run.rewind(title, step=trainer.step)
    ends = trainer.length.steps if until is None else until
    length, last, metric, best = trainer.length, 0.0, trainer.task.metric, _best(trainer)
    with (
        stage(title), _profiled(trainer, title), _tensorboard(run.path, trainer.step, title) as plot,
        deferred_stop() as pending,
        Progress(title, ends - begun, begun=trainer.step - begun, unit="images", per_step=length.batch) as bar,
    ):  # fmt: skip
        def on_epoch(row: dict) -> None:
            nonlocal best
            part = 1 - begun / row["step"] if begun else 1  # what a stage took is read from its last row
            run.log("epoch", stage=title, **row | {key: part * row[key] for key in ("train_macs", "seconds")})
            note_skipped(trainer.data, run, trainer.runtime.ranks)
            plot(row)
            best = _best(trainer)
            val = f"validation {metric.label} {metric.show(row[metric.key('val')])}"
            say(f"{title}: epoch {row['epoch']} of {length.epochs:.4g}, {val}", detail=True)

        def tick(t: Trainer) -> None:
            nonlocal last
            if t.seconds - last > 0.5 or t.seconds < last or t.step == ends:
                last = t.seconds
                bar.update(t.step - begun, best=best, **t.losses())

        if trainer.method.in_int8 and not trainer.step and not trainer.history:  # so as never to end worse than begun
            on_epoch(trainer.end_epoch())
            trainer.save(path)
        try:
            fit(trainer, pending, save=lambda: trainer.save(path), on_epoch=on_epoch, tick=tick, until=until)
        except Diverged as error:
            kept = f"; {path} keeps step {tensorfile.facts(path)['step']}" if path.is_file() else ""
            raise Diverged(f"{title}: {error.line}{kept}") from error


def _best(trainer: Trainer) -> tuple[float, str] | None:
    """The best validation score of the training so far, as Progress.update takes it; None if there is none yet."""
    metric = trainer.task.metric
    return metric.best_told(row[metric.key("val")] for row in trainer.history) if trainer.history else None


@contextlib.contextmanager
def _profiled(trainer: Trainer, title: str) -> Iterator[None]:
    """Report where the time of the training inside the block went, if its stages are timed."""
    step, started, before, batch = trainer.step, time.perf_counter(), _decoded(trainer.data), trainer.length.batch
    yield
    if not trainer.stages.on:
        return
    say(choice.told())
    say(f"{title}, where the time went ({batch} images per step):")
    say(trainer.stages.table((trainer.step - step) * batch, time.perf_counter() - started))
    images, seconds = (now - then for now, then in zip(_decoded(trainer.data), before, strict=True))
    if seconds:
        rate = f"{images / seconds:,.0f} per second and worker"
        say(f"decoding: {images:,} images, {rate}; load is the time spent waiting for them")


def _decoded(data: Data) -> tuple[int, float]:
    """Training images decoded from files so far, and the seconds that took, summed over all workers."""
    return (data.train.decoded, data.train.decoding) if data.streamed else (0, 0.0)


@contextlib.contextmanager
def _tensorboard(path: Path, step: int, title: str) -> Iterator[Callable[[dict], None]]:
    """A function that writes an epoch's figures for TensorBoard, if that extra is installed. Events after `step` are
    purged: they will be written again."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(path / "tensorboard"), purge_step=step + 1 if step else None)
    except ImportError:
        yield lambda row: None
        return
    except UnicodeEncodeError:
        say(f"no TensorBoard files are written, because TensorBoard accepts only folder names in UTF-8: {path}")
        yield lambda row: None
        return

    def plot(row: dict) -> None:
        for key, value in row.items():
            writer.add_scalar(f"{title}/{key}", value, row["step"])

    with contextlib.closing(writer):
        yield plot
