"""Converts human-readable quantities (`25M`, `320KB`, `3ms`, `2h`) to numbers, and numbers back for printing.

`macs` and `params` use powers of 1,000. `bytes` use powers of 1,024 whether written KB or KiB, as
microcontroller data sheets do for SRAM and flash: "320 KB" of SRAM is 327,680 bytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from .errors import BadInput

LARGEST = 1e30  # of any quantity; floats hold its ratios
_MOST = sys.float_info.max

_NUMBER = re.compile(r"((?:[0-9]+\.)?[0-9]+|\.[0-9]+)((?:e[+-]?[0-9]{1,2})?)\s*([a-zµ]*)", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
_BINARY = {"": 1, "b": 1} | {
    f"{letter}{end}": 1024**power for power, letter in enumerate("kmg", 1) for end in ("", "b", "ib")
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """The suffixes that a kind of quantity accepts (lower case, with their factors) and how it is printed."""

    what: str
    factors: Mapping[str, float]
    rule: str
    whole: bool
    printed: tuple[tuple[str, float], ...]


_COUNT_RULE = "a number above 0 with k, M, G or T (powers of 1000), like 25M, 1.5G, 300k or 2.35e7"
_COUNT_PRINTED = (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
_KINDS = {
    "macs": _Kind("number of MACs", _THOUSANDS, _COUNT_RULE, True, _COUNT_PRINTED),
    "params": _Kind("number of parameters", _THOUSANDS, _COUNT_RULE, True, _COUNT_PRINTED),
    "bytes": _Kind(
        "size in bytes",
        _BINARY,
        "a number above 0 with KB, MB or GB (powers of 1024), like 320KB, 1MB, 64KiB or 262144",
        True,
        ((" B", 1), (" KB", 1024), (" MB", 1024**2), (" GB", 1024**3)),
    ),
    "milliseconds": _Kind(
        "time in milliseconds",
        {"": 1, "ms": 1, "s": 1000, "us": 0.001, "µs": 0.001},
        "a number above 0 with us, ms or s (ms if none), like 3ms, 0.5s or 800us",
        False,
        ((" us", 0.001), (" ms", 1), (" s", 1000)),
    ),
    "seconds": _Kind(
        "duration",
        {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
        "a number above 0 with s, m, h or d (s if none), like 90s, 10m or 2h",
        False,
        ((" s", 1),),
    ),
}


def finite(value: object) -> bool:
    """Whether it is a number that a float can hold, so no whole number of thousands of digits either."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def parse_quantity(text: str | int | float, kind: str, argument: str | None = None) -> int | float:
    """Parse `text` as a quantity of `kind`: macs, params, bytes, milliseconds or seconds.

    Returns an int for macs, params and bytes (truncated), and a float in the unit of that name for times. Suffixes are
    case-insensitive. Raises BadInput with the rule and examples, about `argument` if that is given.
    """
    spec = _KINDS[kind]
    match = None if isinstance(text, bool) else _NUMBER.fullmatch(str(text).strip())
    factor = spec.factors.get(match[3].lower()) if match else None
    if match is None or factor is None:
        raise _refused(text, spec, argument)
    exact = Decimal(match[1] + match[2]) * Decimal(str(factor))
    value = int(exact) if spec.whole else float(exact)
    if not 0 < value <= LARGEST:
        raise _refused(text, spec, argument)
    return value


def _refused(text: object, spec: _Kind, argument: str | None) -> BadInput:
    rule, remedy = f"{str(text)!r} is not a {spec.what}", f"give {spec.rule}"
    if argument:
        return BadInput.of(argument=argument, value=text, rule=f": {rule}", remedy=remedy)
    return BadInput(f"{rule}: {remedy}", value=text, rule=rule, remedy=remedy)


def format_quantity(value: float, kind: str) -> str:
    """`value`, in the unit that parse_quantity returns, to three significant digits: 23.5M, 312 KB, 3.2 ms."""
    if kind == "seconds":
        return format_duration(value)
    printed = _KINDS[kind].printed
    suffix, factor = next((p for p in reversed(printed) if value >= 0.9995 * p[1]), printed[0])
    scaled = value / factor
    return f"{scaled:.0f}{suffix}" if scaled >= 999.5 else f"{scaled:.3g}{suffix}"


def counted(number: float, what: str) -> str:
    """1 epoch, 2 epochs, 2.5 epochs, 10009 epochs."""
    return f"{number:{'.4g' if number < 1000 else '.0f'}} {what}{'' if number == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Seconds in at most two units: 0.8 s, 45 s, 4 m 10 s, 2 h 5 m, 3 d 2 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count)
