"""Which folders are splits, classes or neither, in layouts found in practice and in generated ones."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nasaug.cli import main as cli
from nasaug.core.errors import BadInput
from nasaug.data import load
from nasaug.data.layout import SUFFIXES, find
from support.images import config, write_folder


def lay_out(root, tree):
    """Empty files by path; a path that ends in / is a folder."""
    for path in tree:
        (root / path).mkdir(parents=True, exist_ok=True) if path.endswith("/") else touch(root / path)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def images(*folders, each=2):
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(each)]


def found(root):
    """(classes, images by split) of a listing; images that nasaug splits itself count as "train"."""
    listing = find(str(root))
    assert all(os.path.lexists(Path(listing.root, os.fsdecode(file))) for file in listing.files.tolist())
    return " ".join(listing.classes), {split: len(places) for split, places in listing.given.items()}


PAIR = ("cat", "dog")
BOTH = [f"{split}/{name}" for split in ("train", "test") for name in PAIR]


@pytest.mark.parametrize(
    ("tree", "classes", "counts"),
    [
        (images(*PAIR), "cat dog", {"train": 4}),
        (images(*BOTH), "cat dog", {"train": 4, "test": 4}),
        (images("Train/cat", "Train/dog", "Test/cat", "Test/dog"), "cat dog", {"train": 4, "test": 4}),
        (images("training/a", "training/b", "validation/a", "validation/b"), "a b", {"train": 4, "test": 4}),
        # Roboflow's, with its notes
        (
            [*images(*(f"{s}/{c}" for s in ("train", "valid", "test") for c in PAIR)), "README.roboflow.txt"],
            "cat dog",
            {"train": 4, "val": 4, "test": 4},
        ),
        # Kaggle's: wrapped twice, a common part of the names, images without classes
        (
            images(*(f"archive/seg_{s}/seg_{s}/{c}" for s in ("train", "test") for c in PAIR), "archive/seg_pred"),
            "cat dog",
            {"train": 4, "test": 4},
        ),
        (images("training_set/training_set/a", "training_set/training_set/b", "test_set/test_set/a",
                "test_set/test_set/b"), "a b", {"train": 4, "test": 4}),
        ([*images("train/cat", "train/dog"), *images("test1")], "cat dog", {"train": 4}),
        ([*images("train/cat", "train/dog"), "test/"], "cat dog", {"train": 4}),
        (images("train/cat", "train/dog"), "cat dog", {"train": 4}),
        (images("photos/photos/cat", "photos/photos/dog"), "cat dog", {"train": 4}),
        # classes that have the names of splits
        (images("train", "car", "bus"), "bus car train", {"train": 6}),
        (images("valid", "invalid"), "invalid valid", {"train": 4}),
        (images("train_station", "test_tube"), "test_tube train_station", {"train": 4}),
        (images("train/old", "train/new", "car/red", "bus"), "bus car train", {"train": 8}),
        # leftovers of programs and people
        (
            [*images(*PAIR), *images(".ipynb_checkpoints", "__MACOSX/cat", "@eaDir"), "cat/._0.jpg", "cat/.h/1.jpg"],
            "cat dog",
            {"train": 4},
        ),
        ([*images(*PAIR), *images("runs/search-1"), "runs/search-1/recipe.toml", "runs/search-1/env.json"], "cat dog",
         {"train": 4}),
        ([*images(*PAIR), *images("trial"), "trial/recipe.toml", "trial/env.json", "trial/cells/a/b.png"], "cat dog",
         {"train": 4}),
        ([*images(*PAIR), "labels.csv", "cat/notes.txt", "loose.png"], "cat dog", {"train": 4}),
        ([*images(*PAIR), "cat/deeper/still/9.PNG", "dog/a.JFIF", "dog/b.avif", "dog/c.gif"], "cat dog", {"train": 8}),
    ],
)  # fmt: skip
def test_layouts_that_people_have(tmp_path, tree, classes, counts):
    lay_out(tmp_path / "data", tree)
    assert found(tmp_path / "data") == (classes, counts)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (images("train", "test"), "has images in train/ and test/ but no class folders there.*rename"),
        (images(*BOTH, "cat/a", "dog/b"), "has cat/ beside train/ and test/, which are splits: move it away"),
        (images("train/a", "train/b", "Train/a", "Train/b"), "both for training: move one of them away"),
        (images(*BOTH, "valid/cat", "validation/dog"), "valid/ and validation/, both for validation"),
        (images("test/cat", "test/dog"), "only test/: give a folder with train/ and test/"),
        (images("train/cat", "train/dog", "test/cat"), "only one of train/ and test/ has dog"),
        (["cat/a.heic", "cat/b.heic", *images("dog")], "no images in cat but files of other kinds .2 .heic.*convert"),
        (["a.jpg", "b.jpg"], "no class folders .* but 2 images: give each class one"),
        (images("cat"), "one class, 'cat'"),
        ([*images("cat"), *images("runs/a"), "runs/a/recipe.toml", "runs/a/env.json"], "one class, 'cat'"),
    ],
)
def test_folders_that_cannot_be_told_apart_are_refused_in_one_line(tmp_path, tree, message):
    lay_out(tmp_path / "data", tree)
    with pytest.raises(BadInput, match=message) as error:
        find(str(tmp_path / "data"))
    assert "\n" not in str(error.value)


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "data"
    lay_out(tmp_path, images("elsewhere", "data/dog"))
    os.symlink(tmp_path / "elsewhere", root / "cat")
    os.symlink(root, root / "dog" / "up")
    os.symlink(root / "dog", root / "dog" / "here")
    os.symlink(tmp_path / "nothing.jpg", root / "dog" / "broken.jpg")
    os.mkfifo(root / "dog" / "pipe.jpg")
    assert found(root)[0] == "cat dog"
    files = {os.fsdecode(file) for file in find(str(root)).files.tolist()}
    assert {file for file in files if "/up/" not in file} == {
        "cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg", "dog/broken.jpg",
    }  # fmt: skip
    with pytest.raises(BadInput, match=r"dog/broken\.jpg' \(No such file"):
        load(config(root))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    lay_out(tmp_path, images("cat", "dog"))
    listed = os.scandir

    def denied(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(BadInput, match=r"cannot list .*dog' \(Permission denied\): make it readable"):
        find(str(tmp_path))


def test_what_is_left_out_and_what_is_taken_are_told(tmp_path):
    write_folder(tmp_path / "data", each=50)
    lay_out(tmp_path / "data", [*images("runs/a"), "runs/a/recipe.toml", "runs/a/env.json", "cat/x.heic", "cat/y.txt"])
    told = load(config(tmp_path / "data")).told()
    assert told.startswith(f"data {tmp_path}/data: 2 classes (cat, dog); 72 training, 8 validation, 20 test images\n")
    assert "left out: runs/ (runs of nasaug); 2 files of other kinds (1 .heic, 1 .txt)" in told


# --- made-up folders ------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["cat", "dog", "Über", "caf\udce9", "a b", "train", "test", "valid", "x-1", "'quoted'", "emoji🐈", "new\nline"]
)
SUFFIX = st.sampled_from(["jpg", "PNG", "jfif", "avif", "webp", "txt", "heic", "", "jpg.part"])
ROLE = {"train": "train", "Training": "train", "val": "val", "valid": "val", "Test": "test", "testing": "test"}


@st.composite
def folders(draw):
    """(files below the root, the result of an independent count, or None if that is not simple)."""
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    splits = draw(st.sampled_from([(), ("train", "Test"), ("Training", "valid"), ("train", "val", "testing")]))
    files: dict[str, set[str]] = {}
    for split in splits or ("",):
        for name in classes:
            for number in range(draw(st.integers(0, 4))):
                deeper = draw(st.sampled_from(["", "", "more/"]))
                hidden = draw(st.sampled_from(["", "", "", ".", "._"]))
                path = os.path.join(split, name, f"{deeper}{hidden}{number}.{draw(SUFFIX)}")
                files.setdefault(split, set()).add(path.rstrip("."))
    wrapped = draw(st.sampled_from(["", "", "photos/", "a/b/"]))
    return classes, splits, files, wrapped


def counted(classes, splits, files):
    """Independent count by class and split: files with an image suffix that are not hidden."""
    taken = {}
    for split, paths in files.items():
        for path in paths:
            name = os.path.relpath(path, split or ".").split(os.sep)[0]
            base = os.path.basename(path)
            if not base.startswith(".") and os.path.splitext(base)[1].lower() in SUFFIXES:
                taken.setdefault(ROLE.get(split, "train"), []).append(name)
    return taken


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(folders())
def test_any_folder_is_refused_in_one_line_or_counted_right(tmp_path, made):
    classes, splits, files, wrapped = made
    root = tmp_path / "data"
    shutil.rmtree(root, ignore_errors=True)
    lay_out(root / wrapped if wrapped else root, sorted(path for paths in files.values() for path in paths) or ["x/"])
    taken = counted(classes, splits, files)
    try:
        listing = find(str(root))
    except BadInput as error:
        assert "\n" not in repr(str(error)) and len(str(error)) < 1000
        names = {name for paths in taken.values() for name in paths}
        clear = not names & set(ROLE) and all(
            set(taken.get(ROLE.get(s, "train"), ())) == names for s in splits or ("",)
        )
        folders_ = {os.path.relpath(p, s or ".").split(os.sep)[0] for s, paths in files.items() for p in paths}
        assert not (clear and len(names) > 1 and folders_ == names), str(error)  # a valid folder must not be refused
        return
    if splits and "val" in taken and "test" not in taken:
        taken["test"] = taken.pop("val")
    named = [listing.classes[label] for label in listing.labels.tolist()]
    ours = {split: sorted(named[i] for i in places.tolist()) for split, places in listing.given.items()}
    assert ours == {split: sorted(names) for split, names in taken.items()}


# --- the same by the command line, to the end of a training ----------------------------------------------------

RECIPE = """
epochs = 1
batch = 4
calibration_images = 8
"""
EMPTY = st.sampled_from([None, None, None, "cat/000.jpg", "dog/001.png"])


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(made=folders(), damaged=EMPTY)
def test_a_training_prints_what_is_there_or_ends_in_one_line(tmp_path, monkeypatch, capsys, made, damaged):
    classes, splits, files, wrapped = made
    root = tmp_path / "work"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    monkeypatch.chdir(root)
    Path("short.toml").write_text(RECIPE)
    rng = np.random.default_rng(0)
    for split in splits or ("",):  # enough to be split, beside the generated files
        for name in classes:
            files.setdefault(split, set()).update(os.path.join(split, name, f"1{n}.png") for n in range(8))
    for path in sorted(path for paths in files.values() for path in paths):
        place = Path("data", wrapped, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "wb") as file:
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    if damaged:
        touch(Path("data", wrapped, *splits[:1], damaged))
    taken = counted(classes, splits, files)
    monkeypatch.setattr(sys, "argv", ["nasaug", "train", "--arch", "mobilenetv2-tiny", "--data", "data", "--method",
                                      "baseline", "--recipe", "short.toml", "--device", "cpu"])  # fmt: skip
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    told = capsys.readouterr()
    if code:
        assert code == 2 and re.fullmatch(r"nasaug: [^\n]+\n", told.err), told.err
        assert not Path("runs").exists()
        return
    assert not damaged
    line = re.search(
        r"^data data: (\d+) classes .*; ([\d,]+) training, ([\d,]+) validation, ([\d,]+) test", told.out, re.M
    )
    count, *images = (int(number.replace(",", "")) for number in line.groups())
    assert count == len(classes) and sum(images) == sum(map(len, taken.values()))
    if "test" in taken or "val" in taken:
        assert images[-1] == len(taken.get("test") or taken["val"])
    assert json.loads(next(Path("runs").glob("*/result.json")).read_text())["test_images"] == images[-1]
