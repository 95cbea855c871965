"""Training methods: frozen dataclasses of hyper-parameters that yield losses. The config is the object."""

from .base import Base, Draw, Method
from .baseline import Baseline
from .gradaug import GradAug
from .netaug import NetAug
from .sandwich import Sandwich, SandwichWithin

METHODS: dict[str, type] = {"baseline": Baseline, "netaug": NetAug, "gradaug": GradAug}  # what `train --method` offers

__all__ = ["METHODS", "Base", "Baseline", "Draw", "GradAug", "Method", "NetAug", "Sandwich", "SandwichWithin"]
