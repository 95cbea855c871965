"""Plots of synthetic figures: what is drawn, and that no labels overlap."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.image import imread

from nasaug.core.units import format_quantity
from nasaug.reporting import pictures
from nasaug.reporting.pictures import Fit, HeatMap, Panel, Scatter

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
    panel = Scatter("accuracy", {"candidates": points}, points[1:], points[1:2])
    pictures.scatters(path, [panel], limit, "MACs (millions)")


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
