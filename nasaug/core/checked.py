"""Frozen dataclasses whose fields pydantic validates by type and range; a violation raises BadInput.

    @checked("netaug")
    class NetAug:
        share: Annotated[float, Gt(0), Le(1), Told("must be a part of a step's images", "give above 0, to 1")] = 1.0

`NetAug(share=0)` and a recipe's `netaug.share = 0` are both rejected with one line, "netaug.share = 0 must be a part of
a step's images: give above 0, to 1". Without `Told` the line states the range: "must be above 0, to 1". Rules that
involve several fields belong in `__post_init__`. Types are strict: neither true nor "3" passes as a number, but a list
is accepted for a tuple. pydantic is imported lazily, with the first such class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from .errors import BadInput, advice, arg, nearest, unknown

C = TypeVar("C", bound=type)

Auto = Literal["auto"]
Count = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]


@dataclasses.dataclass(frozen=True)
class Told:
    """In an `Annotated` type: the message for a value out of range, printed after "FIELD = VALUE"."""

    rule: str
    remedy: str | None = None


def rises(values: Sequence) -> bool:
    """Whether `values` is non-empty and strictly increasing."""
    return len(values) > 0 and all(a < b for a, b in itertools.pairwise(values))


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def checked(table: str = "") -> Callable[[C], C]:
    """Class decorator: a frozen, slotted dataclass with validated fields. `table` is the recipe table that holds them.

    Creating an instance, also by `dataclasses.replace`, raises BadInput about the field "TABLE.NAME" if a value has
    the wrong type, is out of range, or belongs to no field."""

    def decorate(cls: C) -> C:
        from pydantic import ConfigDict, ValidationError
        from pydantic.dataclasses import dataclass
        from pydantic_core import ArgsKwargs

        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        made = dataclass(frozen=True, slots=True, config=config)(cls)
        names = [field.name for field in dataclasses.fields(made)]
        validate = made.__pydantic_validator__.validate_python

        @functools.wraps(made.__init__)
        def __init__(self, *args, **kwargs):
            placed = dict(zip(names, args, strict=False))
            if len(args) > len(names) or placed.keys() & kwargs.keys():
                raise TypeError(f"{cls.__name__} takes one value each for: {', '.join(names)}")
            given = {name: tuple(v) if isinstance(v, list) else v for name, v in (placed | kwargs).items()}
            try:
                validate(ArgsKwargs((), given), self_instance=self)
            except ValidationError as error:
                raise explain(made, error.errors(include_url=False), given, table)[1] from None

        made.__init__ = __init__  # type: ignore[method-assign]
        return made  # type: ignore[return-value]

    return decorate


_OUT_OF_RANGE = {
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "predicate_failed", "too_short",
}  # fmt: skip


def explain(schema: Any, errors: Sequence[Any], given: Any, table: str = "") -> tuple[tuple, BadInput]:
    """Translate pydantic's `errors` about `given`, the values for the fields of `schema`: returns the path of keys to
    the first invalid value and a one-line BadInput about it.

    Errors for the members of a union are merged into one rule. `table` is the recipe key that holds `given`."""
    keys = _path(errors[0]["loc"], given)
    found = [error for error in errors if _path(error["loc"], given) == keys]
    kind, value = found[0]["type"], functools.reduce(operator.getitem, keys, given)
    if kind == "missing":
        keys = (*keys, errors[0]["loc"][-1])
    field = ".".join(map(str, filter(None, (table, *map(str, keys)))))
    if kind == "unexpected_keyword_argument":
        before = field.removesuffix(str(keys[-1]))
        names = [before + other.name for other in dataclasses.fields(_bare(_type_at(schema, keys[:-1])))]
        return keys, unknown("key", field, names, field=field)
    if kind == "missing":
        rule, remedy = "is missing", f"give it in the recipe or with {arg.set}"
        return keys, BadInput(f"{field} {rule}; {remedy}", field=field, rule=rule, remedy=remedy)
    own = found[0]["ctx"]["error"] if kind == "value_error" else None
    if isinstance(own, BadInput) and own.field:  # raised by a __post_init__, which names its fields itself
        inside = not field or own.field.startswith(f"{field}.")
        return keys, own if inside else own.within(f"[{field}] ", f"{field}.{own.field}")
    rule, joint, choices, advised = _broken(_type_at(schema, keys), value, found)
    subject = f"{field} = {json.dumps(value, default=_plain, ensure_ascii=False)}{joint}"
    if isinstance(value, dict) and value:  # the rule already names the values
        subject = f"[{field}] " if field else ""
    line = subject + rule + advice(advised, joint == ": ")
    rule = rule.lstrip(": ")
    return keys, BadInput(line, field=field or None, value=value, rule=rule, choices=choices, remedy=advised)


def _broken(kind: Any, value: Any, errors: Sequence[Any]) -> tuple[str, str, tuple, str | None]:
    """(rule, joint, choices, remedy) for a `value` that violates type `kind`; `joint` separates value and rule.

    A value out of range already has the right type, so of the union's other members only the literals are listed."""
    words = tuple(word for part in _parts(kind) if get_origin(part) is Literal for word in get_args(part))
    told, wrong = next((part for part in _parts(kind) if isinstance(part, Told)), None), {e["type"] for e in errors}
    if told and wrong & {*_OUT_OF_RANGE, "finite_number"}:
        return told.rule, "" if told.rule.startswith(":") else " ", (), told.remedy
    if wrong & _OUT_OF_RANGE:
        ends = [part for part in _parts(kind) if isinstance(part, (Ge, Gt, Le, Lt))]
        bounds = {type(end): getattr(end, type(end).__name__.lower()) for end in ends}
        rule = f"must be {_range(bounds)}" if bounds else _rule(errors[0])
        return rule + "".join(f", or {word}" for word in words), " ", words, None
    rule = " or ".join(dict.fromkeys(map(_rule, errors))).replace(" or must be ", " or ")
    meant = nearest(value, words, 1) if isinstance(value, str) else None
    remedy = meant or (told.remedy if told else None)
    return rule, ": ", words, remedy


