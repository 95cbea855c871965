"""Law 2 on small spaces, the memory model by hand, budgets, and cropping a space to a budget."""

import itertools
import math
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from nasaug.arch.blocks import BLOCKS, Spec
from nasaug.arch.cost import (
    Budget,
    Cost,
    all_within,
    cost,
    cost_of,
    crop,
    describe,
    largest_within,
    layer_costs,
    most_macs,
    reach,
    sample_near,
    within_reach,
)
from nasaug.arch.plan import from_specs, plan
from nasaug.arch.space import Arch
from nasaug.arch.spacefile import from_dict as space_from_dict
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput
from nasaug.nets.net import Net
from support.spaces import SPACES, archs_of, bounds_of, every_space, made, stage


@pytest.fixture(scope="module")
def mobilenet():
    """The default space for 28 px images."""
    return load("mobilenetv2-small", BLOCKS).trimmed({"resolution": (16, 20, 24, 28)})


# --- MACs and parameters ------------------------------------------------------------------------------------


@every_space
@given(data=st.data())
@settings(max_examples=10)
def test_macs_and_parameters_are_those_of_the_built_net(space, data):
    p = plan(space, data.draw(archs_of(space)), 10)
    net = Net(p).train()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(2, 3, p.resolution, p.resolution))
    assert cost(p).macs == counter.get_total_flops() // 4  # two operations per MAC, two images
    assert cost(p).params == sum(parameter.numel() for parameter in net.parameters())


@every_space
@given(data=st.data())
@settings(max_examples=30)
def test_a_larger_architecture_costs_at_least_as_much(space, data):
    small, large = (cost_of(space, arch, 10) for arch in data.draw(bounds_of(space)))
    assert all(a <= b for a, b in zip(small.known.values(), large.known.values(), strict=True))


@every_space
def test_the_whole_costs_what_its_layers_do(space):
    p = plan(space, space.largest, 10)
    rows = [row for block in p.blocks for row in layer_costs(block)]
    assert len(rows) == len(list(p.layers))
    macs, params, peaks, flash = zip(*(row[:4] for row in rows), strict=True)
    assert cost(p) == Cost(sum(macs), sum(params), max(peaks), sum(flash))


def test_the_default_space_at_28_px(mobilenet):
    smallest, largest = (cost_of(mobilenet, arch, 10) for arch in (mobilenet.smallest, mobilenet.largest))
    published = mobilenet.named("mobilenetv2-small")
    assert smallest.macs <= 100_000 and smallest.params <= 40_000
    assert 35e6 <= largest.macs <= 40e6
    assert mobilenet.contains(published) and mobilenet.leq(published, mobilenet.largest)
    assert 21.5e6 <= cost_of(mobilenet, published, 10).macs <= 22.5e6


# --- memory, by hand ----------------------------------------------------------------------------------------

STEM = Spec("stem", "conv", 4, 0, 3, 2, "relu")
END = (Spec("pool", "pool"), Spec("classifier", "linear", 10))


def rows_of(*specs, resolution=8):
    p = from_specs((STEM, *specs, *END), resolution, 10)
    pairs = [pair for b in p.blocks for pair in zip(b.all_layers, layer_costs(b), strict=True)]
    return cost(p), {layer.name: c for layer, c in pairs}


def test_a_residual_is_held_until_it_is_added():
    """An 8x8 image: 192 bytes; the stem makes 4x4x4 = 64 of them, twelve inner channels are 192."""
    whole, rows = rows_of(Spec("b", "inverted", 4, 12, 3, 1, "relu", shortcut="identity"))
    assert rows == {
        "stem": Cost(108 * 16, 108 + 2 * 4, 192 + 64, 108 + 4 * 4),
        "b.expand": Cost(48 * 16, 48 + 2 * 12, 64 + 192, 48 + 4 * 12),  # the input itself is what is held
        "b.dw": Cost(108 * 16, 108 + 2 * 12, 192 + 192 + 64, 108 + 4 * 12),  # not in place
        "b.project": Cost(48 * 16, 48 + 2 * 4, 192 + 64 + 64, 48 + 4 * 4),
        "pool": Cost(0, 0, 64 + 4, 0),
        "classifier": Cost(40, 40 + 10, 4 + 10, 40 + 4 * 10),
    }
    assert whole == Cost(5032, 426, 448, 520)


def test_without_a_residual_nothing_is_held():
    _, rows = rows_of(Spec("b", "inverted", 4, 12, 3, 1, "relu"))
    assert [rows[f"b.{name}"].peak for name in ("expand", "dw", "project")] == [256, 384, 256]


