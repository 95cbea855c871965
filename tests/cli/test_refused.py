"""Bad input of every kind: one line with value, rule and remedy, exit code 2, and no file created or changed."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nasaug.arch import archfile
from nasaug.arch.blocks import BLOCKS
from nasaug.arch.cost import Budget, reach
from nasaug.arch.plan import from_specs
from nasaug.arch.spacefile import load
from nasaug.core.errors import BadInput, nearest
from nasaug.core.files import DATA_SETS
from support.commands import QUICK, SEARCH, SPACE, TRAIN, done, refused
from support.refusals import LINES

SUPERNET = Path("runs/search-1/supernet.safetensors")
START = SUPERNET.with_name("start.safetensors")


BARE = ("profile", "predict", "robust", "latency-table")  # have no recipe


def words(line):
    """The arguments in a line, with the quick recipe added if it names none."""
    args = shlex.split(line)
    quick = () if "--recipe" in args or args[0] in BARE or "--resume" in args else QUICK
    return (*args, *quick)


@pytest.fixture(scope="module")
def untouched(finished, tmp_path_factory):
    """One copy for all refusals, which do not change it."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("refusals") / "here")


@pytest.mark.parametrize(("line", "said"), LINES, ids=[line[:60] for line, _ in LINES])
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(untouched, monkeypatch, line, said):
    monkeypatch.chdir(untouched)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert re.search(said, refused(*words(line)))


def test_annotations_are_refused_all_at_once_before_training(laid_out):
    for name in ("Annotations", "JPEGImages"):
        Path("voc", name).mkdir(parents=True)
    box = "<bndbox><xmin>9</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    Path("voc/Annotations/a.xml").write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
    Path("voc/Annotations/b.xml").write_text("<annotation>")
    Path("voc/Annotations/c.xml").write_text("<annotation><filename>c.png</filename></annotation>")
    Image.new("RGB", (20, 20)).save("voc/JPEGImages/a.png")
    said = "3 things wrong with .*b.xml: not an annotation.*image 'c.png' is missing.*ends before it begins"
    assert re.search(said, refused("train", "--arch", "mobilenetv2-tiny", "--data", "voc"))


BROKEN_SPACES = {
    "[[stage]]\nname =": "mine.toml: not valid TOML.*line",
    SPACE.replace("kernel = [3, 5]", "kernel = [3, 4]"): "s1.b1.kernel = 4 must be odd",
    SPACE.replace("width = [8, 16]", "width = [16, 8]"): r"stem.width = \[16, 8\] must .*rise",
    SPACE.replace("stride = [2, 1]", "stride = [1, 2]"): r"stem.stride = \[1, 2\] must .*fall",
    SPACE.replace("stride = 2", "stride = 0"): "stride",
    SPACE.replace('name = "s1"', 'name = "stem"'): "two stages are named 'stem'",
    SPACE.replace('block = "inverted"', 'block = "invertd"'): "'invertd'; did you mean inverted",
    SPACE.replace("expand =", "expnd ="): "'expnd'; did you mean expand",
    SPACE.replace("resolution = [8, 12]", 'resolution = "big"'): "resolution",
    SPACE.replace("[[stage]]", "[stage]", 1): "mine.toml",
    SPACE.split("[[stage]]")[0]: r"needs at least one \[\[stage\]\]",
    "": "mine.toml.*nasaug-space/1",
    "name = " + "[" * 100_000: "mine.toml: not valid TOML",
    "name = " + "9" * 5_000: "mine.toml: not valid TOML",
}


@pytest.mark.parametrize("text", BROKEN_SPACES, ids=range(len(BROKEN_SPACES)))
def test_a_space_that_breaks_the_rules_is_refused(here, text):
    Path("mine.toml").write_text(text)
    assert re.search(BROKEN_SPACES[text], refused(*SEARCH, "--space", "mine.toml"))


def test_a_number_of_thousands_of_digits_is_refused(here):
    assert "--set: lr = " in refused(*SEARCH, "--set", f"lr={'9' * 5_000}")


def test_a_recipe_without_the_view_that_methods_need_is_refused(here):
    Path("mine.toml").write_text('base = "quick.toml"\n[views.weak]\nflip = true\n')
    assert "[views.train]" in refused("netaug-train", "--recipe", "mine.toml", "--arch", "found.json")


def test_the_smallest_budget_that_a_refusal_names_is_possible(empty_folder):
    space = load("mobilenetv2-small", BLOCKS)
    for key in ("macs", "params", "peak", "flash"):
        with pytest.raises(BadInput) as refusal:
            reach(space, Budget(**{key: 1}), 10)
        smallest = str(refusal.value).partition("smallest")[2]
        named = [Budget.parse(**{key: text}) for text in re.findall(r"[\d.]+ ?[kMKB]+|\d+", smallest)]
        assert reach(space, max(named, key=lambda budget: budget.limits[key]), 10).smallest


