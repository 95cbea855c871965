"""Nets to export, and what runs an exported model."""

import numpy as np
import onnxruntime
import torch

from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs
from nasaug.int8 import onnxfile, quantize
from nasaug.nets.fold import fold
from nasaug.nets.net import Net
from support.nets import images

LEVELS = onnxruntime.GraphOptimizationLevel
KINDS = {  # blocks of every kind, for `between`
    "inverted": [
        Spec("b", "inverted", 5, 6, 3, 2, "relu6"), Spec("c", "inverted", 5, 6, 5, 1, "hswish", 2, "identity"),
    ],
    "separable": [Spec("b", "separable", 5, 0, 3, 1, "relu")],
    "basic": [Spec("m", "maxpool", kernel=3, stride=2), Spec("b", "basic", 4, 6, 3, 1, "relu", 0, "identity")],
    "pre": [Spec("b", "basic", 5, 6, 3, 2, "relu", 0, "project", "pre"), Spec("n", "norm", act="relu")],
    "bottleneck": [Spec("b", "bottleneck", 5, 6, 3, 2, "relu6", 0, "project")],
    "head": [Spec("d", "depthwise", kernel=3, stride=2, act="relu6"), Spec("p", "pointwise", 5, act="relu")],
    "plain": [Spec("b", "conv", 5, kernel=3, act=""), Spec("p", "pool"), Spec("l", "linear", 7, act="hswish")],
}  # fmt: skip


def ready(plan, seed=0):
    """A calibrated float32 net with random norms and biases, whose outputs vary by image."""
    net, generator = Net(plan, seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in net.named_parameters():
            if t.dim() == 1:
                low = 0.5 if name.endswith("norm.weight") else -0.5
                t.copy_(low + torch.rand(t.shape, generator=generator))
        net.classifier.weight.mul_(20)
        return net.train().calibrate([images(plan, 32, torch.float32, seed=7)]).eval()


def between(*specs, size=8):
    """The plan of these blocks between a stem and a classifier of three classes."""
    pools = [] if specs[-1].block in ("pool", "linear") else [Spec("pool", "pool")]
    before = [Spec("shrink", "pool")] if specs[-1].block == "linear" else []
    stem = Spec("stem", "conv", 4, kernel=3, act="relu")
    return from_specs([stem, *before, *specs, *pools, Spec("classifier", "linear", 3)], size, 3)


def float_model(net, **options):
    """The ONNX model of a net."""
    return onnxfile.to_onnx(fold(net), net.plan.resolution, net.plan.classes, **options)


def int8_model(net):
    """The int8 ONNX model of a net, calibrated on noise."""
    batches = [images(net.plan, 32, torch.float32, seed=1).numpy()]
    return quantize.to_int8(float_model(net, norms_as_convs=True), batches)


def outputs(model, x, level=LEVELS.ORT_ENABLE_ALL):
    """What ONNX Runtime computes for images, a tensor or an array."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"image": np.asarray(x)})[0]
