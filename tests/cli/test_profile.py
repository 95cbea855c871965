"""`profile`: the layer at the peak, networks side by side, and its pictures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from nasaug.arch import archfile
from nasaug.arch.blocks import Spec
from nasaug.arch.cost import cost
from nasaug.arch.figures import figures, intensity
from nasaug.arch.plan import from_specs
from nasaug.core.units import format_quantity
from support.commands import call, done, refused


@pytest.fixture
def blank_pictures():
    """Pictures are rendered here."""


def test_it_says_which_layer_sets_the_peak_and_why(empty_folder):
    said = done("profile", "--arch", "mobilenetv2-tiny").out
    assert "\npeak SRAM: s1.b1.dw sets it, 248,832 B input + 62,208 B output = 311,040 B\n" in said
    assert "\narithmetic intensity: 7.3 MACs per byte of weights and feature maps moved (3.08 MB)\n" in said
    assert re.search(r"^s1\.b1\.dw .* 559,872 .* 1\.8$", said, re.M)
    several = done("profile", "--arch", "resnet20-cifar").out
    assert "s1.b1.conv2 sets it, 16,384 B input + 16,384 B output + 16,384 B held for the shortcut = 49,152" in several
    assert " B; as much in 2 more, from s1.b2.conv2 on\n" in several
    specs = [Spec("stem", "conv", 2, 0, 3, 2), Spec("pool", "pool"), Spec("classifier", "linear", 10)]
    archfile.ArchFile(from_specs(specs, 8, 10), "narrow").save("narrow.json")
    narrow = done("profile", "--arch", "narrow.json").out
    assert "stem sets it, 192 B input (the image) + 32 B output = 224 B\n" in narrow


def test_an_sram_budget_names_the_layers_over_it(empty_folder):
    arch = ("profile", "--arch", "mobilenetv2-tiny", "--sram-budget")
    assert "SRAM budget 256 KB: exceeded by 2 of 54 layers: s1.b1.expand, s1.b1.dw\n" in done(*arch, "256KB").out
    assert ", first.dw, first.project, s1.b1.expand and 2 more\n" in done(*arch, "100KB").out
    assert "SRAM budget 304 KB: every layer is within it\n" in done(*arch, "311040").out
    shown = json.loads(done(*arch, "256KB", "--json").out)
    assert (shown["sram_budget"], shown["over_budget"]) == (256 * 1024, ["s1.b1.expand", "s1.b1.dw"])


def test_json_has_the_figures_of_each_layer(empty_folder):
    shown = json.loads(done("profile", "--arch", "resnet20-cifar", "--json").out)
    rows = figures(archfile.read("resnet20-cifar").plan)
    assert shown["peak_layers"] == ["s1.b1.conv2", "s1.b2.conv2", "s1.b3.conv2"] and "sram_budget" not in shown
    assert shown["intensity"] == intensity(rows) and shown["moved"] == sum(row.moved for row in rows)
    for layer, row in zip(shown["layers"], rows, strict=True):
        assert layer["input"] + layer["output"] + layer["held"] == layer["peak"]
        assert (layer["moved"], layer["intensity"]) == (row.moved, row.intensity)


def test_sram_under_other_assumptions(empty_folder):
    arch = ("profile", "--arch", "mcunet")
    said = done(*arch, "--in-place", "--without-image", "--sram-budget", "240KB").out
    told = "s1.b1.expand sets it, 61,952 B input + 185,856 B output = 247,808 B"
    assert f"peak SRAM (depthwise in place, without the image): {told}\n" in said and "247,808 B peak SRAM" in said
    assert "SRAM budget 240 KB: exceeded by 1 of 56 layers: s1.b1.expand\n" in said
    shown, plain = (json.loads(done(*arch, *flags, "--json").out) for flags in (["--in-place"], []))
    assert (shown["peak"], shown["in_place"], plain["peak"]) == (247_808, True, 340_736) and "in_place" not in plain
    assert (shown["moved"], shown["macs"]) == (plain["moved"], plain["macs"])  # only memory differs
    beside = done("profile", "--arch", "mcunet,resnet20-cifar", "--in-place").out
    assert re.search(r"^peak SRAM +242 KB +48 KB$", beside, re.M)


def test_networks_side_by_side(empty_folder):
    archfile.read("resnet20-cifar").save("a,b.json")
    Path("x").mkdir()
    archfile.read("mcunet").save("x/other.json")
    said = done("profile", "--arch", "mcunet, x/other.json,mobilenetv2-tiny", "--resolution", "96").out
    head, *lines = (re.split(r"  +", line.strip()) for line in said.splitlines())
    assert head == ["mcunet", "x/other.json", "mobilenetv2-tiny"]  # two have the name mcunet
    table = {figure: values for figure, *values in lines}
    assert table["resolution"] == ["96 px"] * 3 and table["layers"] == ["56", "56", "54"]
    macs = format_quantity(cost(archfile.read("mcunet", resolution=96).plan).macs, "macs")
    assert table["MACs"][:2] == [macs, macs] and table["flash"][2] == "748 KB"
    assert table["in layer"][0] == "s1.b2.dw and 1 more" and len(table["MACs per byte moved"]) == 3
    shown = json.loads(done("profile", "--arch", "mcunet,resnet20-cifar", "--json").out)
    assert [each["arch"] for each in shown] == ["mcunet", "resnet20-cifar"]
    assert shown[1] == json.loads(done("profile", "--arch", "a,b.json", "--json").out)  # one file, despite its comma
    limited = done("profile", "--arch", "mcunet,resnet20-cifar", "--sram-budget", "320KB").out
    assert re.search(r"^layers over 320 KB of SRAM +2 +0$", limited, re.M)


def test_its_pictures(empty_folder):
    Path("net.svg").write_text("old")
    pictures = ("--svg", "net.svg", "--memory", "m.PNG", "--sram-budget", "256KB")
    said = done("profile", "--arch", "mobilenetv2-tiny", *pictures).out
    assert "exactly 23,499,152 MACs" in said and sorted(os.listdir()) == ["m.PNG", "net.svg"]
    svg = ElementTree.parse("net.svg").getroot()
    total = cost(archfile.read("mobilenetv2-tiny").plan)
    assert svg.get("aria-label").startswith("mobilenetv2-tiny, 144 px") and total.macs == 23_499_152
    assert imread("m.PNG").shape[:2] > (700, 1200)
    first = Path("net.svg").read_bytes()
    assert done("profile", "--arch", "mobilenetv2-tiny", "--svg", "net.svg", "--json").out.startswith("{")
    assert Path("net.svg").read_bytes() == first


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is(empty_folder):
    Path("a.svg").mkdir()
    assert "--svg a.svg is a folder: give a file's name" in refused("profile", "--arch", "mcunet", "--svg", "a.svg")
    said = refused("profile", "--arch", "mcunet", "--svg", "b.svg", "--memory", "b.jpg")
    assert "--memory b.jpg must end in .png, like net.png" in said
    said = refused("profile", "--arch", "mcunet", "--svg", "b.svg", "--memory", "/proc/b.png")
    assert "cannot write /proc/b.png" in said


def test_a_fault_of_the_disk_is_code_1_and_leaves_the_old_picture(empty_folder, monkeypatch):
    Path("net.svg").write_text("old")
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    ended = call("profile", "--arch", "mcunet", "--svg", "net.svg")
    assert ended.code == 1 and ended.out == "" and "cannot write net.svg: No space left" in ended.err
    assert os.listdir() == ["net.svg"] and Path("net.svg").read_text() == "old"


@pytest.mark.parametrize("line", ["mcunet,resnet50", "mcunet --svg net.svg"])
def test_it_needs_nothing_heavy_without_a_png(empty_folder, line):
    command = [sys.executable, "-X", "importtime", "-m", "nasaug", "profile", "--arch", *line.split()]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert not re.search(r"\| +(torch|numpy|matplotlib|jinja2)$", told, re.M)
