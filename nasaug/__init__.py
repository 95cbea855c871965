"""nasaug: find the best tiny network under a budget, then train it inside wider ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .nets.net import Net

__all__ = ["load"]
__version__ = "0.1.0"


def load(run: str | Path) -> Net:
    """The trained net of a run's folder (or of its model.safetensors), in evaluation mode: an ordinary nn.Module,
    images [N, 3, H, W] to logits [N, classes]. Raises BadInput where there is none.

    `nasaug.nets.fold.fold` makes one of torch's own layers of it."""
    from .nets.store import load  # not above: it loads torch, which much of nasaug does without

    return load(run)
