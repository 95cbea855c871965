"""`export`: a run's net in every format, compared with the net, with a card; what is refused, and what is kept."""

import ctypes
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import nasaug
from nasaug.arch.archfile import ArchFile
from nasaug.arch.blocks import Spec
from nasaug.arch.plan import from_specs
from nasaug.augment import resize
from nasaug.core.errors import BadInput, RunFault
from nasaug.core.metric import Metric
from nasaug.data import DataConfig, load
from nasaug.deployment import built, formats, qdq
from nasaug.deployment.integer import IntegerNet
from nasaug.deployment.source import Source
from nasaug.int8 import onnxfile, quantize
from nasaug.int8.measure import Latency, Session
from nasaug.rundirs.folder import RunDir
from support.commands import call, done, lay_out, refused, stop
from support.kernels import needs_compiler
from support.killed import snapshots
from support.pictures import pictures

ALL = "onnx,int8-onnx,torch-export,c"
BLOCKS = (
    Spec("stem", "conv", 12, kernel=3, act="relu6"), Spec("b", "inverted", 12, 24, 3, 2, "relu6"),
    Spec("c", "inverted", 12, 24, 3, 1, "hswish", 8, "identity"), Spec("pool", "pool"),
)  # fmt: skip


def trained(data, classes, *sets):
    """A run of a tiny net on these data."""
    plan = from_specs((*BLOCKS, Spec("classifier", "linear", classes)), 12, classes)
    ArchFile(plan, "tiny").save(Path(f"{data}.json"))
    keys = {"epochs": 8, "batch": 32} | dict(sets)
    return nasaug.train(f"{data}.json", method="baseline", recipe="quick.toml", data=data, set=keys).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run on digits, runs/train-1, exported in all formats to `all`, and runs/train-2 on numbers."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        lay_out(folder)
        trained("digits", 10, ("data.train_images", 600))
        write_numbers()
        trained("photos", 1, ("data.train_images", 0))
        said = done("export", "--run", "runs/train-1", "--format", ALL, "--out", "all").out
        (folder / "said.txt").write_text(said)
    return folder


