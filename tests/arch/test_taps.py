"""Plans whose blocks read earlier maps: lowering, costs with what is held, files, slices and channel groups."""

from random import Random

import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS, Spec
from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost, costs_by_layer, memory_of
from nasaug.arch.derived import Ladders, around, below
from nasaug.arch.figures import figures
from nasaug.arch.plan import Head, from_dict, from_specs, plan, whole
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput
from nasaug.nets.counted import count
from nasaug.nets.fold import fold
from nasaug.nets.net import Net
from nasaug.tasks.detect import head_of
from support.spaces import SPACES

HEAD = head_of(3)
BODY = (
    Spec("stem", "conv", 8, kernel=3, stride=2, act="relu"), Spec("a", "inverted", 12, 24, 3, 2, "relu"),
    Spec("b", "inverted", 12, 24, 3, 1, "relu", shortcut="identity"), Spec("c", "inverted", 16, 24, 3, 2, "relu"),
)  # fmt: skip


def small(resolution=32, body=BODY):
    return from_specs((*body, *HEAD.specs), resolution, HEAD)


def taps(p):
    return [(b.spec.source, b.spec.stride, b.in_size[0]) for b in p.blocks if b.spec.source]


def test_a_head_reads_the_last_maps_of_three_sizes():
    assert taps(small()) == [("stem", 1, 16), ("b", 1, 8), ("c", 1, 4)]
    assert taps(small(33)) == [("stem", 1, 17), ("b", 1, 9), ("c", 1, 5)]
    assert [small().blocks[i].out_size[0] for i in small().ends] == [16, 8, 4]


def test_too_few_sizes_are_read_with_strides():
    p = small(body=BODY[:1])
    assert taps(p) == [("stem", 1, 16), ("stem", 2, 16), ("stem", 4, 16)]
    assert [p.blocks[i].out_size[0] for i in p.ends] == [16, 8, 4]


def test_a_jump_of_more_than_half_ends_the_maps():
    p = small(64, (Spec("stem", "conv", 8, kernel=3, stride=4, act="relu"), *BODY[1:2]))
    assert taps(p) == [("stem", 1, 16), ("a", 1, 8), ("a", 2, 8)]


def test_files_keep_the_head_as_its_task_gives_it():
    p = small()
    assert from_dict(p.to_dict()) == p and from_dict(p.to_dict()).classes == HEAD and p.at(64) == small(64)
    assert "source" not in archfile.read("mobilenetv2-tiny").plan.to_dict()["blocks"][3]
    assert p.of_classes(10).head[0].name == "classifier" and p.of_classes(10).of_classes(HEAD) == p
    for wrong in ("nowhere", "detect2.out", "@4", 3):
        table = p.to_dict()
        table["blocks"][5]["source"] = wrong
        with pytest.raises(BadInput):
            from_dict(table)


def test_tapped_maps_and_finished_outputs_are_held():
    """By hand, for two maps: both outputs have 1 channel, so that few numbers are needed."""
    end = tuple(Spec(f"o{i}", "pointwise", 1, source=f"@{i}") for i in range(3))
    p = from_specs((*BODY[:2], BODY[3], *end), 32, Head(1, end, pooled=False))
    stem, a, c = 16 * 16 * 8, 8 * 8 * 12, 4 * 4 * 16
    held = [[m.held for m in memories] for memories in memory_of(p)]
    assert held[0] == [0] and held[1] == [0, stem, stem]  # a's input stays for o0
    assert held[2] == [stem, stem + a, stem + a] and held[3] == [a + c]
    assert held[4] == [c + 256] and held[5] == [256 + 64]
    assert cost(p).peak == max(sum(m) for memories in memory_of(p) for m in memories)
    assert [c.peak for _, c in costs_by_layer(p)] == [row.cost.peak for row in figures(p)]


def test_costs_are_those_of_the_built_network():
    counts = count(small())
    by_layer = sum(c.macs for _, c in costs_by_layer(small()))
    assert not counts.wrong and counts.total.cost == cost(small()).macs == by_layer


@pytest.mark.parametrize("make", [
    lambda base: around(base, Ladders((1.0, 1.8), (1.0, 1.6))), lambda base: below(base, (0.5, 0.75), (24,)),
])  # fmt: skip
def test_slices_share_the_head(make):
    space, arch = make(small())
    big, other = whole(space, HEAD), plan(space, space.smallest if arch == space.largest else space.largest, HEAD)
    assert plan(space, arch, HEAD) == small() and big.holds(other) and big.holds(small())
    net, part = Net(big, 0), min(other, small(), key=lambda p: cost(p).macs)
    x = torch.randn(3, 3, part.resolution, part.resolution)
    assert torch.allclose(net(x, part), net.narrow(part)(x), atol=1e-5)
    sizes = [p.blocks[i].out_size[0] ** 2 for p in (part,) for i in p.ends]
    assert net(x, part).shape == (3, sum(sizes), 8)


def test_streams_that_are_tapped_are_permuted_in_all_their_readers():
    net, x = Net(small(), 0).double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = net(x)
    groups = channel_groups(net.plan)
    assert "detect0.out" not in groups and ("detect1.reduce.weight", 1) in groups["a"].members
    for i, group in enumerate(groups.values()):
        net.permute(group, torch.randperm(group.size, generator=torch.Generator().manual_seed(i)))
    assert torch.allclose(net(x), before, atol=1e-9)


def test_a_folded_net_gives_the_same_outputs_in_the_same_order():
    net, x = Net(small(), 0), torch.randn(4, 3, 32, 32)
    net.calibrate([x]).eval()
    with torch.no_grad():
        out = net(x)
        assert out.shape == (4, 16**2 + 8**2 + 4**2, 8) and torch.allclose(fold(net)(x), out, atol=1e-4)


def test_the_head_of_a_space_that_searches_strides_has_room_for_every_map():
    """Its largest net halves the image nowhere, so that each level reads its last map."""
    space, rng = load("tiny-images", BLOCKS), Random(0)
    big = whole(space, HEAD)
    assert len({spec[0] for spec in taps(big)}) == 1 and from_dict(big.to_dict()) == big
    net, x = Net(big, 0), torch.randn(2, 3, 24, 24)
    for arch in [space.smallest, *(space.sample(rng) for _ in range(8))]:
        p = plan(space, arch, HEAD).at(24)
        assert big.holds(p) and torch.allclose(net(x, p), net.narrow(p)(x), atol=1e-4)
    assert cost(big) == cost(plan(space, space.largest, HEAD))
    assert not any(b.spec.room for b in whole(SPACES["squeeze"], HEAD).blocks)
