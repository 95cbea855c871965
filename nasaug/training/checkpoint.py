"""A training's checkpoint: named tensors and a state of plain values, in one file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..core import tensorfile
from ..core.errors import BadInput

Saved = tuple[dict[str, Tensor], dict]  # tensors, and a state with, among others, `method` and the total of `steps`


def write(path: Path | str, saved: Saved) -> None:
    tensorfile.write(path, *saved)


def read(path: Path | str, like: Saved, estimated: bool = False) -> Saved:
    """Read what `write` wrote. Raises BadInput if keys, shapes, the method or the number of steps differ from those of
    the current training, `like`; an `estimated` number of steps may differ. A supernet's training and NetAug inside
    that supernet may differ in the method alone."""
    tensors, state = tensorfile.read(path)
    own, now = like
    state = {"method": now["method"]} | state  # older files do not have it
    if state.get("steps") != now["steps"] and not estimated:
        rule = f"belongs to a run of {state.get('steps')} steps, but this one has {now['steps']}"
        raise BadInput(f"{path} {rule}; start a new run")
    if state["method"] != now["method"] or state.keys() != now.keys() or _shapes(tensors) != _shapes(own):
        raise BadInput(f"{path} belongs to another run, or was altered; restore it, or start a new run")
    return tensors, state


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes of all tensors except the best epoch's weights, which do not exist from the start."""
    return {name: t.shape for name, t in tensors.items() if not name.startswith("best.")}
