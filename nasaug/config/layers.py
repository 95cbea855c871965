"""Recipes: converts strict TOML to a frozen dataclass given by the caller, and back.

A recipe is built from layers, each overriding the previous ones: its `base`, the file itself, the differences ("arms")
and the `--set` overrides. Tables merge key by key, except that a table with a `kind` is a single value, which replaces
the previous one. A table's own `base` names a sibling table that provides the keys it omits. `base` is the only key
that this module knows.

A schema may have two static methods: `complete()` returns the schema extended by what has been registered, and
`arms()` returns the arms defined without a file, by name. A field with `left_out_if_usual` in its metadata is only
written if it differs from its default.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core.checked import explain
from ..core.errors import BadInput, arg, unknown
from ..core.files import bundled, read_toml

T = TypeVar("T")
Table = dict[str, Any]
Layer = tuple[str, Table]  # source (for messages), content
OPTIONS = "the command's options"  # source of what a command's own options set


def load(
    name: str | Path | None, schema: type[T], sets: Sequence[str] = (), differences: Sequence[str] = (),
    under: Sequence[str] = (), options: Sequence[str] = (),
) -> T:  # fmt: skip
    """Load a recipe as an instance of the dataclass `schema`.

    Args:
        name: a path or the name of a shipped recipe; None means the schema's defaults.
        differences: arms: each the path or name of one, optionally with values, like "netaug:share=0.25,sort=false",
            or several joined by "+".
        sets: overrides like "netaug.ladder=factors", which have the highest priority.
        under: fallbacks in the same form, which have the lowest priority.
        options: values from a command's options in the same form, which override everything but `sets`.

    Raises BadInput, one line with the dotted key, for unknown keys, wrong types and conflicts.
    """
    schema = _complete(schema)
    layers = [("the arch file", _parse_set(item)) for item in under]
    layers += [] if name is None else _file_layers(_find(str(name), "recipe"), ())
    layers += _arm_layers(differences, schema)
    layers += [(OPTIONS, _parse_set(item)) for item in options]
    layers += [(arg.set, _parse_set(item)) for item in sets]
    return _build(_filled(_merged(layers), (), layers), schema, layers)


def to_dict(instance: Any) -> Table:
    """The recipe as plain TOML values. None is omitted, so a field that may be None must have None as its default."""
    values = ((field, getattr(instance, field.name)) for field in dataclasses.fields(instance))
    return {field.name: _plain(v) for field, v in values if v is not None and not _is_left_out(field, v)}


def _is_left_out(field: dataclasses.Field, value: Any) -> bool:
    return "left_out_if_usual" in field.metadata and value == field.default_factory()


def _complete(schema: type[T]) -> type[T]:
    return schema.complete() if hasattr(schema, "complete") else schema


def dump(instance: Any) -> str:
    """The recipe as TOML text, which `load` turns back into an equal instance."""
    import tomli_w

    return tomli_w.dumps(to_dict(instance))


def flatten(table: Table, prefix: str = "") -> dict[str, Any]:
    """Flatten {"a": {"b": 1}} to {"a.b": 1}; an empty table is kept as a value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def differing(begun: Any, asked: Any, aside: Sequence[str] = ()) -> list[str]:
    """The keys in which two recipes differ, each with both values, except the keys in `aside`."""
    one, two = flatten(to_dict(begun)), flatten(to_dict(asked))
    return [
        f"{key} (begun with {one.get(key, 'none')}, asked {two.get(key, 'none')})"
        for key in sorted((one.keys() | two.keys()).difference(aside))
        if one.get(key) != two.get(key)
    ]


def _plain(value: Any) -> Any:
    if hasattr(value, "to_plain"):
        return value.to_plain()
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _find(name: str, kind: str, more: Iterable[str] = ()) -> Path:
    """The file of a recipe or arm: `name` as a path if that exists, else the shipped file of that name. `more` are
    names defined without a file, to be listed among the choices."""
    folder = bundled("recipes") / ("arms" if kind == "arm" else "")
    shipped = folder / f"{name}.toml"
    if os.path.isfile(name) or (name.endswith(".toml") and not os.path.isfile(shipped)):
        return Path(name)
    if not os.path.isfile(shipped):
        field = "recipe" if kind == "recipe" else "method"
        own = "; a method of your own also needs NASAUG_IMPORT=MODULE" if kind == "arm" else ""
        raise unknown(kind, name, {*_shipped(folder, kind), *more}, f"the path of a TOML file{own}", field)
    return shipped


def _shipped(folder: Path, kind: str) -> list[str]:
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml")]
    return [name for name in names if kind == "arm" or not name.startswith("arms/")]


