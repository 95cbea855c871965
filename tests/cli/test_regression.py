"""End to end with a number per image instead of a class: search, NetAug, compare, report, prune, and what is
refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasaug.core import tensorfile
from nasaug.pool import processes
from support.commands import QUICK, call, done, lay_out, refused
from support.forked import FORKING

PHOTOS = ("--data", "photos", "--set", "data.train_images=0", "--set", "epochs=8")
SEARCH = ("search", *QUICK, *PHOTOS, "--mac-budget", "100k")
TRAIN = ("netaug-train", *QUICK, *PHOTOS, "--arch", "found.json")
COMPARE = ("compare", *QUICK, *PHOTOS, "--arch", "found.json", "--methods", "baseline,netaug", "--seeds", "2")


def write_photos(folder, count=160):
    """Noisy grey images, and labels.csv with their brightness in a unit of its own: 5 to 26.5."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = [("value", "file")]
    for i in range(count):
        level = rng.uniform(20, 235)
        pixels = rng.normal(level, 20, (12, 12)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
        rows.append((f"{3 + level / 10:.3f}", f"{i:03}.png"))
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)


def numbers(folder=Path("photos")):
    with open(folder / "labels.csv", newline="") as file:
        return {row["file"]: float(row["value"]) for row in csv.DictReader(file)}


