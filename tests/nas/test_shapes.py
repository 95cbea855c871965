"""The shape of a net: which designs are tried, and what is left of the space."""

import math

import pytest

from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import Budget, cost_of
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import load
from nasaug.nas.shapes import KINDS, NEAR, design, designs, fixed
from support.searches import SPACE

TINY = load("tiny-images", BLOCKS)


def shape_of(space, arch):
    return tuple(v for axis, v in zip(space.axes, arch.values, strict=True) if axis.kind in KINDS)


@pytest.mark.parametrize("budget", [Budget(macs=300_000), Budget(macs=3_000_000), Budget(macs=10**6, peak=12_000)])
def test_each_design_is_the_spaces_own_in_another_shape_as_wide_as_the_budgets_allow(budget):
    found = designs(TINY, budget, 10, 24)
    shapes = [shape_of(TINY, arch) for arch in found]
    assert 5 < len(found) <= 24 and len(set(shapes)) == len(shapes)
    own = TINY.archs["tiny-images"].arch
    for arch in found:
        assert budget.holds(cost_of(TINY, arch, 10)) and TINY.contains(arch)
        for axis, value, mine in zip(TINY.axes, arch.values, own.values, strict=True):
            if axis.kind in ("depth", "expand", "kernel") and axis.name in present(arch):
                assert value == mine
    if budget.peak is None:
        assert min(cost_of(TINY, arch, 10).macs for arch in found) >= NEAR * budget.macs


def present(arch):
    """Names of the axes of blocks that the architecture has, and of its stages."""
    depths = {a.name.split(".")[0]: v for a, v in zip(TINY.axes, arch.values, strict=True) if a.kind == "depth"}
    return {
        axis.name for axis in TINY.axes
        if ".b" not in axis.name or int(axis.name.split(".b")[1][0]) <= depths.get(axis.name.split(".")[0], 1)
    }  # fmt: skip


def test_designs_of_about_their_own_width_come_first_and_fewer_are_the_first_of_more():
    few, many = (designs(TINY, Budget(macs=10**6), 10, count) for count in (5, 60))
    assert many[:5] == few

    def apart(arch):
        own = TINY.archs["tiny-images"].arch.values
        widths = [(v, o) for axis, v, o in zip(TINY.axes, arch.values, own, strict=True) if axis.kind == "width"]
        return abs(sum(math.log(v / o) for v, o in widths)) / len(widths)

    first, last = (sum(map(apart, part)) for part in (many[:15], many[-15:]))
    assert first < last


def test_the_design_is_scaled_in_its_own_shape_where_its_widths_hardly_change():
    own = TINY.archs["tiny-images"].arch
    for macs in (800_000, 1_000_000):
        arch = design(TINY, Budget(macs=macs), 10)
        assert NEAR * macs <= cost_of(TINY, arch, 10).macs <= macs and shape_of(TINY, arch) == shape_of(TINY, own)
    assert design(TINY, Budget(macs=20_000_000), 10) is None
    assert design(TINY.trimmed({"resolution": (24, 28)}), Budget(macs=1_000_000), 10) is None
    assert design(SPACE, Budget(macs=150_000), 10) is None  # it names none


def test_a_space_without_a_design_of_its_own_is_tried_at_the_middle_of_its_ladders():
    found = designs(SPACE, Budget(macs=150_000), 10, 9)
    assert {shape_of(SPACE, arch) for arch in found} == {(16,)}  # at 8 and 12 px even the widest has too few MACs
    depth, kernel = SPACE.index["s1.depth"], SPACE.index["stem.kernel"]
    assert {(arch.values[depth], arch.values[kernel]) for arch in found} == {(2, 5)}


def test_the_search_goes_on_in_one_shape_with_all_other_choices():
    arch = designs(TINY, Budget(macs=10**6), 10, 1)[0]
    space = fixed(TINY, arch)
    for axis, before in zip(space.axes, TINY.axes, strict=True):
        assert axis.choices == ((arch.values[TINY.index[axis.name]],) if axis.kind in KINDS else before.choices)
    assert space.contains(arch) and plan(space, arch, 10) == plan(TINY, arch, 10)