def _file_layers(path: Path, above: tuple[Path, ...]) -> list[Layer]:
    """The layers of the file's `base` (looked up beside the file, then among the shipped ones), then its own."""
    here = path.resolve()
    if here in above:
        raise BadInput(f"{path}: base leads back to itself: {' -> '.join(p.name for p in (*above, here))}")
    table = read_toml(path)
    base = table.pop("base", None)
    if base is None:
        return [(str(path), table)]
    if not isinstance(base, str):
        raise BadInput(f"{path}: base = {base!r}: must be the path or name of another recipe")
    beside = path.parent / base
    found = beside if beside.is_file() else _find(base.removesuffix(".toml"), "recipe")
    return [*_file_layers(found, (*above, here)), (str(path), table)]


def split_arm(joined: str) -> list[str]:
    """Split "a+b:key=value" into single arms. Existing paths, of arms or as values, may themselves contain a "+"."""
    pieces, arms = _AT_PLUSES.split(joined), []
    while pieces:
        many = next((n for n in range(2, len(pieces) + 1) if _path_of(pieces[:n])), 1)
        arms.append("+".join(pieces[:many]).strip())
        pieces = pieces[many:]
    return arms


def _path_of(pieces: list[str]) -> bool:
    """Whether the pieces, joined by "+", are the path of a file, or "key=value" with an existing path as the value."""
    _, said, value = pieces[0].rpartition("=")
    path = "+".join([value, *pieces[1:]]).partition(",")[0].strip()
    return os.path.exists(path) if said else os.path.isfile(path)


_AT_PLUSES = re.compile(r"\+(?!(?<=\d[eE]\+)\d)")  # except in a number like 1e+3


def _arm_layers(differences: Sequence[str], schema: type) -> list[Layer]:
    layers: list[Layer] = []
    own: dict[str, Table] = schema.arms() if hasattr(schema, "arms") else {}
    keys = flatten(to_dict(schema())) if any(":" in joined for joined in differences) else {}
    for joined in differences:
        for part in split_arm(joined):
            name, _, values = (part, "", "") if Path(part).is_file() else part.partition(":")
            fileless = name in own and not os.path.isfile(name)
            arm = own[name] if fileless else _merged(_file_layers(_find(name, "arm", own), ()))
            for item in filter(None, _AT_COMMAS.split(values)):
                arm = _merge(arm, _parse_set(_arm_key(item, arm, keys, part)))
            for earlier in layers:
                _refuse_conflict(earlier, (part, arm))
            layers.append((part, arm))
    return layers


_AT_COMMAS = re.compile(r",(?![^\[]*\])(?![^{]*\})")  # except inside an array or a table


def _arm_key(item: str, arm: Table, keys: Iterable[str], part: str) -> str:
    """An arm's "key=value" with the key completed to a full dotted one: a key in the arm's file, in its method's table,
    in another table that it changes, or a top-level key. `keys` are all keys of the recipe."""
    key, equals, value = item.partition("=")
    key = key.strip()
    if not equals or not key:
        raise BadInput(f"arm {part!r}: {item!r} must be key=value, like netaug:share=0.25")
    leaves, tops = flatten(arm), {known.partition(".")[0] for known in keys}
    meant = [leaf for leaf in leaves if leaf == key or leaf.endswith(f".{key}")]
    if key in leaves:
        meant = [key]
    elif not meant and key.partition(".")[0] not in tops:
        tables = sorted({leaf.rpartition(".")[0] for leaf in leaves})
        alike = {table: re.sub(r"^views\.[^.]+", "views.train", table) for table in tables}  # every view has its keys
        meant = [f"{table}.{key}" for table in tables if f"{alike[table]}.{key}" in keys]
        if "method" in leaves and (not meant or f"{leaves['method']}.{key}" in keys):
            meant = [f"{leaves['method']}.{key}"]
    if len(meant) > 1:
        raise BadInput(f"arm {part!r}: {key} may be {' or '.join(meant)}; name it in full")
    return f"{meant[0] if meant else key}={value}"


def arm_says(arm: str, schema: type) -> dict[str, Any]:
    """The values that an arm sets, by dotted key. Raises BadInput for unknown names and conflicts, like `load`."""
    return flatten(_merged(_arm_layers([arm], _complete(schema))))


def _refuse_conflict(one: Layer, two: Layer) -> None:
    first, second = flatten(one[1]), flatten(two[1])
    for key, value in first.items():
        for other, theirs in second.items():
            overlap = other == key or other.startswith(key + ".") or key.startswith(other + ".")
            if overlap and not (key == other and value == theirs):
                both = f"{key} = {_shown(value)} against {other} = {_shown(theirs)}"
                raise BadInput(f"arms {one[0]!r} and {two[0]!r} disagree: {both}; use one of them")


