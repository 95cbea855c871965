"""Plots of synthetic figures: what is drawn, and that no labels overlap."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.image import imread

from nasaug.core.units import format_quantity
from nasaug.reporting import pictures
from nasaug.reporting.pictures import Bar, Fit, HeatMap, Panel, Scatter

HEAT = HeatMap(["100k", "1M"], ["0", "9", "14"], [[0, -3, math.nan], [-9, 0, math.nan]], {(0, 2): "pruned"})
FIT = Fit("slope +9", [(1e5, 0), (1e6, 9)], [(1e5, 1), (1e6, 8)])


@pytest.fixture
def drawn(monkeypatch):
    """Draws a picture without writing it; returns the figure."""

    def draw(picture, *given):
        caught = []
        monkeypatch.setattr(pictures, "_save", lambda figure, path: caught.append(figure))
        picture(None, *given)
        (figure,) = caught
        FigureCanvasAgg(figure).draw()
        return figure

    return draw


def heat_maps(path, panels, x_text="{:g}".format):
    pictures.heat_maps(path, panels, "below the best", "magnitude", ("MACs", "best magnitude"), x_text)


def front(path, low, high, limit=None):
    points = [(low, 50), (math.sqrt(low * high), 60), (high, 70)]
    panel = Scatter("accuracy", {"candidates": points}, points[1:], points[1:2], limit=limit)
    pictures.scatters(path, [[panel]])


def labels(axis):
    """The axis's visible tick labels from left to right, with their left and right edges."""
    low, high = sorted(axis.get_view_interval())
    ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
    shown = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
    found = [(text.get_window_extent(), text.get_text()) for text in shown]
    return sorted((box.x0, box.x1, text) for box, text in found)


def assert_apart(axis):
    found = labels(axis)
    assert len(found) >= 2, found
    assert all(right < left for (_, right, _), (left, _, _) in zip(found, found[1:], strict=False)), found


@pytest.mark.parametrize("picture", [front, heat_maps])
def test_a_picture_is_a_png_and_leaves_nothing_beside_it(tmp_path, picture):
    picture(tmp_path / "x.png", *((1, 10) if picture is front else ([Panel("baseline", HEAT, FIT)],)))
    assert imread(tmp_path / "x.png").shape[:2] > (300, 900) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("low, high", [(0.08, 0.095), (5, 30), (0.1, 9), (1, 1000), (0.01, 2000)])
def test_labels_of_a_front_lie_apart_and_are_plain_numbers(drawn, low, high):
    axis = drawn(front, low, high).axes[0].xaxis
    assert_apart(axis)
    assert all(float(text) > 0 and "e" not in text for _, _, text in labels(axis))


@pytest.mark.parametrize("policies", [3, 12])
@pytest.mark.parametrize("ratio", [1.3, 9, 200, 1000])
def test_labels_of_a_fit_lie_apart(drawn, ratio, policies):
    heat = HeatMap(["1"], ["9"] * policies, [[0.0] * policies], {})
    xs = [1.1e5, 1.1e5 * ratio]
    fit = Fit("", [(x, 1) for x in xs], [(x, 1) for x in xs])
    assert_apart(drawn(heat_maps, [Panel("a", heat, fit)], lambda x: format_quantity(x, "macs")).axes[1].xaxis)


def test_a_front_shows_the_limit_where_there_is_one(drawn):
    without, with_limit = (drawn(front, 1, 10, limit).axes[0] for limit in (None, 5))
    shown = [text.get_text() for text in with_limit.get_legend().get_texts()]
    assert shown == ["candidates", "Pareto front", "found", "budget"]
    assert len(without.get_legend().get_texts()) == 3
    (candidates,) = (shape for shape in without.collections if isinstance(shape, PathCollection))
    assert len(candidates.get_offsets()) == 3


def test_a_heat_map_says_each_value_or_word_and_leaves_what_is_not_there_blank(drawn):
    figure = drawn(heat_maps, [Panel("baseline", HEAT, None), Panel("netaug", HEAT, FIT)])
    heat, nothing, _, fit = figure.axes
    assert [text.get_text() for text in heat.texts] == ["0.00", "-3.00", "pruned", "-9.00", "0.00"]
    assert [text.get_color() for text in heat.texts] == ["black", "black", "black", "white", "black"]
    assert (nothing.get_title(), nothing.lines[:], fit.get_title(), len(fit.lines)) == ("no curve", [], "slope +9", 2)


def test_names_of_files_are_no_mathematics_and_shortened_at_their_beginning(drawn):
    name = "a$\\frac$b" * 12 + "/end.toml"
    heat = HeatMap(["1M"], [r"$\frac$.json", "magnitudes/by-size.json"], [[0, -1]], {})
    figure = drawn(heat_maps, [Panel(name, heat, None)])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [r"$\frac$.json", "…es/by-size.json"]
    title = figure.subfigs[0].get_suptitle()
    assert len(title) == 80 and title.startswith("…") and title.endswith("b/end.toml")


def bars(count, peak, name="s1.b{}.expand"):
    return [Bar(name.format(i), 2000, 9000 if i == peak else 1000, 500 * (i % 2)) for i in range(count)]


@pytest.mark.parametrize("count, peak", [(1, 0), (54, 26), (54, 53), (250, 240)])
def test_the_layer_at_the_peak_is_named_inside_the_picture(drawn, count, peak):
    figure = drawn(pictures.memory, bars(count, peak, "a" * 30 + "{}"), "$a_net$", 9999)
    (axes,) = figure.axes
    (named,) = axes.texts
    size = "11.2 KB" if peak % 2 else "10.7 KB"
    assert named.get_text() == f"peak: …{f'{chr(97) * 30}{peak}'[-23:]}, {size}"
    assert named.xy == (peak, 11000 + 500 * (peak % 2))
    (legend,) = figure.legends
    box, whole = named.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= axes.bbox.y1
    assert axes.bbox.width > 0.8 * whole.width  # the name takes no room from the bars
    below = min(label.get_window_extent().y0 for label in axes.get_xticklabels())
    assert legend.get_window_extent().y1 <= below


def test_bars_of_memory_stack_to_what_a_layer_needs(drawn):
    figure = drawn(pictures.memory, bars(6, 3), "net", None)
    (axes,) = figure.axes
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[2]]
    assert tops == [3000, 3500, 3000, 11500, 3000, 3500]
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == [f"s1.b{i}.expand" for i in range(6)]
    assert [i for i, label in enumerate(labels) if label.get_fontweight() == "bold"] == [3]
    assert_apart(axes.xaxis)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["input", "output", "held for a shortcut"]


@pytest.mark.parametrize("limit", [4096, 40_000])
def test_a_limit_of_memory_is_a_line_within_the_picture(drawn, limit):
    (axes,) = drawn(pictures.memory, bars(6, 3), "net", limit).axes
    (line,) = axes.lines
    assert line.get_ydata() == [limit, limit] and axes.get_ylim()[1] > limit
    assert line.get_label() == f"budget {format_quantity(limit, 'bytes')}"
    ticks = [tick.get_text() for tick in axes.get_yticklabels()]
    assert {"4 KB", "8 KB"} <= set(ticks) or {"8 KB", "16 KB"} <= set(ticks)
