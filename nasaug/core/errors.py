"""The two kinds of errors that users see: bad input (exit code 2) and a fault in the run (exit code 1).

Independent of the rest of the package, which may import it from anywhere.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

_ARGUMENT = re.compile("\ue000(\\w+)([\ue001\ue002])")  # private-use characters, which users do not type
_START, _END = 2500, 1000  # characters of a message that are kept of an endless one, which quotes what was given


class _Arguments:
    """`arg.run` in a message stands for the function's argument `run`, which the command line calls `--run`."""

    def __getattr__(self, name: str) -> str:
        return f"\ue000{name}\ue001"


arg = _Arguments()


def with_value(argument: str) -> str:
    """Stands in a message for an argument followed by its value: `run = x` in Python, `--run x` in a shell."""
    return f"\ue000{argument}\ue002"


def written(line: str, option: Callable[[str], str] | None = None) -> str:
    """The message with arguments written by their Python names, or as the options that `option` turns them into."""
    if option is None:
        return _ARGUMENT.sub(lambda at: at[1] + (" =" if at[2] == "\ue002" else ""), line)
    return _ARGUMENT.sub(lambda at: option(at[1]), line)


class BadInput(ValueError):
    """Invalid user input: `str(error)` is one line with the value, the rule, the choices and the remedy.

    `line` is the same line before arguments of the called function, given as `arg.NAME`, are written out.

    Attributes:
        field: a recipe key like "netaug.share", or the name of an argument like "mac_budget". None if the error is
            about neither. Any attribute that is not known is None too.
        value: the invalid value.
        rule: the rule that it breaks, like "must be at least 1".
        choices: the valid values, if they can be listed; else empty.
        remedy: what to do, like "give above 0, to 1".
    """

    def __init__(
        self, line: str, *, field: str | None = None, value: Any = None, rule: str | None = None,
        choices: Iterable[Any] = (), remedy: str | None = None,
    ):  # fmt: skip
        line = shortened(line)
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
        """The error built from its parts, about a recipe's `field` or a function's `argument`.

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
        """The same error with the text `before` prepended, like "mine.toml: ", and about `field` if that is given."""
        parts = {"value": self.value, "rule": self.rule, "choices": self.choices, "remedy": self.remedy}
        return BadInput(before + self.line, field=field or self.field, **parts)


def shortened(line: str) -> str:
    """The line without its middle if that is endless, as where it quotes a file's content."""
    if len(line) <= _START + _END:
        return line
    start, end = re.sub("\ue000\\w*$", "", line[:_START]), re.sub("^\\w*[\ue001\ue002]", "", line[-_END:])
    return f"{start} […] {end}"


class MissingExtra(BadInput):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}, which is not installed; run: pip install 'nasaug[{extra}]'")


class RunFault(RuntimeError):
    """The run itself failed (NaN, memory, disk) although the input was valid. `line` is as in BadInput."""

    def __init__(self, line: str):
        self.line = line
        super().__init__(written(line))


class Diverged(RunFault):
    """A loss became NaN or infinite."""


def told_by(error: Exception) -> str:
    """The error's message as one line, or its type if it has none."""
    return (getattr(error, "line", str(error)) or type(error).__name__).splitlines()[0]


def advice(remedy: str | None, apart: bool = False) -> str:
    """The remedy as the end of a line: after a colon if it starts with "give"; otherwise, or if `apart`, after a
    semicolon."""
    return "" if not remedy else f": {remedy}" if remedy.startswith("give ") and not apart else f"; {remedy}"


def shown(value: Any) -> str:
    """A value as text: a string as it is, a float in its short form, anything else as JSON."""
    value = value.to_plain() if hasattr(value, "to_plain") else value
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)


def nearest(value: object, choices: Iterable[object], most: int = 3) -> str | None:
    """The question whether one of the closest choices was meant; None if none is close."""
    close = difflib.get_close_matches(str(value), sorted(map(str, choices)), n=most, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def unknown(kind: str, value: object, choices: Iterable[str], also: str = "", field: str | None = None) -> BadInput:
    """The error for a name that is not among `choices`; suggests close ones. `also` describes another valid input.

    `field` is the recipe key or the argument that it was given for; a `kind` like `arg.device` names that argument."""
    names = sorted(str(c) for c in choices)
    remedy = nearest(value, names)
    line = f"unknown {kind} {str(value)!r}; {f'{remedy} ' if remedy else ''}choices: {', '.join(names)}"
    argument = _ARGUMENT.fullmatch(kind)
    return BadInput(
        line + (also and f", or {also}"), field=argument[1] if argument else field, value=value,
        rule=f"unknown {written(kind)}", choices=names, remedy=remedy,
    )  # fmt: skip
