"""Spaces derived from a plan: wider ones around it for NetAug, and thinner ones below it for GradAug."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch import archfile
from nasaug.arch.blocks import Spec
from nasaug.arch.cost import cost
from nasaug.arch.derived import Ladders, around, below
from nasaug.arch.plan import plan
from nasaug.core.errors import BadInput
from support.plans import inverted, plan_of
from support.spaces import SPACES, archs_of, every_space

WIDTHS, EXPANDS = (1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8)  # NetAug's published factors


# --- spaces around a plan -----------------------------------------------------------------------------------


def ladders(width=WIDTHS, expand=EXPANDS, to=1):
    return Ladders(width, expand, to)


@every_space
@given(data=st.data())
@settings(max_examples=15)
def test_the_smallest_around_a_plan_is_the_plan_itself(space, data):
    base = plan(space, data.draw(archs_of(space)), 10)
    for to in (1, 8):
        wide, smallest = around(base, ladders(to=to))
        assert smallest == wide.smallest and plan(wide, smallest, 10) == base
        assert plan(wide, wide.largest, 10).holds(base)
    assert around(base, Ladders())[0].largest.values == around(base, Ladders())[1].values


ODD = {
    "odd widths": plan_of(inverted("a", 13, 45), inverted("b", 13, 45, shortcut="identity"), stem=50),
    "a small squeeze-excite": plan_of(inverted("a", 16, 32, se=8)),
    "a squeeze-excite of one": plan_of(inverted("a", 16, 33, se=1)),
    "no expansion": plan_of(inverted("a", 16, 16), Spec("b", "separable", 24, 0, 3)),
}


@pytest.mark.parametrize("base", ODD.values(), ids=ODD)
@pytest.mark.parametrize("factors", [WIDTHS, (1.0, 1.02, 1.1)], ids=["published", "fine"])
@pytest.mark.parametrize("to", [1, 8])
def test_it_is_so_for_any_plan_found_published_or_pruned(base, factors, to):
    space, smallest = around(base, ladders(factors, factors, to))
    assert plan(space, smallest, 10) == base
    assert plan(space, space.largest, 10).holds(base)


def test_factors_compound_through_the_widened_input():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 144, shortcut="identity"))
    space, smallest = around(base, ladders())
    top = space.choices(space.largest)
    wide = space.arch(space.choices(smallest) | {name: top[name] for name in ("stem.width", "a.expand")})
    p = plan(space, wide, 10).by_name
    assert p["stem"].out == 42  # 16 x 2.6 = 41.6
    assert p["a.expand"].out == 706  # 96 / 16 x 2.8 x 42 = 705.6: 7.35 times the base's 96
    assert p["a.project"].out == 24 and p["b.expand"].out == 144  # the others are unchanged
    largest = plan(space, space.largest, 10).by_name
    assert [largest[n].out for n in ("stem", "a.expand", "a.project", "b.expand")] == [42, 706, 62, 1042]


def test_a_block_with_an_identity_keeps_its_inputs_width():
    base = plan_of(inverted("a", 24, 96), *(inverted(f"b{i}", 24, 48, shortcut="identity") for i in range(3)))
    space, smallest = around(base, ladders())
    assert [axis.name for axis in space.axes if axis.kind == "width"] == ["stem.width", "a.width"]
    for seed in range(50):
        p = plan(space, space.sample(Random(seed), low=smallest), 10)
        assert {block.out for block in p.blocks[1:5]} == {p.by_name["a.project"].out}


def test_every_width_and_every_expand_ratio_is_drawn_on_its_own():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 48, shortcut="identity"), inverted("c", 40, 144))
    space, smallest = around(base, ladders())
    assert [axis.name for axis in space.axes] == [
        "stem.width", "a.width", "a.expand", "b.expand", "c.width", "c.expand",
    ]  # fmt: skip
    drawn = [space.sample(Random(seed), low=smallest).values for seed in range(2000)]
    for i, one in enumerate(space.axes):
        for j, two in enumerate(space.axes[:i]):
            pairs = Counter((values[i], values[j]) for values in drawn)
            expected = len(drawn) / (len(one.choices) * len(two.choices))
            assert len(pairs) == len(one.choices) * len(two.choices)
            assert all(0.6 * expected < n < 1.5 * expected for n in pairs.values()), (one.name, two.name)


def test_only_the_free_kind_is_widened():
    base = plan_of(inverted("a", 24, 96))
    space, smallest = around(base, ladders())
    for seed in range(20):
        p = plan(space, space.sample(Random(seed), low=smallest, free=("expand",)), 10).by_name
        assert (p["stem"].out, p["a.project"].out) == (16, 24) and p["a.expand"].out in (96, 154, 211, 269)


BASES = {name: plan(space, space.sample(Random(0)), 10) for name, space in SPACES.items()}


@pytest.mark.parametrize("base", [*BASES.values(), ODD["odd widths"]], ids=[*BASES, "odd widths"])
def test_augmented_widths_are_multiples_of_round(base):
    space, smallest = around(base, ladders(to=8))
    for seed in range(20):
        layers = plan(space, space.sample(Random(seed), low=smallest), 10).layers
        assert [x for x in layers if x.out > base.by_name[x.name].out and x.out % 8] == []


def test_the_squeeze_excite_grows_with_the_expanded_channels():
    base = plan_of(inverted("a", 24, 96, se=24))
    space, smallest = around(base, ladders())
    assert plan(space, smallest, 10).by_name["a.se"].mid == 24
    widest = plan(space, space.largest, 10).by_name["a.se"]
    assert widest.mid == math.ceil(widest.out * 24 / 96 - 0.5) > 150  # halves down, as published
    for seed in range(40):  # and the narrower ones follow the widest one's ratio, halves up
        layer = plan(space, space.sample(Random(seed), low=smallest), 10).by_name["a.se"]
        assert layer.mid == max(math.floor(layer.out * widest.mid / widest.out + 0.5), 16)


def test_the_inner_width_of_a_resnet_block_is_a_share_of_its_output():
    base = plan_of(Spec("a", "bottleneck", 32, 8, 3, 2, "relu", shortcut="project"))
    space, _ = around(base, ladders((1.0, 2.0), (1.0, 1.6)))
    inner = 26  # 64 x 8 / 32 x 1.6 = 25.6
    assert [x.out for x in plan(space, space.largest, 10).blocks[1].all_layers] == [inner, inner, 64, 64]


def test_a_space_around_a_plan_has_no_file_form():
    with pytest.raises(BadInput, match="no file form"):
        around(ODD["no expansion"], ladders())[0].to_dict()


NAMES = "mobilenetv2-tiny mcunet mobilenetv3-w0.35 proxylessnas-w0.35 resnet20-cifar resnet50 wideresnet-16-2".split()
EVERY_ARCH = {name: archfile.read(name, resolution=32, classes=10).plan for name in NAMES}


# --- spaces below and above a plan --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(EVERY_ARCH))
def test_a_space_below_a_plan_ends_in_it_and_holds_but_slices(name):
    base = EVERY_ARCH[name]
    space, arch = below(base, (0.5, 0.75), (base.resolution // 2,), skip=True)
    assert plan(space, arch, base.classes) == base and arch == space.largest
    rng, seen = Random(0), set()
    for _ in range(20):
        thin = plan(space, space.sample(rng), base.classes)
        assert base.holds(thin) and cost(thin).macs <= cost(base).macs
        seen.add((thin.blocks[0].out, thin.resolution, len(thin.blocks)))
    assert len(seen) > 3


def test_thin_nets_have_one_width_factor_for_all_layers():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 144, shortcut="identity"), stem=16)
    space, _ = below(base, (0.5,))
    thin = plan(space, space.smallest, base.classes)
    assert {n: layer.out for n, layer in thin.by_name.items() if n != "classifier"} == {
        n: layer.out // 2 for n, layer in base.by_name.items() if n != "classifier"
    }
    assert thin.by_name["classifier"].out == base.classes


def test_skipped_blocks_are_those_with_an_identity_shortcut():
    base = plan_of(inverted("a", 24, 96), inverted("b", 24, 144, shortcut="identity"))
    space, arch = below(base, (), skip=True)
    assert [axis.name for axis in space.axes if axis.kind == "skip"] == ["b.skip"]
    shorter = plan(space, space.smallest, base.classes)
    assert [b.name for b in shorter.blocks] == [b.name for b in base.blocks if b.name != "b"]


@pytest.mark.parametrize("name", list(EVERY_ARCH))
def test_kernels_and_depths_are_augmented_around_a_plan(name):
    base = EVERY_ARCH[name]
    space, arch = around(base, Ladders(kernel=(0, 2), depth=(0, 1)))
    assert plan(space, arch, base.classes) == base
    largest = plan(space, space.largest, base.classes)
    assert largest.holds(base) and len(largest.blocks) > len(base.blocks)
    kernels_of = [{layer.name: layer.kernel for layer in p.layers} for p in (base, largest)]
    assert any(kernels_of[1][n] == k + 2 for n, k in kernels_of[0].items())
    rng = Random(1)
    for _ in range(10):
        wide = plan(space, space.sample(rng, low=arch), base.classes)
        assert wide.holds(base) and largest.holds(wide)