def test_the_image_counts():
    whole, _ = rows_of(resolution=32)
    assert whole.peak == 3 * 32 * 32 + 4 * 16 * 16


def test_a_projection_holds_the_input_and_the_main_paths_output():
    """The input has 64 bytes; both convolutions and the projection output 8x2x2 = 32."""
    _, rows = rows_of(Spec("b", "basic", 8, 8, 3, 2, "relu", shortcut="project"))
    assert rows["b.conv1"].peak == 64 + 32
    assert rows["b.conv2"].peak == 32 + 32 + 64
    assert rows["b.shortcut"] == Cost(32 * 4, 32 + 2 * 8, 32 + 32 + 64, 32 + 4 * 8)


def test_a_squeeze_excite_has_biases_and_works_on_one_pixel():
    _, rows = rows_of(Spec("b", "inverted", 4, 12, 3, 1, "relu", 16, "identity"))
    weights = 2 * 12 * 16
    assert rows["b.se"] == Cost(weights, weights + 12 + 16, 192 + 192 + 64, weights + 4 * (12 + 16))


def test_a_norm_that_cannot_fold_keeps_its_scale_in_flash():
    """Four input channels are normalised before the convolution: a bias of 4 bytes and a scale of 1 each."""
    block = Spec("b", "basic", 4, 4, 3, 1, "relu", 0, "identity", "pre")
    _, rows = rows_of(block, Spec("end", "norm", act="relu"))
    assert rows["b.conv1"] == Cost(144 * 16, 144 + 2 * 4, 64 + 64, 144 + 4 * 4 + 4)
    assert rows["end"] == Cost(0, 2 * 4, 64 + 64, 4 * 4 + 4)


# --- budgets ------------------------------------------------------------------------------------------------


def test_a_budget_holds_up_to_its_limits_and_tells_by_how_much_it_does_not():
    budget = Budget.parse(macs="1M", peak="64KB")
    assert budget == Budget(macs=1_000_000, peak=65_536)
    assert budget.holds(Cost(1_000_000, 10**9, 65_536, 10**9))
    assert budget.excess(Cost(1_500_000, 0, 32_768, 0)) == {"macs": 0.5, "peak": -0.5}
    assert not budget.holds(Cost(1_000_001, 0, 0, 0)) and not budget.holds(Cost(0, 0, 65_537, 0))
    assert str(budget) == "MACs <= 1M, peak SRAM <= 64 KB"


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_what_holds_has_no_excess(limit, macs):
    budget, spent = Budget(macs=limit), Cost(macs, 1, 1, 1)
    assert budget.holds(spent) == all(over <= 0 for over in budget.excess(spent).values())


def test_no_budget_holds_anything():
    assert Budget().holds(Cost(10**18, 1, 1, 1)) and Budget().excess(Cost(1, 1, 1, 1)) == {}
    assert Budget.parse(macs=None, flash=None) == Budget() and str(Budget()) == "none"


@pytest.mark.parametrize(
    ("key", "option"),
    [("macs", "mac_budget"), ("params", "param_budget"), ("peak", "sram_budget"), ("flash", "flash_budget")],
)
@pytest.mark.parametrize("text", ["25Q", "0", "-3", "nan", ""])
def test_a_budget_that_is_none_is_refused_by_its_arguments_name(key, option, text):
    with pytest.raises(BadInput, match=f"{option} = {text}: ") as refused:
        Budget.parse(**{key: text})
    assert "\n" not in str(refused.value)
    assert (refused.value.field, refused.value.value) == (option, text) and "give a number" in refused.value.remedy


def test_a_cost_in_words():
    assert describe(Cost(23_499_152, 750_280, 65_536, 792_000)) == (
        "23.5M MACs, 750k parameters, 64 KB peak SRAM, 773 KB flash"
    )


# --- cropping -----------------------------------------------------------------------------------------------

GROUPS = ("stride", "kernel", "width", "head", "depth", "resolution", "expand")
CROPPED = {
    "resolution": [8, 12, 16],
    "stage": [
        stage("stem", "conv", width=[4, 8, 12], kernel=3, stride=[2, 1]),
        stage("s1", "inverted", width=[8, 16, 24], depth=[1, 2, 3], expand=[2, 4, 6], kernel=[3, 5, 7]),
        stage("final", "conv", width=[16, 32, 48, 64]),
        stage("pool", "pool"),
    ],
}


