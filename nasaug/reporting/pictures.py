"""PNG pictures of results computed elsewhere: a Pareto front, heat maps with fitted curves, memory by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core import files
from ..core.units import format_quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]  # (x, y)


class HeatMap(NamedTuple):
    """Values by row, the largest (such as 0) drawn brightest; NaN is left blank."""

    rows: Sequence[str]  # labels
    columns: Sequence[str]
    values: Sequence[Sequence[float]]  # by row and column
    words: Mapping[tuple[int, int], str]  # by row and column: shown hatched, with the word instead of the value


class Fit(NamedTuple):
    """Points and the line fitted to them."""

    title: str
    points: Points
    line: Points


class Panel(NamedTuple):
    title: str
    heat: HeatMap
    fit: Fit | None


class Scale(NamedTuple):
    """A cost's axis. Its values are in `factor` of its `unit` (of units.format_quantity)."""

    label: str
    unit: str
    factor: float
    plain: str  # the label with the unit of the values


MACS = Scale("MACs", "macs", 1e6, "MACs (millions)")
CLOSEST = 1.5  # the least ratio of the ends of a cost's axis


class Scatter(NamedTuple):
    """Points by name, a front through some of them, and the one found."""

    ylabel: str
    points: Mapping[str, Points]
    front: Points
    found: Points
    x: Scale = MACS
    y: Scale | None = None  # of a cost; None: a score
    limit: float | None = None  # of x
    line: bool = True  # join the points of the front: of two objectives it is a line, of more a surface


class Bar(NamedTuple):
    """The bytes of feature maps that a layer needs."""

    name: str
    input: int
    output: int
    held: int


def widened(low: float, high: float) -> tuple[float, float]:
    """The ends of a cost's axis, further apart if they are close: nets of nearly one cost must not look different."""
    by = max(1.0, CLOSEST / (high / low)) ** 0.5
    return low / by, high * by


def scatters(path: Path, rows: Sequence[Sequence[Scatter]]) -> None:
    """Rows of equally many panels: points, the front as a line, the one found as a star, and the limit of x. Axes of
    costs are logarithmic."""
    panels = [panel for row in rows for panel in row]
    figure = _figure(6.4 * len(rows[0]), 4.2 * len(rows))
    for axes, panel in zip(figure.subplots(len(rows), len(rows[0]), squeeze=False).flat, panels, strict=True):
        shades = [0.25 + 0.75 * (i + 1) / len(panel.points) for i in range(len(panel.points))]
        for (name, points), shade in zip(panel.points.items(), shades, strict=True):
            axes.scatter(*_columns(points), s=8 + 26 * shade, alpha=0.5 * shade + 0.2, color="tab:blue", label=name)
        if panel.front:
            look = "o-" if panel.line else "o"
            axes.plot(*_columns(panel.front), look, ms=4, color="tab:red", label="Pareto front")
        axes.plot(*_columns(panel.found), "*", ms=13, color="tab:green", label="found")
        if panel.limit:
            axes.axvline(panel.limit, ls="--", lw=1, color="grey", label="budget")
        axes.set(xlabel=panel.x.plain, ylabel=panel.ylabel, xscale="log")
        axes.set_xlim(*widened(*axes.get_xlim()))
        _few_labels(axes.xaxis, 5.7, "{:g}".format)  # 0.2, not 2 x 10^-1
        if panel.y:
            axes.set_yscale("log")
            axes.set_ylim(*widened(*axes.get_ylim()))
            _few_labels(axes.yaxis, 3.7, "{:g}".format)
        axes.legend()
        axes.grid(alpha=0.3)
    _save(figure, path)


