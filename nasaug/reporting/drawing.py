"""A network drawn from its plan, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from ..arch.blocks import BLOCKS, ON_OUTPUT, Block
from ..arch.cost import block_cost, cost, describe
from ..arch.plan import Plan
from .tables import in_one_line

WIDTH = 940  # px
_TOP, _ROW, _BOX = 96, 32, 16  # height of the title and the columns' heads, of a row, and of the box in it
_AXIS, _WIDEST, _NARROWEST = 128, 190, 8  # where the blocks' middle is, and the widths of their boxes
_ARC = 16  # how far a shortcut passes beside the box
_BAR, _BAR_WIDTH = 798, 62
_COLUMNS = (
    ("block", 244, "start"), ("kind", 326, "start"), ("kernel", 456, "end"), ("stride", 502, "end"),
    ("inner", 592, "end"), ("activation", 606, "start"), ("output", 784, "end"),
)  # fmt: skip
_COLOURS = {"pool": "grey", "maxpool": "grey", "norm": "grey", "conv": "green", "linear": "pink"}  # others are blue
_NOTE = "Width of a box: square root of the channels; pale: inner channels; dashed: shortcut with a 1×1 convolution."
# as direct colours, not variables, which fewer programs know; those of page.css
_STYLE = """
.net text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1d2329; }
.net .name { font-weight: 600; } .net .title { font-size: 16px; font-weight: 600; } .net .soft { fill: #59636d; }
.net .paper { fill: #ffffff; } .net .line { fill: none; stroke: #59636d; stroke-width: 1.5; }
.net .rule { stroke: #d5dade; } .net .sum { fill: #ffffff; stroke: #59636d; stroke-width: 1.5; }
.net .inner { opacity: .3; } .net .blue { fill: #0072b2; } .net .green { fill: #00845f; } .net .pink { fill: #b8538f; }
.net .grey { fill: #5f6b73; } .net .bar { fill: #d55e00; } .net .projected { stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
.net text { fill: #e7eaed; } .net .soft { fill: #a3adb7; } .net .paper { fill: #15191d; }
.net .line { stroke: #a3adb7; } .net .rule { stroke: #39424a; } .net .sum { fill: #15191d; stroke: #a3adb7; }
.net .blue { fill: #5ab4f0; } .net .green { fill: #3fd0a4; } .net .pink { fill: #eb9dc9; } .net .grey { fill: #a9b5bd; }
.net .bar { fill: #ff9d5c; } }
"""


class _Scale(NamedTuple):
    """What the widths of boxes and bars are relative to."""

    channels: int
    macs: int  # of the network
    most_macs: int  # of a block


def network(plan: Plan, name: str) -> str:
    """The network as an <svg>, a row per block: its box, as wide as the root of its channels (the inner ones pale), its
    shortcut as an arc (dashed if projected), its settings and its share of the MACs.

    It stands by itself or within a page, in light and dark mode. Equal plans and names give equal text.
    """
    total = cost(plan)
    height = _TOP + _ROW * len(plan.blocks) + 42
    name = in_one_line(name)
    facts = f"{plan.resolution} px, {plan.classes} outputs: {describe(total)}"
    scale = _Scale(
        max(max(block.out, block.spec.hidden) for block in plan.blocks), max(1, total.macs),
        max(1, *(block_cost(block).macs for block in plan.blocks)),
    )  # fmt: skip
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="net" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(f"{name}, {facts}")}">',
        f"<title>{escape(name)}</title>", f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>', _text(_end(name, 90), 20, 28, "title"),
        _text(facts, 20, 48, "soft"), *(_text(head, x, 78, "soft", at) for head, x, at in _COLUMNS),
        _text("share of MACs", _BAR, 78, "soft"), f'<path class="rule" d="M 20 86 H {WIDTH - 20}"/>',
        f'<path class="line" d="M {_AXIS} {_TOP + 4} V {height - 38}"/>',
    ]  # fmt: skip
    for i, block in enumerate(plan.blocks):
        lines += _block(block, _TOP + _ROW * i, scale)
    lines.append(_text(_NOTE, 20, height - 14, "soft"))
    return "\n".join([*lines, "</svg>\n"])


def _block(block: Block, top: float, scale: _Scale) -> Iterator[str]:
    """One block's row, whose upper edge is at `top`."""
    spec, middle, below = block.spec, top + _ROW / 2 + 4, top + _ROW + 4
    half, inner = (max(_NARROWEST, _WIDEST * (n / scale.channels) ** 0.5) / 2 for n in (block.out, spec.hidden))
    if block.shortcut != "none":
        look = "line projected" if block.project else "line"
        bend, above = _AXIS - max(half, inner) - _ARC + 14, top + 4
        arc = f"M {_AXIS} {above} H {bend:.1f} q -14 0 -14 10 V {below - 10} q 0 10 14 10 H {_AXIS}"
        yield f'<path class="{look}" d="{arc}"/>'
    colour = _COLOURS.get(spec.block, "blue")
    if spec.hidden:
        yield _box("paper", inner, middle)  # hides the lines behind the pale box
        yield _box(f"{colour} inner", inner, middle)
    yield _box(colour, half, middle)
    if block.shortcut != "none":
        yield f'<circle class="sum" cx="{_AXIS}" cy="{below}" r="4"/>'
    for words, (head, x, at) in zip(_words(block), _COLUMNS, strict=True):
        if words:
            yield _text(words, x, middle + 4, "name" if head == "block" else "", at)
    macs = block_cost(block).macs
    if macs:
        share, long = macs / scale.macs, max(1, _BAR_WIDTH * macs / scale.most_macs)
        yield f'<rect class="bar" x="{_BAR}" y="{middle - 5}" width="{long:.1f}" height="10" rx="1"/>'
        percent = f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"
        yield _text(percent, WIDTH - 20, middle + 4, "", "end")


def _box(look: str, half: float, middle: float) -> str:
    place = f'x="{_AXIS - half:.1f}" y="{middle - _BOX / 2}" width="{2 * half:.1f}"'
    return f'<rect class="{look}" {place} height="{_BOX}" rx="3"/>'


def _words(block: Block) -> tuple[str, ...]:
    """A text for each column; empty where the block has no such setting."""
    spec, takes = block.spec, BLOCKS[block.spec.block].takes
    inner = ""
    if spec.hidden:
        ratio = spec.hidden / (spec.width if spec.block in ON_OUTPUT else block.cin)
        inner = f"{spec.hidden} (×{ratio:.3g})"
    height, width = block.out_size
    return (
        _end(in_one_line(spec.name), 11), spec.block + (", pre" if spec.order == "pre" and spec.hidden else ""),
        f"{spec.kernel}×{spec.kernel}" if "kernel" in takes else "", str(spec.stride) if "stride" in takes else "",
        inner, ", ".join(filter(None, [spec.act, f"SE {spec.se}" if spec.se else ""])),
        f"{block.out} × {height}×{width}",
    )  # fmt: skip


def _text(words: str, x: float, y: float, look: str = "", at: str = "start") -> str:
    look, at = (f' class="{look}"' if look else ""), ("" if at == "start" else f' text-anchor="{at}"')
    return f'<text x="{x}" y="{y}"{look}{at}>{escape(words)}</text>'


def _end(name: str, most: int) -> str:
    """The end of a name, which distinguishes paths."""
    return name if len(name) <= most else "…" + name[1 - most :]
