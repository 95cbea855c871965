"""The two kinds of failure a user meets: bad input (exit code 2) and a fault in the run (exit code 1).

Knows nothing of what the package does; everything else may import it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

_ARGUMENT = re.compile("\ue000(\\w+)([\ue001\ue002])")  # signs for private use, which no path or text of a user has


class _Arguments:
    """`arg.run` stands in a line for the function's argument `run`, which the command line calls `--run`."""

    def __getattr__(self, name: str) -> str:
        return f"\ue000{name}\ue001"


arg = _Arguments()


def with_value(argument: str) -> str:
    """Stands in a line for an argument that is followed by its value: `run = x` in Python, `--run x` in a shell."""
    return f"\ue000{argument}\ue002"


def written(line: str, option: Callable[[str], str] | None = None) -> str:
    """The line with its arguments by their names in Python, or as the options that `option` makes of them."""
    if option is None:
        return _ARGUMENT.sub(lambda at: at[1] + (" =" if at[2] == "\ue002" else ""), line)
    return _ARGUMENT.sub(lambda at: option(at[1]), line)


class BadInput(ValueError):
    """What the user gave cannot be used: `str(error)` is one line with the value, the rule, the choices and the remedy.

    `line` is that line, in which `arg.NAME` stands for an argument of the function that was called.

    Attributes:
        field: what the error is about: a recipe key like "netaug.share", or the name of an argument like "mac_budget".
            None if neither, or not known. The same holds for the others.
        value: what was given.
        rule: what it breaks, like "must be at least 1".
        choices: the values that would do, if they can be listed; else empty.
        remedy: what to do, like "give above 0, to 1".
    """

    def __init__(
        self, line: str, *, field: str | None = None, value: Any = None, rule: str | None = None,
        choices: Iterable[Any] = (), remedy: str | None = None,
    ):  # fmt: skip
        about = _ARGUMENT.match(line)
        self.field = about[1] if field is None and about else field
        self.value, self.choices, self.line = value, tuple(choices), line
        self.rule, self.remedy = rule and written(rule), remedy and written(remedy)
        super().__init__(written(line))

    @classmethod
    def of(
        cls, *, field: str | None = None, argument: str | None = None, value: Any, rule: str,
        choices: Iterable[Any] = (), remedy: str | None = None, apart: bool = False,
    ) -> BadInput:  # fmt: skip
        """The error made of its parts, either of a recipe's `field` or of a function's `argument`.

        Its line is "FIELD = VALUE RULE; choices: …; REMEDY", without a space before a rule that begins with a colon. A
        remedy like "give …" comes after a colon where it completes the rule, so not if the two are to be `apart`."""
        choices = tuple(choices)
        subject = f"{with_value(argument)} {value}" if argument else f"{field} = {shown(value)}"
        line = subject + ("" if rule.startswith(":") else " ") + rule
        line += f"; choices: {', '.join(map(str, choices))}" if choices else ""
        line += advice(remedy, apart or bool(choices))
        rule = rule.lstrip(": ")
        return cls(line, field=argument or field, value=value, rule=rule, choices=choices, remedy=remedy)

    def within(self, before: str, field: str | None = None) -> BadInput:
        """The same error with words `before` its line, like "mine.toml: ", and about `field` if that is given."""
        parts = {"value": self.value, "rule": self.rule, "choices": self.choices, "remedy": self.remedy}
        return BadInput(before + self.line, field=field or self.field, **parts)


class MissingExtra(BadInput):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}, which is not installed; run: pip install 'nasaug[{extra}]'")


class RunFault(RuntimeError):
    """The run itself failed (not a number, memory, disk): the user typed nothing wrong. `line`: as BadInput's."""

    def __init__(self, line: str):
        self.line = line
        super().__init__(written(line))


class Diverged(RunFault):
    """A loss is no number any more."""


def told_by(error: Exception) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    return (getattr(error, "line", str(error)) or type(error).__name__).splitlines()[0]


def advice(remedy: str | None, apart: bool = False) -> str:
    """How a line ends: a remedy that begins with "give" comes after a colon, unless something is to keep it `apart`."""
    return "" if not remedy else f": {remedy}" if remedy.startswith("give ") and not apart else f"; {remedy}"


def shown(value: Any) -> str:
    """A value in a line: a word as it is, a number as short as it can be, anything else as JSON has it."""
    value = value.to_plain() if hasattr(value, "to_plain") else value
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)


def unknown(kind: str, value: object, choices: Iterable[str], also: str = "", field: str | None = None) -> BadInput:
    """The error for a name that is not among `choices`, the close ones first; `also` names what else will do.

    `field` is the recipe key or the argument that it was given for; a `kind` like `arg.device` is that argument."""
    names = sorted(str(c) for c in choices)
    close = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(close)}?" if close else None
    line = f"unknown {kind} {str(value)!r}; {f'{remedy} ' if remedy else ''}choices: {', '.join(names)}"
    argument = _ARGUMENT.fullmatch(kind)
    return BadInput(
        line + (also and f", or {also}"), field=argument[1] if argument else field, value=value,
        rule=f"unknown {written(kind)}", choices=names, remedy=remedy,
    )  # fmt: skip
