"""The two kinds of failure a user meets: bad input (exit code 2) and a fault in the run (exit code 1).

Knows nothing of what the package does; everything else may import it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """What the user gave cannot be used: one line with the value, the rule, the choices and the remedy."""


class MissingExtra(BadInput):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}, which is not installed; run: pip install 'nasaug[{extra}]'")


class RunFault(RuntimeError):
    """The run itself failed (not a number, memory, disk): not the fault of what the user typed."""


class Diverged(RunFault):
    """A loss is no number any more."""


def told_by(error: Exception) -> str:
    """What a library's error says, in one line; its kind where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def unknown(kind: str, value: object, choices: Iterable[str], also: str = "") -> BadInput:
    """The error for a name that is not among `choices`, the close ones first; `also` names what else will do."""
    names = sorted(str(c) for c in choices)
    close = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return BadInput(f"unknown {kind} {str(value)!r}; {hint}choices: {', '.join(names)}{also and f', or {also}'}")
