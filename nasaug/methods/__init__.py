"""Training methods: frozen dataclasses that hold a method's hyper-parameters and yield its losses."""

from .base import Base, Course, Description, Draw, Method, Outlook, Pass, Step, drawn
from .baseline import Baseline
from .gradaug import GradAug
from .netaug import NetAug
from .qat import QAT
from .registry import METHODS, register
from .sandwich import Sandwich, SandwichWithin

for _name, _method in {"baseline": Baseline, "netaug": NetAug, "gradaug": GradAug, "qat": QAT}.items():
    register(_name, _method)  # type: ignore[arg-type]

__all__ = [
    "METHODS", "QAT", "Base", "Baseline", "Course", "Description", "Draw", "GradAug", "Method", "NetAug", "Outlook",
    "Pass", "Sandwich", "SandwichWithin", "Step", "drawn", "register",
]  # fmt: skip