def _merged(layers: list[Layer]) -> Table:
    return functools.reduce(_merge, (table for _, table in layers), {})


def _merge(low: Table, high: Table) -> Table:
    merged = dict(low)
    for key, value in high.items():
        deeper = isinstance(value, dict) and "kind" not in value and isinstance(low.get(key), dict)
        merged[key] = _merge(low[key], value) if deeper else value
    return merged


def _filled(table: Table, keys: tuple, layers: list[Layer]) -> Table:
    """The table in which each inner table with a `base` is merged over the sibling that it names."""
    inner = {key: _filled(value, (*keys, key), layers) for key, value in table.items() if isinstance(value, dict)}
    filled = {**table, **inner}
    for key, value in inner.items():
        if keys and "base" in value:
            others = [name for name, other in inner.items() if name != key and "base" not in other]
            if value["base"] not in others:
                rule = f"must be a table beside it, without a base of its own: {', '.join(others) or 'there is none'}"
                raise _wrong((*keys, key, "base"), value["base"], rule, layers)
            filled[key] = _merge(inner[value["base"]], {name: said for name, said in value.items() if name != "base"})
    return filled


def _parse_set(item: str) -> Table:
    """The nested table for `a.b=c`, where c is a TOML value or, failing that, a bare string."""
    dotted, equals, text = item.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys):
        raise BadInput(f"{arg.set} {item!r}: must be key=value, like epochs=2 or netaug.ladder=factors")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, or an integer of thousands of digits, or excessive nesting
        parsed = {}
    table: Any = parsed["value"] if len(parsed) == 1 else text.strip()
    for key in reversed(keys):
        table = {key: table}
    return table


def _build(merged: Table, schema: type[T], layers: list[Layer]) -> T:
    from pydantic import TypeAdapter, ValidationError

    for keys, value in _leaves(merged):
        fits = math.isfinite(value) if isinstance(value, float) else isinstance(value, (int, str, dict, list))
        if not fits or (isinstance(value, int) and not -(2**63) <= value < 2**63):  # TOML has 64 bits
            raise _wrong(keys, value, "must be a finite number, a string, true or false, or an array", layers)
    given = _mapped(merged, _STAND_IN)
    meant = _MEANT if given != merged else {}
    try:  # strict mode accepts arrays for tuples and tables for dataclasses only when validating JSON
        instance = TypeAdapter(schema).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        keys, told = explain(schema, _mapped(error.errors(include_url=False), meant), merged)
        raise _at(keys, layers, told, _is_table(merged, keys)) from error
    return _mapped(instance, meant)


def _is_table(value: Any, keys: tuple) -> bool:
    """Whether there is a table at this path of keys."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return isinstance(value, dict)


# pydantic rejects lone surrogates, which Python uses for bytes that are not UTF-8. Characters of a private use area
# stand in for them during validation.
_STAND_IN = {code: code + 0x100000 for code in range(0xD800, 0xE000)}
_MEANT = {there: code for code, there in _STAND_IN.items()}


def _mapped(value: Any, signs: dict[int, int]) -> Any:
    """`value` with characters replaced in every string inside it; the same dataclass object if nothing changes."""
    if isinstance(value, str):
        return value if value.isascii() else value.translate(signs)
    if isinstance(value, dict):
        return {_mapped(key, signs): _mapped(item, signs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, signs) for item in value)
    if dataclasses.is_dataclass(value):
        there = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = {name: new for name, old in there.items() if (new := _mapped(old, signs)) != old}
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _leaves(value: Any, keys: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All leaves of nested tables and arrays, empty ones included, with the path of keys and indices to each."""
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*keys, key))
    else:
        yield keys, value


def _wrong(keys: tuple, value: Any, rule: str, layers: list[Layer]) -> BadInput:
    field = ".".join(map(str, keys))
    return _at(keys, layers, BadInput(f"{field} = {_shown(value)}: {rule}", field=field, value=value, rule=rule))


def _at(keys: tuple, layers: list[Layer], error: BadInput, whole: bool = False) -> BadInput:
    """The error, prefixed with the source of its value: the last layer that sets it, or for a `whole` table all
    layers that contribute to it."""
    sources = [
        source
        for source, said in layers
        if any(at and at[: len(keys)] == keys[: len(at)] for at, _ in _leaves(said))
    ]
    named = dict.fromkeys(sources if whole else sources[-1:])
    return error.within(f"{', '.join(named)}: ") if named else error


def _shown(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
