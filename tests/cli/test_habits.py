"""What people do to the images and folders of a run between its start and its end."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nasaug.comparison import sweep
from nasaug.data import Record
from nasaug.nas.study import Search
from nasaug.pool import processes
from nasaug.pool.storage import absolute_storage
from nasaug.training.loop import Trainer
from support.commands import QUICK, SEARCH, call, done, refused, stop_in_the_second
from support.forked import FORKING

TRAIN = ("train", *QUICK, "--method", "baseline", "--arch", "found.json")
STREAMED = ("--set", "data.memory_mb=0", "--set", "data.workers=0")


def splits(run):
    record = Record.of_run(Path(run))
    return {split: {record.files[i] for i in record.places(split).tolist()} for split in ("train", "val", "test")}


def result(run):
    return json.loads(Path(run, "result.json").read_text())


@pytest.fixture(params=[(), STREAMED], ids=["memory", "streamed"])
def stopped(request, photos, monkeypatch):
    """A training on photos, stopped half-way; returns its data options."""
    options = (*photos, *request.param)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "end_epoch", stop_in_the_second(Trainer.end_epoch))
        assert call(*TRAIN, *options, "--run", "r").code == 143
    return options


RESUME = ("train", "--resume", "--run", "r")


def test_images_that_are_removed_meanwhile_move_no_other(stopped):
    before = splits("r")
    for split in ("train", "test"):
        Path("photos", os.fsdecode(min(before[split]))).unlink()
    said = done(*RESUME).out
    assert "are gone (1 training, 1 test); all others stay in their splits" in said
    assert "resumed train at step" in said and splits("r") == before
    assert result("r")["test_images"] == len(before["test"]) - 1


def test_a_run_goes_on_where_its_images_lie_now(stopped):
    shutil.move("photos", "elsewhere")
    assert "'photos' that the run began with are missing; give their location with --data" in refused(*RESUME)
    said = done(*RESUME, "--data", "elsewhere").out
    assert "data elsewhere: 3 classes (a, b, c)" in said and "gone" not in said
    assert not Path("photos").exists()


def test_a_resumed_sweep_whose_images_have_moved_is_told_where_they_are(photos, monkeypatch):
    caught = []
    monkeypatch.setattr(sweep.SweepJob, "carry_out", lambda _, run, ready: run.log("begin") or caught.append(ready))
    monkeypatch.setattr(sweep.SweepJob, "result", lambda *_: None)
    done("sweep", *QUICK, *photos, "--sizes", "0.02M", "--policies", "0,9", "--seeds", "1", "--run", "r")
    Path("photos").rename("moved")
    resume = ("sweep", "--resume", "--run", "r")
    assert "'photos' that the run began with are missing; give their location with --data" in refused(*resume)
    done(*resume, "--data", "moved")
    begun, resumed = caught
    assert [cell.path for cell in resumed.cells] == [cell.path for cell in begun.cells]  # the keys are of the images
    assert {cell.recipe.data.name for cell in resumed.cells} == {resumed.recipe.data.name} == {"moved"}


def test_a_run_does_not_go_on_with_other_images_of_the_same_names(stopped):
    for image in Path("photos").rglob("*.png"):
        Image.effect_noise((12, 12), 200).save(image)
    assert "has other images than the run began with (90 changed, such as " in refused(*RESUME)
    for name, other in zip("abc", ("car", "tram", "bus"), strict=True):
        shutil.move(f"photos/{name}", f"photos/{other}")
    assert "has the classes bus, car, tram, but the run began with a, b, c" in refused(*RESUME)


def test_a_run_of_before_there_were_records_does_not_go_on(stopped):
    """Its images would be split differently."""
    Path("r/data.safetensors").unlink()
    assert "did not record which image is in which split" in refused(*RESUME)


def fewer_than(run):
    """MACs to which the run's net can be pruned, whichever net was found."""
    return str(round(0.8 * json.loads(Path(run, "result.json").read_text())["macs"]))


