"""The drawing of a network: what it shows, that it is well-formed, and that nothing lies over anything else."""

import re
from xml.etree import ElementTree

import pytest

from nasaug.arch import archfile
from nasaug.arch.blocks import Spec
from nasaug.arch.cost import block_cost, cost
from nasaug.arch.plan import from_specs
from nasaug.reporting import drawing
from nasaug.reporting.drawing import network

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("mobilenetv2-tiny", "mcunet", "resnet20-cifar", "resnet110-cifar", "resnet50", "mobilenetv3-w0.35",
         "wideresnet-16-2", "tiny-images")  # fmt: skip
END = (Spec("pool", "pool"), Spec("classifier", "linear", 10))


def drawn(plan, name="net"):
    return ElementTree.fromstring(network(plan, name))


def texts(svg):
    return [text.text for text in svg.iter(f"{SVG}text")]


def rows(svg):
    """The texts of each block's row, from left to right."""
    found = {}
    for text in svg.iter(f"{SVG}text"):
        found.setdefault(float(text.get("y")), []).append((float(text.get("x")), text.text))
    lines = [[words for _, words in sorted(found[y])] for y in sorted(found)]
    return lines[3:-1]  # without title, facts, heads and note


@pytest.mark.parametrize("name", NAMES)
def test_a_row_for_each_block_and_an_arc_for_each_shortcut(name):
    plan = archfile.read(name).plan
    svg = drawn(plan, name)
    assert [row[0] for row in rows(svg)] == [block.name for block in plan.blocks]
    looks = [path.get("class") for path in svg.iter(f"{SVG}path") if " q " in path.get("d")]
    assert looks == [
        "line projected" if block.project else "line" for block in plan.blocks if block.shortcut != "none"
    ]  # fmt: skip
    shares = [block_cost(block).macs / cost(plan).macs for block in plan.blocks if block_cost(block).macs]
    shown = [text for text in texts(svg) if text.endswith(" %")]
    assert shown == [f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %" for share in shares]


def test_a_row_says_how_a_block_is_set():
    said = {row[0]: row[1:-1] for row in rows(drawn(archfile.read("mobilenetv3-w0.35").plan))}
    assert said["s2.b2"] == ["inverted", "5×5", "1", "40 (×2.5)", "relu, SE 16", "16 × 20×20"]
    assert said["stem"] == ["conv", "3×3", "2", "hswish", "8 × 80×80"]
    assert said["pool"] == ["pool"]  # and its output, which comes last
    basic = {row[0]: row[1:-1] for row in rows(drawn(archfile.read("wideresnet-16-2").plan))}
    assert basic["s2.b1"] == ["basic, pre", "3×3", "2", "64 (×1)", "relu", "64 × 16×16"]


@pytest.mark.parametrize("name", NAMES)
def test_all_of_it_is_inside_and_columns_do_not_touch(name):
    """By 7.5 px a character, more than a font of 12 px has on average."""
    svg = drawn(archfile.read(name).plan)
    width, height = drawing.WIDTH, float(svg.get("height"))
    spans = {}
    for text in svg.iter(f"{SVG}text"):
        x, y, long = float(text.get("x")), float(text.get("y")), 7.5 * len(text.text)
        left = x - long if text.get("text-anchor") == "end" else x
        spans.setdefault(y, []).append((left, left + long))
        assert 0 < left and left + long < width and 0 < y < height
    for line in spans.values():
        line.sort()
        assert all(a[1] < b[0] for a, b in zip(line, line[1:], strict=False)), line
    for box in svg.iter(f"{SVG}rect"):
        x, y = float(box.get("x", 0)), float(box.get("y", 0))
        assert x >= 0 and x + float(box.get("width")) <= width and y + float(box.get("height")) <= height


def test_names_are_escaped_and_nothing_is_loaded():
    evil = "<script>alert(1)</script>&\"'\x00\x1b\udce9" + "x" * 200
    plan = from_specs([Spec("a<b>&\x07", "conv", 4, 0, 3, 2, "relu"), *END], 8, 10)
    text = network(plan, evil)
    svg = ElementTree.fromstring(text)
    assert not list(svg.iter(f"{SVG}script")) and "<script" not in text and text.encode()
    assert svg.find(f"{SVG}title").text.startswith("<script>alert(1)</script>&\"'\\x00\\x1b\\udce9x")
    assert texts(svg)[0] == "…" + "x" * 89 and rows(svg)[0][0] == "a<b>&\\x07"
    assert not re.search(r"href|url\(|@import|<image|<foreignObject| id=", text)
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_equal_plans_give_equal_text_in_light_and_dark():
    first, second = (network(archfile.read("mcunet").plan, "mcunet") for _ in range(2))
    assert first == second and first.startswith("<svg ") and first.endswith("</svg>\n")
    light, dark = first.split("prefers-color-scheme: dark")
    coloured = set(re.findall(r"\.net (?:\.)?(\w+) {[^}]*#[0-9a-f]{6}", light))
    assert coloured == set(re.findall(r"\.net (?:\.)?(\w+) {[^}]*#[0-9a-f]{6}", dark)) and len(coloured) == 11
    used = set(" ".join(re.findall(r'class="([^"]*)"', first)).split())
    assert used - set(re.findall(r"\.(\w+) {", first)) == {"net"}


def test_the_widest_box_is_the_one_with_most_channels():
    svg = drawn(from_specs([Spec("a", "inverted", 8, 72, 3, 1, "relu"), Spec("b", "conv", 18, 0, 3), *END], 8, 10))
    looks = ("blue inner", "blue", "green")
    widths = {box.get("class"): float(box.get("width")) for box in svg.iter(f"{SVG}rect") if box.get("class") in looks}
    assert widths["blue inner"] == pytest.approx(2 * widths["green"], abs=0.2)
    assert widths["blue inner"] == pytest.approx(3 * widths["blue"], abs=0.2)
