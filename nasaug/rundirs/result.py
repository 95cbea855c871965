"""What a finished training leaves behind, read: result.json and the record of which test images were right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import files
from ..core.errors import BadInput
from .folder import RESULT, RunDir

CORRECT = "test.safetensors"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run: what its result.json holds.

    Accuracies in percent; macs of one forward pass of the net; train_macs of all forward passes of training;
    seconds of training; peak_memory in bytes. None: not recorded.
    """

    path: Path
    arm: str
    seed: int
    method: str
    arch: str
    data: str
    data_key: str
    macs: int
    params: int
    val_top1: float
    test_top1: float
    test_images: int
    epochs: float
    train_macs: float
    seconds: float
    device: str
    train_top1: float | None = None
    peak_memory: int | None = None
    history: tuple[dict[str, float], ...] = ()
    command: str | None = None

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("CPU")

    def correct(self) -> np.ndarray | None:
        """Bool [test_images]: whether each test image was right; None where that was not kept."""
        path = self.path / CORRECT
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        remedy = "leave the file out, or run it again"
        try:
            correct = load(files.read_bytes(path))["correct"].astype(bool)
        except (SafetensorError, KeyError) as error:
            raise BadInput(f'{path} holds no tensor "correct" ({error}); {remedy}') from error
        if correct.shape != (self.test_images,) or abs(100 * correct.mean() - self.test_top1) > 0.01:
            right = f"{correct.sum()} of {correct.size} images right"
            result = f"{RESULT} says {self.test_top1:.2f} % of {self.test_images}"
            raise BadInput(f"{path} has {right}, but {result}; {remedy}")
        return correct


_TEXT, _COUNT, _FIGURE = (str,), (int,), (int, float)
_REQUIRED = {
    "seed": _COUNT, "method": _TEXT, "arch": _TEXT, "data": _TEXT, "data_key": _TEXT, "macs": _COUNT,
    "params": _COUNT, "val_top1": _FIGURE, "test_top1": _FIGURE, "test_images": _COUNT, "epochs": _FIGURE,
    "train_macs": _FIGURE, "seconds": _FIGURE, "device": _TEXT,
}  # fmt: skip
_OPTIONAL = {"arm": _TEXT, "train_top1": _FIGURE, "peak_memory": _FIGURE}


def read_run(folder: Path) -> Run:
    """The run of a folder. Raises BadInput for a result that a training did not write."""
    result, path = RunDir(folder).result(), folder / RESULT
    fields: dict[str, Any] = {}
    for name, kinds in (_REQUIRED | _OPTIONAL).items():
        value = result.get(name)
        if value is None and name in _OPTIONAL:
            continue
        good = isinstance(value, kinds) and not isinstance(value, bool)
        if not good or (kinds != _TEXT and not math.isfinite(value)):
            raise BadInput(f"{path}: {name} is {value!r:.80}, not what a training run writes; run it again")
        fields[name] = value
    arm = fields.pop("arm", fields["method"])
    return Run(folder, arm, history=_history(result.get("val")), command=_command_of(folder), **fields)


def _history(rows: Any) -> tuple[dict[str, float], ...]:
    """The figures of each epoch."""
    figures = (row.items() for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    return tuple({name: value for name, value in row if isinstance(value, _FIGURE)} for row in figures)


def _command_of(folder: Path) -> str | None:
    path = folder / "env.json"
    command = files.read_json(path, "nasaug-env/1").get("command") if path.is_file() else None
    return command if isinstance(command, str) else None
