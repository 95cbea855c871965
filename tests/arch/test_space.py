"""Law 3: the order of architectures, sampling, canonical forms and files."""

import copy
import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch import archfile
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost_of
from nasaug.arch.plan import from_dict, plan
from nasaug.arch.space import KINDS, Arch
from nasaug.arch.spacefile import from_dict as space_from_dict
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput
from support.spaces import RESIDUAL, SPACES, SQUEEZE, archs_of, bounds_of, every_space, made, values_of

# --- order and sampling -------------------------------------------------------------------------------------


@every_space
@given(data=st.data())
@settings(max_examples=40)
def test_a_sample_lies_between_its_bounds_and_is_low_where_not_free(space, data):
    low, high = data.draw(bounds_of(space))
    free = data.draw(st.sets(st.sampled_from(KINDS)))
    drawn = space.sample(Random(data.draw(st.integers(0, 999))), low, high, free)
    assert space.leq(low, drawn) and space.leq(drawn, high)
    assert space.contains(drawn) and space.canonical(drawn) == drawn
    fixed = [i for i, axis in enumerate(space.axes) if not axis.free_in(free)]
    assert [drawn.values[i] for i in fixed] == [low.values[i] for i in fixed]


@every_space
def test_every_choice_of_an_axis_is_drawn_about_equally_often(space):
    rng, count = Random(0), 1200
    drawn = [space.sample(rng, space.smallest, space.largest) for _ in range(count)]
    for i, axis in enumerate(space.axes):
        if ".b" not in axis.name:  # axes of a skipped block fold to the smallest choice
            seen = Counter(arch.values[i] for arch in drawn)
            assert set(seen) == set(axis.choices)
            assert max(seen.values()) / min(seen.values()) < 1.6, axis.name


def test_the_same_generator_state_draws_the_same_architecture():
    space = SPACES["squeeze"]
    drawn = [space.sample(Random(f"7/{i}/archs")) for i in range(20)]
    assert drawn == [space.sample(Random(f"7/{i}/archs")) for i in range(20)]
    assert len(set(drawn)) > 15


def test_a_base_off_the_ladder_is_the_lowest_choice_and_never_undercut():
    space = SPACES["squeeze"]
    base = space.arch(space.choices(space.smallest) | {"s1.width": 20, "s2.expand": 2.5})
    assert not space.contains(base) and space.contains(space.smallest)
    drawn = [space.sample(Random(i), low=base, free=("width", "expand")) for i in range(200)]
    assert {space.value(arch, "s1.width") for arch in drawn} == {20, 24}
    assert {space.value(arch, "s2.expand") for arch in drawn} == {2.5, 3}
    assert {space.value(arch, "s1.depth") for arch in drawn} == {1}
    assert all(space.leq(base, arch) for arch in drawn)


def test_a_base_above_the_ladder_stays_as_it_is():
    space = SPACES["squeeze"]
    base = space.arch(space.choices(space.largest) | {"s1.width": 28})
    assert {space.sample(Random(i), low=base) for i in range(20)} == {base}


def test_a_larger_stride_is_the_smaller_architecture():
    space = SPACES["residual"]
    two, one = (space.arch(space.choices(space.smallest) | {"stem.stride": s}) for s in (2, 1))
    assert space.value(space.smallest, "stem.stride") == 2 and space.value(space.largest, "stem.stride") == 1
    assert space.leq(two, one) and not space.leq(one, two)
    assert cost_of(space, two, 10).macs < cost_of(space, one, 10).macs
    assert {space.value(space.sample(Random(i), low=one), "stem.stride") for i in range(20)} == {1}


@every_space
@given(data=st.data())
@settings(max_examples=25)
def test_above_holds_exactly_what_is_over_the_base_on_free_axes(space, data):
    base, free = data.draw(archs_of(space)), data.draw(st.sets(st.sampled_from(KINDS)))
    above = space.above(base, free)
    assert above.smallest == base
    for axis, mine, value in zip(above.axes, space.axes, base.values, strict=True):
        wanted = [c for c in mine.choices if mine.key(c) >= mine.key(value)] if mine.free_in(free) else [value]
        assert list(axis.choices) == wanted


# --- canonical form -----------------------------------------------------------------------------------------


