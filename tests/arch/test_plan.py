"""Lowering: blocks, slices, plans as data, and channel groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost
from nasaug.arch.plan import from_dict, hidden_width, make_divisible, plan
from nasaug.core.errors import BadInput
from support.spaces import SPACES, between, bounds_of, every_space, made, stage

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
    low, high = data.draw(bounds_of(space))
    small, large = plan(space, low, 10), plan(space, high, 10)
    net = between(space, low, high)
    assert net.holds(small) and net.holds(large) and cost(net) == cost(large)
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
