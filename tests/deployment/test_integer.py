"""Integer nets: within a step of ONNX Runtime, exact in the same way as the C source, no larger than the plan says."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import cost
from nasaug.core.errors import RunFault
from nasaug.deployment import built, csource, integer, qdq
from nasaug.int8 import imitation
from nasaug.int8.measure import Session
from nasaug.nets.net import Net
from nasaug.tasks.detect import head_of
from support.exported import KINDS, LEVELS, between, int8_model, outputs, ready
from support.kernels import needs_compiler
from support.nets import images

NAMES = ["mobilenetv2-tiny", "mcunet", "resnet20-cifar"]


def made(plan, count=64):
    """(its int8 model, its integer net, int8 images for it, the same images in float32)."""
    net = ready(plan)
    model = int8_model(net)
    ints, x = qdq.of_onnx(model), images(net.plan, count, torch.float32, seed=3)
    return model, ints, ints.input.of(x.permute(0, 2, 3, 1).numpy()), x


def named(name, px=24):
    return archfile.read(name, resolution=px, classes=10).plan


def c_outputs(net, given, tmp_path, mean=(0.5,) * 3, std=(0.25,) * 3):
    header, code = csource.to_c(net, "net", mean, std, version="0", title="a test")
    return built.outputs_here(header, code, "net", given, net.output.size), header, code


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_onnx_runtime_does_to_a_step(kind):
    model, net, given, x = made(between(*KINDS[kind]))
    mine = net.run(given)
    for fused in (True, False):  # by integer kernels; in float, rounded where the model says so
        session = Session(model.SerializeToString(), fused=fused)
        level = LEVELS.ORT_ENABLE_ALL if fused else LEVELS.ORT_DISABLE_ALL
        assert np.array_equal(session.run(x.numpy()), outputs(model, x, level))
        theirs = net.output.of(session.run(x.numpy())).astype(int)
        assert mine.dtype == np.int8 and theirs.std() > 10
        assert np.abs(mine - theirs).max() <= 1 and (mine == theirs).mean() > 0.95


@needs_compiler
def test_the_maps_of_a_detector_are_joined(tmp_path):
    plan = archfile.read("mobilenetv2-tiny", resolution=32, classes=head_of(3)).plan
    x = images(plan, 16, torch.float32, seed=3)
    model = imitation.int8_model(Net(plan, 0).calibrate([x]).eval(), [x.numpy()])
    net = qdq.of_onnx(model)
    given = net.input.of(x.permute(0, 2, 3, 1).numpy())
    mine, theirs = net.run(given), Session(model.SerializeToString(), fused=False).run(x.numpy())
    assert net.output.shape == (1, *theirs.shape[1:]) and theirs.shape[2] == 3 + 5
    off = np.abs(mine - net.output.of(theirs).astype(int).reshape(len(x), -1))
    assert off.max() <= 1 and len(np.unique(mine)) > 100
    assert np.array_equal(c_outputs(net, given, tmp_path)[0], mine)


def test_the_kinds_cover_every_block():
    assert {spec.block for specs in KINDS.values() for spec in specs} == set(BLOCKS)


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_the_c_source_computes_the_same_bits(kind, tmp_path):
    _, net, given, _ = made(between(*KINDS[kind]), 16)
    got, header, code = c_outputs(net, given, tmp_path)
    assert np.array_equal(got, net.run(given)) and len(np.unique(got)) > 10
    assert f"#define NET_ARENA {net.arena}\n" in header and "malloc" not in code and "#include <" not in code


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_what_the_plan_costs(name):
    """The buffer leaves out the image, and an addition overwrites its input; weights and biases are the plan's."""
    plan = named(name)
    net, c = qdq.of_onnx(int8_model(ready(plan))), cost(plan)
    largest = max(sum(x.size for x in {id(x): x for x in (*op.inputs, op.output)}.values()) for op in net.ops[1:])
    assert largest <= net.arena <= c.peak
    stored = sum(op.weight.size + 4 * op.bias.size for op in net.ops)
    assert stored == c.flash and net.constants > stored


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_needed_together_do_not_overlap(kind):
    net = qdq.of_onnx(int8_model(ready(between(*KINDS[kind]))))
    sizes = {id(op.output): op.output.size for op in net.ops}
    arena, where = np.zeros(net.arena, int), net.places
    last = {id(x): i for i, op in enumerate(net.ops) for x in op.inputs}
    for i, op in enumerate(net.ops):  # as the source does: write each output's mark, and find every input's still there
        for x in op.inputs:
            if x is not net.input:
                place = where[id(x)]
                assert (arena[place : place + sizes[id(x)]] == id(x)).all()
        if op.output is not net.output:
            place = where[id(op.output)]
            arena[place : place + op.output.size] = id(op.output)
            assert last[id(op.output)] > i


def test_a_ratio_is_a_multiplier_of_31_bits_and_a_shift():
    for ratio in (1.0, 0.5, 1 / 3, 0.999999999999, 1e-6, 3.7, 1e-12):
        multiplier, shift = integer.fixed_point(ratio)
        assert 0 < multiplier < 2**31 and 1 <= shift <= 62
        assert multiplier / 2**shift == pytest.approx(ratio, rel=2e-9 if ratio > 1e-9 else 1e-5)
    assert integer.fixed_point(1e-30)[0] == 0
    with pytest.raises(RunFault, match="differ by a factor of 1e"):
        integer.fixed_point(1e10)


def test_rounding_is_to_the_nearest_and_halves_away_from_zero():
    values = np.array([-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6], np.int64)
    assert integer.rounded(values, 2).tolist() == [-2, -1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 1, 2]


@needs_compiler
def test_pixels_are_normalised_as_in_training(tmp_path):
    from nasaug import augment

    _, net, _, _ = made(between(*KINDS["plain"]), 1)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.25, 0.5)
    _, header, code = c_outputs(net, np.zeros((1, *net.input.shape), np.int8), tmp_path, mean, std)
    for suffix, text in ((".h", header), (".c", code)):
        (tmp_path / f"net{suffix}").write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", tmp_path / "net.c", "-o", tmp_path / "net.so"], check=True)
    rgb = np.random.default_rng(0).integers(0, 256, net.input.shape, dtype=np.uint8)
    got = np.zeros(net.input.shape, np.int8)
    pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (rgb, got))
    ctypes.CDLL(str(tmp_path / "net.so")).net_image(*pointers)
    x = augment.evaluation(torch.from_numpy(rgb).permute(2, 0, 1)[None], mean, std)[0].permute(1, 2, 0)
    wanted = net.input.of(x.numpy())
    assert np.abs(got.astype(int) - wanted).max() <= 1 and (got == wanted).mean() > 0.99


def test_texts_in_the_source_cannot_end_a_comment_or_a_string():
    _, net, _, _ = made(between(*KINDS["plain"]), 1)
    classes = ['"', "\\", "é", "a??/b", "*/"]
    told = {"title": "x */ int y;", "about": ["/* z"], "constants": {"classes": classes}}
    header, _ = csource.to_c(net, "net", [0.5] * 3, [0.25] * 3, version="0", **told)
    assert "x * / int y;" in header and "/* z" not in header
    assert '#define NET_CLASSES {"\\042", "\\134", "\\303\\251", "a\\077\\077/b", "*/"}' in header


def test_what_integers_cannot_do_is_named():
    model = int8_model(ready(between(*KINDS["plain"])))
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Softmax"
    with pytest.raises(RunFault, match=r"stem \(Softmax\) of the int8 model cannot be written in integers"):
        qdq.of_onnx(model)
