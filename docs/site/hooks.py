"""MkDocs hooks: reference pages that are made from the code each time the site is built.

`reference/commands.md` is what `--help` says, `reference/recipe.md` every recipe key with its type, default and
docstring, `reference/names.md` what `nasaug list` prints, and `changelog.md` the file in the repository's root.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
NO_EDIT = "<!-- Made by docs/site/hooks.py. -->\n\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every page of results is in the navigation, below the overview."""
    results = next(entry["Results"] for entry in config.nav or () if isinstance(entry, dict) and "Results" in entry)
    pages = sorted(path.name for path in Path(config.docs_dir, "results").glob("*.md") if path.name != "README.md")
    results += [f"results/{name}" for name in pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {
        "reference/commands.md": commands(), "reference/recipe.md": recipe_keys(), "reference/names.md": names(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text("utf-8"),
    }  # fmt: skip
    for name, text in made.items():
        files.append(File.generated(config, name, content=NO_EDIT + text))
    return files


# --- commands ---------------------------------------------------------------------------------------------------


def commands() -> str:
    """Each verb's help, with its examples as one block."""
    from nasaug.cli.main import app

    text = app.generate_docs(output_format="markdown")
    verbs = text[text.index("\n## nasaug ", text.index("Table of Contents")) :]
    verbs = re.sub(r"\*Aliases?:.*\n", "", verbs)
    verbs = re.sub(r"^```console\nnasaug .*\n```\n\n", "", verbs, flags=re.M)
    verbs = re.sub(r"Examples:\n\n((?:  .*\n|\n)+)", _examples, verbs)
    verbs = re.sub(r"(?<=\S)\n {4,}(?=\S)", " ", verbs)  # an explanation that was broken into lines
    return f"""# Commands

What `nasaug VERB --help` says. `python -m nasaug VERB` is the same. Exit codes: 0 done, 1 a fault during the run, 2 bad
input (one line says what is wrong and how to fix it; nothing was written), 128 + number for a signal, after which
`--resume` goes on.
{verbs}"""


def _examples(found: re.Match) -> str:
    lines = [line.strip() for line in found[1].splitlines() if line.strip()]
    return "```\n" + "\n".join(lines) + "\n```\n\n"


# --- recipe keys ------------------------------------------------------------------------------------------------


def recipe_keys() -> str:
    """A table of keys for the top level and for each table of a recipe."""
    from nasaug.training.recipe import Recipe

    lines = [
        "# Recipe keys", "",
        "A recipe is a TOML file; `--recipe` takes its name or path, and `--set KEY=VALUE` overrides one key. Layers, "
        "each overriding the previous ones: the keys of `base`, the file itself, arms (`--method`), a command's own "
        "options, `--set`. An unknown key is refused with the closest ones. The defaults below are those of the code; "
        "`recipes/small.toml`, the default recipe for small images, changes some. Every run writes its resolved recipe "
        "as `recipe.toml` into its folder.", "",
        "A *schedule* is a number, or a table like `{kind = \"linear\", start = 0, end = 9}`.", "",
        "## Top level", "", *_table(Recipe, "")]  # fmt: skip
    for path, cls in _tables(Recipe, ""):
        about = inspect.getdoc(cls) or ""
        lines += ["", f"## [{path}]", "", about, "", *_table(cls, f"{path}.")]
    return "\n".join(lines) + "\n"


def _tables(cls: type, prefix: str) -> Iterator[tuple[str, type]]:
    for name, kind in _kinds(cls).items():
        inner = _bare(kind)
        if dataclasses.is_dataclass(inner):
            yield prefix + name, inner
        elif get_origin(inner) is dict and dataclasses.is_dataclass(value := _bare(get_args(inner)[1])):
            yield f"{prefix}{name}.NAME", value


def _table(cls: type, prefix: str) -> list[str]:
    rows, told, kinds = [], _told(cls), _kinds(cls)
    inner = {path.removesuffix(".NAME") for path, _ in _tables(cls, "")}
    for field in dataclasses.fields(cls):
        if field.name in inner:
            continue
        row = (f"`{prefix}{field.name}`", _type(kinds[field.name]), _default(field), told.get(field.name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return ["| key | type | default | is |", "| --- | --- | --- | --- |", *rows] if rows else ["No keys."]


def _kinds(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _told(cls: type) -> dict[str, str]:
    """The text below or beside each field, in the class or one that it is derived from."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("nasaug."):
            source = textwrap.dedent(inspect.getsource(each))
            written, body = source.splitlines(), ast.parse(source).body[0].body
            for line, below in zip(body, [*body[1:], None], strict=True):
                if isinstance(line, ast.AnnAssign):
                    beside = written[line.end_lineno - 1][line.end_col_offset :].partition("#")[2]
                    if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                        beside = str(below.value.value)
                    found[line.target.id] = " ".join(beside.split())
    return found


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _type(kind: Any) -> str:
    kind = _bare(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in get_args(kind)))
    if get_origin(kind) is Literal:
        return " ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) in (tuple, list):
        return f"list of {_type(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return "table"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "nothing"}
    return words.get(kind, getattr(kind, "__name__", str(kind)).lower())


def _default(field: dataclasses.Field) -> str:
    from nasaug.config.layers import _plain

    made = field.default_factory() if field.default is dataclasses.MISSING else field.default
    value = _plain(made)
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


# --- names ------------------------------------------------------------------------------------------------------


def names() -> str:
    """The tables of `nasaug list KIND`."""
    from nasaug.arch.cost import LABELS
    from nasaug.cli.list import KINDS, _shown

    lines = ["# Spaces, networks, recipes, arms", "", "What `nasaug list` prints: the names that commands take.", ""]
    titles = {
        "spaces": "Search spaces", "archs": "Networks", "recipes": "Recipes", "methods": "Methods", "arms": "Arms",
        "data": "Data sets",
    }  # fmt: skip
    for kind, make in KINDS.items():
        rows = make()
        heads = [LABELS.get(head, head) for head in rows[0]]
        lines += [f"## {titles[kind]}", "", "| " + " | ".join(heads) + " |", "| " + "--- | " * len(heads)]
        for row in rows:
            cells = (_shown(head, value).replace("|", "\\|") for head, value in row.items())
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)
