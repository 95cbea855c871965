"""Tables as text: with rules on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

_WIDE = 10_000  # columns of text, more than any table has: nothing is cut or broken


def text(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """The table, a line for its head and for each row, without a newline at the end.

    Where stdout is a terminal that is wide enough, a rule is below the head. Elsewhere the lines are columns two spaces
    apart and nothing more, never cut to a width.

    Args:
        left: columns that are aligned to the left, as words are; all others to the right, as figures are. Negative
            ones count from the last.
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
        table.add_row(*(Text(_in_one_line(cell)) for cell in row))  # as Text, in which rich looks for no markup
    # of the terminal only whether it can show the rule: no colours, and no setting of the user's environment
    console = Console(width=_WIDE, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False)
    with console.capture() as drawn:
        console.print(table)
    return [line.rstrip() for line in drawn.get().splitlines()]


def _in_one_line(cell: str) -> str:
    """What would move the cursor, or is no character, as Python writes it in source: \\n, \\udce9."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cell)


def _width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)
