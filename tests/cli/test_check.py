"""`profile --check`: thop's and torch's counts of the built network beside the cost model's."""

import json
import re

import pytest
import torch
import torchvision

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS, Spec
from nasaug.arch.cost import cost, costs_by_layer
from nasaug.arch.plan import from_specs
from nasaug.arch.spacefile import bundled_names, load
from nasaug.nets.counted import _built, count, thop
from support.commands import call, done, faulty

TINY = ("profile", "--arch", "mobilenetv2-tiny", "--resolution", "32", "--check")
NAMED = sorted({name for space in bundled_names() for name in load(space, BLOCKS).archs})


@pytest.mark.parametrize("name", NAMED)
def test_the_three_agree_on_every_layer_of_every_named_architecture(name):
    plan = archfile.read(name, resolution=32).plan
    counts = count(plan)
    assert counts.wrong == [] and [row.name for row in counts.rows] == list(plan.by_name)
    assert counts.total[2:] == (cost(plan).macs,) * 3 and counts.flops == 2 * cost(plan).macs
    assert sum(row.thop for row in counts.rows) == sum(row.torch for row in counts.rows) == cost(plan).macs


def test_what_thop_counts_beside_is_what_it_counts_in_a_network_of_torchs_layers():
    counts = count(archfile.read("resnet50", resolution=32).plan)
    theirs, _ = thop.profile(torchvision.models.resnet50(), (torch.zeros(1, 3, 32, 32),), verbose=False)
    assert counts.beside.keys() == {"norms", "averages"} and all(counts.beside.values())
    assert counts.total.thop + counts.beside.total() == theirs


def test_norms_before_their_convolutions_are_counted_on_what_they_read():
    stem, block = Spec("stem", "conv", 4, kernel=3), Spec("b", "basic", 8, 8, 3, 2, "relu", 0, "project", "pre")
    specs = [stem, block, Spec("end", "norm", act="relu"), Spec("pool", "pool"), Spec("classifier", "linear", 2)]
    beside = count(from_specs(specs, 8, 2)).beside
    values = 4 * 64 + 4 * 64 + 8 * 16 + 8 * 16  # stem, conv1, which has a stride, conv2 and end
    assert beside == {"norms": 4 * values, "averages": 8 * (16 + 1)}


def test_thop_by_itself_counts_nothing_in_a_nasaug_network():
    net = _built(archfile.read("mobilenetv3-w0.35", resolution=32).plan)
    assert thop.profile(net, (torch.zeros(1, 3, 32, 32),), verbose=False)[0] == 0


def test_no_kernel_is_compiled_for_it(monkeypatch):
    monkeypatch.setattr("nasaug.kernels.build.library", lambda: pytest.fail("compiles"))
    assert count(archfile.read("mobilenetv2-tiny", resolution=32).plan).wrong == []


def test_it_shows_each_layer_and_why_the_counts_differ_elsewhere():
    total = cost(archfile.read("mobilenetv2-tiny", resolution=32).plan).macs
    shown = done(*TINY).out
    assert re.search(rf"^the whole +{total:,} +{total:,} +{total:,}$", shown, re.M)
    assert re.search(r"^s1\.b1\.dw +conv +([\d,]+) +\1 +\1$", shown, re.M)
    assert f"agree on every convolution and linear layer, {total:,} MACs" in shown
    assert re.findall(r"^- ([\w ]+)", shown, re.M) == (
        ["norms", "global averages", "activations", "FLOPs", "types", "kernels"]
    )
    assert f"reports {2 * total:,}, two per MAC" in shown
    assert "nasaug profile --arch found.json --check" in done("profile", "--help").out
    of_v3 = done("profile", "--arch", "mobilenetv3-w0.35", "--resolution", "32", "--check").out
    assert "- squeeze-excite: all count its two linear layers" in of_v3 and "squeeze" not in shown


def test_json_has_the_three_counts_beside_what_it_has_without():
    plain, checked = (json.loads(done(*args, "--json").out) for args in (TINY[:-1], TINY))
    assert checked["agrees"] is True and checked["macs"] == checked["thop"] == checked["torch"]
    assert checked["torch_flops"] == 2 * checked["macs"] and checked["thop_beside"]["norms"] > 0
    assert all(layer["macs"] == layer.pop("thop") == layer.pop("torch") for layer in checked["layers"])
    assert checked.items() >= plain.items()


@pytest.fixture
def wrong(monkeypatch):
    """A cost model that counts one MAC too many for a depthwise convolution."""
    def costs(plan):
        return [(layer, c._replace(macs=c.macs + (layer.name == "s2.b1.dw"))) for layer, c in costs_by_layer(plan)]

    monkeypatch.setattr("nasaug.nets.counted.costs_by_layer", costs)


def test_a_wrong_cost_is_told_with_the_layers_name_and_exits_with_1(wrong):
    called = call(*TINY)
    line = faulty(called)
    found = re.search(r"in s2\.b1\.dw \(cost model ([\d,]+), thop ([\d,]+), torch ([\d,]+)\);", line)
    said, thops, torchs = (int(n.replace(",", "")) for n in found.groups())
    assert said - 1 == thops == torchs and line.count("cost model") == 1
    assert "the three differ in s2.b1.dw\n" in called.out and "the three agree" not in called.out
    told = call(*TINY, "--json")
    assert faulty(told) == line and json.loads(told.out)["agrees"] is False


def test_macs_outside_of_all_layers_are_found_too(monkeypatch):
    monkeypatch.setattr("nasaug.nets.counted.cost", lambda plan: cost(plan)._replace(macs=1))
    assert "in the whole (cost model 1, thop" in faulty(call(*TINY))


def test_a_layer_named_as_if_it_were_inside_another_is_counted_as_its_own():
    specs = [Spec("a", "conv", 4, kernel=3), Spec("a.b", "conv", 4, kernel=3), Spec("pool", "pool")]
    counts = count(from_specs([*specs, Spec("classifier", "linear", 2)], 8, 2))
    assert counts.wrong == [] and [row.torch for row in counts.rows] == [27 * 4 * 64, 36 * 4 * 64, 0, 8]


def test_a_network_too_large_to_be_built_is_a_fault_in_one_line(empty_folder):
    sizes = {"width": 1 << 20, "kernel": 1023}  # more bytes of weights than the address space
    specs = [Spec("a", "conv", **sizes), Spec("b", "conv", **sizes), Spec("pool", "pool")]
    plan = from_specs([*specs, Spec("classifier", "linear", 2)], 8, 2)
    archfile.ArchFile(plan, "huge").save("huge.json")
    line = faulty(call("profile", "--arch", "huge.json", "--check"))
    assert "cannot be built and run here" in line and "memory" in line and "without --check" in line
    assert f"{cost(plan).macs:,} MACs" in done("profile", "--arch", "huge.json").out
