"""ONNX files equal the net, for every kind of block and every shipped space, and say what their user must know."""

import sys
from random import Random

import numpy as np
import pytest
import torch
from onnx import checker
from torch import nn
from torch.fx import symbolic_trace

from nasaug.arch.blocks import BLOCKS, Spec
from nasaug.arch.plan import plan
from nasaug.arch.spacefile import bundled_names, load
from nasaug.core.errors import BadInput, MissingExtra, RunFault
from nasaug.int8 import onnxfile
from nasaug.int8.measure import Session
from nasaug.nets.fold import fold
from support.exported import between, float_model, outputs, ready
from support.nets import far, images
from support.spaces import every_space

KINDS = (
    Spec("b", "inverted", 5, 6, 3, 2, "relu6"), Spec("b", "inverted", 4, 6, 5, 1, "hswish", 2, "identity"),
    Spec("b", "separable", 5, 0, 3, 1, "relu"), Spec("b", "basic", 4, 6, 3, 1, "relu", 0, "identity"),
    Spec("b", "basic", 5, 6, 3, 2, "relu", 0, "project", "pre"), Spec("b", "maxpool", kernel=3, stride=2),
    Spec("b", "bottleneck", 5, 6, 3, 2, "relu6", 0, "project"), Spec("b", "norm", act="relu"),
    Spec("b", "conv", 5, kernel=3, act="", order="pre"), Spec("b", "linear", 7, act="hswish"),
    Spec("b", "depthwise", kernel=3, stride=2, act="relu6"), Spec("b", "pointwise", 5, act="relu"),
)  # fmt: skip


def check(net, **options):
    model, x = float_model(net, **options), images(net.plan, 3, torch.float32)
    with torch.no_grad():
        wanted = net(x)
    assert far(torch.from_numpy(outputs(model, x)), wanted) < 1e-4
    assert far(torch.from_numpy(outputs(model, x[:1])), wanted[:1]) < 1e-4  # any number of images


@pytest.mark.parametrize("name", bundled_names())
def test_nets_of_a_shipped_space_are_the_same_in_onnx(name):
    space = load(name, BLOCKS)
    drawn = [space.sample(Random(name))] if name.endswith("-small") else []  # the others' are large
    for arch in (space.smallest, *drawn):
        check(ready(plan(space, arch, 10).at(16)))


@every_space
def test_random_nets_are_the_same_in_onnx(space):
    for seed in range(3):
        check(ready(plan(space, space.sample(Random(seed)), 10)))


@pytest.mark.parametrize("as_convs", [False, True])
def test_every_kind_of_block_is_the_same_in_onnx(as_convs):
    assert {spec.block for spec in KINDS} == set(BLOCKS) - {"pool"}  # every net has that
    for spec in KINDS:
        check(ready(between(spec)), norms_as_convs=as_convs)


def test_norms_as_convolutions_leave_no_norm():
    net = ready(between(KINDS[4]))
    kinds = [{node.op_type for node in float_model(net, norms_as_convs=x).graph.node} for x in (False, True)]
    assert "BatchNormalization" in kinds[0] and "BatchNormalization" not in kinds[1]


def test_the_file_names_its_ends_and_takes_any_number_of_images():
    model = float_model(ready(between(KINDS[0])), output="number")
    (image,), (out,) = model.graph.input, model.graph.output
    shapes = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in (image, out)]
    assert (image.name, out.name) == ("image", "number") and shapes == [["batch", 3, 8, 8], ["batch", 3]]
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)  # not newer than a year-old runtime reads
    checker.check_model(model, full_check=True)


def test_facts_come_back_from_the_file(tmp_path):
    facts = {"classes": ["a", "ü", "\"'"], "mean": [0.5, 0.25, 1e-9], "plan": {"blocks": []}}
    model = float_model(ready(between(KINDS[0])), facts=facts)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert onnxfile.facts_of(onnxfile.read(tmp_path / "net.onnx")) == facts


def test_what_is_no_onnx_file_is_refused(tmp_path):
    path, whole = tmp_path / "net.onnx", float_model(ready(between(KINDS[0]))).SerializeToString()
    for content in (b"", b"no model", whole[:1000], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="is no ONNX model, or a damaged one .*; export it again") as caught:
            onnxfile.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="cannot be run by ONNX Runtime .*; export it again"):
        Session(whole[:1000])
    with pytest.raises(BadInput, match="cannot read .*none.onnx: No such file"):
        onnxfile.read(tmp_path / "none.onnx")


def test_a_missing_package_is_named_with_pips_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"this needs onnxruntime, .* pip install 'nasaug\[export\]'"):
        onnxfile.need_onnx("this", "onnxruntime")


def test_a_layer_that_is_not_known_is_named():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = nn.PReLU()

        def forward(self, x):
            return self.odd(x)

    class Root(Other):
        pass

    with pytest.raises(RunFault, match="odd is a PReLU"):
        onnxfile.to_onnx(symbolic_trace(Root()), 8, 3)


def test_latency_is_that_of_many_runs():
    session = Session(float_model(ready(between(KINDS[0]))).SerializeToString())
    found = session.latency(8, seconds=0.02)
    assert 50 <= found.runs <= 1000 and 0 < found.median_ms <= found.p95_ms and found.threads == 1


def test_the_graph_has_the_names_of_the_plan():
    net = ready(between(KINDS[1]))
    tensors = {t.name: tuple(t.dims) for t in float_model(net).graph.initializer}
    folded = dict(fold(net).named_parameters())
    assert {name: tuple(t.shape) for name, t in folded.items()}.items() <= tensors.items()
    assert np.prod(tensors["b.dw.weight"]) == 6 * 25
