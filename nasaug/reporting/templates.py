"""What the pages share: the templates, their macros (macros.html.j2), filters and style (page.css)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

_HERE = Path(__file__).parent


def style() -> str:
    return (_HERE / "page.css").read_text(encoding="utf-8")


def template(name: str) -> Template:
    """The template with this file name; it escapes everything it is given and raises for undefined variables."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"breakable": _breakable, "capitalised": _capitalised, "minus": _minus}
    return environment.get_template(name)


def _breakable(name: str) -> Markup:
    """A name, escaped, with line breaks allowed after the characters that join its parts."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[+_,/=])(?=\w)", "<wbr>", str(escape(name))))


def _minus(text: str) -> str:
    """The text with true minus signs, which are as wide as a plus."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _capitalised(text: str) -> str:
    """The text with a capital first letter, all others unchanged (Jinja's own filter changes them)."""
    return text[:1].upper() + text[1:]