# --- a world that is not as it should be ------------------------------------------------------------------


def test_found_json_as_a_folder_is_refused_before_the_search(here):
    os.remove("found.json")
    os.mkdir("found.json")
    assert "found.json is a folder here" in refused(*SEARCH)


def test_a_working_folder_that_cannot_be_written_to_is_refused(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot write found.json into" in refused(*SEARCH)


def test_a_folder_for_runs_that_cannot_be_made_is_refused(here):
    shutil.rmtree("runs")
    Path("runs").write_text("mine")
    assert "cannot write runs/" in refused(*SEARCH)
    assert "cannot write runs/" in refused(*TRAIN, "--from-scratch")


def test_missing_or_damaged_weights_to_start_from_are_refused(here):
    whole = START.read_bytes()
    os.remove(START)
    said = refused(*TRAIN)
    assert f"the model {START} that the arch file names is missing; restore it, or use --from" in said
    START.write_bytes(whole[: len(whole) // 2])
    assert f"{START} is truncated" in refused(*TRAIN)
    START.write_bytes(Path("runs/netaug-train-1/checkpoint.safetensors").read_bytes())
    assert f"{START} holds no plan" in refused(*TRAIN)
    START.write_bytes(Path("runs/netaug-train-1/model.safetensors").read_bytes())
    done(*TRAIN)  # a trained subnet contains itself
    done(*TRAIN, "--from-scratch")


def test_weights_of_too_small_a_net_are_refused(here):
    small = archfile.ArchFile(with_a_narrow_stem(), "small")
    small.save("small.json")
    done("train", *QUICK, "--method", "baseline", "--arch", "small.json", "--run", "small")
    START.write_bytes(Path("small/model.safetensors").read_bytes())
    assert f"{START} does not hold tiny:" in refused(*TRAIN)


def test_a_supernet_that_cannot_teach_is_refused(here):
    """Even if the training itself does not start from it."""
    taught = ("train", *QUICK, "--arch", "found.json", "--from-scratch", "--run", "r", "--method", "difficulty-keep")
    whole = SUPERNET.read_bytes()
    SUPERNET.write_bytes(Path("runs/netaug-train-1/model.safetensors").read_bytes())
    said = refused(*taught)
    assert f"teacher.source = supernet: {SUPERNET} does not hold the nets of the space that tiny:" in said
    SUPERNET.write_bytes(whole[: len(whole) // 2])
    assert f"{SUPERNET} is truncated" in refused(*taught)
    SUPERNET.write_bytes(Path("runs/netaug-train-1/checkpoint.safetensors").read_bytes())
    assert f"{SUPERNET} holds no plan" in refused(*taught)
    os.remove(SUPERNET)
    assert f"the supernet {SUPERNET} that tiny:" in refused(*taught)


def with_a_narrow_stem():
    found = archfile.read("found.json")
    specs = [block.spec for block in found.plan.blocks]
    narrow = [spec._replace(width=4) if spec.name == "stem" else spec for spec in specs]
    return from_specs(narrow, found.plan.resolution, 10)


def test_an_edited_arch_file_is_refused(here):
    data = json.loads(Path("found.json").read_text())
    data["choices"]["stem.width"] = 24 - data["choices"]["stem.width"]
    Path("found.json").write_text(json.dumps(data))
    assert "found.json: its choices do not match its plan" in refused(*TRAIN)
    assert "found.json: its choices do not match its plan" in refused("profile", "--arch", "found.json")


def test_unreadable_images_are_refused(photos):
    Path("photos/b/4.png").write_bytes(Path("photos/b/1.png").read_bytes()[:60])
    for command in (SEARCH, TRAIN):
        said = refused(*command, *photos)
        assert re.search(r"1 of 90 images in '.*photos' cannot be read, 'b/4\.png'.*remove", said)
    Path("photos/b/4.png").write_text("no image")
    assert "b/4.png" in refused(*SEARCH, *photos)


@pytest.mark.parametrize(
    "line, meant",
    {
        "list arch": "archs", "completion bsh": "bash", "export --run x --format onn": "onnx",
        "search --mac-budget 1M --data digits --objectives accuracy,mac": "macs",
        "search --mac-budget 1M --data digits --strategy haling": "halving",
        "train --arch mobilenetv2-tiny --method baseline --data digits --set task=clasify": "classify",
        "sweep --pruner medan --data digits": "median",
    }.items(),
)  # fmt: skip
def test_what_was_meant_is_asked(empty_folder, line, meant):
    assert f"did you mean {meant}" in refused(*line.split())


def test_nothing_far_away_is_suggested():
    assert nearest("zzz", DATA_SETS) is None and nearest("cifr10", DATA_SETS, 1) == "did you mean cifar10?"
