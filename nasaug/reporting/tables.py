"""Tables as text: with rules on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

_WIDE = 10_000  # columns of text, more than any table has, so that nothing is truncated or wrapped


def text(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """The table: a header line and a line for each row, without a trailing newline.

    If stdout is a terminal that is wide enough, a rule separates the header. Otherwise columns are only separated by
    two spaces and never truncated to a width.

    Args:
        head: the columns' titles.
        rows: a text for each column.
        left: indices of left-aligned columns (for words); all others are right-aligned (for figures). Negative ones
            count from the end.
    """
    rows = [list(row) for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        from shutil import get_terminal_size

        ruled = _drawn(head, rows, left, ruled=True)
        if max(map(_width, ruled)) <= get_terminal_size().columns:
            return "\n".join(ruled)
    return "\n".join(_drawn(head, rows, left, ruled=False))


def _drawn(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int], ruled: bool) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    look = {"box": box.SIMPLE_HEAD, "padding": (0, 1)} if ruled else {"box": None, "padding": (0, 2, 0, 0)}
    table = Table(show_edge=False, pad_edge=False, **look)
    for i, title in enumerate(head):
        words = i in left or i - len(head) in left
        table.add_column(Text(title), justify="left" if words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(in_one_line(cell)) for cell in row))  # as Text, so that rich parses no markup
    # the terminal only determines whether it can show the rule: no colours, no settings from the environment
    console = Console(width=_WIDE, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False)
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def in_one_line(cell: str) -> str:
    """Escapes unprintable characters as Python source does: \\n, \\udce9."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cell)


def _width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)
