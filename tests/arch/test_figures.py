"""Bytes moved, arithmetic intensity and the layers that set the peak, by hand and over every space."""

import pytest

from nasaug.arch.blocks import Spec
from nasaug.arch.cost import Memory, cost, costs_by_layer
from nasaug.arch.figures import figures, intensity, peaks
from nasaug.arch.plan import from_specs, plan
from support.spaces import every_space

STEM = Spec("stem", "conv", 4, 0, 3, 2, "relu")
END = (Spec("pool", "pool"), Spec("classifier", "linear", 10))


def by_name(*specs, resolution=8):
    return {row.layer.name: row for row in figures(from_specs((STEM, *specs, *END), resolution, 10))}


@every_space
def test_they_agree_with_the_cost_model(space):
    p = plan(space, space.largest, 10)
    rows = figures(p)
    assert [(row.layer, row.cost) for row in rows] == costs_by_layer(p)
    assert all(sum(row.memory) == row.cost.peak for row in rows)
    assert {row.cost.peak for row in peaks(rows)} == {cost(p).peak}
    assert all(0 < row.memory.input + row.memory.output <= row.moved - row.cost.flash for row in rows)


def test_a_residual_is_read_once_more_where_it_is_added():
    """An 8x8 image: 192 bytes; the stem makes 4x4x4 = 64 of them, twelve inner channels are 192."""
    rows = by_name(Spec("b", "inverted", 4, 12, 3, 1, "relu", shortcut="identity"))
    assert [rows[name].memory for name in ("stem", "b.expand", "b.dw", "b.project")] == (
        [Memory(192, 64, 0), Memory(64, 192, 0), Memory(192, 192, 64), Memory(192, 64, 64)]
    )
    moved = {"stem": 256 + 124, "b.expand": 256 + 96, "b.dw": 384 + 156, "b.project": 320 + 64, "pool": 68}
    assert {name: rows[name].moved for name in moved} == moved
    assert rows["b.dw"].intensity == 108 * 16 / 540 and rows["pool"].intensity == 0
    assert intensity(list(rows.values())) == 5032 / (380 + 352 + 540 + 384 + 68 + 14 + 80)


def test_a_projection_reads_the_blocks_input_while_the_main_path_is_held():
    """The block's input is 4x4x4 = 64 bytes, its output 8x2x2 = 32."""
    rows = by_name(Spec("b", "basic", 8, 8, 3, 2, "relu", shortcut="project"))
    assert rows["b.conv2"].memory == Memory(32, 32, 64) and rows["b.shortcut"].memory == Memory(64, 32, 32)
    assert rows["b.conv2"].moved == 64 + rows["b.conv2"].cost.flash
    assert rows["b.shortcut"].moved == 64 + 32 + 32 + rows["b.shortcut"].cost.flash


@pytest.mark.parametrize("blocks", [1, 3])
def test_all_layers_at_the_peak_are_named(blocks):
    specs = [Spec(f"b{i}", "inverted", 4, 12, 3, 1, "relu", shortcut="identity") for i in range(blocks)]
    assert [row.layer.name for row in peaks(list(by_name(*specs).values()))] == [f"b{i}.dw" for i in range(blocks)]