def rungs(space):
    """Number of remaining choices by crop group."""
    count = {axis.name: len(axis.choices) for axis in space.axes}
    assert count["stem.width"] == count["s1.width"] and count["s1.b3.kernel"] == count["s1.b1.kernel"]
    shown = "stem.stride s1.b1.kernel s1.width final.width s1.depth resolution s1.b1.expand"
    return tuple(count[name] for name in shown.split())


def test_rungs_are_dropped_in_the_published_order_one_at_a_time():
    """Stem stride and kernel once; then width, head, depth and resolution in turn; expand never."""
    order = "stride kernel width head depth resolution width head depth resolution head".split()
    states = [(2, 3, 3, 4, 3, 3, 3)]
    for group in order:
        i = GROUPS.index(group)
        states.append((*states[-1][:i], states[-1][i] - 1, *states[-1][i + 1 :]))
    space = space_from_dict(CROPPED, "test.toml", BLOCKS)
    seen, cropped = [rungs(space)], space
    for _ in order:
        budget = Budget(macs=cost_of(cropped, cropped.largest, 10).macs - 1)
        cropped = crop(space, budget, 1, 10)
        seen.append(rungs(cropped))
    assert seen == states
    assert crop(space, Budget(macs=1), 1, 10) == cropped  # nothing more can be dropped


@pytest.mark.parametrize("headroom", [1, 2.5, 6])
def test_cropping_stops_as_soon_as_the_largest_fits(headroom):
    space = space_from_dict(CROPPED, "test.toml", BLOCKS)
    macs = cost_of(space, space.largest, 10).macs
    for share in (2, 1, 0.7, 0.3, 0.1):
        budget = Budget(macs=math.ceil(macs * share / headroom))
        cropped = crop(space, budget, headroom, 10)
        assert cost_of(cropped, cropped.largest, 10).macs <= headroom * budget.macs
        if share >= 1:
            assert cropped == space
    almost = crop(space, Budget(macs=macs - 1), 1, 10)
    assert sum(rungs(almost)) == sum(rungs(space)) - 1  # one rung is enough: the stem's stride


def test_whatever_can_be_dropped_is_even_where_nothing_else_can():
    stages = [stage("stem", "conv", width=8, kernel=[1, 3, 5]), stage("pool", "pool")]
    cropped = crop(made({"resolution": 16, "stage": stages}), Budget(macs=60_000), 1, 10)
    assert cropped.axes[0].choices == (1, 3)


def test_no_headroom_or_no_budget_leaves_the_space_as_it_is(mobilenet):
    assert crop(mobilenet, Budget(macs=100_000), 0, 10) is mobilenet
    assert crop(mobilenet, Budget(params=50_000), 6, 10) is mobilenet


def test_the_default_space_at_a_million_macs(mobilenet):
    cropped = crop(mobilenet, Budget(macs=1_000_000), 6, 10)
    assert 4.5e6 <= cost_of(cropped, cropped.largest, 10).macs <= 6e6
    published = mobilenet.choices(mobilenet.named("mobilenetv2-small"))
    for axis, whole in zip(cropped.axes, mobilenet.axes, strict=True):
        if axis.kind == "expand":
            assert axis == whole
        if axis.kind in ("expand", "depth"):
            assert published[axis.name] in axis.choices
        assert axis.choices == whole.choices[: len(axis.choices)]
    assert cropped.smallest == mobilenet.smallest


def test_the_default_space_at_25_million_macs_stays_whole(mobilenet):
    assert crop(mobilenet, Budget(macs=25_000_000), 6, 10) == mobilenet


def test_a_cropped_space_survives_its_file(mobilenet):
    cropped = crop(mobilenet, Budget(macs=1_000_000), 6, 10)
    assert space_from_dict(cropped.to_dict(), "found.json", BLOCKS) == cropped != mobilenet


def test_the_largest_of_a_cropped_space_is_canonical_too(mobilenet):
    """Blocks beyond the remaining depth are in no network: equal nets have equal archs."""
    cropped = crop(mobilenet, Budget(macs=300_000), 6, 10)
    assert cropped.canonical(cropped.largest) == cropped.largest


# --- what a space can do under a budget ---------------------------------------------------------------------


def test_reach_tells_smallest_middle_largest_and_the_share_within(mobilenet):
    macs = sorted(cost_of(mobilenet, mobilenet.sample(Random(i)), 10).macs for i in range(500))
    able = reach(mobilenet, Budget(macs=macs[250]), 10, samples=500)
    assert able.smallest == cost_of(mobilenet, mobilenet.smallest, 10)
    assert able.largest == cost_of(mobilenet, mobilenet.largest, 10)
    assert all(a <= b <= c for a, b, c in zip(able.smallest[:4], able.middle[:4], able.largest[:4], strict=True))
    assert 0.4 < able.feasible < 0.6
    assert reach(mobilenet, Budget(), 10, samples=20).feasible == 1
    assert reach(mobilenet, Budget(macs=able.smallest.macs), 10, samples=20).feasible < 0.1


