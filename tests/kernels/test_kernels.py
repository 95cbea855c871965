"""nasaug's own operations compute what torch's do, and are never silently wrong."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from nasaug.arch import archfile
from nasaug.arch.blocks import Layer
from nasaug.kernels import build, fused, native
from nasaug.nets.net import Net
from support.kernels import ACTS, EPS, close, image_batch, needs_compiler


def conv_layer(c, k=1, stride=1, groups=1, act=""):
    return Layer("it", "conv", c, c, 4, 4, k, stride, groups, act=act)


def torchs(y, scale, shift, act, grad, running):
    """Torch's (output, gradients of y, scale and shift), in the precision of `y`; `running` is updated."""
    leaves = [t.clone().requires_grad_() for t in (y, scale, shift)]
    z = F.batch_norm(leaves[0], *running[:2], *leaves[1:], True, running[2], EPS)
    out = ACTS[act](z)
    out.backward(grad)
    near = torch.stack([(z - edge).abs() < 1e-4 for edge in (-3.0, 0.0, 3.0, 6.0)]).any()
    return [out.detach(), *(t.grad for t in leaves), *running[:2]], bool(near)


@needs_compiler
def test_the_source_compiles():
    assert build.library() is not None


@needs_compiler
@given(
    n=st.integers(1, 9), c=st.integers(1, 70), h=st.integers(1, 9), w=st.integers(1, 9),
    act=st.sampled_from(list(ACTS)), offset=st.sampled_from([0.0, 3.0, -40.0]),
)  # fmt: skip
def test_norm_and_activation_are_as_exact_as_torchs(n, c, h, w, act, offset):
    """Against double precision: at most three times the error of torch in single precision."""
    assume(n * h * w > 1)
    y, grad = image_batch(n, c, h, w, shift=offset), image_batch(n, c, h, w, seed=1)
    scale, shift = torch.rand(c) + 0.5, torch.randn(c) * 2
    running = [torch.randn(c), torch.rand(c), 0.1]

    def given_as(dtype):
        y_, scale_, shift_, grad_, mean, var = (t.to(dtype, copy=True) for t in (y, scale, shift, grad, *running[:2]))
        return y_, scale_, shift_, act, grad_, [mean, var, 0.1]

    exact, near_a_kink = torchs(*given_as(torch.float64))
    theirs, _ = torchs(*given_as(torch.float32))
    layer, kept = conv_layer(c, act=act), given_as(torch.float32)[-1]
    out, mean, rstd = native.norm_act(y, layer, scale, shift, kept, EPS)
    to = torch.full((c,), 2.0), torch.full((c,), -1.0)
    back = native.norm_act_back(grad, y, layer, scale, shift, mean, rstd, to)
    ours = [out, back, to[0] - 2.0, to[1] + 1.0, *kept[:2]]
    for what, mine, other, right in zip(
        ("output", "gradient", "scale", "shift", "mean", "variance"), ours, theirs, exact, strict=True
    ):
        if near_a_kink and what in ("gradient", "scale", "shift"):
            continue  # single precision may fall on the other side of it
        error, allowed = ((t.double() - right).abs().max() for t in (mine, other))
        assert error <= 3 * allowed + 1e-5 * (1 + right.abs().max()), what


@needs_compiler
@pytest.mark.parametrize("act", list(ACTS))
@pytest.mark.parametrize("shape", [(7, 37, 29, 31), (64, 1, 32, 33), (9, 600, 5, 5)])
def test_many_blocks_of_rows_are_merged(act, shape):
    """More values than one thread sums at a time, against double precision, excluding values near a kink."""
    c, layer = shape[1], conv_layer(shape[1], act=act)
    y, grad, g = image_batch(*shape), image_batch(*shape, seed=1), torch.Generator().manual_seed(2)
    scale, shift = torch.rand(c, generator=g) + 0.5, torch.randn(c, generator=g)
    out, mean, rstd = native.norm_act(y, layer, scale, shift, (None, None, 0.0), EPS)
    leaves = [t.double().requires_grad_() for t in (y, scale, shift)]
    z = F.batch_norm(leaves[0], None, None, *leaves[1:], True, 0.0, EPS)
    edges = {"": (), "relu": (0.0,), "relu6": (0.0, 6.0), "hswish": (-3.0, 3.0)}[act]
    grad[sum(((z - edge).abs() < 1e-4 for edge in edges), torch.zeros(shape)).bool()] = 0.0
    expected = ACTS[act](z)
    expected.backward(grad.double())
    to = torch.zeros(c), torch.zeros(c)
    back = native.norm_act_back(grad, y, layer, scale, shift, mean, rstd, to)
    assert close(out, expected) and close(back, leaves[0].grad)
    assert close(to[0], leaves[1].grad) and close(to[1], leaves[2].grad)


