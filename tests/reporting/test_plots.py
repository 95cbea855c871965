"""Plots for a page, and its style and template."""

import re

import pytest
from jinja2 import UndefinedError

from nasaug.reporting import page, plots, templates
from nasaug.reporting.plots import Interval, Line


def test_the_style_has_each_colour_for_light_and_dark():
    style = templates.style()
    assert re.findall(r"--c(\d): #[0-9a-f]{6};", style) == [str(i) for i in range(plots.COLOURS)] * 2


def test_equal_drawings_are_equal_text_with_ids_of_their_caption():
    def drawing(caption):
        line = Line(0, [1, 2, 3], [3.0, 2.0, 1.0])
        return plots.svg(caption, lambda axes: plots.curves(axes, [line], "loss"))

    first, other = drawing("a <loss>"), drawing("b")
    assert first == drawing("a <loss>") and first.startswith("<svg ") and 'aria-label="a &lt;loss&gt;"' in first
    ids, others = (set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, other))
    assert len(ids) > 10 and not ids & others


def test_a_ninth_series_has_the_first_colour_and_another_marker():
    first, ninth = plots._look(0), plots._look(plots.COLOURS)
    assert first["color"] == ninth["color"] and first["marker"] != ninth["marker"]


@pytest.mark.parametrize("spent, scale", [((1e12, 3e12), "linear"), ((1e12, 9e12), "log"), ((0.0, 0.0), "linear")])
def test_an_axis_from_0_or_by_logarithm(spent, scale):
    seen = []

    def draw(axes):
        plots.against(axes, [Interval(70, None, x=x) for x in spent], "MACs", "top-1", "{:g}".format)
        seen.append((axes.get_xscale(), axes.get_xlim()))

    assert "NaN" not in plots.svg("x", draw)
    ((found, (left, right)),) = seen
    assert found == scale and left <= min(spent) and right > max(spent)


@pytest.mark.parametrize("drawn", [plots.rows, lambda *them: plots.against(*them[:3], "y", "{:g}".format, them[3])])
@pytest.mark.parametrize("bounds, ends", [((0.0, 100.0), (12.85, 102)), (None, (9.1, 182.9))])
def test_nothing_is_drawn_that_an_accuracy_cannot_be(drawn, bounds, ends):
    seen, bars = [], []

    def draw(axes):
        drawn(axes, [Interval(96, 79.0, "a", [95, 97], 1.0)], "x", bounds)
        seen.append(axes.get_xlim() if drawn is plots.rows else axes.get_ylim())
        bars.extend(axes.collections[0].get_segments()[0][:, 0 if drawn is plots.rows else 1])

    plots.svg("x", draw)
    assert sorted(bars) == pytest.approx([17, 100 if bounds else 175])
    assert seen[0] == pytest.approx(ends)  # with matplotlib's margin of 5 %


def test_a_figure_that_a_summary_lacks_is_not_left_out_silently():
    with pytest.raises(UndefinedError, match="has no attribute 'level'"):
        templates.template("page.html.j2").render(summary={"reference": "baseline"})


@pytest.mark.parametrize(
    "value, shown", [("3", "3"), (4.0, "4.0"), (["a", "b"], "a, b"), (list("abcde"), list("abcde")), ([], "")]
)
def test_a_long_list_of_facts_is_kept_a_list_and_folded(value, shown):
    summary = {"seeds": [0], "arms": [{"n": 1}], "archs": ["x"], "data": "d", "data_key": "k", "test_images": 9}
    *_, last = page._facts(summary | {"match": None, "reference": "r", "facts": {"some_thing": value}})
    assert last == ("Some thing", shown)


def test_minus_signs_of_figures_alone():
    assert templates._minus("-0.10 [-1.20, +2.00]") == "−0.10 [−1.20, +2.00]"
    assert [templates._minus(text) for text in ("1e-05", "seed-1", "-")] == ["1e-05", "seed-1", "-"]


def test_a_name_may_be_broken_after_what_joins_its_parts():
    assert templates._breakable("net_aug+<b>/x,y") == "net_<wbr>aug+&lt;b&gt;/<wbr>x,<wbr>y"
