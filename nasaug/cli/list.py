"""`list`: what names the other verbs take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .names import Kind
from .options import Flag, print_json

Rows = list[dict[str, Any]]


def list_(kind: Kind = None, /, *, json: Flag = False):
    """List the search spaces, architectures, recipes, methods, arms and data sets that can be named.

    Examples:

      nasaug list

      nasaug list archs

      nasaug list arms --json

    :param kind: spaces, archs, recipes, methods, arms or data; default: the names of all of them.
    :param json: Print JSON.
    """
    from ..arch.cost import LABELS
    from ..core.errors import unknown
    from ..reporting import tables

    if kind is not None and kind not in KINDS:
        raise unknown("kind of names", kind, KINDS)
    found = {each: make() for each, make in KINDS.items() if kind in (None, each)}
    if json:
        print_json(found if kind is None else found[kind])
        return
    for each, rows in found.items():
        if kind is None:
            print(f"{each}: {', '.join(row['name'] for row in rows)}\n")
            continue
        words = [i for i, value in enumerate(rows[0].values()) if isinstance(value, str)]
        heads = [LABELS.get(head, head) for head in rows[0]]
        print(tables.text(heads, [[_shown(head, value) for head, value in row.items()] for row in rows], words))
    if kind is None:
        print(f"more of each: nasaug list {'|'.join(KINDS)}")


def _shown(head: str, value: Any) -> str:
    from ..arch.cost import UNITS
    from ..core.units import format_quantity

    return format_quantity(value, UNITS[head]) if head in UNITS else str(value)


def _spaces() -> Rows:
    from ..arch.blocks import BLOCKS
    from ..arch.spacefile import bundled_names, load

    spaces = [load(name, BLOCKS).to_dict() for name in bundled_names()]
    return [{"name": space["name"], "is": space.get("summary", "")} for space in spaces]


def _archs() -> Rows:
    from ..arch.archfile import read
    from ..arch.blocks import BLOCKS
    from ..arch.cost import cost
    from ..arch.spacefile import bundled_names, load

    rows = []
    for space in bundled_names():
        for name in load(space, BLOCKS).archs:
            plan = read(name).plan
            rows.append({"name": name, "space": space, "px": plan.resolution, **cost(plan).known})
    return sorted(rows, key=lambda row: row["macs"])


def _recipes() -> Rows:
    return _files("*.toml")


def _arms() -> Rows:
    return _files("arms/*.toml")


def _files(pattern: str) -> Rows:
    """Each file's name, and what the comment of its first lines says."""
    from ..core.files import bundled

    rows = []
    for path in sorted(bundled("recipes").glob(pattern)):
        comment = []
        for line in path.read_text("utf-8").splitlines():
            if not line.startswith("#"):
                break
            comment.append(line.strip("# "))
        rows.append({"name": path.stem, "is": " ".join(comment)})
    return rows


def _methods() -> Rows:
    from ..methods import METHODS

    return [{"name": name, "is": " ".join((method.__doc__ or "").split("\n\n")[0].split())}
            for name, method in METHODS.items()]  # fmt: skip


def _data() -> Rows:
    from ..data.builtin import NAMED

    return [{"name": name, "px": each.size, "is": f"{each.classes} classes"} for name, each in NAMED.items()]


KINDS: dict[str, Callable[[], Rows]] = {
    "spaces": _spaces, "archs": _archs, "recipes": _recipes, "methods": _methods, "arms": _arms, "data": _data,
}  # fmt: skip