def memory(path: Path, bars: Sequence[Bar], title: str, limit: int | None) -> None:
    """A stacked bar for each layer, in execution order; the highest is named, and `limit` (bytes) drawn as a line."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    figure = _figure(min(40, max(8, 1.5 + 0.16 * len(bars))), 5.2)
    axes, places = figure.subplots(), range(len(bars))
    below = [0] * len(bars)
    for label, colour, sizes in (
        ("input", "tab:blue", [bar.input for bar in bars]), ("output", "tab:orange", [bar.output for bar in bars]),
        ("held for a shortcut", "tab:grey", [bar.held for bar in bars]),
    ):  # fmt: skip
        axes.bar(places, sizes, 0.85, below, color=colour, label=label)
        below = [a + b for a, b in zip(below, sizes, strict=True)]
    top, peak = max(max(below), limit or 0), below.index(max(below))
    if limit:
        axes.axhline(limit, ls="--", lw=1.2, color="tab:red", label=f"budget {format_quantity(limit, 'bytes')}")
    side, aside = ("left", 0.02) if peak < len(bars) / 2 else ("right", -0.02)
    axes.annotate(
        f"peak: {_end(bars[peak].name, 24)}, {format_quantity(below[peak], 'bytes')}", (peak, below[peak]),
        (peak + aside * len(bars), below[peak] + 0.09 * top), ha=side, va="center", fontweight="bold", parse_math=False,
        arrowprops={"arrowstyle": "->"}, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip
    step = math.ceil(len(bars) / 240)  # beyond the widest picture, not every name has room
    names = [_end(bar.name, 24) for bar in bars[::step]]
    axes.set_xticks(places[::step], names, rotation=90, fontsize=7, parse_math=False)
    axes.xaxis.get_ticklabels()[peak // step].set_fontweight("bold")
    axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(top / 6))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_quantity(y, "bytes")))
    axes.set(ylabel="SRAM (int8)", xlim=(-0.7, len(bars) - 0.3), ylim=(0, 1.2 * top))
    axes.set_title(_end(title, 100), parse_math=False)
    figure.legend(loc="outside lower center", ncols=4)
    _save(figure, path)


def heat_maps(
    path: Path, panels: Sequence[Panel], title: str, xlabel: str, fit_labels: tuple[str, str],
    x_text: Callable[[float], str],
) -> None:  # fmt: skip
    """One row per panel: its heat map on the left and its fit on the right, with labels for x and y.

    The fit's x axis is logarithmic, with ticks formatted by `x_text`.
    """
    columns = max((len(panel.heat.columns) for panel in panels), default=0)
    width = max(9, 5 + 0.8 * columns)
    figure = _figure(width, 1 + 3 * len(panels))
    for part, panel in zip(figure.subfigures(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        part.suptitle(_end(panel.title, 80), parse_math=False)
        left, right = part.subplots(1, 2)
        left.set(xlabel=xlabel, title=title)
        _draw_heat(left, panel.heat)
        right.set(xlabel=fit_labels[0], ylabel=fit_labels[1], xscale="log")
        _draw_fit(right, panel.fit)
        _few_labels(right.xaxis, width / 2 - 0.8, x_text)
    _save(figure, path)


def _draw_heat(axes: Axes, heat: HeatMap) -> None:
    worst = min(-0.01, *(value for line in heat.values for value in line if not math.isnan(value)))
    axes.imshow(heat.values, cmap="viridis", aspect="auto", vmin=worst, vmax=0)
    labels = [_end(name, 16) for name in heat.columns]
    slant = {"rotation": 30, "ha": "right"} if max(map(len, labels)) > 6 else {}
    axes.set_xticks(range(len(labels)), labels, parse_math=False, **slant)
    axes.set_yticks(range(len(heat.rows)), heat.rows)
    for y, line in enumerate(heat.values):
        for x, value in enumerate(line):
            ink = "white" if value < 0.6 * worst else "black"  # the lower end of the colours is dark
            if (y, x) in heat.words:
                axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, facecolor="none", edgecolor="grey", hatch="//")
                axes.text(x, y, heat.words[y, x], ha="center", va="center", backgroundcolor="white")
            elif not math.isnan(value):
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=ink)


def _draw_fit(axes: Axes, fit: Fit | None) -> None:
    axes.set_title("no curve" if fit is None else fit.title)
    if fit is not None:
        axes.plot(*_columns(fit.points), "o", alpha=0.4)
        axes.plot(*_columns(fit.line), "-")
        axes.set_ylim(-1, max(y for _, y in fit.points) + 1)


def _few_labels(axis: Axis, inches: float, text: Callable[[float], str]) -> None:
    """Plain numbers along a logarithmic axis of this length, few enough not to overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    low, high = axis.get_view_interval()
    dense = math.log10(high / low) / inches  # decades per inch
    axis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7) if dense < 0.35 else (2, 5) if dense < 0.6 else ()))
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda x, _: text(x)))


def _end(name: str, most: int) -> str:
    """The end of a name, which distinguishes paths."""
    name = files.escaped(name)
    return name if len(name) <= most else "…" + name[1 - most :]


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with files.whole_file(path) as file:
        figure.savefig(file, dpi=150, format="png")
