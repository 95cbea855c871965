"""Saving and loading nets, and comparing their heads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ..arch.cost import cost
from ..arch.plan import Head, Outputs, Plan, end_of, from_dict
from ..core import files, tensorfile
from ..core.errors import BadInput
from .net import Net

MODEL = "model.safetensors"  # in a run's folder


def save_net(path: Path, net: Net, **facts) -> None:
    """Write a network with its plan to one safetensors file."""
    tensorfile.write(path, net.state_dict(), {"plan": net.plan.to_dict(), **facts})


def load_net(path: Path) -> Net:
    """The inverse of `save_net`, in evaluation mode. Raises BadInput if the file holds no such network."""
    tensors, state = tensorfile.read(path)
    plan, altered = _plan_in(state, path), f"{path}: its tensors do not fit its plan; the file was altered"
    if cost(plan).params > sum(t.numel() for t in tensors.values()):  # else it would take its memory
        raise BadInput(f"{altered}: train again, or restore it")
    net = Net(plan)
    expected = {name: t.shape for name, t in net.state_dict().items()}
    if expected != {name: t.shape for name, t in tensors.items()}:
        raise BadInput(f"{altered}: train again, or restore it")
    net.load_state_dict(tensors)
    return net.eval()


def load_plan(path: Path) -> Plan:
    """The plan in a file written by `save_net`, without reading tensors. Raises BadInput if it has none."""
    return _plan_in(tensorfile.facts(path), path)


def _plan_in(state: dict, path: Path) -> Plan:
    if "plan" not in state:
        raise BadInput(f"{path} holds no plan; give a model or supernet that nasaug wrote")
    return from_dict(state["plan"], str(path))


def model_file(source: str) -> Path:
    """The model file of a run's folder, or `source` itself if it is a file. Raises BadInput if it does not exist."""
    path = _model_in(Path(source))
    if not path.is_file():
        choices = "a finished run's folder, supernet, or torchvision:NAME"
        raise BadInput(f"teacher.source = {source}: {path} does not exist; give {choices}")
    return path


def digest(path: Path | None) -> str:
    """SHA-256 hex digest of a file's contents; empty if there is no file."""
    return hashlib.sha256(files.read_bytes(path)).hexdigest() if path and path.is_file() else ""


def teacher_digest(source: str) -> str:
    """The digest of the model in a run's folder, or of the file itself; empty for any other teacher, or none."""
    return digest(_model_in(Path(source))) if source else ""


def _model_in(path: Path) -> Path:
    return path / MODEL if path.is_dir() else path


def other_classes(path: Path, outputs: Outputs, whose: str, classes: Sequence[str] | None = None) -> str:
    """The reason why the classifier in the file cannot be reused for these outputs; empty if it can.

    `classes` are the data's names if they are read; `whose` names the net in the text."""
    own, names = load_plan(path).classes, tensorfile.facts(path).get("classes")
    head, ours = end_of(own), end_of(outputs)
    if head.outputs != ours.outputs:
        what = "outputs" if isinstance(own, Head) or isinstance(outputs, Head) else "classes"
        return f"{whose} has {head.outputs} {what} and the data {ours.outputs}"
    if head != ours:
        return f"{whose} has a different head from the task's"
    if classes is not None and names is not None and list(names) != list(classes):
        return f"the classes of {whose} are {listed(names)} and those of the data {listed(classes)}"
    return ""


def listed(names: Sequence[str]) -> str:
    """The first few class names."""
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)
