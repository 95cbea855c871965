"""Training in int8: the imitation computes what the exported model does, to a step, before and after training."""

import numpy as np
import pytest
import torch

from nasaug.arch.blocks import BLOCKS
from nasaug.deployment import qdq
from nasaug.int8 import quantize
from nasaug.int8.imitation import Imitation, _Store, int8_model
from nasaug.nets.fold import fold, folded_weights
from support.exported import KINDS, between, outputs, ready
from support.nets import images


def imitation(kind):
    net = ready(between(*KINDS[kind]))
    return net, Imitation(net, [images(net.plan, 32, torch.float32, seed=1)])


def trained(kind):
    """An imitation after a few steps in which all its parameters moved."""
    net, made = imitation(kind)
    x = images(net.plan, 64, torch.float32, seed=3)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    optimizer = torch.optim.SGD(made.parameters(), 3e-4)
    for _ in range(6):
        optimizer.zero_grad()
        (made(x) - net(x).roll(1, 0).detach()).square().mean().backward()
        optimizer.step()
    assert [name for name, p in made.named_parameters() if p.equal(before[name])] == []
    return made, x


def test_the_kinds_cover_every_block():
    assert {spec.block for specs in KINDS.values() for spec in specs} == set(BLOCKS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_the_int8_model_does(kind):
    """Both in ONNX Runtime and in integers, with the scales and weights that training found."""
    made, x = trained(kind)
    model = int8_model(made.plain(), scales=made.table())
    assert quantize.scales_of(model) == made.table()
    stored = made.table()["output"]
    mine = made(x).detach().numpy()
    assert len(np.unique(np.rint(mine / stored.scale))) > 10
    assert np.abs(outputs(model, x) - mine).max() <= 1.01 * stored.scale
    ints = qdq.of_onnx(model)
    exact = ints.run(ints.input.of(x.permute(0, 2, 3, 1).numpy())).astype(int)
    steps = np.abs(exact - ints.output.of(mine))
    assert steps.max() <= 1 and (steps == 0).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_it_is_post_training_quantisation(kind):
    net, made = imitation(kind)
    model = int8_model(net, [images(net.plan, 32, torch.float32, seed=1).numpy()])
    assert quantize.scales_of(model) == made.table()
    x = images(net.plan, 32, torch.float32, seed=5)
    assert np.abs(outputs(model, x) - made(x).detach().numpy()).max() <= 1.01 * made.table()["output"].scale


@pytest.mark.parametrize("kind", KINDS)
def test_folded_weights_are_those_of_the_folded_net(kind):
    net = ready(between(*KINDS[kind]))
    folded = fold(net)
    own = {name: t for name, t in folded.state_dict().items() if "_norm." not in name and not name.startswith("n.")}
    given = folded_weights(net, folded)
    assert own and all(torch.equal(t, given[name]) for name, t in own.items())
    assert all(t.requires_grad for t in given.values())


def test_the_gradient_of_a_scale_is_lsqs():
    """Esser et al., eq. 3: round(x/s) - x/s within the range, the end of the range beyond it."""
    x, scale, zero = torch.tensor([[-9.0, 0.26, 0.44, 99.0]]), torch.tensor(0.1, requires_grad=True), torch.tensor(20)
    x.requires_grad_()
    _Store.apply(x, scale, zero.int()).sum().backward()
    wanted = (0 - 20) + (3 - 2.6) + (4 - 4.4) + (255 - 20)
    assert scale.grad.item() == pytest.approx(wanted / (4 * 255) ** 0.5, rel=1e-4)
    assert x.grad.tolist() == [[0, 1, 1, 0]]


def test_it_has_no_slices_and_statistics_stay():
    net, made = imitation("inverted")
    other = between(*KINDS["separable"])
    for refused in (lambda: made(images(net.plan, 2, torch.float32), other), lambda: made.narrow(other)):
        with pytest.raises((RuntimeError, ValueError), match="has no slices"):
            refused()
    made.train().calibrate([])(images(net.plan, 8, torch.float32))
    plain = made.plain().state_dict()
    assert all(torch.equal(t, plain[name]) for name, t in net.state_dict().items())


def test_a_channel_of_zeros_does_no_harm():
    """As in a fresh residual block, whose last norm starts at 0: its biases are beyond any whole number of steps."""
    net = ready(between(*KINDS["inverted"]))
    with torch.no_grad():
        net.get_submodule("c.project").norm.weight.zero_()
    made = Imitation(net, [x := images(net.plan, 32, torch.float32, seed=1)])
    made(x).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())
    assert (made(x) - net(x)).abs().max() < 0.2 * net(x).abs().max()