def nameless(p):
    """A plan whose interchangeable blocks have no names of their own."""
    return p.resolution, [(b.spec._replace(name=""), b.cin, b.in_size) for b in p.blocks]


@every_space
@given(data=st.data())
@settings(max_examples=40)
def test_canonical_is_idempotent_and_leaves_the_network_as_it_is(space, data):
    raw = Arch(space.name, data.draw(values_of(space)))
    folded = space.canonical(raw)
    assert space.canonical(folded) == folded
    assert nameless(plan(space, raw, 10)) == nameless(plan(space, folded, 10))
    assert space.id(raw) == space.id(folded)
    assert space.contains(raw)


@every_space
@given(data=st.data())
@settings(max_examples=60)
def test_ids_are_equal_exactly_where_the_networks_are(space, data):
    one = list(data.draw(values_of(space)))
    i = data.draw(st.integers(0, len(one) - 1))
    two = [*one[:i], data.draw(st.sampled_from(space.axes[i].choices)), *one[i + 1 :]]
    a, b = (Arch(space.name, tuple(values)) for values in (one, two))
    same = nameless(plan(space, a, 10)) == nameless(plan(space, b, 10))
    assert (space.id(a) == space.id(b)) == same == (space.canonical(a) == space.canonical(b))


def test_choices_of_a_skipped_block_fold_and_those_of_a_used_one_do_not():
    space = SPACES["squeeze"]
    shallow = space.choices(space.smallest) | {"s1.depth": 2}
    used, skipped = ({**shallow, f"s1.b{block}.expand": 6} for block in (2, 3))
    assert space.arch(skipped) == space.arch(shallow) != space.arch(used)


# --- files --------------------------------------------------------------------------------------------------


@every_space
def test_an_arch_file_gives_back_the_network_and_its_place(space, tmp_path):
    path = tmp_path / "runs" / "found.json"
    path.parent.mkdir()
    for seed in range(8):
        arch = space.sample(Random(seed))
        p = plan(space, arch, 10)
        supernet = tmp_path / "elsewhere" / "supernet.safetensors"
        ArchFile(p, f"a{seed}", space, arch, supernet, {"val_top1": 81.5, "budget": {"macs": 7}}).save(path)
        found = archfile.read(str(path))
        assert (found.plan, found.name, found.arch) == (p, f"a{seed}", arch)
        assert found.space == space and found.space.id(found.arch) == space.id(arch)
        assert found.supernet.resolve() == supernet
        assert found.facts == {"val_top1": 81.5, "budget": {"macs": 7}}


def test_an_arch_off_the_ladder_survives_its_file(tmp_path):
    space = SPACES["residual"]
    arch = space.arch(space.choices(space.largest) | {"s2.width": 13, "s2.b1.expand": 0.7})
    ArchFile(plan(space, arch, 10), "odd", space, arch).save(tmp_path / "odd.json")
    found = archfile.read(str(tmp_path / "odd.json"))
    assert found.arch == arch and found.plan == plan(space, arch, 10)
    assert not found.space.contains(found.arch)


def test_an_arch_file_whose_choices_and_plan_disagree_is_refused(tmp_path):
    space, path = SPACES["squeeze"], tmp_path / "found.json"
    ArchFile(plan(space, space.smallest, 10), "x", space, space.smallest).save(path)
    data = json.loads(path.read_text())
    data["choices"]["s1.width"] = 24
    path.write_text(json.dumps(data))
    with pytest.raises(BadInput, match="do not match its plan"):
        archfile.read(str(path))


@every_space
@given(data=st.data())
@settings(max_examples=20)
def test_a_plan_survives_json(space, data):
    p = plan(space, data.draw(archs_of(space)), 7)
    assert from_dict(json.loads(json.dumps(p.to_dict()))) == p


@every_space
@given(data=st.data())
@settings(max_examples=20)
def test_choices_and_arch_are_inverse(space, data):
    arch = data.draw(archs_of(space))
    assert space.arch(space.choices(arch)) == arch


def test_missing_and_unknown_axes_are_refused_by_name():
    space = SPACES["squeeze"]
    choices = space.choices(space.smallest)
    with pytest.raises(BadInput, match="'s9.width'"):
        space.arch(choices | {"s9.width": 8})
    del choices["s2.width"]
    with pytest.raises(BadInput, match="'s2.width'"):
        space.arch(choices)


