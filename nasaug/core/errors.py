"""The two kinds of failure a user meets: bad input (exit code 2) and a fault in the run (exit code 1).

Knows nothing of what the package does; everything else may import it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class BadInput(ValueError):
    """What the user gave cannot be used: `str(error)` is one line with the value, the rule, the choices and the remedy.

    `line` is that line. Where it names an argument of the function that was called, as `@name`, `arguments` holds the
    name, with the value as it was given, or None where the line names the argument alone: from Python it reads
    `mac_budget = 25Q`, on the command line `--mac-budget 25Q` (see `told`).

    Attributes:
        field: what the error is about: a recipe key like "netaug.share", or the name of an argument like "mac_budget".
            None where it is about neither, or where that is not known. So are the others.
        value: what was given.
        rule: what it breaks, like "must be at least 1".
        choices: what would do, where that can be listed; else empty.
        remedy: what to do, like "give above 0, to 1".
    """

    def __init__(
        self, line: str, *, field: str | None = None, value: Any = None, rule: str | None = None,
        choices: Iterable[Any] = (), remedy: str | None = None, arguments: Mapping[str, str | None] | None = None,
    ):  # fmt: skip
        self.field, self.value, self.rule, self.choices, self.remedy = field, value, rule, tuple(choices), remedy
        self._line, self._arguments = line, dict(arguments or {})
        super().__init__(self._with(lambda name: name, " = "))

    @classmethod
    def of(
        cls, *, field: str | None = None, argument: str | None = None, value: Any, rule: str,
        choices: Iterable[Any] = (), remedy: str | None = None,
    ) -> BadInput:  # fmt: skip
        """The error made of its parts, either of a recipe's `field` or of a function's `argument`.

        Its line is "FIELD = VALUE RULE; choices: …; REMEDY", without a space before a rule that begins with a colon."""
        choices = tuple(choices)
        subject = f"@{argument}" if argument else f"{field} = {shown(value)}"
        line = subject + ("" if rule.startswith(":") else " ") + rule
        line += f"; choices: {', '.join(map(str, choices))}" if choices else ""
        line += advice(remedy, apart=bool(choices))
        parts = {"value": value, "rule": rule.lstrip(": "), "choices": choices, "remedy": remedy}
        return cls(line, field=argument or field, arguments={argument: str(value)} if argument else None, **parts)

    def told(self, option: Callable[[str], str]) -> str:
        """The line for a command line, in which arguments are the options that `option` calls them by."""
        return self._with(option, " ")

    def within(self, before: str, field: str | None = None) -> BadInput:
        """The same error with words `before` its line, like "mine.toml: ", and about `field` where that is given."""
        parts = {"value": self.value, "rule": self.rule, "choices": self.choices, "remedy": self.remedy}
        return BadInput(before + self._line, field=field or self.field, arguments=self._arguments, **parts)

    def _with(self, called: Callable[[str], str], between: str) -> str:
        def written(at: re.Match) -> str:
            name = at[1]
            if name not in self._arguments:
                return at[0]
            value = self._arguments[name]
            return called(name) if value is None else f"{called(name)}{between}{value}"

        return re.sub(r"@(\w+)", written, self._line) if self._arguments else self._line


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

    `field` is the recipe key or the argument that it was given for; a `kind` "@device" is that argument."""
    names = sorted(str(c) for c in choices)
    close = difflib.get_close_matches(str(value), names, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(close)}?" if close else None
    line = f"unknown {kind} {str(value)!r}; {f'{remedy} ' if remedy else ''}choices: {', '.join(names)}"
    argument = kind[1:] if kind.startswith("@") else None
    return BadInput(
        line + (also and f", or {also}"), field=argument or field, value=value, rule=f"unknown {kind.lstrip('@')}",
        choices=names, remedy=remedy, arguments={argument: None} if argument else None,
    )  # fmt: skip