def test_a_search_and_what_follows_keep_their_splits_when_images_go(photos, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Search, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        call(*SEARCH, *photos, "--run", "s")
    before = splits("s")
    for image in sorted(before["test"])[:5]:
        Path("photos", os.fsdecode(image)).unlink()
    assert "are gone (5 test)" in done("search", "--resume", "--run", "s").out
    assert splits("s") == before
    said = done(*TRAIN, *photos, "--run", "t").out
    assert "had other validation images" not in said
    now = splits("t")
    assert now["train"] == before["train"] and now["val"] == before["val"] and now["test"] < before["test"]
    done("prune", "--from", "t", "--target-macs", fewer_than("t"), "--steps", "1", "--run", "p")
    assert splits("p") == now


def test_weights_that_were_trained_on_test_images_are_refused(photos):
    """As when someone makes a test folder out of images from which nasaug had drawn its own split."""
    done(*TRAIN, *photos, "--run", "t")
    for name in "abc":
        os.makedirs(f"photos/train/{name}")
        os.makedirs(f"photos/test/{name}")
        for i, image in enumerate(sorted(Path("photos", name).iterdir())):
            shutil.move(image, f"photos/{'test' if i < 6 else 'train'}/{name}")
        os.rmdir(f"photos/{name}")
    said = refused("prune", "--from", "t", "--target-macs", fewer_than("t"), "--steps", "1", "--run", "p")
    assert "of the 18 test images of photos are training images of t; give another --from, or give --data" in said
    taught = ("--set", "teacher.source=t", "--set", "epochs=1")
    said = refused(*TRAIN, *photos, "--run", "u", *taught)
    assert "training images of the teacher t; name another teacher.source, or give --data" in said
    own = ("train", *QUICK, "--method", "baseline", "--arch", "t/arch.json", *photos, "--set", "epochs=1")
    assert "training images of t/model.safetensors; use --from-scratch" in refused(*own)
    done(*own, "--from-scratch")


def test_cells_of_other_test_images_are_no_cells_of_these(photos, monkeypatch):
    monkeypatch.setattr(processes, "subprocess", FORKING)
    for name in "abc":
        for i, image in enumerate(sorted(Path("photos", name).iterdir())):
            where = Path("split", "test" if i < 8 else "train", name)
            where.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, where)
    compare = ("compare", *QUICK, "--arch", "found.json", "--data", "split", "--set", "data.train_images=0",
               "--cells", "cells", "--seeds", "1", "--set", "epochs=1")  # fmt: skip
    done(*compare, "--methods", "baseline")
    assert "1 cells, 1 there already" in done(*compare, "--methods", "baseline").out
    for image in Path("split/test").rglob("*.png"):
        Image.effect_noise((12, 12), 200).save(image)
    assert "2 cells, 0 there already" in done(*compare, "--methods", "baseline,longer").out
    shutil.move("split", "moved")
    moved = [option.replace("split", "moved") for option in compare]
    assert "2 cells, 2 there already" in done(*moved, "--methods", "baseline,longer").out


def test_runs_below_the_images_are_no_class(here, photos, monkeypatch):
    for name in ("tiny.toml", "quick.toml"):
        shutil.copy(name, "photos")
    monkeypatch.chdir("photos")
    local = (*photos[:1], ".", *photos[2:])
    done(*SEARCH, *local)
    said = done(*TRAIN, *local).out
    assert "3 classes (a, b, c)" in said and "left out: runs/ (runs of nasaug)" in said
    assert result("runs/train-1")["classes"] == ["a", "b", "c"] and result("runs/train-1")["init"] != "scratch"


def test_a_run_means_its_paths_from_where_it_was_begun(here, photos, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Search, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        call(*SEARCH, *photos, "--run", "s", "--storage", "sqlite:///mine.db")
    Path("found.json").unlink()
    os.mkdir("deep")
    monkeypatch.chdir("deep")
    said = done("search", "--resume", "--run", "../s", "--storage", "sqlite:///../mine.db").out
    written = "supernet, candidates, Pareto front (pareto.png) and page (search.html)"
    assert f"found.json written; {written} in {here / 's'}" in said
    assert os.listdir(".") == [] and (here / "found.json").exists()
    (here / "elsewhere").mkdir()
    said = done("train", "--arch", "../found.json", "--set", "epochs=1", "--run", "t").out  # the data named in the file
    assert "3 classes (a, b, c)" in said


def test_files_in_a_storages_address_are_absolute(empty_folder):
    assert absolute_storage("sqlite:///study.db") == f"sqlite:///{empty_folder}/study.db"
    assert absolute_storage("journal:../log") == f"journal:{empty_folder.parent}/log"
    for url in ("sqlite:////tmp/x.db", "sqlite:///:memory:", "postgresql://me@host/db", "journal:/x"):
        assert absolute_storage(url) == url


def test_a_project_that_was_copied_goes_on_in_the_copy(stopped, here, monkeypatch):
    copy = shutil.copytree(here, here.parent / "copy")
    monkeypatch.chdir(copy)
    before = sorted(here.rglob("*"))
    done(*RESUME)
    assert sorted(here.rglob("*")) == before and (copy / "r/result.json").exists()