@needs_compiler
@pytest.mark.parametrize("edge", [-3.0, 3.0])
def test_the_slope_of_hswish_at_its_kinks_is_torchs(edge):
    """A norm maps identical values exactly to its shift, so they can hit a kink."""
    y, grad, scale, shift = torch.ones(2, 5, 4, 4), image_batch(2, 5, 4, 4), torch.ones(5), torch.full((5,), edge)
    y = y.contiguous(memory_format=torch.channels_last)
    layer = conv_layer(5, act="hswish")
    _, mean, rstd = native.norm_act(y, layer, scale, shift, (None, None, 0.0), EPS)
    to = torch.zeros(5), torch.zeros(5)
    native.norm_act_back(grad, y, layer, scale, shift, mean, rstd, to)
    z = torch.full_like(y, edge).requires_grad_()
    F.hardswish(z).backward(grad)
    assert close(to[1], z.grad.sum((0, 2, 3)))


@needs_compiler
def test_many_rows_far_from_zero_keep_their_variance():
    """Sums of squares would cancel: the mean is 1,000 deviations away."""
    y, layer = image_batch(64, 5, 32, 32, scale=0.1, shift=100.0), conv_layer(5)
    out, mean, rstd = native.norm_act(y, layer, torch.ones(5), torch.zeros(5), (None, None, 0.0), EPS)
    var = y.double().var((0, 2, 3), unbiased=False)
    assert torch.allclose(rstd.double(), (var + EPS).rsqrt(), rtol=1e-5)
    assert torch.allclose(mean.double(), y.double().mean((0, 2, 3)), rtol=1e-6)
    assert close(out, (y.double() - mean.view(1, -1, 1, 1).double()) * rstd.view(1, -1, 1, 1), 1e-3)


