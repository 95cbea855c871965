"""Lowering: blocks, slices, spaces around a plan (what NetAug's wider nets are), and channel groups."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_space import SPACES, archs_of, bounds_of, every_space, made, stage

from nasaug.arch.channels import channel_groups
from nasaug.arch.derived import Ladders, around
from nasaug.arch.plan import Spec, from_dict, from_specs, hidden_width, make_divisible, plan
from nasaug.core.errors import BadInput

WIDTHS, EXPANDS = (1.0, 1.8, 2.6), (1.0, 1.6, 2.2, 2.8)  # NetAug's published factors
CLASSIFIER = Spec("classifier", "linear", 10)


def inverted(name, width, hidden, *, kernel=3, stride=1, se=0, shortcut="none"):
    return Spec(name, "inverted", width, hidden, kernel, stride, "relu6", se, shortcut)


def plan_of(*specs, resolution=16, stem=16):
    head = (Spec("pool", "pool"), CLASSIFIER)
    return from_specs((Spec("stem", "conv", stem, 0, 3, 2, "relu6"), *specs, *head), resolution, 10)


# --- lowering -----------------------------------------------------------------------------------------------


def test_equal_blocks_are_one_object():
    space = SPACES["squeeze"]
    one, two = (plan(space, space.smallest, 10) for _ in range(2))
    assert one == two and all(a is b for a, b in zip(one.blocks, two.blocks, strict=True))
    assert plan(space, space.smallest, 11) != one


def test_a_depth_keeps_the_first_blocks_of_its_stage():
    space = SPACES["residual"]
    arch = space.arch(space.choices(space.largest) | {"s1.depth": 1, "s2.depth": 2})
    names = [block.name for block in plan(space, arch, 10).blocks]
    assert names == ["stem", "small", "s1.b1", "s2.b1", "s2.b2", "pool", "classifier"]


def test_the_stride_is_the_first_blocks_and_sizes_round_up():
    space = SPACES["residual"]
    choices = {"stem.stride": 1, "s2.depth": 2, "resolution": 12}
    p = plan(space, space.arch(space.choices(space.largest) | choices), 10)
    sizes = {block.name: block.out_size[0] for block in p.blocks}
    assert sizes == {
        "stem": 12, "small": 6, "s1.b1": 6, "s1.b2": 6, "s2.b1": 3, "s2.b2": 3, "pool": 1, "classifier": 1,
    }  # fmt: skip
    assert [block.spec.stride for block in p.blocks] == [1, 2, 1, 1, 2, 1, 1, 1]
    assert p.at(13).blocks[1].out_size == (7, 7) and p.at(12) == p


def test_shortcuts_come_from_the_skeleton_not_from_widths_that_are_equal():
    stages = [
        stage("stem", "conv", width=16, kernel=3),
        stage("a", "inverted", width=16, depth=3, expand=2, kernel=3),
        stage("b", "inverted", width=16, kernel=3),
        stage("pool", "pool"),
    ]
    space = made({"resolution": 8, "stage": stages})
    shortcuts = {block.name: block.shortcut for block in plan(space, space.smallest, 10).blocks}
    residual = [name for name, shortcut in shortcuts.items() if shortcut != "none"]
    assert residual == ["a.b2", "a.b3"] and shortcuts["a.b2"] == "identity"


def test_layers_of_each_block_in_order():
    squeeze, pre = SPACES["squeeze"], SPACES["preactivation"]
    layers = {block.name: block for block in plan(squeeze, squeeze.smallest, 10).blocks}
    assert [(x.name, x.op) for x in layers["s1.b1"].layers] == [
        ("s1.b1.expand", "conv"), ("s1.b1.dw", "conv"), ("s1.b1.se", "se"), ("s1.b1.project", "conv"),
    ]  # fmt: skip
    assert [x.act for x in layers["s1.b1"].layers] == ["hswish", "hswish", "", ""]
    blocks = {block.name: block for block in plan(pre, pre.smallest, 10).blocks}
    assert all(x.pre and x.act == "relu" for x in blocks["s2.b1"].layers)
    assert blocks["s2.b1"].project.norm is False and blocks["s2.b1"].act == ""
    assert blocks["stem"].layers[0].norm is False and blocks["end"].layers[0].op == "norm"


@every_space
@given(data=st.data())
@settings(max_examples=30)
def test_a_larger_architecture_holds_a_smaller_one(space, data):
    small, large = (plan(space, arch, 10) for arch in data.draw(bounds_of(space)))
    assert large.holds(small)
    assert small.holds(large) == (small.at(large.resolution).widths == large.widths)


@pytest.mark.parametrize(
    ("value", "divisor", "rounded"),
    [(32 * 0.35, 8, 16), (16 * 0.35, 8, 8), (24 * 0.35, 8, 8), (64 * 0.35, 8, 24), (3, 8, 8), (12, 8, 16),
     (11, 8, 16), (28.8, 1, 29), (41.6, 1, 42), (448, 8, 448)],
)  # fmt: skip
def test_make_divisible_rounds_to_the_nearest_and_never_loses_a_tenth(value, divisor, rounded):
    assert make_divisible(value, divisor) == rounded
    assert rounded >= 0.9 * value


@given(channels=st.integers(1, 400), hidden=st.integers(1, 2400))
def test_a_ratio_gives_back_the_width_that_it_came_from(channels, hidden):
    assert hidden_width(hidden / channels, channels, 1) == hidden


def test_the_squeeze_excite_middle_is_a_rounded_share_and_at_least_16():
    space = SPACES["squeeze"]
    middles = {}
    for expand in (2, 6):
        arch = space.arch(space.choices(space.largest) | {"s1.b2.expand": expand})
        layer = plan(space, arch, 10).by_name["s1.b2.se"]
        middles[layer.out] = layer.mid
    assert middles == {48: 16, 144: 40}  # 144 / 4 = 36 lies halfway: up


# --- plans as data ------------------------------------------------------------------------------------------

GOOD = {
    "resolution": 16, "classes": 10,
    "blocks": [
        {"name": "stem", "block": "conv", "width": 8, "kernel": 3, "stride": 2, "act": "relu"},
        {"name": "b", "block": "inverted", "width": 8, "hidden": 16, "kernel": 3, "shortcut": "identity"},
        {"name": "pool", "block": "pool"},
        {"name": "classifier", "block": "linear", "width": 10},
    ],
}  # fmt: skip
BROKEN = {
    "no blocks": {"blocks": None},
    "an empty list of blocks": {"blocks": []},
    "a block that is none": {"blocks": [3]},
    "no resolution": {"resolution": 0},
    "classes a word": {"classes": "ten"},
    "classes that are not the classifier's": {"classes": 9},
    "unknown key": {"depth": 1},
    "unknown kind": {"block": "invertd"},
    "unknown activation": {"act": "swish6"},
    "unknown shortcut": {"shortcut": "identiti"},
    "unknown order": {"order": "before"},
    "a name that is none": {"name": ["b"]},
    "a name twice": {"name": "stem"},
    "no width": {"width": 0, "shortcut": "none"},
    "no inner width": {"hidden": 0},
    "half a channel": {"hidden": 16.5},
    "an even kernel": {"kernel": 4},
    "no stride": {"stride": 0},
    "an identity that changes the width": {"width": 12},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_plan_that_cannot_be_is_refused_in_one_line(change):
    whole = change.keys() & GOOD.keys()
    rows = [row | change if row["name"] == "b" else row for row in GOOD["blocks"]]
    with pytest.raises(BadInput) as refused:
        from_dict(GOOD | change if whole else GOOD | {"blocks": rows}, "found.json")
    assert "\n" not in str(refused.value)


def test_the_plan_that_is_broken_above_is_good():
    assert from_dict(GOOD).to_dict() == GOOD


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
    assert p["a.project"].out == 24 and p["b.expand"].out == 144  # the others stay as they are
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


# --- channel groups -----------------------------------------------------------------------------------------


@every_space
def test_every_channel_dimension_belongs_to_exactly_one_group(space):
    p = plan(space, space.largest, 10)
    members = [row for group in channel_groups(p).values() for row in group.members]
    assert len(members) == len(set(members))
    expected = set()
    for layer in p.layers:
        name = layer.name
        if layer.op in ("conv", "linear"):
            expected |= {(f"{name}.weight", 0)} | ({(f"{name}.weight", 1)} if not layer.depthwise else set())
        if layer.op == "linear":
            expected.add((f"{name}.bias", 0))
        if layer.norm:
            expected |= {(f"{name}.norm.{n}", 0) for n in ("weight", "bias", "running_mean", "running_var")}
        if layer.op == "se":
            expected |= {(f"{name}.{half}.weight", dim) for half in ("reduce", "expand") for dim in (0, 1)}
            expected |= {(f"{name}.{half}.bias", 0) for half in ("reduce", "expand")}
    ends = {("stem.weight", 1), ("classifier.weight", 0), ("classifier.bias", 0)}  # image and logits
    assert set(members) == expected - ends


def test_what_is_sorted_together_in_a_squeeze_excite_block():
    groups = channel_groups(plan(SPACES["squeeze"], SPACES["squeeze"].largest, 10))
    norm = [f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    inner = [("expand.weight", 0), ("dw.weight", 0), ("project.weight", 1), ("se.reduce.weight", 1),
             ("se.expand.weight", 0), ("se.expand.bias", 0)]  # fmt: skip
    inner += [(f"{layer}.{part}", 0) for layer in ("expand", "dw") for part in norm]
    middle = [("se.reduce.weight", 0), ("se.reduce.bias", 0), ("se.expand.weight", 1)]
    for name, wanted in (("s1.b2.expand", inner), ("s1.b2.se", middle)):
        assert sorted(groups[name].members) == sorted((f"s1.b2.{member}", dim) for member, dim in wanted)


def test_a_stream_is_one_group_for_all_that_read_or_write_it():
    space = SPACES["squeeze"]
    groups = channel_groups(plan(space, space.largest, 10))
    assert ("s1.b1.project.weight", 0) in groups["s1.b1"].members
    for block in ("s1.b2", "s1.b3"):
        assert {(f"{block}.expand.weight", 1), (f"{block}.project.weight", 0)} <= set(groups["s1.b1"].members)
    assert ("first.dw.weight", 0) in groups["stem"].members  # an identity: the stem's channels go through
    assert set(groups["final"].readers) == {("mix.weight", 1)}


def test_both_convolutions_of_a_bottleneck_are_groups_of_their_own_read_by_the_next():
    groups = channel_groups(plan(SPACES["residual"], SPACES["residual"].largest, 10))
    assert groups["s2.b1.conv1"].readers == (("s2.b1.conv2.weight", 1),)
    assert groups["s2.b1.conv2"].readers == (("s2.b1.conv3.weight", 1),)
    assert ("s2.b1.shortcut.weight", 0) in groups["s2.b1"].members
    assert ("s2.b1.shortcut.weight", 1) in groups["stem"].members
