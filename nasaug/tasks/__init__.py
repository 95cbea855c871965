"""Tasks: what the network's output means, how wrong it is, and how good."""

from .classify import Classify, Target

__all__ = ["Classify", "Target"]