def json_of(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which all four commands were run in turn, and their output."""
    folder = tmp_path_factory.mktemp("regression")
    lay_out(folder)
    write_photos(folder / "photos")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patched.setattr(processes, "subprocess", FORKING)
        said = {name: done(*args).out for name, args in (("search", SEARCH), ("train", TRAIN), ("compare", COMPARE))}
        said["report"] = done("report", "runs/compare-1", "--out", "page.html").out
    return folder, said


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of it as the working directory; returns the output."""
    monkeypatch.chdir(shutil.copytree(trained[0], tmp_path / "here"))
    return trained[1]


@pytest.fixture
def photos(laid_out):
    write_photos(Path("photos"), 60)
    return Path("photos/labels.csv")


def test_the_net_found_and_trained_beats_the_mean_by_far(here):
    result = json_of("runs/netaug-train-1/result.json")
    spread = np.array(list(numbers().values()))
    of_mean = np.abs(spread - spread.mean()).mean()
    assert result["metric"] == {"name": "mae", "unit": "", "higher_is_better": False}
    assert "scores are mae on the" in (page := Path("runs/search-1/search.html").read_text()) and "where lower" in page
    assert result["test_mae"] < 0.3 * of_mean and result["val_mae"] == min(row["val_mae"] for row in result["val"])
    assert result["task"] == "regress" and not any("top1" in key for key in result)
    assert f"test mae {result['test_mae']:.4g} on {result['test_images']} images" in here["train"]
    assert "numbers from" in here["search"] and "one number per image" in here["search"]


def test_what_a_search_writes_is_ranked_with_the_lowest_error_first(here):
    found = json_of("found.json")
    rows = json_of("runs/search-1/candidates.json")["candidates"]
    front = json_of("runs/search-1/pareto.json")["front"]
    finalists = json_of("runs/search-1/result.json")["finalists"]
    assert [row["val_mae"] for row in rows] == sorted(row["val_mae"] for row in rows)
    assert rows[0]["id"] in {row["id"] for row in front}
    assert [row["val_mae"] for row in front] == sorted((row["val_mae"] for row in front), reverse=True)
    trained = [row["trained_val_mae"] for row in finalists]
    assert trained == sorted(trained) and found["trained_mae"] == trained[0] and found["plan"]["classes"] == 1


def test_the_model_file_tells_how_its_outputs_become_numbers(here):
    import torch

    import nasaug
    from nasaug import tasks

    facts = tensorfile.facts("runs/netaug-train-1/model.safetensors")
    task, net = tasks.of_facts(facts), nasaug.load("runs/netaug-train-1")
    errors = []
    for file, value in numbers().items():
        pixels = torch.from_numpy(np.array(Image.open(Path("photos", file)))).float() / 255
        size = (net.plan.resolution,) * 2
        x = torch.nn.functional.interpolate(pixels[None, None], size, mode="bilinear", antialias=True)
        x = (x.expand(1, 3, -1, -1) - facts["mean"][0]) / facts["std"][0]
        errors.append(abs(task.answer(net(x)).item() - value))
    assert np.mean(errors) < 2 * json_of("runs/netaug-train-1/result.json")["test_mae"]


def test_a_comparison_and_its_report_are_of_the_error(here):
    summary, page = json_of("runs/compare-1/comparison.json"), Path("page.html").read_text()
    arms = {arm["arm"]: arm for arm in summary["arms"]}
    assert summary["metric"]["name"] == "mae" and arms["netaug"]["test_mae"]["mean"] > 0
    assert "test mae" in here["compare"] and "test mae" in here["report"] and "top-1" not in page + here["report"]
    assert "difference in mae to baseline" in page and "a negative figure means mae lost" in page
    rows = arms["netaug"]["versus"]["bootstrap"]
    assert [row["seed"] for row in rows] == [0, 1] and all(r["low"] <= r["difference"] <= r["high"] for r in rows)
    with open("page.csv", newline="") as file:
        assert {float(row["test_mae"]) for row in csv.DictReader(file)} == {
            json_of(path)["test_mae"] for path in Path("runs/compare-1/cells").glob("*/result.json")
        }


def test_a_run_that_was_cut_off_goes_on_to_the_same(here):
    run = Path("runs/netaug-train-1")
    whole = json_of(run / "result.json")["test_mae"]
    (run / "result.json").unlink()
    assert f"test mae {whole:.4g}" in done("netaug-train", "--resume").out
    assert json_of(run / "result.json")["test_mae"] == whole


def test_other_numbers_than_a_run_began_with_are_refused(here):
    Path("runs/netaug-train-1/result.json").unlink()
    text = Path("photos/labels.csv").read_text().splitlines()
    Path("photos/labels.csv").write_text("\n".join([text[0], f"9,{text[1].partition(',')[2]}", *text[2:]]) + "\n")
    told = "has other images than the run began with (1 changed, such as 000.png)"
    assert told in refused("netaug-train", "--resume")


def test_pruning_and_a_teacher_and_mixed_numbers(here):
    target = str(round(0.7 * json_of("found.json")["cost"]["macs"]))  # which net is found depends on torch
    prune = ("prune", "--from", "runs/netaug-train-1", "--target-macs", target, "--steps", "1", "--set", "epochs=2")
    said = done(*prune).out
    assert "validation mae" in said and json_of("runs/prune-1/result.json")["start"]["val_mae"] > 0
    taught = ("train", *QUICK, *PHOTOS, "--arch", "found.json", "--method", "distill+mixup")
    done(*taught, "--set", "teacher.source=runs/netaug-train-1", "--set", "teacher.macs=0", "--set", "epochs=2")
    assert json_of("runs/train-1/result.json")["test_mae"] > 0


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("a,b\n000.png,3\n", "has the columns a, b, but needs one column each called file and value; name them"),
        ("", "is empty, but needs one column each called file and value"),
        ("file,value\n", "lists no images; add a line for each"),
        ("file,value\n000.png,3\n001.png,long\n", "line 3: value 'long' is not a number; give one like 3.5"),
        ("file,value\n000.png,nan\n001.png,2\n", "line 2: value 'nan' must be a finite number"),
        ("file,value\n000.png,1e400\n001.png,2\n", "line 2: value '1e400' must be a finite number"),
        ("file,value\n000.png,3\n001.png,4,5\n", "line 3 has 3 columns, but the first line has 2"),
        ("file,value\n000.png,3\n,4\n", "line 3 names no file"),
        ("file,value\n000.png,3\n001.png,4\n./000.png,4\n", "names '000.png' in lines 2 and 4; name each"),
        ("file,value\n000.png,3\n999.png,4\n", "names an image missing in"),
        ("file,value\n000.png,3\n../found.png,4\n", "line 3: '../found.png' must lie below"),
        ("file,value\n000.png,3\n001.png,3\n", "has the value 3 for all 2 images, so there is nothing to learn"),
        ("file,value\n000.png,3\n001.png,4\n", "has 2 images, too few to split: add images"),
        ("file,value,split\n000.png,3,train\n001.png,4,later\n", "line 3: split 'later' must be train, val or test"),
        ("file,value,split\n000.png,3,train\n001.png,4,train\n", "column split says train for all images"),
        ('file,value\n"000.png,3\n', "is not a CSV file"),
    ],
)
def test_a_csv_that_is_wrong_is_told_in_one_line(photos, lines, told):
    photos.write_text(lines)
    assert told in refused(*SEARCH)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--set", "task=classify"), "task = classify learns from classes, but photos has numbers; choices: regress,"),
        (("--set", "task=regres"), "unknown task 'regres'; did you mean regress?"),
        (("--set", "data.targets=no.csv"), "data.targets = no.csv: file not found, neither in"),
        (("--set", "label_smoothing=0.2"), "label_smoothing = 0.2 needs classes, but photos has numbers, not classes"),
        (("--set", "teacher.source=torchvision:resnet18"), "is a classifier, but photos has numbers"),
        (("--set", "difficulty.policy=keep", "--set", "teacher.source=x"), "uses the probability of an image's"),
    ],
)  # fmt: skip
def test_what_is_of_classes_is_refused(photos, args, told):
    assert told in refused("train", *QUICK, *PHOTOS, "--arch", "mobilenetv2-tiny", "--resolution", "12", *args)


def test_numbers_of_a_set_with_a_name_are_refused(laid_out):
    said = refused("search", *QUICK, "--mac-budget", "100k", "--set", "data.targets=labels.csv")
    assert "data.targets = labels.csv applies to image folders, but digits has its own classes" in said
    said = refused("search", *QUICK, "--mac-budget", "100k", "--set", "task=regress")
    assert "task = regress learns from numbers, but digits has classes; choices: classify, auto" in said


def test_a_teacher_of_other_images_and_runs_of_another_task_are_refused(here):
    write_photos(Path("others"), 100)
    taught = ("train", *QUICK, "--data", "others", *PHOTOS[2:], "--arch", "found.json", "--from-scratch")
    said = refused(*taught, "--set", "teacher.source=runs/netaug-train-1")
    assert "was trained on other images, so its outputs mean other numbers" in said
    done("train", *QUICK, "--arch", "found.json", "--method", "baseline", "--run", "digits", "--from-scratch")
    assert "their scores are mae and top-1; give runs of one task" in refused("report", "runs/netaug-train-1", "digits")
    assert call("report", "digits").code == 0