# --- the rules of space files -------------------------------------------------------------------------------


def broken(change):
    """A valid space with `change` applied, loaded and lowered as a search does."""
    data = copy.deepcopy(SQUEEZE)
    change(data)
    space = space_from_dict(data, "mine.toml", BLOCKS)
    return plan(space, space.smallest, 10), plan(space, space.largest, 10)


def with_stage(index, **keys):
    return lambda data: data["stage"][index].update(keys)


BROKEN = {
    "unknown key": lambda d: d.update(resolutions=[12]),
    "no stage": lambda d: d.update(stage=[]),
    "no resolution": lambda d: d.pop("resolution"),
    "divisor zero": lambda d: d.update(divisor=0),
    "divisor a word": lambda d: d.update(divisor="eight"),
    "unnamed stage": lambda d: d["stage"][0].pop("name"),
    "unknown stage key": with_stage(0, widths=[8]),
    "unknown block": with_stage(2, block="invertd"),
    "unknown activation": with_stage(2, act="swish6"),
    "unknown shortcut": with_stage(1, shortcut="identiti"),
    "unknown order": with_stage(0, order="before"),
    "two stages of one name": with_stage(3, name="s1"),
    "a stage called as a block": with_stage(3, name="s1.b1"),
    "no width": lambda d: d["stage"][0].pop("width"),
    "a falling ladder": with_stage(2, width=[24, 16]),
    "a rung twice": with_stage(2, width=[16, 16]),
    "an empty ladder": with_stage(2, width=[]),
    "rising strides": with_stage(0, stride=[1, 2]),
    "an even kernel": with_stage(2, kernel=[3, 4]),
    "half a channel": with_stage(2, width=[16, 24.5]),
    "a word for a number": with_stage(2, expand=[2, "six"]),
    "a negative number": with_stage(2, expand=-2),
    "true for a number": with_stage(2, width=True),
    "a word for the squeeze-excite": with_stage(2, se="quarter"),
    "tied to no stage": with_stage(1, width="stam"),
    "an identity that changes the width": with_stage(1, width=[24, 32]),
    "ladders of no axis": lambda d: d.update(ladders={"s7.width": [8]}),
    "ladders without a rung": lambda d: d.update(ladders={"s1.width": []}),
    "ladders that fall": lambda d: d.update(ladders={"s1.width": [24, 16]}),
    "ladders of words": lambda d: d.update(ladders={"s1.width": ["a", "b"]}),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_a_space_that_breaks_a_rule_is_refused_in_one_line(change):
    with pytest.raises(BadInput) as refused:
        broken(change)
    assert "\n" not in str(refused.value)


def test_the_space_that_is_broken_above_is_good():
    assert broken(lambda data: None)[1].holds(broken(lambda data: None)[0])


def test_an_unknown_space_or_architecture_names_the_close_ones(tmp_path):
    with pytest.raises(BadInput, match="mobilenetv2-small"):
        load("mobilenetv2-smal", BLOCKS)
    with pytest.raises(BadInput, match="big.*small|small.*big"):
        made(RESIDUAL | {"arch": {"small": {}, "big": {}}}).named("bigg")
    (tmp_path / "mine.toml").write_text("[[stage]]\nname = 'stem'\nblock = 'conv'\n")
    with pytest.raises(BadInput, match="nasaug-space/1"):
        load(str(tmp_path / "mine.toml"), BLOCKS)


def test_a_named_architecture_may_give_one_choice_for_all_or_by_stage_or_by_block():
    table = {"width": {"stem": 8}, "depth": {"s1": 2}, "expand": {"s1": [6, 2], "s2": 3}, "kernel": 3}
    space = made(SQUEEZE | {"arch": {"a": table}})
    named = space.choices(space.named("a"))
    assert named["stem.width"] == 8 and named["s1.width"] == 24  # not given: the largest
    assert [named[f"s1.b{i}.expand"] for i in (1, 2, 3)] == [6, 2, 2]  # the third is skipped: the smallest
    assert {named[axis.name] for axis in space.axes if axis.kind == "kernel"} == {3}
