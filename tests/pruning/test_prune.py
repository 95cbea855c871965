"""Pruning of nets: what is refused, which channels stay, the resulting plans, and that nothing else changes."""

import pytest
import torch

from nasaug.arch.archfile import read
from nasaug.arch.channels import channel_groups
from nasaug.arch.cost import cost
from nasaug.arch.plan import from_dict
from nasaug.core.errors import BadInput
from nasaug.nets.net import Net
from nasaug.pruning import selection
from nasaug.pruning.prune import finished_run, prune

# one of every kind: residual and plain inverted blocks, squeeze-excites and a linear head, post- and pre-activation
SMALL = {
    "mobilenetv2-tiny": 32, "mcunet": 48, "mobilenetv3-w0.35": 48, "resnet20-cifar": 16, "wideresnet-16-2": 16,
    "resnet50": 32,
}  # fmt: skip


def net_of(name, seed=3):
    """A net whose scales and biases differ from channel to channel, as in a trained one."""
    net = Net(read(name, resolution=SMALL[name], classes=10).plan, seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.add_(torch.rand(p.shape, generator=g) - 0.3)
    return net.train()


def images_for(net, n=4):
    px = net.plan.resolution
    return torch.randn(n, 3, px, px, generator=torch.Generator().manual_seed(1))


def halved(net, criterion="l1"):
    scores = selection.importance(net, criterion)
    plan = selection.smaller(net.plan, scores, cost(net.plan).macs / 2, selection.least_sizes(net.plan))
    return plan, scores


@pytest.mark.parametrize("criterion", selection.CRITERIA)
@pytest.mark.parametrize("name", SMALL)
def test_nets_of_all_kinds_are_pruned_to_half_their_macs_and_run(name, criterion):
    net = net_of(name)
    plan, scores = halved(net, criterion)
    small = selection.narrowed(net, plan, scores)
    reached = cost(small.plan).macs / cost(net.plan).macs
    assert 0.47 < reached <= 0.5
    small.calibrate([images_for(small)])
    out = small.eval()(images_for(small))
    assert out.shape == (4, 10) and out.isfinite().all()
    assert from_dict(plan.to_dict()) == plan  # so that an arch file can hold it


@pytest.mark.parametrize("name", SMALL)
def test_to_keep_all_is_the_identity(name):
    net = net_of(name)
    images, scores = images_for(net), selection.importance(net)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    have = {size: channel_groups(net.plan)[names[0]].size for size, names in selection.sizes(net.plan).items()}
    assert selection.with_sizes(net.plan, have) == net.plan
    plan = selection.smaller(net.plan, scores, cost(net.plan).macs, selection.least_sizes(net.plan))
    assert plan == net.plan
    small = selection.narrowed(net, plan, scores)
    assert all(torch.equal(t, before[k]) for k, t in small.state_dict().items())
    assert torch.equal(small(images), net(images))


@pytest.mark.parametrize("name", SMALL)
def test_reordering_alone_leaves_the_function(name):
    """The reordering that `narrowed` does first, for every group: coupled channels move together."""
    net = net_of(name).double()
    images, scores = images_for(net).double(), selection.importance(net)
    before = net(images)
    for group_name, group in channel_groups(net.plan).items():
        net.permute(group, scores[group_name].argsort(descending=True, stable=True))
    torch.testing.assert_close(net(images), before, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mobilenetv2-tiny", "mobilenetv3-w0.35", "wideresnet-16-2"])
def test_the_kept_channels_are_the_most_important_ones(name):
    net = net_of(name)
    plan, scores = halved(net)
    original = Net(net.plan, None)
    original.load_state_dict(net.state_dict())
    small = selection.narrowed(net, plan, scores)
    groups, kept = channel_groups(original.plan), channel_groups(small.plan)
    cut = [g for g in groups if kept[g].size < groups[g].size]
    assert len(cut) > len(groups) / 2
    for g in cut:
        best = scores[g].topk(kept[g].size)
        assert best.values.min() > scores[g].sort().values[: groups[g].size - kept[g].size].max()
        for member, dim in groups[g].members:
            # along this group's own dimension the norms of the kept channels' biases or scales are those of the best
            if member.endswith("norm.weight"):
                mine = small.state_dict()[member].sort().values
                theirs = original.state_dict()[member].index_select(dim, best.indices).sort().values
                assert torch.equal(mine, theirs)


def test_dead_channels_go_first_and_the_function_stays():
    """Channels that nothing reads can be removed without any effect on the output."""
    net = net_of("mobilenetv2-tiny").double()
    dead = {}
    with torch.no_grad():
        for name, group in channel_groups(net.plan).items():
            if name.endswith(".expand"):
                g = torch.Generator().manual_seed(group.size)
                gone = torch.randperm(group.size, generator=g)[: group.size // 3]
                dead[name] = len(gone)
                for member, dim in group.readers:
                    net.state_dict()[member].index_fill_(dim, gone, 0.0)
    images = images_for(net).double()
    before = net(images)
    have = {size: channel_groups(net.plan)[names[0]].size for size, names in selection.sizes(net.plan).items()}
    fewer = {size: n - dead.get(f"{size[0]}.expand", 0) * (size[1] == "hidden") for size, n in have.items()}
    plan = selection.with_sizes(net.plan, fewer)
    assert cost(plan).macs < cost(net.plan).macs
    small = selection.narrowed(net, plan, selection.importance(net))
    torch.testing.assert_close(small(images), before, rtol=1e-9, atol=1e-9)
    least = selection.least_sizes(net.plan)
    assert selection.smaller(net.plan, selection.importance(net), cost(plan).macs, least) == plan


def test_scores_are_one_on_average_whatever_the_scale_of_a_layer():
    net = net_of("mobilenetv3-w0.35")
    for criterion in selection.CRITERIA:
        scores = selection.importance(net, criterion)
        assert scores.keys() == channel_groups(net.plan).keys()
        assert all(abs(s.mean() - 1) < 1e-9 for s in scores.values())
    before = selection.importance(net)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1 + p.numel() % 7)
    for name, group in channel_groups(net.plan).items():
        if len(group.readers) == 1:
            torch.testing.assert_close(selection.importance(net)[name], before[name], rtol=1e-5, atol=1e-6)


def test_bn_scores_are_of_the_norms_on_the_channel():
    net = net_of("wideresnet-16-2")
    scores = selection.importance(net, "bn")
    scale = net.get_parameter("s1.b1.conv2.norm.weight").detach().abs().double()  # norm before the conv that reads them
    assert torch.allclose(scores["s1.b1.conv1"], scale / scale.mean())
    with torch.no_grad():
        net.get_parameter("s1.b1.conv2.norm.weight")[5] = 0.0
    assert selection.importance(net, "bn")["s1.b1.conv1"].argmin() == 5


def test_groups_that_lose_channels_keep_a_multiple_of_the_divisor():
    net = net_of("mobilenetv2-tiny")
    scores, had = selection.importance(net), {n: group.size for n, group in channel_groups(net.plan).items()}
    least = selection.least_sizes(net.plan, 8)
    goals = [cost(net.plan).macs * share for share in (0.8, 0.5)] + [cost(selection.with_sizes(net.plan, least)).macs]
    for goal in goals:
        plan = selection.smaller(net.plan, scores, goal, least, 8)
        kept = {n: group.size for n, group in channel_groups(plan).items()}
        assert any(size < had[n] for n, size in kept.items()) and cost(plan).macs <= goal
        assert all(size % 8 == 0 for n, size in kept.items() if size < had[n])
    odd = channel_groups(selection.smaller(net.plan, scores, goals[1], least))
    assert any(group.size % 8 for n, group in odd.items() if group.size < had[n])


@pytest.mark.parametrize("name", ["mobilenetv2-tiny", "resnet50"])
def test_every_step_reaches_its_target_and_no_group_loses_all(name):
    net = net_of(name)
    least, start = selection.least_sizes(net.plan), cost(net.plan).macs
    smallest = cost(selection.with_sizes(net.plan, least)).macs
    goals = selection.targets(start, smallest * 1.01, 4)
    ratios = [b / a for a, b in zip([start, *goals], goals, strict=False)]
    assert goals[-1] == smallest * 1.01 and max(ratios) / min(ratios) < 1 + 1e-9
    for goal in goals:
        scores = selection.importance(net)
        net = selection.narrowed(net, selection.smaller(net.plan, scores, goal, least), scores)
        assert 0.96 * goal < cost(net.plan).macs <= goal
    kept = channel_groups(net.plan)
    for size, names in selection.sizes(net.plan).items():
        assert {kept[n].size for n in names} == {kept[names[0]].size}
        assert kept[names[0]].size >= least[size] >= min(4, kept[names[0]].size)
    with pytest.raises(BadInput, match=f"ask for at least {smallest}"):
        selection.smaller(net.plan, selection.importance(net), smallest - 1, least)


# --- weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999999])
def test_sparsity_is_exact_and_depthwise_layers_are_left_alone(share):
    net = net_of("mobilenetv3-w0.35")
    names = selection.prunable(net.plan)
    total = sum(net.get_parameter(n).numel() for n in names)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    selection.sparsify(net, share)
    zeros = sum((net.get_parameter(n) == 0).sum().item() for n in names)
    assert zeros == min(round(share * total), total - 1)
    told = selection.sparsity(net)
    assert told["prunable"] == zeros / total and 0 < told["all"] < told["prunable"]
    for name, tensor in net.state_dict().items():
        if name in names:
            assert torch.equal(tensor, before[name] * (tensor != 0))
        else:
            assert torch.equal(tensor, before[name])
    depthwise = [x.name for x in net.plan.layers if x.depthwise]
    assert depthwise and not {f"{n}.weight" for n in depthwise} & set(names)
    assert net.state_dict().keys() == before.keys() and net(images_for(net)).isfinite().all()


def test_the_weights_that_go_are_the_least_of_their_layer_and_zeros_go_first():
    net = net_of("mobilenetv2-tiny")
    before = {n: net.get_parameter(n).detach().abs().clone() for n in selection.prunable(net.plan)}
    half = selection.masks(selection.sparsify(net, 0.5))
    for name, kept in half.items():
        assert before[name][kept].min() >= before[name][~kept].max()
    more = selection.masks(selection.sparsify(net, 0.99))
    assert all(kept.any() for kept in more.values())  # no layer is emptied
    assert all((half[name] | ~kept).all() for name, kept in more.items())


def test_the_scale_of_a_layer_does_not_tell_which_weights_go():
    net, scaled = net_of("mobilenetv2-tiny"), net_of("mobilenetv2-tiny")
    with torch.no_grad():
        for name in selection.prunable(net.plan):
            scaled.get_parameter(name).mul_(2.0 ** (len(name) % 9 - 4))
    one, other = (selection.masks(selection.sparsify(n, 0.7)) for n in (net, scaled))
    assert all(torch.equal(kept, other[name]) for name, kept in one.items())


def test_l1_takes_the_least_weights_of_the_whole_net():
    net = net_of("mobilenetv2-tiny")
    weights = torch.cat([net.get_parameter(n).detach().abs().flatten() for n in selection.prunable(net.plan)])
    before = {n: net.get_parameter(n).detach().abs().clone() for n in selection.prunable(net.plan)}
    kept = selection.masks(selection.sparsify(net, 0.5, "l1"))
    middle = weights.median()
    assert all(torch.equal(kept[name], weight > middle) for name, weight in before.items())


def test_lamp_by_hand():
    scores = selection.lamp(torch.tensor([[3.0, -1.0], [0.0, -2.0]]))
    assert torch.equal(scores, torch.tensor([[1, 1 / 14], [0, 4 / 13]], dtype=torch.float64))


def test_masks_keep_zeros_zero():
    net = selection.sparsify(net_of("mobilenetv2-tiny"), 0.6)
    kept, before = selection.masks(net), selection.sparsity(net)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    assert selection.sparsity(net)["prunable"] == 0
    selection.apply_masks(net, kept)
    assert selection.sparsity(net) == before


# --- magnitudes ---------------------------------------------------------------------------------------------


def test_magnitudes_are_constant_or_a_line_from_the_first_step_to_the_last():
    assert selection.magnitudes("9", 3) == [9, 9, 9] and selection.magnitudes("9", 1) == [9]
    assert selection.magnitudes("9:2", 3) == [9, 5.5, 2] and selection.magnitudes("2:9", 2) == [2, 9]
    assert selection.magnitudes("30:0", 4) == [30, 20, 10, 0] and selection.magnitudes(None, 2) == [None, None]


@pytest.mark.parametrize("text", ["", "x", "9:", ":2", "9:2:1", "-1", "31", "0:30.1", "nan", "inf", "9;2"])
def test_other_magnitudes_are_refused(text):
    with pytest.raises(BadInput, match=f"magnitude '{text}' .*0 to 30"):
        selection.magnitudes(text, 3)


def test_a_line_needs_two_steps():
    with pytest.raises(BadInput, match="needs two steps"):
        selection.magnitudes("9:2", 1)


@pytest.mark.parametrize(
    ("given", "field", "value", "rule", "line"),
    [
        ({"round": 0}, "round", 0, "must be at least 1", "round = 0 must be at least 1; 8 suits most hardware"),
        ({"steps": -1}, "steps", -1, "must be at least 1", "steps = -1 must be at least 1"),
        ({"lr_scale": 0.0}, "lr_scale", 0.0, "multiplies the recipe's lr",
         "lr_scale = 0 multiplies the recipe's lr: give above 0, like 0.5"),
        ({"unstructured": True}, "target_macs", "1M", "applies to channels, unstructured to weights",
         "target_macs = 1M applies to channels, unstructured to weights; leave one of them out"),
        ({"unstructured": True, "target_macs": None}, "target_sparsity", None,
         "unstructured needs the share of weights that become zero",
         "target_sparsity: unstructured needs the share of weights that become zero: give above 0, below 1, like 0.9"),
        ({"unstructured": True, "target_macs": None, "target_sparsity": 1.5}, "target_sparsity", 1.5,
         "unstructured needs the share of weights that become zero",
         "target_sparsity = 1.5: unstructured needs the share of weights that become zero: "
         "give above 0, below 1, like 0.9"),
        ({"unstructured": True, "target_macs": None, "target_sparsity": 0.5, "round": 8}, "round", 8,
         "applies to channels, unstructured to weights",
         "round = 8 applies to channels, unstructured to weights; leave one of them out"),
        ({"target_sparsity": 0.5}, "target_sparsity", 0.5, "needs unstructured",
         "target_sparsity = 0.5 needs unstructured; give it too, or target_macs instead, which removes channels"),
        ({"target_macs": None}, "target_macs", None, "is missing",
         "prune needs target_macs, like 1M, or unstructured target_sparsity 0.9"),
        ({}, "source", None, "is missing",
         "prune needs source: the folder of a finished run of train or netaug-train, like runs/train-1"),
    ],
)  # fmt: skip
def test_an_error_names_the_argument_its_value_and_the_rule(given, field, value, rule, line):
    with pytest.raises(BadInput) as refused:
        prune(**{"target_macs": "1M"} | given)
    error = refused.value
    assert (error.field, error.value, error.rule, str(error)) == (field, value, rule, line)


def test_a_source_that_is_no_finished_training_is_refused_with_its_parts(tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.toml").touch()
    rules = {tmp_path / "none": "is no folder", tmp_path: "holds no run", begun: "is not finished"}
    for path, rule in rules.items():
        with pytest.raises(BadInput) as refused:
            finished_run(path)
        error = refused.value
        assert (error.field, error.value, error.rule) == ("source", path, rule)
        assert str(error) == f"source = {path} {rule}; {error.remedy}" and "give the folder of" in error.remedy