def write_numbers(count=160):
    """Images of noise, and labels.csv with their brightness."""
    from PIL import Image

    os.mkdir("photos")
    rows, rng = ["file,value"], np.random.default_rng(0)
    for i in range(count):
        level = rng.uniform(20, 235)
        pixels = rng.normal(level, 20, (12, 12)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
        rows.append(f"{i}.png,{level / 10:.3f}")
    Path("photos/labels.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    copy = shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(copy)
    return copy


def normalised(images, facts):
    """Images at the net's resolution by the preprocessing that the facts state."""
    mean, std = (torch.tensor(facts[key])[:, None, None] for key in ("mean", "std"))
    return (images.float() / 255 - mean) / std


def seen(model):
    return normalised(pictures(20, 3, 12, 12), model.facts)


def digits_of_test():
    """(images at 12 px, labels)."""
    data = load(DataConfig("digits"))
    data.finish()
    images, labels = next(data.test.ordered(len(data.test)))
    return resize(images.float(), 12).expand(-1, 3, -1, -1), labels


def record(path):
    return json.loads(Path(path, "export.json").read_text())


def test_float_files_give_the_nets_outputs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    model = nasaug.load("runs/train-1")
    x = seen(model)
    with torch.no_grad():
        wanted = model(x)
    onnx = onnxruntime.InferenceSession("all/model.onnx").run(None, {"image": x.numpy()})[0]
    program = torch.export.load("all/model.pt2", extra_files=(facts := {"nasaug.json": ""})).module()
    for got in (torch.from_numpy(onnx), program(x), program(x[:1])):
        assert (got - wanted[: len(got)]).abs().max() < 1e-4 * wanted.abs().max()
    assert json.loads(facts["nasaug.json"]) == record("all")["facts"]


def test_int8_keeps_the_accuracy_and_is_measured_on_the_test_images(folder):
    result = json.loads((folder / "runs/train-1/result.json").read_text())
    rows = {row["format"]: row for row in record(folder / "all")["artefacts"]}
    assert result["test_top1"] > 50 and rows["onnx"]["score"] == pytest.approx(result["test_top1"])
    images, labels = digits_of_test()
    x = normalised(images, record(folder / "all")["facts"]).numpy()
    for name in ("onnx", "int8-onnx"):
        session = onnxruntime.InferenceSession(folder / "all" / rows[name]["files"][0])
        right = session.run(None, {"image": x})[0].argmax(1) == labels.numpy()
        assert rows[name]["score"] == pytest.approx(100 * right.mean(), abs=0.3)  # one image of 360
    assert abs(rows["int8-onnx"]["score"] - result["test_top1"]) < 3 and rows["int8-onnx"]["agreement"] > 0.9
    assert rows["onnx"]["agreement"] == rows["torch-export"]["agreement"] == 1.0
    for name in ("onnx", "int8-onnx"):
        median, p95, runs, threads = rows[name]["latency"]
        assert 0 < median <= p95 and runs >= 50 and threads == 1
        assert rows[name]["bytes"] == (folder / "all" / rows[name]["files"][0]).stat().st_size


@needs_compiler
def test_the_c_files_run_from_pixels_to_the_class_of_the_net(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    model = nasaug.load("runs/train-1")
    images, _ = next(load(DataConfig("digits")).val.ordered(80, 12))
    images = images.expand(-1, 3, -1, -1)
    built._compile("cc", *built.FLAGS, "-O1", "-shared", "-fPIC", "all/model.c", "-o", tmp_path / "net.so")
    library, logits = ctypes.CDLL(str(tmp_path / "net.so")), np.zeros(10, np.int8)
    found = []
    for image in images.permute(0, 2, 3, 1).contiguous().numpy():
        values = np.zeros(image.shape, np.int8)
        library.model_image(image.ctypes.data_as(ctypes.c_void_p), values.ctypes.data_as(ctypes.c_void_p))
        library.model_run(values.ctypes.data_as(ctypes.c_void_p), logits.ctypes.data_as(ctypes.c_void_p))
        found.append(int(logits.argmax()))
    wanted = [int(p.label) for p in model.predict(images)]
    assert len(set(wanted)) >= 7 and np.mean(np.array(found) == wanted) >= 0.9
    header = Path("all/model.h").read_text()
    assert "#define MODEL_OUTPUTS 10\n" in header and '#define MODEL_CLASSES {"0", "1", ' in header


def test_the_metadata_hold_what_a_user_must_know(folder):
    facts = onnxfile.facts_of(onnxfile.read(folder / "all/model.onnx"))
    model = nasaug.load(folder / "runs/train-1")
    assert facts == record(folder / "all")["facts"]
    assert (facts["input"], facts["output"], facts["task"], facts["resolution"]) == ("image", "logits", "classify", 12)
    assert facts["classes"] == model.classes and facts["mean"] == model.facts["mean"] and facts["central"] == 1.0
    assert facts["plan"] == model.plan.to_dict() and facts["cost"] == nasaug.cost(model.plan).known
    int8 = onnxfile.facts_of(onnxfile.read(folder / "all/model-int8.onnx"))
    assert int8 == facts | {"calibration": "512 training images"}


def test_the_card_and_the_output_state_every_file(folder):
    card, said = (folder / "all/model-card.md").read_text(), (folder / "said.txt").read_text()
    for row in record(folder / "all")["artefacts"]:
        assert all(f"`{file}`" in card and (folder / "all" / file).is_file() for file in row["files"])
        assert f"\n{row['format']}: " in said and f"| {row['format']} |" in card
    assert "0.0001 allowed" in said and "40 validation images" in said and "the same class" in said
    assert re.search(r"c: [\d,]+ bytes of constants, a buffer of [\d,]+ beside the image; .*by the plan", card)


def test_the_cards_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder / "all")
    x = seen(nasaug.load("../runs/train-1")).numpy()
    codes = re.findall(r"```python\n(.*?)```", Path("model-card.md").read_text(), re.DOTALL)
    assert len(codes) == 3  # onnx, int8-onnx, torch-export
    for code in codes:
        given = {"images": torch.from_numpy(x) if "torch" in code else x}
        exec(code, given)
        assert given["logits"].shape == (20, 10)


@needs_compiler
def test_the_cards_c_compiles(folder, tmp_path):
    (code,) = re.findall(r"```c\n(.*?)```", (folder / "all/model-card.md").read_text(), re.DOTALL)
    first, *rest = code.splitlines()
    program = "\n".join([first, "int main(void)", "{", *rest, "return logits[0];", "}"])
    (tmp_path / "main.c").write_text(program)
    source, made = folder / "all/model.c", tmp_path / "main"
    built._compile("cc", *built.FLAGS, "-I", source.parent, tmp_path / "main.c", source, "-o", made)
    assert made.is_file()


def test_json_is_the_record_with_its_folder(here):
    ended = done("export", "--run", "runs/train-1", "--format", "onnx", "--out", "again", "--json")
    assert json.loads(ended.out) == {"path": "again", **record("again")}
    assert [row["format"] for row in record("again")["artefacts"]] == ["onnx"] and "\nonnx: " in ended.err


def test_a_net_for_numbers_is_exported_too(here):
    exported = nasaug.export("runs/train-2", format=["onnx", "int8-onnx", "c"], name="gauge")
    assert exported.path == Path("runs/train-2/export") and exported["onnx"].agreement is None
    result, facts = json.loads(Path("runs/train-2/result.json").read_text()), exported.facts
    assert exported["onnx"].score == pytest.approx(result["test_mae"], rel=1e-3)
    assert exported["int8-onnx"].score == pytest.approx(result["test_mae"], rel=0.3)
    assert facts["output"] == "number" and facts["numbers"] == nasaug.load("runs/train-2").facts["numbers"]
    assert "number is" in (exported.path / "model-card.md").read_text()
    assert "#define GAUGE_NUMBER_MEAN " in (exported.path / "gauge.h").read_text()


def test_the_same_run_may_be_exported_again_and_other_formats_stay(here):
    before = Path("all/model-int8.onnx").read_bytes()
    done("export", "--run", "runs/train-1", "--format", "onnx", "--out", "all")
    assert [row["format"] for row in record("all")["artefacts"]] == ALL.split(",")
    assert Path("all/model-int8.onnx").read_bytes() == before and "| c |" in Path("all/model-card.md").read_text()
    Path("all/model.pt2").unlink()
    done("export", "--run", "runs/train-1", "--format", "int8-onnx", "--out", "all")
    assert [row["format"] for row in record("all")["artefacts"]] == ["onnx", "int8-onnx", "c"]
    assert Path("all/model-int8.onnx").read_bytes() == before  # calibration is drawn by seed


def test_killed_at_any_moment_it_is_exported_again_the_same(here, tmp_path, monkeypatch):
    command = ("export", "--run", "runs/train-1", "--format", "onnx,c")
    with snapshots(monkeypatch, here / "new", tmp_path / "states") as states:
        done(*command, "--out", "new")
    whole = {path.name: path.read_bytes() for path in Path("new").glob("model.*")}
    assert len(states) >= 7 and {"model.onnx", "model.c"} < whole.keys()
    for state in states[::3]:
        done(*command, "--out", str(state))
        assert {name: (state / name).read_bytes() for name in whole} == whole and (state / "model-card.md").is_file()
        assert [row["format"] for row in record(state)["artefacts"]] == ["onnx", "c"]


def test_nothing_of_others_is_overwritten(here):
    said = refused("export", "--run", "runs/train-2", "--out", "all")
    assert "--out all holds the export of another net, that of runs/train-1; give another folder" in said
    Path("mine").mkdir()
    Path("mine/model.onnx").write_text("mine")
    assert "has a file model.onnx already, which is not" in refused("export", "--run", "runs/train-1", "--out", "mine")
    assert "is not a folder" in refused("export", "--run", "runs/train-1", "--out", "quick.toml")
    assert Path("mine/model.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("", "export needs --run: the folder of a finished run of train, netaug-train or prune"),
        ("--run none", "--run none is no folder; give the folder of a finished run"),
        ("--run photos", "--run photos holds no run; give"),
        ("--run runs/train-1 --format onyx", "unknown format 'onyx'; did you mean onnx.* choices: c, executorch, int8"),
        ("--run runs/train-1 --format ,", "names no format; choices: onnx, int8-onnx, torch-export, c, executorch"),
        ("--run runs/train-1 --name 9x", "--name '9x' must be lower-case letters, digits and _, .*; give one like"),
        ("--run runs/train-1 --data photos", "'photos' has numbers, but the run began with classes; give --data with"),
        ("--run unfinished", "--run unfinished is not finished; go on with it by its own command and --resume"),
        ("--run search", "--run search has no model.safetensors, so it is not the run of a training"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(here, args, said):
    shutil.copytree("runs/train-1", "unfinished")
    Path("unfinished/result.json").unlink()
    shutil.copytree("runs/train-1", "search")
    Path("search/model.safetensors").unlink()
    assert re.search(said, refused("export", *args.split()))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named_with_pips_command(here, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"needs {package}, which is not installed; run: pip install 'nasaug[export]'" in refused(
        "export", "--run", "runs/train-1"
    )


@pytest.mark.skipif(built.installed("executorch"), reason="executorch is installed")
def test_executorch_that_is_missing_is_named_with_pips_command(here):
    said = refused("export", "--run", "runs/train-1", "--format", "executorch")
    assert "--format executorch needs executorch, which is not installed; run: pip install 'nasaug[executorch]'" in said


@pytest.mark.skipif(not built.installed("executorch"), reason="executorch is not installed")
def test_an_executorch_program_gives_the_nets_outputs(here):
    exported = nasaug.export("runs/train-1", format="executorch", out="edge")["executorch"]
    run, model = built.executorch_runner(Path("edge/model.pte").read_bytes()), nasaug.load("runs/train-1")
    x = seen(model)
    with torch.no_grad():
        wanted = model(x)
    got = torch.cat([run(image[None].contiguous()) for image in x])
    assert (got - wanted).abs().max() < 1e-4 * wanted.abs().max() and exported.agreement == 1.0
    (code,) = re.findall(r"```python\n(.*?)```", Path("edge/model-card.md").read_text(), re.DOTALL)
    os.chdir("edge")
    given = {"image": x[:1].contiguous()}
    exec(code, given)
    assert torch.equal(given["logits"], got[:1])


def test_images_that_are_gone_are_asked_for_where_they_are_needed(here):
    os.rename("photos", "moved")
    said = refused("export", "--run", "runs/train-2")
    assert re.search("the images of .*photos.* are missing; give their location with --data", said)
    out = done("export", "--run", "runs/train-2", "--format", "onnx", "--out", "gone").out
    assert "warning: the images of" in out and "on 64 images of noise" in out
    done("export", "--run", "runs/train-2", "--data", "moved", "--out", "there")
    assert record("there")["artefacts"][1]["score"] is not None


@pytest.mark.parametrize("format", ["onnx", "int8-onnx", "torch-export"])
def test_a_file_that_computes_something_else_is_not_written(here, format):
    source = Source.of(RunDir("runs/train-1"), None, True)
    assert source.eager.shape == (40, 10)  # of the net as it was trained
    with torch.no_grad():
        source.folded.get_submodule("classifier").weight.mul_(-1)
    with pytest.raises(RunFault, match=f"{format}: its outputs on 40 .* differ .*it was not written; leave the format"):
        formats.MAKE[format](source, "model")


@pytest.fixture
def int8_source(here):
    """The run's source with the int8 model that was exported."""
    source = Source.of(RunDir("runs/train-1"), None, True)
    source.__dict__["int8"] = onnxfile.read("all/model-int8.onnx")
    return source


@needs_compiler
def test_c_that_is_built_to_compute_something_else_is_not_written(int8_source, monkeypatch):
    right = built.outputs_here

    def one_bit_off(*given):
        outputs = right(*given)
        outputs[-1, 3] ^= 1
        return outputs

    monkeypatch.setattr(built, "outputs_here", one_bit_off)
    with pytest.raises(RunFault, match="c: the source, built here, does not compute what it should; it was not"):
        formats.MAKE["c"](int8_source, "model")


@pytest.mark.parametrize(("steps", "images", "told"), [(2, 1, None), (2, 2, "95.0% of 40"), (1, 40, None)])
def test_integers_that_are_off_by_more_than_a_step_are_not_written(int8_source, monkeypatch, steps, images, told):
    """All logits are moved, so that the class stays."""
    right = IntegerNet.run

    def moved(net, x):
        return right(net, x) + np.int8(steps) * (np.arange(len(x)) < images)[:, None]

    exact = right(net := qdq.of_onnx(int8_source.int8), net.input.of(int8_source.images[0].permute(0, 2, 3, 1).numpy()))
    assert np.abs(exact.astype(int)).max() <= 127 - steps
    monkeypatch.setattr(IntegerNet, "run", moved)
    monkeypatch.setattr(built, "outputs_here", lambda *given: None)
    if told is None:
        assert "no C compiler" in formats.MAKE["c"](int8_source, "model")[1].notes[1]
    else:
        with pytest.raises(RunFault, match=f"c: its outputs are within one step of int8-onnx's for {told} images"):
            formats.MAKE["c"](int8_source, "model")


def test_c_need_not_agree_more_with_onnx_runtime_than_its_two_ways_do_with_each_other(int8_source, monkeypatch):
    """Of 40 images the float arithmetic is made to differ for three, so the C's outputs may be off for three."""
    right, run = IntegerNet.run, Session.run
    scale = qdq.of_onnx(int8_source.int8).output.scale
    float_only, plain = [], Session.__init__

    def opened(session, model, threads=1, name="the model", fused=True):
        plain(session, model, threads, name, fused)
        float_only.extend([] if fused else [session])

    def differing(session, x):
        moved = 2 * scale * (np.arange(len(x)) < 3)[:, None]
        return run(session, x) + (moved if session in float_only else 0)

    monkeypatch.setattr(Session, "__init__", opened)
    monkeypatch.setattr(Session, "run", differing)
    monkeypatch.setattr(built, "outputs_here", lambda *given: None)
    for off, accepted in ((3, True), (4, False)):
        moved = -2 * (np.arange(40) < off)[:, None]
        monkeypatch.setattr(IntegerNet, "run", lambda net, x, by=moved: (right(net, x) + by[: len(x)]).astype(np.int8))
        if accepted:
            assert "agree with each other for 92.50 %" in formats.MAKE["c"](int8_source, "model")[1].notes[0]
        else:
            with pytest.raises(RunFault, match="within one step of int8-onnx's for 90.0% of 40 images, not 92.5%"):
                formats.MAKE["c"](int8_source, "model")


@pytest.mark.parametrize(("images", "wrong", "accepted"), [(1000, 5, 1), (1000, 6, 0), (40, 1, 1), (40, 2, 0)])
def test_c_needs_the_class_of_995_images_in_1000_or_of_all_but_one(images, wrong, accepted):
    right = np.arange(images) >= wrong
    if accepted:
        formats._accept(right, "of the same class", 0.995)
    else:
        with pytest.raises(RunFault, match=f"of the same class for 9[59].[04]% of {images} images, not 99.5%"):
            formats._accept(right, "of the same class", 0.995)


def test_a_stopped_export_can_be_repeated(here, monkeypatch):
    monkeypatch.setitem(formats.MAKE, "int8-onnx", lambda source, name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nasaug.export("runs/train-1", out="twice")
    assert [row["format"] for row in record("twice")["artefacts"]] == ["onnx"] and Path("twice/model.onnx").is_file()
    monkeypatch.undo()
    assert call("export", "--run", str(here / "runs/train-1"), "--out", str(here / "twice")).code == 0
    assert [row["format"] for row in record(here / "twice")["artefacts"]] == ["onnx", "int8-onnx"]


def test_events_tell_what_is_written(here):
    told = []
    nasaug.export("runs/train-1", format="torch-export", on_event=lambda event: told.append(str(event)))
    assert told[-1] == "torch-export in runs/train-1/export, with model-card.md"
    with pytest.raises(BadInput):
        nasaug.export("runs/train-1", format="tflite")


@needs_compiler
def test_the_page_of_all_formats(here, monkeypatch):
    """benchmarks/formats.py on the digits' run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent.parent / "benchmarks"))
    import cells
    import formats as page

    monkeypatch.setattr(cells, "RESULTS", here)
    monkeypatch.setattr(page, "latency", lambda run: Latency(*(0.5, 0.75, len(run().shape), 1)))
    monkeypatch.setattr(sys, "argv", ["formats.py", "runs/train-1", "--out", "mine", "--images", "300"])
    page.main()
    text, figures = Path("mine.md").read_text(), json.loads(Path("mine.json").read_text())
    exported = {row["format"]: row for row in record("all")["artefacts"]}
    for name, row in figures["formats"].items():
        assert row["bytes"] == exported[name]["bytes"] and f"\n| {name} | " in text
        assert exported[name]["score"] in (None, pytest.approx(row["score"]))
    loss = figures["trained"] - figures["formats"]["int8-onnx"]["score"]
    assert f"**int8 loses {loss:.2f} points of test top-1**" in text and figures["int8_loss"] == pytest.approx(loss)
    assert figures["formats"]["c"]["score"] == pytest.approx(figures["formats"]["int8-onnx"]["score"], abs=0.6)
    assert figures["parity"]["as_reference"] == 1 and figures["parity"]["same_class"] >= 0.99
    assert figures["formats"]["torch-export"]["far"] < 1e-4 < figures["formats"]["c"]["far"]


# --- trained in int8 ------------------------------------------------------------------------------------------


FINE = {"qat.epochs": 2, "qat.lr": 0.001, "batch": 32, "data.train_images": 600}


def test_a_net_trained_in_int8_is_exported_with_its_scales(folder, monkeypatch):
    """The run's figures are those of the files: float, by post-training quantisation, and after training in int8."""
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patched:  # the last epoch counts as the best: 20 validation images decide by chance
        patched.setattr(Metric, "better", lambda *_: True)
        result = nasaug.train("runs/train-1/arch.json", method="qat", recipe="quick.toml", data="digits", set=FINE)
    before, plain = result.more["before_qat"], json.loads(Path("all/export.json").read_text())
    scores = {made["format"]: made["score"] for made in plain["artefacts"]}
    assert before == {"float": scores["onnx"], "post_training": scores["int8-onnx"]}
    assert [row["epoch"] for row in result.history] == [0, 1, 2]
    exported = nasaug.export(result.path, format=["onnx", "int8-onnx", "c"])
    assert exported["int8-onnx"].score == result.test_score and exported["c"].difference <= 1
    assert any("float form" in note for note in exported["onnx"].notes)
    model = onnxfile.read(result.path / "export/model-int8.onnx")
    assert onnxfile.facts_of(model)["calibration"] == "none: trained with its scales"
    first = quantize.scales_of(onnxfile.read("all/model-int8.onnx"))
    trained = quantize.scales_of(model)
    assert {name: scale.zero for name, scale in trained.items()} == {name: scale.zero for name, scale in first.items()}
    assert sum(trained[name].scale != first[name].scale for name in first) > len(first) / 2


def test_training_in_int8_that_only_harms_leaves_the_net_as_it_was(folder, monkeypatch):
    monkeypatch.chdir(folder)
    harm = FINE | {"qat.epochs": 1, "qat.lr": 0.5}
    result = nasaug.train("runs/train-1/arch.json", method="qat", recipe="quick.toml", data="digits", set=harm)
    first, last = result.history
    assert result.val_score == first["val_top1"] > last["val_top1"]
    assert result.test_score == result.more["before_qat"]["post_training"]


def test_a_training_in_two_phases_goes_on_where_it_was(folder, monkeypatch):
    monkeypatch.chdir(folder)
    asked = {"method": "baseline+qat", "recipe": "quick.toml", "data": "digits", "set": FINE | {"epochs": 2}}
    whole = nasaug.train("digits.json", **asked)
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4] and whole.epochs == 4
    assert whole.history[1]["train_macs"] < whole.history[2]["train_macs"] <= whole.train_macs
    with monkeypatch.context() as patched, pytest.raises(nasaug.Stopped):
        patched.setattr("nasaug.training.whole._trained_in_int8", lambda *_: stop())
        nasaug.train("digits.json", run="halted", **asked)
    result = nasaug.train(run="halted", resume=True)
    assert (result.test_score, result.more) == (whole.test_score, whole.more)
    assert Path("halted/model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