@pytest.mark.parametrize(
    ("budget", "option", "smallest"),
    [
        (Budget(macs=10_000), "mac_budget = 10k", "54.5k MACs"),
        (Budget(params=10_000), "param_budget = 10k", "18.4k parameters"),
        (Budget(peak=1024), "sram_budget = 1 KB", "1.5 KB peak SRAM"),
        (Budget(macs=10**9, flash=10_240), "flash_budget = 10 KB", "19.2 KB flash"),
        (Budget(10**9, 9, 9), "param_budget = 9, sram_budget = 9 B", "18.4k parameters, 1.5 KB peak SRAM; ask for at"),
    ],
)
def test_an_impossible_budget_is_refused_naming_the_smallest_possible(mobilenet, budget, option, smallest):
    with pytest.raises(BadInput) as refused:
        reach(mobilenet, budget, 10)
    line = str(refused.value)
    assert option in line and smallest in line and "\n" not in line


def shares(space, low, high, count):
    """Sorted positions of drawn architectures on a log scale from `low` (0) to `high` (1)."""
    drawn = [cost_of(space, sample_near(space, Random(i), low, high, 10), 10).macs for i in range(count)]
    return sorted(math.log(macs / low) / math.log(high / low) for macs in drawn)


@pytest.mark.parametrize(("low", "high"), [(25e6 / 8, 30e6), (1e6 / 8, 1.2e6), (54_512, 38e6)])
def test_architectures_near_a_size_are_spread_evenly_over_its_logarithm(mobilenet, low, high):
    places = shares(mobilenet, low, high, 240)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert places[int(quantile * len(places))] == pytest.approx(quantile, abs=0.1)


@pytest.mark.parametrize(
    "limits", [Budget(peak=8192), Budget(peak=2048), Budget(params=50_000), Budget(flash=30_000, peak=4096)], ids=str
)
def test_what_is_drawn_near_a_size_keeps_within_limits_and_is_as_large_as_they_allow(mobilenet, limits):
    most = most_macs(mobilenet, limits, 10)
    drawn = [sample_near(mobilenet, Random(i), most / 8, most, 10, limits) for i in range(60)]
    costs = [cost_of(mobilenet, arch, 10) for arch in drawn]
    assert all(limits.holds(c) for c in costs) and all(mobilenet.contains(arch) for arch in drawn)
    assert len(set(drawn)) > 25 and sorted(c.macs for c in costs)[30] > most / 8


def test_limits_that_a_draw_is_within_change_nothing_of_it(mobilenet):
    for seed in range(20):
        free = sample_near(mobilenet, Random(seed), 1e5, 1e6, 10)
        assert sample_near(mobilenet, Random(seed), 1e5, 1e6, 10, Budget(peak=64 * 1024)) == free


