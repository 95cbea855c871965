"""Training methods: frozen dataclasses of hyper-parameters that yield losses. The config is the object."""

from .base import Base, Draw, Method
from .baseline import Baseline
from .netaug import NetAug
from .sandwich import Sandwich

METHODS: dict[str, type] = {"baseline": Baseline, "netaug": NetAug}  # what `train --method` offers

__all__ = ["METHODS", "Base", "Baseline", "Draw", "Method", "NetAug", "Sandwich"]
