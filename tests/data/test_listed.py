"""The data sets that nets are transferred to, on small sets made in the same formats."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, builtin, describe, load
from support.images import write_folder

TRAIN, TEST = 20, 5  # images of each of two classes


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(path)


def food(root, monkeypatch):
    place = root / "food-101"
    names = {which: {c: [f"{c}/{which}{i}" for i in range(n)] for c in ("pie", "ham")} for which, n in SPLITS.items()}
    for which, of in names.items():
        for name in sum(of.values(), []):
            image(place / "images" / f"{name}.jpg")
        (place / "meta").mkdir(exist_ok=True)
        (place / "meta" / f"{which}.json").write_text(json.dumps(of))
    return ("ham", "pie")


def flowers(root, monkeypatch):
    place, count = root / "flowers-102", 2 * (TRAIN + TEST)
    for i in range(1, count + 1):
        image(place / "jpg" / f"image_{i:05d}.jpg")
    ids, half = np.arange(1, count + 1), TRAIN
    savemat(place / "imagelabels.mat", {"labels": ids % 2 + 1})
    savemat(place / "setid.mat", {"trnid": ids[:half], "valid": ids[half : 2 * TRAIN], "tstid": ids[2 * TRAIN :]})
    kind, md5 = torchvision.datasets.Flowers102, torchvision.datasets.utils.calculate_md5
    made = {key: (name, md5(place / name) if key != "image" else "") for key, (name, _) in kind._file_dict.items()}
    monkeypatch.setattr(kind, "_file_dict", made)
    monkeypatch.setattr(kind, "classes", ["rose", "lily"], raising=False)
    return ("rose", "lily")


def cars(root, monkeypatch):
    place = root / "stanford_cars"
    (place / "devkit").mkdir(parents=True)
    for which, file in (("train", "devkit/cars_train_annos"), ("test", "cars_test_annos_withlabels")):
        rows = [(f"{i:05d}.jpg", i % 2 + 1) for i in range(2 * SPLITS[which])]
        for name, _ in rows:
            image(place / f"cars_{which}" / name)
        table = np.array(rows, dtype=[("fname", "O"), ("class", "O")])
        savemat(place / f"{file}.mat", {"annotations": table})
    savemat(place / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi TT", "BMW X6"], dtype=object)})
    return ("Audi TT", "BMW X6")


def pets(root, monkeypatch):
    place = root / "oxford-iiit-pet"
    (place / "annotations").mkdir(parents=True)
    for which, count in (("trainval", TRAIN), ("test", TEST)):
        rows = [(f"{name}_{which}{i}", label) for i in range(count) for name, label in (("Abyssinian", 1), ("pug", 2))]
        for name, _ in rows:
            image(place / "images" / f"{name}.jpg")
        lines = "".join(f"{name.replace('.jpg', '')} {label} 1 1\n" for name, label in rows)
        (place / "annotations" / f"{which}.txt").write_text(lines)
    return ("Abyssinian", "Pug")


def birds(root, monkeypatch):
    place = root / "CUB_200_2011"
    rows = [(i + 1, i % 2 + 1, int(i < 2 * TRAIN)) for i in range(2 * (TRAIN + TEST))]
    for i, label, _ in rows:
        image(place / "images" / f"00{label}.Bird" / f"{i}.jpg")
    files = {
        "images.txt": "".join(f"{i} 00{label}.Bird/{i}.jpg\n" for i, label, _ in rows),
        "image_class_labels.txt": "".join(f"{i} {label}\n" for i, label, _ in rows),
        "train_test_split.txt": "".join(f"{i} {train}\n" for i, _, train in rows),
        "classes.txt": "1 001.Albatross\n2 002.Auklet\n",
    }
    for name, text in files.items():
        (place / name).write_text(text)
    return ("001.Albatross", "002.Auklet")


def birds_in_folders(root, monkeypatch):
    for which, count in SPLITS.items():
        write_folder(root / "cub200" / which, classes=("auk", "gull"), each=count)
    return ("auk", "gull")


def imagenet21k(root, monkeypatch):
    for which, count in (("train", TRAIN), ("val", TEST)):
        write_folder(root / "imagenet21k-p" / f"imagenet21k_{which}", classes=("n1", "n2"), each=count)
    return ("n1", "n2")


SPLITS = {"train": TRAIN, "test": TEST}
SETS = {
    "food101": food, "flowers102": flowers, "cars": cars, "pets": pets, "cub200": birds,
    "cub200, in folders": birds_in_folders, "imagenet21k-p": imagenet21k,
}  # fmt: skip


@pytest.fixture(params=SETS)
def made(request, tmp_path, monkeypatch):
    """A set's name and its classes, of which it has two here."""
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    name = request.param.partition(",")[0]
    monkeypatch.setitem(builtin.NAMED, name, replace(builtin.NAMED[name], classes=2))
    return name, SETS[request.param](tmp_path, monkeypatch)


def test_a_set_is_listed_by_its_own_loader_and_streamed(made):
    name, classes = made
    config = DataConfig(name, workers=0)
    data = load(config, size=16)
    assert data.classes == classes and data.streamed and describe(config).classes == 2
    assert (len(data.train), len(data.val)) == (36, 4) and data.train.labels.bincount().tolist() == [18, 18]
    test = data.finish()
    assert test.labels.bincount().tolist() == [TEST, TEST]
    images, labels = next(data.train.batches(8, seed=0, epoch=0))[:2]
    assert images.shape == (8, 3, 16, 16) and len(labels.unique()) == 2
    assert len(load(replace(config, shots=3), size=16).train) == 6
    again = load(config, size=16, begun=data.record)
    assert again.key == data.key


def test_labels_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    monkeypatch.setitem(builtin.NAMED, "pets", replace(builtin.NAMED["pets"], classes=2))
    pets(tmp_path, monkeypatch)
    record = load(DataConfig("pets", workers=0), size=16).record
    named = [Path(file.decode()).name.startswith("pug") for file in record.files]
    assert named == (record.labels == 1).tolist()


@pytest.mark.parametrize("name", ["food101", "flowers102", "pets", "cars", "cub200", "imagenet21k-p"])
def test_a_set_that_is_not_there_is_told_with_the_ways_to_get_it(name):
    said = f"{name} was not found.*put it into .NASAUG_DATA/{name}"
    if name == "cars":
        said += ".*stanford_cars/.*download is dead"
    with pytest.raises(BadInput, match=said) as error:
        load(DataConfig(name))
    downloaded = name in ("food101", "flowers102", "pets")
    assert ("download failed" in str(error.value)) == downloaded and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["food101", "pets", "cub200"])
def test_a_damaged_set_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    SETS[name](tmp_path, monkeypatch)
    missing = {"food101": "food-101/meta/test.json", "pets": "oxford-iiit-pet/annotations/test.txt",
               "cub200": "CUB_200_2011/classes.txt"}  # fmt: skip
    (tmp_path / missing[name]).unlink()
    with pytest.raises(BadInput, match=f"{name} in .* is damaged .*: replace or remove it"):
        load(DataConfig(name))
