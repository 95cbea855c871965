"""Tasks: what the network's output means, its loss, and its score."""

from .base import TASKS, Metric, Settings, Target, Task, chosen, of_facts, register
from .classify import Classify
from .detect import Detect
from .regress import Regress
from .segment import Segment

__all__ = [
    "TASKS", "Classify", "Detect", "Metric", "Regress", "Segment", "Settings", "Target", "Task", "chosen", "of_facts",
    "register",
]  # fmt: skip
