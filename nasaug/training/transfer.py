"""`transfer`: a trained network trained further on other data. It is a training whose network and start are a run's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import BadInput, arg
from ..core.progress import Listener, heard_by
from ..nets.from_torchvision import PREFIX, equal_of
from ..rundirs.result import TrainingResult, finished_training
from .begin import create_or_resume
from .options import Options
from .train import TrainJob
from .whole import Ready

RECIPE = "transfer"
PUBLISHED = ("food101", "flowers102", "cars", "cub200", "pets")  # data sets whose own recipe is one of transfer


def transfer(
    source: str | os.PathLike[str] | None = None, *, data: str | Path | None = None, method: str | None = None,
    resolution: int | None = None, data_fraction: float | None = None, shots: int | None = None,
    recipe: str | Path | None = None, set: Mapping[str, object] | Sequence[str] = (), seed: int | None = None,
    device: str = "auto", run: str | Path | None = None, resume: bool = False, on_event: Listener | None = None,
) -> TrainingResult:  # fmt: skip
    """Train a trained network further on other data, and evaluate it once on the test images. Returns the finished run.

    Args:
        source: a finished run's folder, or torchvision:NAME, like torchvision:mobilenet_v2. Its trunk is the start; its
            head is fresh unless it is for the same classes.
        data: the data to train on.
        method: any method or arm; None means the recipe's, which is plain training.
        resolution: image size in px; None means the source's.
        data_fraction, shots: train on this share of the training images, or on so many of each class.
        recipe: defaults to the data set's own if that is published for transfer, else `transfer`.
        set, seed, device, run, resume: see `nasaug.training.options.Options`; `set` may be a mapping.
        on_event: called with each event (nasaug.core.progress).

    Raises BadInput, RunFault, or Stopped if a signal ends the run.
    """
    options = Options.of(data, recipe, set, seed, device, run, resume)
    job = TransferJob(
        method=method, resolution=resolution, data_fraction=data_fraction, shots=shots, options=options,
        source=None if source is None else os.fsdecode(source),
    )  # fmt: skip
    with heard_by(on_event):
        return create_or_resume(job)


@dataclass(frozen=True)
class TransferJob(TrainJob):
    """What to train further, on what data and how; None means not given."""

    verb: str = "transfer"
    source: str | None = None

    @property
    def init(self) -> str | None:
        return self.source

    def default_recipe(self) -> str | None:
        return self.options.data if self.options.data in PUBLISHED else RECIPE

    def prepare(self) -> Ready:
        if self.source is None:
            choices = "the folder of a finished run, or torchvision:NAME"
            raise BadInput(f"transfer needs {arg.source}: {choices}")
        if self.options.data is None and self.options.recipe is None:
            raise BadInput(f"transfer needs {arg.data}: the data set or image folder to train on")
        if self.source.startswith(PREFIX):
            return super(TransferJob, replace(self, arch=equal_of(self.source, "source"))).prepare()
        arch = finished_training(self.source, "source").arch_file
        return super(TransferJob, replace(self, arch=str(arch))).prepare()