SMALL = {
    "divisor": 8, "resolution": [8, 12],
    "stage": [
        stage("stem", "conv", width=[4, 8, 12], kernel=[1, 3], stride=[2, 1], act="relu"),
        stage("s1", "basic", width=[8, 16], depth=[1, 2], expand=[0.5, 0.75, 1], kernel=3, first="project"),
        stage("pool", "pool"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "budget",
    [Budget(), Budget(10**6), Budget(60_000), Budget(peak=800), Budget(params=1500), Budget(90_000, 3000, 900)],
    ids=str,
)
def test_all_networks_within_a_budget_are_known(budget):
    """Matches exhaustive enumeration, also if several choices of a block give the same width."""
    space = space_from_dict(SMALL | {"format": "nasaug-space/1", "name": "small"}, "small.toml", BLOCKS)
    archs = (Arch(space.name, values) for values in itertools.product(*(axis.choices for axis in space.axes)))
    plans = {plan(space, space.canonical(arch), 10) for arch in archs}
    within = {p for p in plans if budget.holds(cost(p))}
    assert within and set(all_within(space, budget, 10, 1000)) == within
    assert all(plan(space, arch, 10) == p for p, arch in all_within(space, budget, 10, 1000).items())
    assert all_within(space, budget, 10, len(within)) is not None
    assert all_within(space, budget, 10, len(within) - 1) is None
    most = max(cost(p).macs for p in within)
    assert 0.8 * most <= most_macs(space, budget, 10) <= max(most, budget.macs or 0)


def test_uniform_choices_would_lie_far_below_a_large_budget(mobilenet):
    macs = sorted(cost_of(mobilenet, mobilenet.sample(Random(i)), 10).macs for i in range(240))
    assert macs[120] < 25e6 / 3


@pytest.mark.parametrize("name", SPACES)
def test_architectures_near_a_size_are_of_the_space_and_within_a_rung_of_the_bounds(name):
    space = SPACES[name]
    least, most = (cost_of(space, arch, 10).macs for arch in (space.smallest, space.largest))
    low, high = least * (most / least) ** 0.3, least * (most / least) ** 0.7
    for seed in range(60):
        arch = sample_near(space, Random(seed), low, high, 10)
        assert space.contains(arch) and space.canonical(arch) == arch
        assert low / 2.5 < cost_of(space, arch, 10).macs < 2 * high  # a stride of the stem is a factor of 4
    assert sample_near(space, Random(3), low, high, 10) == sample_near(space, Random(3), low, high, 10)


def test_one_in_two_is_a_variation_of_a_named_architecture(mobilenet):
    """At any resolution, also if the space is cropped below that architecture."""
    for space in (mobilenet, crop(mobilenet, Budget(macs=1_000_000), 6, 10)):
        kept = [a for a in space.axes if a.kind not in ("width", "stride", "resolution")]
        named = space.choices(space.named("mobilenetv2-small"))
        expected = {a.name: max(c for c in a.choices if c <= named[a.name]) for a in kept}
        drawn = [space.choices(sample_near(space, Random(i), 5e5, 1e6, 10)) for i in range(100)]
        shares = [sum(choices[name] == value for name, value in expected.items()) / len(kept) for choices in drawn]
        alike = [choices for choices, share in zip(drawn, shares, strict=True) if share > 0.64]
        assert 30 <= len(alike) <= 70
        assert len({share for share in shares if share > 0.64}) >= 6  # from nearly the design itself to far from it
        assert {c["resolution"] for c in alike} == {16, 20, 24, 28} and len({c["s3.width"] for c in alike}) >= 3
        assert all(cost_of(space, space.arch(c), 10).macs < 1.5e6 for c in alike)


def test_a_size_out_of_reach_gives_the_nearest_and_ends(mobilenet):
    largest, smallest = (sample_near(mobilenet, Random(0), *ends, 10) for ends in ((1e12, 2e12), (1, 2)))
    assert largest == mobilenet.largest and smallest == mobilenet.smallest


# --- what a budget can use ------------------------------------------------------------------------------------


def test_only_choices_that_no_net_within_reach_can_have_are_dropped(mobilenet):
    limit, space = 80_000, mobilenet
    kept = within_reach(space, Budget(macs=limit), 1, 10)
    assert cost_of(kept, kept.largest, 10).macs > limit  # together they cost more, each alone does not
    dropped = 0
    for i, (axis, whole) in enumerate(zip(kept.axes, space.axes, strict=True)):
        assert axis.choices == whole.choices[: len(axis.choices)]
        for choice in whole.choices:
            values = list(space.smallest.values)
            values[i] = choice
            for depth, place in space.depths_of(i):
                values[depth] = max(values[depth], place)
            macs = cost_of(space, space.canonical(Arch(space.name, tuple(values))), 10).macs
            assert (choice in axis.choices) == (macs <= limit), axis.name
            dropped += macs > limit
    assert dropped > 3
    assert within_reach(space, Budget(macs=200_000), 0, 10) is space is within_reach(space, Budget(params=9), 6, 10)
    assert all(len(axis.choices) == 1 for axis in within_reach(space, Budget(macs=1), 1, 10).axes)


def test_a_stride_of_one_stays_where_narrow_nets_can_afford_it():
    space = load("tiny-images", BLOCKS)
    kept = within_reach(space, Budget(macs=1_000_000), 6, 10)
    assert all(kept.axes[i].choices == (2, 1) for name, i in kept.index.items() if name.endswith(".stride"))
    cropped = crop(space, Budget(macs=1_000_000), 6, 10)
    assert not any(1 in axis.choices for axis in cropped.axes if axis.kind == "stride")


def test_the_largest_net_within_some_macs_is_the_spaces_own_or_nearly_reaches_them():
    space = load("tiny-images", BLOCKS)
    whole = cost_of(space, space.largest, 10).macs
    assert largest_within(space, whole, 10) == space.largest
    found = largest_within(space, 6e6, 10)
    assert 5e6 < cost_of(space, found, 10).macs < 7e6 and found == largest_within(space, 6e6, 10)
