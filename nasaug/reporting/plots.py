"""SVG plots for a page, of results computed elsewhere.

Colours are the page's CSS variables, so that one drawing suits light and dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from zlib import crc32

from ..core.files import escaped
from .pictures import widened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = 8  # --c0 to --c7 of page.css
_MARKERS = "osD^vPX*"
_INK, _FAINT = "#010203", "#040506"  # placeholders for the page's colours of text and grid lines
_SERIES = [f"#0a0b{i:02x}" for i in range(COLOURS)]
_SHORT = 26  # maximum characters of a name in a plot
Points = Sequence[tuple[float, float]]  # (x, y)
Bounds = tuple[float, float] | None
_SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "nasaug", "text.parse_math": False, "font.family": "DejaVu Sans",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "grid.color": _FAINT, "grid.linewidth": 0.7, "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
}  # fmt: skip


class Interval(NamedTuple):
    """A mean, the half width of its interval (None if it has none), and further values for a plot."""

    mean: float
    half: float | None
    name: str = ""
    values: Sequence[float] = ()  # whose mean it is
    x: float = 0.0
    series: int = 0  # those of one series share a colour and a marker


class Line(NamedTuple):
    """A line through points; lines of one `series` share a colour."""

    series: int
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False


def svg(caption: str, draw: Callable[[Axes], None], height: float = 3.4) -> str:
    """What `draw` draws as an <svg> named by its caption, with ids unique to that caption.

    It is 5 x `height` inches, a phone's width, so that its text is legible there. Equal drawings give equal text.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), io.BytesIO() as file:
        figure = Figure(figsize=(5.0, height), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        draw(axes)
        unnamed = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=unnamed)
        return _inline(file.getvalue().decode(), caption)


def _inline(drawing: str, caption: str) -> str:
    """Matplotlib's SVG as part of a page: with a title, the page's colours, and ids of its own."""
    drawing = drawing[drawing.index("<svg") :].rstrip()
    inner = drawing[drawing.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]*)"', drawing)[1]
    prefix = f"p{crc32(escaped(caption).encode())}-"
    inner = re.sub(r"<metadata>.*?</metadata>", "", inner, flags=re.DOTALL)
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'\bid="', f'id="{prefix}', inner)
    inner = re.sub(r'(href="|url\()#', rf"\1#{prefix}", inner)
    for i, colour in enumerate(_SERIES):
        inner = inner.replace(colour, f"var(--c{i})")
    inner = inner.replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)").replace("'DejaVu Sans'", "inherit")
    name = escape(caption)
    return f'<svg viewBox="{box}" role="img" aria-label="{name}">\n<title>{name}</title>{inner}'


