"""The results of a finished training: result.json, written and read, and the per-image test results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core import files
from ..core.errors import BadInput, arg
from ..core.metric import Metric, of_keys
from ..core.units import finite
from .folder import RESULT, RunDir

CORRECT, ERROR = "correct", "error"  # tensors in test.safetensors: bool per image, or values with the score as mean
ROWS = "rows"  # or several rows per image, from all of which together the score follows


BY_DATA = ("fraction", "shots")


class Length(NamedTuple):
    """The length that a training was given. `unit` is the recipe's `stop`: epochs, macs (of all forward passes) or
    seconds. `value` is None if it is not recorded, or was left to nasaug and is no whole number of epochs.

    Or how much data it was given (BY_DATA): a fraction of the training images, or shots, so many of each class."""

    unit: str
    value: float | None


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The contents of result.json for a finished training, by any command.

    Scores are in the unit of `metric`. macs are those of one forward pass of the net, params its parameters, peak and
    flash are bytes in int8. train_macs are those of all forward passes of training, seconds its duration; peak_memory
    is in bytes; `history` has the figures of each evaluated epoch. None or empty means not recorded."""

    arm: str
    seed: int
    method: str
    arch: str
    data: str
    data_key: str
    metric: Metric
    macs: int
    params: int
    val_score: float
    test_score: float
    test_images: int
    epochs: float
    train_macs: float
    seconds: float
    device: str
    train_score: float | None = None
    peak_memory: int | None = None
    history: tuple[dict[str, Any], ...] = ()
    init: str | None = None
    peak: int | None = None
    flash: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further facts of a command, by key: about NetAug's nets, pruning steps, or preprocessing."""
    path: Path = Path()
    """The run's folder; not in the file."""
    command: str | None = None
    """The command line that started the run; not in the file."""

    def __str__(self) -> str:
        show = self.metric.show
        tested = f"test {self.metric.label} {show(self.test_score)} on {self.test_images} images"
        return f"{tested} (validation {show(self.val_score)})"

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("CPU")

    def scores(self) -> dict[str, float | None]:
        """The scores by the keys they have in files."""
        return {self.metric.key(split): getattr(self, f"{split}_score") for split in ("val", "test", "train")}

    def to_json(self) -> dict[str, Any]:
        """The contents of result.json, except its format."""
        m = self.metric
        return {
            "arm": self.arm, "method": self.method, "arch": self.arch, "data": self.data, "data_key": self.data_key,
            "seed": self.seed, "init": self.init, "macs": self.macs, "params": self.params, "peak": self.peak,
            "flash": self.flash, **m.told, m.key("val"): self.val_score, m.key("train"): self.train_score,
            "val": list(self.history), m.key("test"): self.test_score, "test_images": self.test_images,
            "epochs": self.epochs, "train_macs": self.train_macs, "seconds": self.seconds,
            "peak_memory": self.peak_memory, "device": self.device, **self.more,
        }  # fmt: skip

    @classmethod
    def from_json(cls, table: Mapping[str, Any], folder: Path) -> TrainingResult:
        """The inverse of `to_json`; also reads results of older versions. Raises BadInput for a file that is not a
        training result."""
        path, metric = RunDir(folder).result_file, of_keys(dict(table))
        if metric is None:
            raise BadInput(f"{path} has no test score: no training run; give the folders of train or netaug-train")
        keys = {f"{split}_score": metric.key(split) for split in ("val", "test", "train")}
        fields: dict[str, Any] = {}
        for name, kinds in (_REQUIRED | _OPTIONAL).items():
            key = keys.get(name, name)
            value = table.get(key)
            if value is None and name in _OPTIONAL:
                continue
            good = isinstance(value, kinds) and not isinstance(value, bool)
            if not good or (isinstance(value, (int, float)) and not finite(value)):
                raise BadInput(f"{path}: {key} is {value!r:.80}, not what a training run writes; run it again")
            fields[name] = value
        fields.setdefault("arm", fields["method"])
        known = {*_REQUIRED, *_OPTIONAL, *keys.values(), "format", "metric", "val"}
        more = {key: value for key, value in table.items() if key not in known}
        history = _history(table.get("val"))
        command = RunDir(folder).environment().get("command")
        command = command if isinstance(command, str) else None
        return cls(metric=metric, history=history, more=more, path=folder, command=command, **fields)

    def length(self) -> Length:
        """The length from the run's recipe; without one, the epochs trained if they are whole."""
        path = RunDir(self.path).recipe_file
        recipe = files.read_toml(path) if path.is_file() else {}
        unit = recipe.get("stop", "epochs")
        if unit == "epochs":
            return Length(unit, self.epochs if recipe or self.epochs == int(self.epochs) else None)
        value = recipe.get("train_macs" if unit == "macs" else "max_seconds")
        given = isinstance(value, (int, float))
        return Length(unit, float(value * recipe.get("times", 1.0)) if given else None)

    def amount(self) -> Length:
        """How much of the training images the run's recipe names; without a recipe, all of them."""
        path = RunDir(self.path).recipe_file
        said = files.read_toml(path).get("data", {}) if path.is_file() else {}
        return Length("shots", said["shots"]) if said.get("shots") else Length("fraction", said.get("fraction", 1.0))

    def judged(self) -> np.ndarray | None:
        """[test_images]: whether each test image was right (bool), or values whose mean is the score; None if not
        recorded, or if the score is no mean over images.

        Raises BadInput if the file is damaged or belongs to another result."""
        path = RunDir(self.path).test_file
        if not path.is_file():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load

        remedy = "leave the file out, or run it again"
        try:
            tensors = load(files.read_bytes(path))
            if ROWS in tensors:
                return None
            right = CORRECT in tensors
            judged = tensors[CORRECT if right else ERROR].astype(bool if right else float)
        except (SafetensorError, KeyError) as error:
            raise BadInput(f'{path} holds no tensor "{CORRECT}" or "{ERROR}" ({error}); {remedy}') from error
        mean = 100 * judged.mean() if right else judged.mean()
        if judged.shape != (self.test_images,) or abs(mean - self.test_score) > 0.01 * self._scale:
            found = f"{judged.sum()} of {judged.size} images right"
            if not right:
                found = f"{judged.size} images and a mean of {self.metric.number(mean)}"
            result = f"{RESULT} says {self.metric.show(self.test_score)} of {self.test_images}"
            raise BadInput(f"{path} has {found}, but {result}; {remedy}")
        return judged

    @property
    def _scale(self) -> float:
        """The scale of the tolerance when a recomputed score is compared with the recorded one."""
        return 1.0 if self.metric.in_percent else abs(self.test_score)


