"""Law 1: slices, narrowing and growing, statistics; the forward pass by hand; and initialisation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs, plan
from nasaug.nets.net import Net
from support.nets import calibrated, far, holder, images, largest, same, shaken, statistics, with_buffers
from support.spaces import SPACES, archs_of, between, bounds_of, every_space

ACTIVATIONS = {"": lambda x: x, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish}


# --- the forward pass, by hand ------------------------------------------------------------------------------


def by_hand(net, x, running):
    """The plan in torch's plain functions: no slices, no folding, no channels-last, nothing in place."""
    t = dict(net.named_parameters()) | dict(net.named_buffers())

    def norm(name, x):
        stats = (t[f"{name}.norm.running_mean"], t[f"{name}.norm.running_var"]) if running else (None, None)
        return F.batch_norm(x, *stats, t[f"{name}.norm.weight"], t[f"{name}.norm.bias"], not running)

    def run(layer, x):
        name, act = layer.name, ACTIVATIONS[layer.act]
        if layer.op == "se":
            y = F.linear(x.mean((2, 3)), t[f"{name}.reduce.weight"], t[f"{name}.reduce.bias"]).relu()
            y = F.linear(y, t[f"{name}.expand.weight"], t[f"{name}.expand.bias"])
            return x * F.hardsigmoid(y)[:, :, None, None]
        if layer.op == "pool":
            return F.adaptive_avg_pool2d(x, 1)
        if layer.op == "maxpool":
            return F.max_pool2d(x, layer.kernel, layer.stride, layer.kernel // 2)
        if layer.op == "norm":
            return act(norm(name, x))
        if layer.op == "linear":
            return act(F.linear(x.flatten(1), t[f"{name}.weight"], t[f"{name}.bias"]))
        x = act(norm(name, x)) if layer.pre else x
        x = F.conv2d(x, t[f"{name}.weight"], None, layer.stride, layer.kernel // 2, 1, layer.groups)
        return x if layer.pre else act(norm(name, x) if layer.norm else x)

    for block in net.plan.blocks:
        source, first = x, block.layers[0]
        if block.project and first.pre:
            source = ACTIVATIONS[first.act](norm(first.name, x))
        for layer in block.layers:
            x = run(layer, x)
        if block.shortcut != "none":
            x = x + (run(block.project, source) if block.project else source)
        x = ACTIVATIONS[block.act](x)
    return x


@every_space
def test_training_is_what_torchs_plain_functions_give(space):
    net = shaken(largest(space))
    x = images(net.plan)
    wanted = by_hand(net, x, running=False)
    assert far(net(x), wanted) < 1e-12


@every_space
@pytest.mark.parametrize("buffers", [False, True], ids=["fresh", "into buffers"])
def test_gradients_are_those_of_torchs_plain_functions(space, buffers):
    net = shaken(largest(space))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.mul_(4 if name.endswith("norm.weight") else 1)  # many values above 6, where ReLU6 saturates
    twin, x = copy.deepcopy(net), images(net.plan)
    by_hand(twin, x, running=False).sin().sum().backward()
    if buffers:
        with_buffers(net)
    net(x).sin().sum().backward()
    for name, parameter in net.named_parameters():
        wanted = twin.get_parameter(name).grad
        assert torch.allclose(parameter.grad, wanted, rtol=1e-8, atol=1e-9), name


@every_space
def test_folded_evaluation_is_batch_norm_with_the_running_statistics(space):
    net = calibrated(shaken(largest(space)))
    x = images(net.plan, seed=2)
    assert far(net(x), by_hand(net, x, running=True)) < 1e-12
    assert far(net(x), by_hand(net, x, running=False)) > 1e-3  # the batch's own statistics would differ
    single = calibrated(shaken(largest(space), torch.float32))
    x = x.float()
    assert far(single(x), by_hand(single, x, running=True)) < 1e-4


def test_the_input_is_left_as_it_was():
    for space in SPACES.values():
        net, x = shaken(largest(space)), images(largest(space))
        before = x.clone()
        net(x)
        assert torch.equal(x, before)


# --- law 1: slices ------------------------------------------------------------------------------------------


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@given(data=st.data())
@settings(max_examples=10)
def test_a_slice_computes_what_the_narrowed_net_does(space, dtype, tolerance, data):
    net = shaken(holder(space), dtype)
    p = plan(space, data.draw(archs_of(space)), 10)
    x = images(p, dtype=dtype)
    assert far(net(x, p), net.narrow(p)(x)) < tolerance


@every_space
@given(data=st.data())
@settings(max_examples=8)
def test_a_slice_of_a_slice_is_a_slice(space, data):
    low, high = data.draw(bounds_of(space))
    small, middle = plan(space, low, 10), between(space, low, high)
    net = shaken(holder(space))
    assert same(net.narrow(middle).narrow(small).state_dict(), net.narrow(small).state_dict())


def test_a_slice_has_the_leading_channels_and_the_kernels_centre():
    space = SPACES["squeeze"]
    choices = {"s1.width": 16, "s1.b1.expand": 2, "s1.b1.kernel": 3, "s2.kernel": 3}
    net = shaken(largest(space))
    small = net.narrow(plan(space, space.arch(space.choices(space.largest) | choices), 10))
    theirs, mine = dict(net.named_parameters()), dict(small.named_parameters())
    for name, part in {
        "s1.b1.expand.weight": theirs["s1.b1.expand.weight"][:32, :16],
        "s1.b1.expand.norm.bias": theirs["s1.b1.expand.norm.bias"][:32],
        "s1.b1.dw.weight": theirs["s1.b1.dw.weight"][:32, :, 1:4, 1:4],
        "s1.b1.se.reduce.weight": theirs["s1.b1.se.reduce.weight"][:16, :32],
        "s1.b1.se.expand.weight": theirs["s1.b1.se.expand.weight"][:32, :16],
        "s1.b1.se.expand.bias": theirs["s1.b1.se.expand.bias"][:32],
        "s1.b2.expand.weight": theirs["s1.b2.expand.weight"][:96, :16],
        "s2.dw.weight": theirs["s2.dw.weight"][:48, :, 1:4, 1:4],
        "mix.weight": theirs["mix.weight"],
    }.items():
        assert torch.equal(mine[name], part), name


@every_space
def test_the_nets_own_plan_is_the_net(space):
    net, twin = shaken(largest(space)), shaken(largest(space))
    x = images(net.plan)
    assert torch.equal(net(x), twin(x, net.plan))
    assert same(statistics(net), statistics(twin))  # both passes updated them


def test_a_deep_copy_knows_its_own_plan():
    net = calibrated(shaken(largest(SPACES["residual"])))
    twin, x = copy.deepcopy(net), images(net.plan)
    assert twin.plan == net.plan
    assert torch.equal(twin(x, twin.plan), net(x)) and torch.equal(twin.narrow(net.plan)(x), net(x))


def test_a_plan_that_is_no_slice_is_refused():
    space = SPACES["squeeze"]
    net = Net(plan(space, space.smallest, 10))
    with pytest.raises(ValueError, match="not a slice"):
        net.narrow(largest(space))
    with pytest.raises(ValueError, match="not a slice"):
        Net(largest(space)).grow(net.plan)


@every_space
@given(data=st.data())
@settings(max_examples=6)
def test_growing_is_the_inverse_of_narrowing(space, data):
    low, high = data.draw(bounds_of(space))
    small, big = plan(space, low, 10), between(space, low, high)
    net = shaken(small)
    grown = net.grow(big, seed=5)
    back = grown.narrow(small)
    assert same(dict(back.named_parameters()), dict(net.named_parameters()))
    x = images(small)
    assert far(grown(x, small), net(x)) < 1e-12


def test_what_has_grown_starts_fresh_from_the_seed():
    space = SPACES["squeeze"]
    net, p = shaken(plan(space, space.smallest, 10)), largest(space)
    grown, fresh = net.grow(p, seed=5), Net(p, seed=5).double()
    rest = dict(fresh.named_parameters())
    weight = grown.get_parameter("s1.b1.dw.weight")
    assert torch.equal(weight[32:], rest["s1.b1.dw.weight"][32:])
    assert torch.equal(weight[:32, :, 0], rest["s1.b1.dw.weight"][:32, :, 0])  # the ring around the centre
    assert torch.equal(grown.get_parameter("s1.b3.expand.weight"), rest["s1.b3.expand.weight"])
    assert not torch.equal(net.grow(p, seed=6).get_parameter("s1.b1.dw.weight"), weight)


def test_narrowing_and_growing_copy():
    space = SPACES["residual"]
    net = shaken(largest(space))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    for other in (net.narrow(plan(space, space.smallest, 10)), net.narrow(net.plan), net.grow(net.plan)):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
    assert same(net.state_dict(), before)


def test_type_and_mode_are_kept():
    space = SPACES["residual"]
    p = plan(space, space.smallest, 10)
    for net in (Net(largest(space)).double().eval(), Net(largest(space)).train()):
        for other in (net.narrow(p), net.narrow(p).grow(net.plan)):
            assert other.training == net.training
            assert {t.dtype for t in other.parameters()} == {t.dtype for t in net.parameters()}


# --- statistics ---------------------------------------------------------------------------------------------


@every_space
def test_only_a_pass_of_the_nets_own_plan_updates_the_running_statistics(space):
    net = shaken(holder(space))
    p = plan(space, space.smallest, 10)
    before = statistics(net)
    net(images(p), p)
    with torch.no_grad():
        net(images(net.plan.at(8)), net.plan.at(8))  # at another resolution it is a different network
    assert same(statistics(net), before)
    net(images(net.plan))
    after = statistics(net)
    spare = tuple(f"{block.spare.name}." for block in net.plan.blocks if block.spare)
    assert all(torch.equal(after[name], before[name]) == name.startswith(spare) for name in before)
    calibrated(net)(images(net.plan))
    fixed = statistics(net)
    net(images(net.plan, seed=3))
    assert same(statistics(net), fixed)  # evaluation only reads them


def test_running_statistics_move_by_torchs_momentum():
    net = shaken(largest(SPACES["residual"]))
    x = images(net.plan)
    maps = F.conv2d(x, net.stem.weight, None, 1, 2)
    net(x)
    assert torch.allclose(net.stem.norm.running_mean, 0.1 * maps.mean((0, 2, 3)))
    assert torch.allclose(net.stem.norm.running_var, 0.9 + 0.1 * maps.var((0, 2, 3)))


@every_space
def test_narrow_and_grow_unset_the_statistics_except_for_the_own_plan(space):
    net = calibrated(shaken(holder(space)))
    p, x = plan(space, space.smallest, 10), images(net.plan)
    kept = [net.narrow(net.plan), net.grow(net.plan)]
    assert all(same(other.state_dict(), net.state_dict()) for other in kept)
    assert torch.equal(kept[0](x), net(x))
    grown = calibrated(net.narrow(p)).grow(net.plan)
    for other in (net.narrow(p), net.narrow(net.plan.at(8)), grown):
        assert {int(b) for name, b in other.named_buffers() if name.endswith("tracked")} == {0}
        assert {float(b.sum()) for name, b in other.named_buffers() if name.endswith("mean")} == {0.0}
        with pytest.raises(RuntimeError, match="calibrate"):
            other(images(other.plan))


@every_space
def test_a_slice_cannot_be_evaluated_nor_a_net_that_was_never_calibrated(space):
    net = shaken(largest(space)).eval()
    p = plan(space, space.smallest, 10)
    with pytest.raises(RuntimeError, match="calibrate"):
        net(images(net.plan))
    calibrated(net)(images(net.plan))
    with pytest.raises(RuntimeError, match="narrow"):
        net(images(p), p)
    with pytest.raises(RuntimeError, match="calibrate"):
        Net(p).calibrate([]).eval()(images(p, dtype=torch.float32))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_calibration_gives_the_statistics_of_all_images_at_once(dtype, tolerance):
    """Batches of unequal size whose means differ: averaging their variances would miss most of the spread."""
    net = shaken(largest(SPACES["squeeze"]), dtype)
    shift = torch.tensor([-4.0, 0.0, 3.0]).repeat_interleave(torch.tensor([5, 21, 2])).view(-1, 1, 1, 1)
    x = images(net.plan, 28, dtype) + shift.to(dtype)
    batches = x.split([5, 21, 2])
    net.calibrate(batches)
    maps = F.conv2d(x, net.stem.weight, None, 2, 1)
    assert far(net.stem.norm.running_mean, maps.mean((0, 2, 3))) < tolerance
    assert far(net.stem.norm.running_var, maps.var((0, 2, 3))) < tolerance
    averaged = torch.stack([F.conv2d(b, net.stem.weight, None, 2, 1).var((0, 2, 3)) for b in batches]).mean(0)
    assert (averaged < 0.6 * net.stem.norm.running_var).any()


@every_space
def test_calibration_sets_every_norm_from_inputs_that_are_normalised_as_in_training(space):
    net, twin = shaken(largest(space)), shaken(largest(space))
    x = images(net.plan, 30)
    net.calibrate([x])
    for module in twin.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one training pass sets the batch's own statistics
    twin(x)
    for name, buffer in net.named_buffers():
        assert torch.allclose(buffer.double(), twin.get_buffer(name).double(), rtol=1e-12, atol=1e-15), name


@every_space
def test_calibration_forgets_what_was_before_and_changes_nothing_else(space):
    net = shaken(largest(space))
    batches = images(net.plan, 20).split(8)
    first = statistics(net.calibrate(batches))
    for _ in range(2):
        net(images(net.plan, seed=9))
    weights = {name: t.clone() for name, t in net.named_parameters()}
    assert same(statistics(net.eval().calibrate(batches)), first)
    assert same(statistics(net.calibrate(iter(batches))), first)
    assert not net.training and same(dict(net.named_parameters()), weights)
    other = statistics(net.calibrate(images(net.plan, 20, seed=8).split(8)))
    assert not same(other, first)


# --- how a net starts ---------------------------------------------------------------------------------------


def wide():
    specs = [
        Spec("stem", "conv", 64, 0, 3, 2, "hswish"), Spec("b", "inverted", 48, 400, 5, 1, "hswish", 100),
        Spec("pool", "pool"), Spec("mix", "linear", 300, act="hswish"), Spec("classifier", "linear", 100),
    ]  # fmt: skip
    return Net(from_specs(specs, 16, 100), seed=3)


LAYERS = ("stem", "b.expand", "b.dw", "b.project", "b.se.reduce", "b.se.expand", "mix")


@pytest.mark.parametrize("name", LAYERS)
def test_layers_start_from_torchs_default_and_never_from_fan_out(name):
    weight = wide().get_parameter(f"{name}.weight")
    bound = weight[0].numel() ** -0.5  # Kaiming-uniform with a = sqrt(5): 1 / sqrt(fan-in)
    assert 0.97 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.06)


def test_the_classifier_starts_from_a_narrow_normal_and_biases_from_zero():
    net = wide()
    weight = net.get_parameter("classifier.weight")
    assert weight.std().item() == pytest.approx(0.02, rel=0.05) and weight.abs().max() > 0.06
    for name, parameter in net.named_parameters():
        if parameter.dim() == 1:
            assert torch.all(parameter == (1 if name.endswith("norm.weight") else 0)), name


def test_a_net_is_its_seeds_alone():
    p = largest(SPACES["squeeze"])
    first = Net(p, 1).state_dict()
    torch.manual_seed(99)
    assert same(Net(p, 1).state_dict(), first) and not same(Net(p, 2).state_dict(), first)
