"""A whole block of convolutions computes what its layers do, forward and backward."""

import copy
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from nasaug.arch import archfile
from nasaug.arch.blocks import Spec, lower
from nasaug.arch.cost import cost
from nasaug.arch.plan import Head, from_specs
from nasaug.kernels import choice, fused, native
from nasaug.nets.net import Net
from support.kernels import ACTS, EPS, close, image_batch, needs_compiler
from support.plans import inverted, plan_of


def made_block(kind, cin, hidden, out, k, stride, act, h, w, residual):
    shortcut = "identity" if residual and stride == 1 and cin == out else "none"
    return lower(Spec("it", kind, out, hidden, k, stride, act, 0, shortcut), cin, h, w)


def parameters_of(block, spare, dtype, seed=3):
    """(weight, scale, shift) of each convolution, larger by `spare` than the block uses, with gradients of ones."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for layer in block.layers:
        k = layer.kernel + (2 * spare if layer.groups > 1 else 0)
        cin = 1 if layer.groups > 1 else layer.cin + spare
        weight = torch.randn(layer.out + spare, cin, k, k, generator=g).contiguous(memory_format=torch.channels_last)
        scale, shift = torch.rand(layer.out + spare, generator=g) + 0.5, torch.randn(layer.out + spare, generator=g)
        three = [t.to(dtype, copy=True).requires_grad_() for t in (weight / (cin * layer.kernel), scale, shift)]
        for t in three:
            t.grad = torch.ones_like(t)
        rows.append(tuple(three))
    return rows


def joined(parameters, running):
    """In the form that a compiled block takes: with [mean, variance, momentum] of each norm."""
    return [native.Parameters(*three, known) for three, known in zip(parameters, running, strict=False)]


def by_layers(x, block, parameters, running):
    """The block as its layers, each computed by torch, in the precision of x; also the smallest distance to a kink."""
    source, near = x, False
    for layer, (weight, scale, shift), (mean, var, momentum) in zip(block.layers, parameters, running, strict=True):
        k = layer.kernel
        w = fused.window(weight, (layer.out, layer.cin // layer.groups, k, k))
        y = F.conv2d(x, w, None, layer.stride, k // 2, 1, layer.groups)
        z = F.batch_norm(y, mean, var, scale[: layer.out], shift[: layer.out], True, momentum, EPS)
        edges = {"": (), "relu": (0.0,), "relu6": (0.0, 6.0), "hswish": (-3.0, 3.0)}[layer.act]
        near = near or any(bool(((z - edge).abs() < 1e-4).any()) for edge in edges)
        x = ACTS[layer.act](z)
    return (x + source if block.shortcut == "identity" else x), near


@needs_compiler
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["inverted", "separable"]), n=st.integers(1, 18), cin=st.integers(1, 20),
    hidden=st.integers(1, 70), out=st.integers(1, 35), k=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 2),
    act=st.sampled_from(list(ACTS)), h=st.integers(1, 9), w=st.integers(1, 9), residual=st.booleans(),
    spare=st.integers(0, 1), wanted=st.booleans(), seed=st.integers(0, 5),
)  # fmt: skip
def test_a_whole_block_is_its_layers(kind, n, cin, hidden, out, k, stride, act, h, w, residual, spare, wanted, seed):
    """Output and all gradients against double precision, also for a block that is a slice of larger parameters."""
    block = made_block(kind, cin, hidden, cin if residual else out, k, stride, act, h, w, residual)
    assume(n * block.out_size[0] * block.out_size[1] > 3)
    x = image_batch(n, cin, h, w, seed=seed, shift=0.5)
    assert choice.select((block,), x)
    running = [[torch.randn(layer.out), torch.rand(layer.out), 0.1] for layer in block.layers]
    exact = [[mean.double(), var.double(), 0.1] for mean, var, _ in running]
    ours, theirs = parameters_of(block, spare, torch.float32), parameters_of(block, spare, torch.float64)
    mine, right = x.clone().requires_grad_(wanted), x.double().requires_grad_(wanted)
    expected, near_a_kink = by_layers(right, block, theirs, exact)
    computed = fused.inverted(mine, [block], [joined(ours, running)], EPS)
    assert close(computed, expected, 2e-4)
    for (mean, var, _), (other_mean, other_var, _) in zip(running, exact, strict=True):
        assert close(mean, other_mean, 1e-4) and close(var, other_var, 1e-4)
    if near_a_kink:
        return  # single precision may fall on the other side of it
    grad = image_batch(*expected.shape, seed=9)
    expected.backward(grad.double())
    computed.backward(grad)
    size = max(t.grad.abs().max() for three in theirs for t in three)
    for three, other in zip(ours, theirs, strict=True):
        for t, exactly in zip(three, other, strict=True):
            assert (t.grad - exactly.grad).abs().max() <= 3e-4 * size
    assert not wanted or close(mine.grad, right.grad, 1e-3)


@needs_compiler
@pytest.mark.parametrize("act", list(ACTS))
@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize(("side", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_block_on_the_smallest_images_is_its_layers(side, stride, k, act):
    """Images of one or two pixels a side have dedicated code; enough images for every part of the batch."""
    block = made_block("inverted", 9, 37, 9, k, stride, act, side, side, True)
    x, none = image_batch(33, 9, side, side, shift=0.5), [(None, None, 0.0)] * 3
    ours, theirs = parameters_of(block, 1, torch.float32), parameters_of(block, 1, torch.float64)
    mine, right = x.clone().requires_grad_(), x.double().requires_grad_()
    expected, near_a_kink = by_layers(right, block, theirs, none)
    computed = fused.inverted(mine, [block], [joined(ours, none)], EPS)
    assert close(computed, expected, 1e-4)
    grad = image_batch(*expected.shape, seed=9)
    expected.backward(grad.double())
    computed.backward(grad)
    size = max(t.grad.abs().max() for three in theirs for t in three)
    allowed = 0.05 if near_a_kink else 3e-4  # one of thousands of values on the other side of a kink
    for three, other in zip(ours, theirs, strict=True):
        for t, exactly in zip(three, other, strict=True):
            assert (t.grad - exactly.grad).abs().max() <= allowed * size


@needs_compiler
@pytest.mark.parametrize("act", ["relu6", "hswish"])
@pytest.mark.parametrize("sizes", [(64, 14, 170, 14, 3, 1, 12), (40, 8, 48, 24, 5, 2, 17), (33, 56, 336, 56, 3, 1, 1)])
def test_a_block_of_many_rows_is_as_exact_as_its_layers(sizes, act):
    """The error against double precision is at most three times that of torch's operations."""
    n, cin, hidden, out, k, stride, size = sizes
    block = made_block("inverted", cin, hidden, out, k, stride, act, size, size, True)
    x, none = image_batch(n, cin, size, size, shift=1.0), [(None, None, 0.0)] * 3
    grad = image_batch(n, out, *block.out_size, seed=5)

    def gradients(dtype, run):
        parameters, given_ = parameters_of(block, 0, dtype), x.to(dtype, copy=True).requires_grad_()
        out = run(given_, parameters)
        out.backward(grad.to(dtype))
        return [out, given_.grad, *(t.grad - 1 for three in parameters for t in three)]

    exact = gradients(torch.float64, lambda x, p: by_layers(x, block, p, none)[0])
    theirs = gradients(torch.float32, lambda x, p: by_layers(x, block, p, none)[0])
    mine = gradients(torch.float32, lambda x, p: fused.inverted(x, [block], [joined(p, none)], EPS))
    for one, other, right in zip(mine, theirs, exact, strict=True):
        error, allowed = ((t.double() - right).square().mean().sqrt() for t in (one, other))
        assert error <= 3 * allowed + 1e-6 * right.abs().max()


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["inverted", "separable"]), n=st.integers(1, 18), cin=st.integers(1, 20),
    hidden=st.integers(1, 70), k=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 2),
    act=st.sampled_from(list(ACTS)), h=st.integers(1, 9), w=st.integers(1, 9), residual=st.booleans(),
)  # fmt: skip
def test_a_block_with_running_statistics_is_its_layers(kind, n, cin, hidden, k, stride, act, h, w, residual):
    block = made_block(kind, cin, hidden, cin if residual else 11, k, stride, act, h, w, residual)
    x, given_ = image_batch(n, cin, h, w, shift=0.5), parameters_of(block, 1, torch.float32)
    running = [(torch.randn(layer.out), torch.rand(layer.out) + 0.1, 0.0) for layer in block.layers]
    with torch.no_grad():
        computed, expected = fused.inverted_eval(x, block, joined(given_, running), EPS), x.double()
        for layer, (weight, scale, shift), (mean, var, _) in zip(block.layers, given_, running, strict=True):
            k = layer.kernel
            w = fused.window(weight, (layer.out, layer.cin // layer.groups, k, k)).double()
            expected = F.conv2d(expected, w, None, layer.stride, k // 2, 1, layer.groups)
            known = (mean.double(), var.double(), scale[: layer.out].double(), shift[: layer.out].double())
            expected = ACTS[layer.act](F.batch_norm(expected, *known, False, 0.0, EPS))
        expected = expected + x if block.shortcut == "identity" else expected
    assert close(computed, expected, 2e-5)


@needs_compiler
@pytest.mark.parametrize("name", ["mobilenetv2-tiny", "mobilenetv3-w0.35"])
def test_a_net_is_calibrated_and_evaluated_as_by_its_layers(name):
    net = Net(archfile.read(name, resolution=32, classes=10).plan, 1).train()
    batches = [image_batch(6, 3, 32, 32, seed=seed) for seed in range(3)]
    twin = copy.deepcopy(net)
    with torch.no_grad(), patch("nasaug.nets.net.fused_blocks", lambda *given: None):
        expected = twin.calibrate(batches).eval()(batches[0])
    with torch.no_grad(), patch("nasaug.nets.layers.inverted_eval", wraps=fused.inverted_eval) as whole:
        assert close(net.calibrate(batches).eval()(batches[0]), expected, 1e-3) and whole.called
    for mine, other in zip(net.buffers(), twin.buffers(), strict=True):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max() + 1e-6  # after a norm a mean can be 0


@needs_compiler
def test_whoever_counts_or_watches_sees_every_layer():
    """Falls back to torch's operations under a counter, and to single layers with a hook."""
    net = Net(archfile.read("mobilenetv2-tiny", resolution=32, classes=10).plan, 1).train()
    x = image_batch(2, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    assert counter.get_total_flops() == 4 * cost(net.plan).macs
    seen = []
    net.get_submodule("s2.b1.dw").register_forward_hook(lambda *given: seen.append(1))
    with torch.no_grad():
        net.calibrate([x]).eval()(x)
    assert len(seen) == 2
    everywhere = register_module_forward_hook(lambda module, *given: seen.append(module))
    with torch.no_grad():
        net(x)
    everywhere.remove()
    assert {net.get_submodule(layer.name) for layer in net.plan.layers} <= set(seen)


CHAIN = plan_of(
    inverted("a", 8, 16), inverted("b", 8, 40, shortcut="identity"), inverted("c", 12, 29, kernel=5, stride=2),
    Spec("d", "separable", 12, 0, 3, shortcut="identity"), inverted("e", 9, 30, stride=2), stem=8, resolution=22,
)  # fmt: skip


def stepped(net, images):
    """All that passes of `net` give: outputs, gradients and running statistics. All forward passes come first."""
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    out = [net(x) for x in images]
    with fused.summed_in_place(net.parameters()):
        torch.stack([o.square().sum() for o in out]).sum().backward()
    return [*out, *(p.grad for p in net.parameters()), *net.buffers()]


def each_alone(net, images):
    with patch("nasaug.nets.net.chains", lambda plan, x: zip(plan.blocks)):
        return stepped(net, images)


@needs_compiler
def test_consecutive_blocks_as_one_node_are_bit_for_bit_the_blocks():
    nets = [Net(CHAIN, 1).train() for _ in range(2)]
    images = [image_batch(5, 3, 22, 22, seed=seed) for seed in range(2)]
    with choice.forced(True), patch("nasaug.kernels.native.call", wraps=native.call) as called:
        mine = stepped(nets[0], images)
        names = [given.args[0] for given in called.call_args_list]
        assert names.count("chain") == names.count("chain_back") == 2
        assert all(map(torch.equal, mine, each_alone(nets[1], images)))
        assert [given.args[0] for given in called.call_args_list].count("chain") == 2 + 2 * 5


@needs_compiler
@pytest.mark.parametrize("wanted", [True, False])
def test_the_gradient_of_a_chains_input_is_had_if_it_is_wanted(wanted):
    blocks = CHAIN.blocks[1:6]
    x = image_batch(4, 8, *blocks[0].in_size).requires_grad_(wanted)
    rows = [parameters_of(block, 0, torch.float32, seed=i) for i, block in enumerate(blocks)]
    convs = [joined(three, [(None, None, 0.0)] * 3) for three in rows]
    fused.inverted(x, blocks, convs, EPS).square().sum().backward()
    assert (x.grad is not None) == wanted
    if wanted:
        y, other = x.detach(), x.detach().requires_grad_()
        for block, row in zip(blocks, convs, strict=True):
            y = fused.inverted(other if block is blocks[0] else y, [block], [row], EPS)
        y.square().sum().backward()
        assert torch.equal(x.grad, other.grad)


@needs_compiler
def test_a_chain_reads_what_autograds_hooks_put_in_place_of_its_tensors():
    nets = [Net(CHAIN, 1).train() for _ in range(2)]
    images = [image_batch(5, 3, 22, 22)]
    with choice.forced(True):
        expected = stepped(nets[0], images)
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
            assert all(map(torch.equal, stepped(nets[1], images), expected))


@needs_compiler
@pytest.mark.parametrize("case", ["a hook", "another eps"])
def test_a_chain_that_cannot_be_one_node_runs_block_by_block(case):
    nets, seen = [Net(CHAIN, 1).train() for _ in range(2)], []
    for net in nets:
        if case == "a hook":
            net.get_submodule("c.dw").register_forward_hook(lambda *given: seen.append(1))
        else:
            net.get_submodule("b.project").norm.eps = 0.1
    images = [image_batch(3, 3, 22, 22)]
    with choice.forced(True), patch("nasaug.kernels.native.call", wraps=native.call) as called:
        assert all(map(torch.equal, stepped(nets[0], images), each_alone(nets[1], images)))
    assert {given.args[2] for given in called.call_args_list if given.args[0].startswith("chain")} == {1}
    assert len(seen) == 2 * (case == "a hook")


def test_one_value_per_channel_is_an_error_in_a_chain_too(either):
    with pytest.raises(ValueError, match=r"[Ee]xpected more than 1 value|needs more than one value"):
        stepped(Net(CHAIN.at(4), 1).train(), [image_batch(1, 3, 4, 4)])


@needs_compiler
def test_which_blocks_may_be_one_node():
    def names(plan, images=5):
        x = torch.empty(images, 3, plan.resolution, plan.resolution)
        return ["".join(block.name[0] for block in blocks) for blocks in choice.chains(plan, x)]

    assert torch.get_num_threads() == 1 and names(CHAIN) == ["s", "abcde", "p", "c"]
    with patch("torch.get_num_threads", return_value=2):
        assert names(CHAIN) == ["s", "abcde", "p", "c"] and names(CHAIN, 50) == ["s", "a", "b", "cde", "p", "c"]
        assert names(CHAIN, 400) == list("sabcdepc")
    with torch.no_grad():
        assert names(CHAIN) == list("sabcdepc")
    attentive = plan_of(inverted("a", 8, 16), inverted("b", 8, 16, se=4), inverted("d", 8, 16), inverted("e", 8, 16))
    assert names(attentive) == ["s", "a", "b", "de", "p", "c"]
    specs = CHAIN.specs
    tapping = Head(9, (*specs[-2:], Spec("x", "conv", 9, source="b")))
    assert names(from_specs((*specs[:-2], *tapping.specs), 22, tapping)) == ["s", "ab", "cde", "p", "c", "x"]


@needs_compiler
def test_a_block_hands_on_what_is_no_number():
    block = made_block("inverted", 4, 20, 4, 3, 1, "relu6", 5, 5, True)
    x = image_batch(2, 4, 5, 5)
    x[0, 1, 2, 2] = float("nan")
    parameters = joined(parameters_of(block, 0, torch.float32), [(None, None, 0.0)] * 3)
    out = fused.inverted(x, [block], [parameters], EPS)
    assert out.isnan().all()


@needs_compiler
def test_which_blocks_are_served():
    def served(kind="inverted", *, se=0, order="post", shortcut="none", kernel=3, size=6, given=None):
        block = lower(Spec("it", kind, 8, 16, kernel, 1, "relu6", se, shortcut, order), 8, size, size)
        return choice.select((block,), image_batch(2, 8, *(given or (size, size))))

    assert served() and served("separable") and served(shortcut="identity") and served(kernel=7)
    assert not served(se=4) and not served("basic") and not served("bottleneck", order="pre")
    assert not served("basic") and not served("bottleneck") and not served(kernel=9)
    assert not served(given=(5, 6))  # a shape other than planned
    block = lower(Spec("it", "inverted", 8, 16, 3, 1, "relu6"), 8, 1, 1)
    assert not choice.select((block,), image_batch(1, 8, 1, 1))  # no variance
    assert not choice.select((block,), image_batch(2, 8, 1, 1).double())
