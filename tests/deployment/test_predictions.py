"""`predict`: the same answers from every form of a net, for files and folders, as a table, JSON and pictures."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import nasaug
from nasaug.arch.plan import plan
from nasaug.core.errors import BadInput
from nasaug.int8 import onnxfile, quantize
from nasaug.nets.fold import fold
from nasaug.nets.store import save_net
from support.commands import call, done, refused
from support.exported import ready
from support.nets import images
from support.spaces import SPACES

SPACE = SPACES["squeeze"]
FACTS = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": ["ant", "bee", "cow"], "task": "classify", "central": 0.875}
MODELS = ("net.safetensors", "net.onnx", "int8.onnx")
PICTURES = ["photos/a.png", "photos/b.JPG", "photos/more/a.png", "photos/more/c.gif"]


def write(net, name, facts):
    """NAME.safetensors and NAME.onnx."""
    save_net(Path(f"{name}.safetensors"), net, **facts)
    facts = facts | {"resolution": net.plan.resolution}
    model = onnxfile.to_onnx(fold(net), net.plan.resolution, net.plan.classes, facts=facts)
    Path(f"{name}.onnx").write_bytes(model.SerializeToString())
    return facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net in three forms, one for numbers, and photos in folders."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        net = ready(plan(SPACE, SPACE.smallest, 3))
        facts = write(net, "net", FACTS)
        float_model = onnxfile.to_onnx(fold(net), net.plan.resolution, 3, norms_as_convs=True)
        int8 = quantize.to_int8(float_model, [images(net.plan, 64, torch.float32).numpy()])
        onnxfile.set_facts(int8, facts)
        Path("int8.onnx").write_bytes(int8.SerializeToString())
        numbers = {"task": "regress", "classes": ["value"], "numbers": {"mean": 50.0, "std": 2.0}}
        write(ready(plan(SPACE, SPACE.smallest, 1)), "gauge", FACTS | numbers)
        rng = np.random.default_rng(0)
        Path("photos/more").mkdir(parents=True)
        Path("empty").mkdir()
        for i, name in enumerate(PICTURES):
            pixels = rng.integers(0, 256, (24 + 4 * i, 30, 3), dtype=np.uint8) // (1 + i) + 40 * i
            Image.fromarray(pixels.astype(np.uint8)).save(name)
        Path("photos/notes.txt").write_text("no image")
        Path("photos/.hidden.png").write_text("no image")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def own(folder, tmp_path, monkeypatch):
    """A copy to write into."""
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "own"))


def shares(found):
    """[images, classes] in the order of the classes' names."""
    return torch.tensor([[p for _, p in sorted(seen.top)] for seen in found])


def test_every_form_of_a_net_says_the_same(here):
    by_net, by_float, by_int8 = (nasaug.predict(model, "photos") for model in MODELS)
    assert [seen.image for seen in by_net] == PICTURES and len({seen.top[0][1] for seen in by_net}) == 4
    torch.testing.assert_close(shares(by_float), shares(by_net), atol=1e-5, rtol=0)
    assert 0 < (shares(by_int8) - shares(by_net)).abs().max() < 0.15
    for seen, wanted in zip(by_net, nasaug.load("net.safetensors").predict(PICTURES), strict=True):
        assert seen.top[0] == (wanted.label, pytest.approx(wanted.confidence)) and len(seen.top) == 3
        assert [p for _, p in seen.top] == sorted(wanted.probabilities.tolist(), reverse=True)


def test_a_loaded_file_is_called_as_the_net_is(here):
    net, exported = nasaug.load("net.safetensors"), nasaug.load("net.onnx")
    x = images(net.plan, 5, torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x), atol=1e-4, rtol=1e-4)
    assert exported.classes == ["ant", "bee", "cow"] and exported.resolution == net.plan.resolution


def test_numbers_are_in_the_datas_unit(here):
    (seen,), (exported,) = (nasaug.predict(f"gauge{kind}", ["photos/a.png"]) for kind in (".safetensors", ".onnx"))
    assert seen.top == () and 20 < seen.value < 80 and exported.value == pytest.approx(seen.value, rel=1e-4)
    assert json.loads(done("predict", "--model", "gauge.onnx", "photos/a.png", "--json").out) == [
        {"image": "photos/a.png", "value": exported.value}
    ]
    table = done("predict", "--model", "gauge.onnx", "photos").out.splitlines()
    assert table[0].split() == ["image", "number"] and table[1].split() == ["photos/a.png", f"{exported.value:.4g}"]


def test_the_table_and_json_name_the_top_classes(here):
    found = nasaug.predict("net.onnx", ["photos/more", "photos/a.png"], top=2)
    assert [seen.image for seen in found] == [*PICTURES[2:], "photos/a.png"] and len(found[0].top) == 2
    table = done("predict", "--model", "net.onnx", "photos/more", "photos/a.png", "--top", "2").out.splitlines()
    (label, p), (second, q) = found[0].top
    assert table[0].split() == ["image", "1", "2"] and len(table) == 4
    assert table[1].split() == [PICTURES[2], label, f"{100 * p:.1f}", "%", second, f"{100 * q:.1f}", "%"]
    shown = json.loads(done("predict", "--model", "net.onnx", "photos/more", "--json", "--top", "9").out)
    assert [row["image"] for row in shown] == PICTURES[2:] and len(shown[0]["top"]) == 3
    assert (shown[0]["label"], shown[0]["confidence"]) == (label, pytest.approx(p))