def _look(i: int) -> dict[str, Any]:
    return {"color": _SERIES[i % COLOURS], "marker": _MARKERS[(i + i // COLOURS) % len(_MARKERS)]}


def _short(name: str) -> str:
    name = escaped(" ".join(name.split()))
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def rows(axes: Axes, intervals: Sequence[Interval], xlabel: str, bounds: Bounds = None) -> None:
    """Intervals one below the other, by name: mean, interval, and each value as a dot. Nothing is drawn beyond the
    `bounds` of what a value can be."""
    for i, row in enumerate(intervals):
        look = _look(row.series)
        axes.plot(row.values, [i + 0.25] * len(row.values), "o", color=look["color"], ms=5, alpha=0.6, mew=0)
        half = _halves(row, bounds)
        axes.errorbar(row.mean, i, xerr=half, fmt=look["marker"], color=look["color"], ms=7, capsize=4)
    axes.set_yticks(range(len(intervals)), [_short(row.name) for row in intervals])
    axes.set_ylim(len(intervals) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel(xlabel)
    axes.set_xlim(_within(axes.get_xlim(), bounds))


def curves(axes: Axes, lines: Sequence[Line], ylabel: str) -> None:
    """Lines over epochs."""
    for line in lines:
        marker = "." if len(line.xs) < 12 else ""
        axes.plot(line.xs, line.ys, "--" if line.dashed else "-", color=_SERIES[line.series % COLOURS], marker=marker)
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)


def against(
    axes: Axes, intervals: Sequence[Interval], xlabel: str, ylabel: str, x_text: Callable[[float], str],
    bounds: Bounds = None, joined: bool = False,
) -> None:  # fmt: skip
    """Means and intervals over their x, with ticks formatted by `x_text`; from 0, or logarithmic if x spans a wide
    range. Nothing is drawn beyond the `bounds` of what a value can be.

    If `joined`, a line joins those of each series, and the axis is logarithmic.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for series in dict.fromkeys(point.series for point in intervals) if joined else ():
        line = sorted((point.x, point.mean) for point in intervals if point.series == series)
        axes.plot(*zip(*line, strict=True), "-", color=_look(series)["color"], lw=1.3)
    for point in intervals:
        look, half = _look(point.series), _halves(point, bounds)
        axes.errorbar(point.x, point.mean, yerr=half, fmt=look["marker"], color=look["color"], ms=7, capsize=4)
    xs = [point.x for point in intervals]
    span = max(xs) / min(xs) if min(xs) > 0 else 1
    if span > 4 or (joined and span > 1):
        axes.set_xscale("log")
        axes.set_xlim(min(xs) / span**0.1, max(xs) * span**0.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if span < 50 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0, right=1.1 * max(xs) or 1)
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: x_text(x)))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_ylim(_within(axes.get_ylim(), bounds))


def _halves(interval: Interval, bounds: Bounds) -> Any:
    """How far the interval reaches below and above its mean, as errorbar takes it, cut to the bounds."""
    if bounds is None or interval.half is None:
        return interval.half
    mean, half = interval.mean, interval.half
    return [[min(half, mean - bounds[0])], [min(half, bounds[1] - mean)]]


def _within(limits: tuple[float, float], bounds: Bounds) -> tuple[float, float]:
    """An axis' limits, cut to the bounds and a margin for markers."""
    if bounds is None:
        return limits
    margin = 0.02 * (bounds[1] - bounds[0])
    return max(limits[0], bounds[0] - margin), min(limits[1], bounds[1] + margin)


def scatter(
    axes: Axes, points: Mapping[str, Points], front: Points, found: Points, limit: float | None, xlabel: str,
    ylabel: str, x_text: Callable[[float], str], y_text: Callable[[float], str] | None = None, line: bool = True,
) -> None:  # fmt: skip
    """Points by name, the front (joined by a `line`), the one found as a star, and the `limit` of x as a dashed line,
    with the legend below. `y_text` is given where y is a cost too. Like `pictures.scatters`, in the page's colours."""
    for i, (name, those) in enumerate(points.items()):
        part = (i + 1) / len(points)
        look = {"color": _SERIES[0], "ms": 4 + 3 * part, "mew": 0, "alpha": 0.4 + 0.45 * part}
        axes.plot(*_columns(those), "o", **look, label=name)
    if front:
        axes.plot(*_columns(front), "o-" if line else "o", ms=4, lw=1.3, color=_SERIES[1], label="Pareto front")
    if found:
        axes.plot(*_columns(found), "*", ms=13, mew=0, color=_SERIES[2], label="found")
    if limit:
        axes.axvline(limit, ls="--", lw=1, color=_SERIES[7], label="MAC budget" if xlabel == "MACs" else "budget")
    xs, ys = zip(*(point for those in (*points.values(), front, found) for point in those), strict=True)
    _scale(axes, "x", [*xs, limit] if limit else xs, x_text)
    if y_text:
        _scale(axes, "y", ys, y_text)
    axes.set(xlabel=xlabel, ylabel=escaped(ylabel))
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _scale(axes: Axes, which: Literal["x", "y"], values: Sequence[float], text: Callable[[float], str]) -> None:
    """Logarithmic if the values span a wide range, with ticks formatted by `text`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    span, axis = max(values) / min(values), {"x": axes.xaxis, "y": axes.yaxis}[which]
    if span > 4:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if span < 50 else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        limits = axes.get_xlim() if which == "x" else axes.get_ylim()
        axes.set(**{f"{which}lim": widened(*limits)})
        axes.locator_params(axis=which, nbins=6)
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