@pytest.mark.parametrize("groups, k", [(1, 1), (16, 3)])
def test_a_layer_under_autocast_is_not_taken_for_single_precision(groups, k):
    """Under autocast a matrix product is bfloat16; the compiled kernels would read past its end."""
    x, layer = image_batch(4, 16, 6, 6), conv_layer(16, k, 1, groups, act="relu6")
    w, one, zero = torch.randn(16, 16 // groups, k, k), torch.ones(16), torch.zeros(16)
    for t in (w, one, zero):
        t.requires_grad_().grad = torch.zeros_like(t)
    expected = fused.conv_norm_act(x, layer, w, one, zero, (None, None, 0.0), EPS)
    with torch.autocast("cpu", torch.bfloat16):
        out = fused.conv_norm_act(x, layer, w, one, zero, (None, None, 0.0), EPS)
    assert (out.float() - expected).abs().max() < 0.05


@needs_compiler
@pytest.mark.parametrize("act", list(ACTS))
def test_what_is_no_number_stays_none(act):
    y = image_batch(2, 20, 3, 3)
    y[0, 3, 1, 1] = float("nan")
    out, *_ = native.norm_act(y, conv_layer(20, act=act), torch.ones(20), torch.zeros(20), (None, None, 0.0), EPS)
    assert out[:, 3].isnan().all() and not out[:, :3].isnan().any() and not out[:, 4:].isnan().any()


@needs_compiler
@given(
    n=st.integers(1, 20), c=st.integers(1, 40), h=st.integers(1, 9), w=st.integers(1, 9),
    k=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 2), spare=st.integers(0, 1), wanted=st.booleans(),
)  # fmt: skip
def test_depthwise_gradients_are_torchs(n, c, h, w, k, stride, spare, wanted):
    """Also for a weight that is the centre of a larger kernel and the first of more channels."""
    x, layer = image_batch(n, c, h, w), conv_layer(c, k, stride, c)
    whole = image_batch(c + spare, 1, k + 2 * spare, k + 2 * spare, seed=1)
    weight = fused.window(whole, (c, 1, k, k))
    twins = [t.double().requires_grad_() for t in (x, weight)]
    out = F.conv2d(*twins, None, stride, k // 2, 1, c)
    grad = image_batch(*out.shape, seed=2)
    out.backward(grad.double())
    to = torch.full_like(whole, 3.0)
    back = native.depthwise_back(grad, x, weight, layer, fused.window(to, (c, 1, k, k)), wanted)
    assert close(fused.window(to, (c, 1, k, k)) - 3.0, twins[1].grad)
    assert (to != 3.0).sum() <= weight.numel()  # nothing beside the slice
    assert close(back, twins[0].grad) if wanted else back is None


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_the_gradient_of_depthwise_weights_without_a_compiler_is_torchs(size, stride, kernel):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, size, size, generator=g, dtype=torch.float64).to(memory_format=torch.channels_last)
    weight = torch.randn(6, 1, kernel, kernel, generator=g, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, None, stride, kernel // 2, 1, 6)
    grad = torch.randn(out.shape, generator=g, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    (expected,) = torch.autograd.grad(out, weight, grad)
    layer = Layer("dw", "conv", 6, 6, *out.shape[2:], kernel, stride, 6)
    assert torch.allclose(fused.depthwise_gradient(grad, x, layer), expected)


@needs_compiler
def test_threads_do_not_change_a_result():
    """Sums run over fixed blocks. In separate processes, because tests run with one thread."""
    program = """
import sys, torch, zlib
torch.set_num_threads(int(sys.argv[1]))
from nasaug.kernels import native
from nasaug.arch.blocks import Layer
torch.manual_seed(0)
x = torch.randn(32, 37, 16, 16).to(memory_format=torch.channels_last)
layer = Layer("it", "conv", 37, 37, 16, 16, 5, 1, 37, act="relu6")
one, zero, w = torch.ones(37), torch.zeros(37), torch.randn(37, 1, 5, 5)
out, mean, rstd = native.norm_act(x, layer, one, zero, (None, None, 0.0), 1e-5)
to, for_w = (zero.clone(), zero.clone()), torch.zeros_like(w)
back = native.norm_act_back(out.sin(), x, layer, one, zero, mean, rstd, to)
dx = native.depthwise_back(back, x, w, layer, for_w, True)
from nasaug.arch.blocks import Spec, lower
block, whole = lower(Spec("b", "inverted", 21, 70, 3, 2, "relu6"), 37, 16, 16), []
for layer in block.layers:
    weight = torch.randn(layer.out, layer.cin // layer.groups, layer.kernel, layer.kernel)
    whole.append(native.Parameters(weight, torch.ones(layer.out), torch.zeros(layer.out), (None, None, 0.0)))
into = [[torch.zeros_like(t) for t in conv[:3]] for conv in whole]
y, kept = native.inverted(x, [block], [whole], 1e-5)
dy = native.inverted_back(y.sin().contiguous(memory_format=torch.channels_last), kept, into, True)
to = (*to, y, dy, *(t for three in into for t in three))
print([zlib.crc32(t.contiguous().numpy().tobytes()) for t in (out, mean, rstd, back, *to, dx, for_w)])
"""
    runs = [subprocess.run([sys.executable, "-c", program, n], capture_output=True, text=True) for n in "123"]
    assert runs[0].stdout.startswith("[") and runs[0].stdout == runs[1].stdout == runs[2].stdout


# --- never silently wrong ------------------------------------------------------------------------------------


def net_with_buffers():
    net = Net(archfile.read("mobilenetv2-tiny", resolution=32, classes=10).plan, 1).train()
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    return net, image_batch(4, 3, 32, 32)


@pytest.mark.parametrize("changed", ["s2.b1.dw.weight", "s2.b1.expand.norm.weight", "stem.weight"])
def test_a_weight_changed_between_forward_and_backward_is_an_error_as_in_torch(changed, either):
    net, x = net_with_buffers()
    loss = net(x).square().sum()
    with torch.no_grad():
        net.get_parameter(changed).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_gradients_are_had_by_autograd_grad_and_hooks_see_them(either):
    """With and without in-place accumulation by a trainer; autograd.grad does not touch any .grad."""
    net, x = net_with_buffers()
    net(x).square().sum().backward()
    right = [p.grad.clone() for p in net.parameters()]
    net.zero_grad(set_to_none=False)
    assert any(t.any() for t in right)
    given = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(given, right, strict=True))
    assert not any(p.grad.any() for p in net.parameters())
    seen = {}
    for name in ("s2.b1.dw.weight", "stem.weight", "classifier.weight"):
        net.get_parameter(name).register_hook(lambda grad, name=name: seen.setdefault(name, grad.clone()))
    loss = net(x).square().sum()
    with fused.summed_in_place(net.parameters()):
        loss.backward()
    for (name, p), grad in zip(net.named_parameters(), right, strict=True):
        assert torch.allclose(p.grad, grad, rtol=1e-4, atol=1e-5), name
        assert name not in seen or torch.allclose(seen.pop(name), grad, rtol=1e-4, atol=1e-5)
    assert not seen


def test_a_second_derivative_is_refused(either):
    net, x = net_with_buffers()
    (first,) = torch.autograd.grad(net(x).square().sum(), [net.get_parameter("stem.weight")], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


# --- threads -------------------------------------------------------------------------------------------------


@needs_compiler
def test_threads_serve_several_callers_and_forked_processes():
    program = """
import os, threading, torch
torch.set_num_threads(2)
from nasaug.kernels import choice, native
from nasaug.arch.blocks import Layer
layer = Layer("it", "conv", 40, 40, 16, 16, act="relu6")
x = torch.randn(32, 40, 16, 16).contiguous(memory_format=torch.channels_last)
one, zero = torch.ones(40), torch.zeros(40)
def run():
    return native.norm_act(x, layer, one, zero, (None, None, 0.0), 1e-5)[0]
right, wrong = run(), []
def again():
    wrong.extend(1 for _ in range(100) if not torch.equal(run(), right))
callers = [threading.Thread(target=again) for _ in range(3)]
for caller in callers: caller.start()
for caller in callers: caller.join()
expected = right.permute(0, 2, 3, 1).numpy().tobytes()
child = os.fork()
if child == 0:  # where torch's own threads would hang
    os._exit(0 if run().permute(0, 2, 3, 1).numpy().tobytes() == expected else 1)
_, status = os.waitpid(child, 0)
print(len(wrong), status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout == "0 0\n", done.stderr
