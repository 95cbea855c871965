"""int8: no sum saturates, every tensor is int8, and outputs stay close to the net's."""

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs
from nasaug.deployment import qdq
from nasaug.int8 import quantize
from support.exported import LEVELS, between, float_model, int8_model, outputs, ready
from support.nets import images


def extreme(spec, size=8):
    """A net whose convolution and classifier have large weights of one sign and see large inputs only."""
    stem, end = Spec("stem", "conv", 32, kernel=1, act="relu"), [Spec("pool", "pool"), Spec("classifier", "linear", 3)]
    net = ready(from_specs([stem, spec, *end], size, 3))
    with torch.no_grad():
        for name, t in net.named_parameters():
            if name.endswith("weight") and "norm" not in name:
                t.abs_().mul_(0.01).add_(t.abs().max())
            elif name.endswith("norm.bias"):
                t.fill_(1.0)
    return net


def in_integers(model, x):
    net = qdq.of_onnx(model)
    return net.run(net.input.of(x.permute(0, 2, 3, 1).numpy())), net.output


@pytest.mark.parametrize(
    "spec", [Spec("b", "conv", 16, kernel=3, act="relu"), Spec("b", "separable", 16, kernel=3, act="relu")]
)
def test_no_sum_saturates_where_all_products_are_large(spec):
    """On AVX2 without VNNI, uint8 activations and int8 weights of the whole range lose half of such sums."""
    net = extreme(spec)
    x = images(net.plan, 4, torch.float32).abs() * 3
    model = quantize.to_int8(float_model(net), [x.numpy()])
    exact, stored = in_integers(model, x)
    for level in (LEVELS.ORT_ENABLE_ALL, LEVELS.ORT_DISABLE_ALL):
        fast = stored.of(outputs(model, x, level))
        assert np.abs(fast.astype(int) - exact).max() <= 1


def test_two_weights_of_a_channel_are_at_most_128_together():
    net = ready(between(Spec("b", "inverted", 16, 32, 3, 1, "relu6"), size=8))
    tensors = {t.name: numpy_helper.to_array(t) for t in int8_model(net).graph.initializer}
    dense = [t for name, t in tensors.items() if name.endswith("weight_quantized") and t.shape[1] > 1]
    assert len(dense) == 4
    for weight in dense:
        ordered = np.sort(weight.reshape(len(weight), -1).astype(int), axis=1)
        pairs = np.maximum(ordered[:, -2:].clip(0).sum(1), -ordered[:, :2].clip(max=0).sum(1))
        assert pairs.max() <= 128 and (pairs >= 126).all()  # the range is used
    (depthwise,) = (t for name, t in tensors.items() if name == "b.dw.weight_quantized")
    assert (np.abs(depthwise.reshape(32, -1)).max(1) == 127).all()  # its kernels do not saturate


def test_a_channel_of_zeros_can_be_quantised():
    net = ready(between(Spec("b", "conv", 4, kernel=3, act="relu")))
    with torch.no_grad():
        net.get_submodule("b").weight[1].zero_()
        wanted = net(x := images(net.plan, 8, torch.float32))
    got = outputs(int8_model(net), x)
    assert np.isfinite(got).all() and np.abs(got - wanted.numpy()).max() < 0.2 * wanted.abs().max()


def test_input_and_output_stay_as_they_were_and_the_model_given_too():
    net = ready(between(Spec("b", "inverted", 4, 6, 3, 1, "hswish", 2, "identity")))
    model = float_model(net, norms_as_convs=True)
    before = model.SerializeToString()
    quantised = quantize.to_int8(model, [images(net.plan, 16, torch.float32).numpy()])
    assert model.SerializeToString() == before
    for one, two in ((model.graph.input, quantised.graph.input), (model.graph.output, quantised.graph.output)):
        assert [x.SerializeToString() for x in one] == [x.SerializeToString() for x in two]
    x = images(net.plan, 32, torch.float32, seed=5)
    wanted, got = outputs(model, x), outputs(quantised, x)
    assert 0 < np.square(got - wanted).mean() ** 0.5 < 0.15 * wanted.std()
