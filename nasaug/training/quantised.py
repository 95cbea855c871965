"""The phase of a training that is in int8: what it begins with, and how its int8 model is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..arch.plan import Plan
from ..core import tensorfile
from ..data import Split
from ..int8.imitation import Imitation, int8_model
from ..int8.measure import Session
from ..int8.quantize import CALIBRATION, Scale
from ..nets.net import Net
from ..nets.store import load_net, save_net
from .scoring import Scorer

FLOAT = "float.safetensors"  # in a run's folder: the net that the phase begins with
TABLE = "int8"  # the fact of a model file that has the scales found in training


@dataclass(frozen=True)
class Before:
    """What the phases before the last one took, and their figures; nothing if there were none."""

    epochs: float = 0
    steps: int = 0
    train_macs: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    told: Mapping[str, Any] = field(default_factory=dict)

    def followed_by(self, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        """The figures of all epochs, counted from the first phase on, without the start of a later phase."""
        sums = {"epoch": self.epochs, "step": self.steps, "train_macs": self.train_macs, "seconds": self.seconds}
        own = (row for row in rows if row["step"] or not self.steps)
        return (*self.history, *({**row, **{key: row[key] + value for key, value in sums.items()}} for row in own))


def write_float(folder: Path, net: Net, before: Before, classes: list[str]) -> Path:
    """Store the net that the phase begins with, and what came before. Returns the file."""
    save_net(folder / FLOAT, net, classes=classes, before=vars(before))
    return folder / FLOAT


def read_before(folder: Path) -> Before:
    """What came before the phase."""
    return Before(**tensorfile.facts(folder / FLOAT)["before"])


def with_statistics(net: Net, scorer: Scorer) -> Net:
    """The net in evaluation mode: as it is if it has running statistics, else calibrated."""
    net = net.to(scorer.runtime.device)
    return net.eval() if net.has_statistics else scorer.calibrated(net, net.plan)


def imitation_of(net: Net, scorer: Scorer) -> Imitation:
    """The net that is trained in int8."""
    return Imitation(with_statistics(net, scorer), _calibration(net.plan, scorer))


def _calibration(plan: Plan, scorer: Scorer) -> Iterator[Tensor]:
    """The images that `export` calibrates on."""
    drawn = scorer.data.train.take(CALIBRATION, seed=0)
    return (x for x, _ in scorer.batches(drawn, plan.resolution))


class Deployed:
    """An int8 model in ONNX Runtime, which the scorer judges as a net."""

    def __init__(self, plan: Plan, model: Any):
        self.plan, self._session = plan, Session(model.SerializeToString())

    def __call__(self, x: Tensor) -> Tensor:
        return self._session(x.cpu()).to(x.device)

    @classmethod
    def trained(cls, net: Imitation) -> Deployed:
        """With the scales found in training."""
        return cls(net.plan, int8_model(net.plain(), scales=net.table()))

    @classmethod
    def calibrated(cls, net: Net, scorer: Scorer) -> Deployed:
        """Post-training quantisation, as `export` does it."""
        return cls(net.plan, int8_model(net, (x.cpu().numpy() for x in _calibration(net.plan, scorer))))


def scores_before(folder: Path, test: Split, scorer: Scorer) -> dict[str, float]:
    """The scores on the test images of the net that the phase began with: in float, and in int8 by post-training
    quantisation."""
    net = load_net(folder / FLOAT).to(scorer.runtime.device)
    return {
        "float": scorer.score(net, test),
        "post_training": scorer.score(Deployed.calibrated(net, scorer), test),
    }


def table_of(net: Imitation) -> dict[str, list]:
    """The scales as a model file's fact."""
    return {name: list(scale) for name, scale in net.table().items()}


def scales_in(facts: Mapping[str, Any]) -> dict[str, Scale] | None:
    """The scales in a model file's facts; None if it was not trained in int8."""
    return {name: Scale(*pair) for name, pair in facts[TABLE].items()} if TABLE in facts else None