def test_pictures_of_each_image_or_one_sheet(own):
    said = done("predict", "--model", "net.onnx", "photos", "--out", "seen").out
    assert sorted(os.listdir("seen")) == ["a-2.png", "a.png", "b.png", "c.png"] and "4 images in seen" in said
    done("predict", "--model", "net.onnx", "photos", "--out", "sheet.png", "--json")
    one, sheet = (np.array(Image.open(path)) for path in ("seen/a.png", "sheet.png"))
    height, width = one.shape[:2]
    assert sheet.shape[0] in range(2 * height - 20, 2 * height) and sheet.shape[1] in range(2 * width - 20, 2 * width)
    assert np.array_equal(sheet[: height - 8, : width - 8], one[: height - 8, : width - 8])  # the first tile
    caption = one[200:]
    assert caption.min() < 100 and caption.mean() > 200  # dark text on white
    other = np.array(Image.open("seen/a-2.png"))
    assert not np.array_equal(other, one)


def altered(name, change):
    model = onnx.load("net.onnx")
    change(model)
    onnx.save(model, name)


def with_facts(**facts):
    return lambda model: onnxfile.set_facts(model, onnxfile.facts_of(model) | facts)


def without(key):
    def change(model):
        onnxfile.set_facts(model, {k: v for k, v in onnxfile.facts_of(model).items() if k != key})

    return change


def flatten_a_weight(model):
    """As a flipped bit in its shape can: the model still opens."""
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    size = int(np.prod(weight.dims))
    del weight.dims[:]
    weight.dims.append(size)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: onnxfile.set_facts(model, {}), r"has no metadata of nasaug .*no task, resolution, mean, std"),
        (without("mean"), r"\(no mean\); give a file that nasaug export wrote"),
        (with_facts(classes=["a", "b"]), "names 2 classes, but its net has 3 outputs; export it again"),
        (with_facts(resolution=99), "its metadata say 3 x 99 x 99.*; export it again"),
        (with_facts(std=[1.0, "x", 1.0]), "mean or std in its metadata that is not three numbers; export"),
        (with_facts(task="guess"), "unknown task 'guess'; .*choices: classify, detect, regress"),
        (lambda model: model.graph.output.append(model.graph.input[0]), "has 2 inputs or outputs"),
        (flatten_a_weight, r"other.onnx cannot be run by ONNX Runtime \(.*\); export it again"),
    ],
)  # fmt: skip
def test_an_onnx_file_that_does_not_say_what_it_needs_is_refused(own, change, said):
    altered("other.onnx", change)
    with pytest.raises(BadInput, match=said):
        nasaug.predict("other.onnx", "photos")
    assert call("predict", "--model", "other.onnx", "photos").code == 2


def test_a_class_list_that_does_not_fit_the_weights_is_refused(own):
    net = nasaug.load("net.safetensors")
    save_net(Path("other.safetensors"), net, **FACTS | {"classes": ["a", "b"]})
    with pytest.raises(BadInput, match="other.safetensors names 2 classes, but its net has 3 outputs; restore it"):
        nasaug.load("other.safetensors")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("photos", "predict needs --model: a run's folder, or a file"),
        ("--model net.onnx", "predict needs images: paths of image files, or of folders"),
        ("--model none photos", "--model none: none does not exist; give the folder of a finished run"),
        ("--model photos photos", "--model photos: photos/model.safetensors does not exist; give the folder"),
        ("--model . photos", "--model .: model.safetensors does not exist; give one of the exported files"),
        ("--model cut.onnx photos", "cut.onnx is no ONNX model, or a damaged one .*; export it again"),
        ("--model cut.safetensors photos", "cut.safetensors is truncated or not a safetensors file"),
        ("--model net.pt2 photos", "net.pt2: torch.export unpickles .* give the .onnx file of the same"),
        ("--model net.pte photos", "net.pte: only ExecuTorch"), ("--model net.c photos", "net.c: C source has to be"),
        ("--model net.json photos", "net.json: such a file holds no weights; give the .onnx"),
        ("--model net.onnx none.png", "there is no image none.png; give the path"),
        ("--model net.onnx empty", "the folder empty has no images in it; give images"),
        ("--model net.onnx photos/notes.txt", "cannot read photos/notes.txt .*no image.*; leave it out"),
        ("--model net.onnx photos --top 0", "--top 0 must be at least 1"),
        ("--model net.onnx photos --top x", "--top: 'x' is not a whole number"),
        ("--model net.onnx photos --out photos", "--out photos holds files already; give a new folder"),
        ("--model net.onnx photos --out photos/a.png", "--out photos/a.png exists already; give another name"),
        ("--model net.onnx photos --out net.onnx", "--out net.onnx is not a folder; give a new folder"),
        ("--model net.onnx photos --out x.jpg", "--out x.jpg is of another kind than .png; give"),
        ("--model net.onnx photos --out none/x.png", "--out none/x.png is in a folder that does not exist; create"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(here, args, said):
    for name in ("net.onnx", "net.safetensors"):
        Path("cut" + Path(name).suffix).write_bytes(Path(name).read_bytes()[:500])
    Path("net.pt2").touch()
    line = refused("predict", *args.split())
    assert re.search(said, line), line


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named_with_pips_command(here, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    said = refused("predict", "--model", "net.onnx", "photos")
    assert f"needs {package}, which is not installed; run: pip install 'nasaug[export]'" in said
    assert done("predict", "--model", "net.safetensors", "photos").out


def test_too_many_images_for_a_sheet_are_refused(here, monkeypatch):
    monkeypatch.setattr("nasaug.reporting.photos.LARGEST", 3)
    said = refused("predict", "--model", "net.onnx", "photos", "--out", "sheet.png")
    assert "--out sheet.png would show 4 images, and 3 is the most; give a folder, or fewer images" in said