def _range(bounds: dict[type, Any]) -> str:
    low = next((bounds[end] for end in (Ge, Gt) if end in bounds), None)
    high = next((bounds[end] for end in (Le, Lt) if end in bounds), None)
    if high is None:
        return f"{'at least' if Ge in bounds else 'above'} {low:g}"
    if low is None:
        return f"{'at most' if Le in bounds else 'below'} {high:g}"
    if Ge in bounds:
        return f"from {low:g} to {'' if Le in bounds else 'below '}{high:g}"
    return f"above {low:g}, to {high:g}" if Le in bounds else f"between {low:g} and {high:g}"


def _rule(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return error["msg"].replace("an object", "a table").replace("Input should be", "must be")


def _path(loc: tuple, given: Any) -> tuple:
    """pydantic's location reduced to keys that exist in `given`: it also contains tags for union members."""
    keys, value = [], given
    for key in loc:
        with contextlib.suppress(LookupError, TypeError):
            value = value[key]
            keys.append(key)
    return tuple(keys)


def _type_at(schema: Any, keys: tuple) -> Any:
    """The type of the value at this path of keys."""
    for key in keys:
        schema = _bare(schema)
        if field := getattr(schema, "__pydantic_fields__", {}).get(key):
            schema = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        elif dataclasses.is_dataclass(schema):
            schema = get_type_hints(schema, include_extras=True).get(key, Any)
        elif get_args(schema):  # T of dict[str, T] or tuple[T, ...]
            schema = get_args(schema)[get_origin(schema) is dict]
        else:
            return Any
    return schema


def _bare(kind: Any) -> Any:
    """The type without `Annotated`; for a union, its container member (dataclass, dict or tuple) if it has one."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        members = [_bare(member) for member in get_args(kind)]
        return next((m for m in members if dataclasses.is_dataclass(m) or get_origin(m) in (dict, tuple)), kind)
    return kind


def _parts(kind: Any) -> Iterator[Any]:
    """The leaves of a type: union members and `Annotated` metadata, flattened."""
    if get_origin(kind) in (Union, UnionType, Annotated):
        for part in get_args(kind):
            yield from _parts(part)
    else:
        yield kind


def _plain(value: Any) -> Any:
    return value.to_plain() if hasattr(value, "to_plain") else str(value)