def lengths_of(runs: Sequence[TrainingResult]) -> list[Length | None]:
    """What tells the runs of an arm apart besides their seeds: for each the amount of data, if an arm's runs differ in
    it, else the length, if an arm's runs differ in that; else None."""
    for told in ([run.amount() for run in runs], [run.length() for run in runs]):
        of_arms: dict[str, set[Length]] = {}
        for run, each in zip(runs, told, strict=True):
            of_arms.setdefault(run.arm, set()).add(each)
        if any(len(each) > 1 for each in of_arms.values()):
            return list(told)
    return [None] * len(runs)


_TEXT, _COUNT, _FIGURE = (str,), (int,), (int, float)
_REQUIRED = {
    "seed": _COUNT, "method": _TEXT, "arch": _TEXT, "data": _TEXT, "data_key": _TEXT, "macs": _COUNT,
    "params": _COUNT, "val_score": _FIGURE, "test_score": _FIGURE, "test_images": _COUNT, "epochs": _FIGURE,
    "train_macs": _FIGURE, "seconds": _FIGURE, "device": _TEXT,
}  # fmt: skip
_OPTIONAL = {
    "arm": _TEXT, "train_score": _FIGURE, "peak_memory": _FIGURE, "init": _TEXT, "peak": _COUNT, "flash": _COUNT,
}  # fmt: skip


def is_training(table: Mapping[str, Any]) -> bool:
    """Whether a result is that of a training with a test score, rather than of a search, comparison or sweep."""
    return of_keys(dict(table)) is not None and "test_images" in table


TRAINED = "the folder of a finished run of train, netaug-train or prune"


def finished_training(run: str | Path, argument: str | None = "run", field: str | None = None) -> RunDir:
    """The finished training in a folder. Raises BadInput, about an `argument` or a recipe's `field`, if not there."""
    found = RunDir(run)

    def refused(rule: str, remedy: str = f"give {TRAINED}") -> BadInput:
        return BadInput.of(argument=argument, field=field, value=str(run), rule=rule, remedy=remedy, apart=True)

    if not found.path.is_dir():
        raise refused("is no folder")
    if not found.finished:
        if found.recipe_file.is_file():
            raise refused("is not finished", f"go on with it by its own command and {arg.resume}, or give {TRAINED}")
        raise refused("holds no run")
    for needed in (found.model_file, found.recipe_file):
        if not needed.is_file():
            raise refused(f"has no {needed.name}, so it is not the run of a training")
    read_result(found.path)
    return found


def read_result(folder: Path) -> TrainingResult:
    """Read the result of a finished training's folder. Raises BadInput if there is none."""
    return TrainingResult.from_json(RunDir(folder).result(), folder)


def _history(rows: Any) -> tuple[dict[str, float], ...]:
    """The numeric figures of each epoch."""
    figures = (row.items() for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    return tuple({name: value for name, value in row if isinstance(value, _FIGURE)} for row in figures)
