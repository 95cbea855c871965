"""Arms, lengths and amounts of data, as the arguments of a comparison write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..config.layers import arm_says
from ..core.errors import BadInput, arg, with_value
from ..core.units import parse_quantity
from ..training.recipe import Recipe

MATCH = "epochs"  # what all arms get equal amounts of, if nothing is said
STOPS = {"epochs": "epochs", "compute": "macs", "seconds": "seconds"}  # the recipe's `stop`, by that
LENGTHS = {"epochs": "epochs", "compute": "train_macs", "seconds": "max_seconds"}  # the key that says how long
_MOST_EPOCHS = 10**9

# not the commas between an arm's values, or in an array or a table
_BETWEEN_ARMS = re.compile(r",(?!\s*[\w.-]+\s*=)(?![^\[]*\])(?![^{]*\})")


def arms_of(methods: str) -> list[str]:
    """The arms by name. Raises BadInput for an unknown arm or one named twice."""
    arms = [arm.strip() for arm in _BETWEEN_ARMS.split(methods) if arm.strip()]
    if not arms:
        raise BadInput(f"{arg.methods} {methods!r} names no arm; give some, like baseline,netaug")
    for i, arm in enumerate(arms):
        if arm in arms[:i]:
            raise BadInput(f"{arg.methods} names {arm!r} twice; name each arm once")
        arm_says(arm, Recipe)
    return arms


def lengths_of(lengths: str, match: str) -> list[float]:
    """The lengths, ascending: epochs (int), forward MACs (int) or seconds. Raises BadInput for anything else, and for
    equal ones."""
    seen: dict[float, str] = {}
    for item in _items(arg.lengths, lengths, "length", "give some, like 10,30,90"):
        value = _epochs_of(item) if match == MATCH else parse_quantity(item, STOPS[match], "lengths")
        if value in seen:
            same = f"{item} twice" if seen[value] == item else f"{seen[value]} and {item}, which are the same"
            raise BadInput(f"{arg.lengths} names {same}; name each length once")
        seen[value] = item
    return sorted(seen)


def amounts_of(argument: str, given: str, parse: Callable[[str], float]) -> list[Any]:
    """The amounts of data in a text, ascending. Raises BadInput for anything that is none, and for equal ones."""
    values: list[Any] = []
    for item in _items(with_value(argument), given, "amount", "give one, or several separated by commas"):
        try:
            values.append(parse(item))
        except ValueError:
            values.append(0)
        if values[-1] <= 0:
            rule, remedy = "must be a whole number of images per class", "give some like 1,5,20"
            if argument == "data_fraction":
                rule, remedy = "must be a share above 0, to 1", "give some like 0.05,0.1,0.25,1"
            raise BadInput.of(argument=argument, value=item, rule=rule, remedy=remedy, apart=True)
        if values[-1] in values[:-1]:
            raise BadInput(f"{with_value(argument)} {given} names {item} twice; name each amount once")
    return sorted(values)


def _items(argument: str, given: str, what: str, remedy: str) -> list[str]:
    """What stands between the commas. Raises BadInput where that is nothing."""
    items = [item.strip() for item in given.split(",")]
    if not all(items):
        rule = f"has an empty place among its {what}s" if any(items) else f"names no {what}"
        raise BadInput(f"{argument} {given!r} {rule}; {remedy}")
    return items


def share_of(item: str) -> float:
    """The share of the images that a text says; 0 for what is none."""
    value = float(item)
    return value if 0 < value <= 1 else 0.0


def _epochs_of(item: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", item) or not 1 <= int(item) <= _MOST_EPOCHS:
        rule = f"must be a whole number of epochs, 1 to {_MOST_EPOCHS}"
        remedy = f"give some like 10,30,90, or {arg.match} compute for MACs, seconds for times"
        raise BadInput.of(argument="lengths", value=item, rule=rule, remedy=remedy, apart=True)
    return int(item)
