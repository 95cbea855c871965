import numpy as np
import pytest
from PIL import Image

from nasaug.core.errors import BadInput
from nasaug.data import Info, describe, load
from support.images import config, contents, same, write_folder


def test_a_single_folder_is_split_in_three(tmp_path):
    folder = write_folder(tmp_path / "pets", each=50)
    data = load(config(folder))
    parts = [contents(split) for split in (data.train, data.val, data.finish())]
    assert [len(part) for part in parts] == [72, 8, 20] and len(set().union(*parts)) == 100
    assert data.test.labels.bincount().tolist() == [10, 10] and data.classes == ("cat", "dog")
    other = load(config(folder, split_seed=5))
    assert not same(other.val.ordered(99), data.val.ordered(99))
    assert same(other.finish().ordered(99), data.test.ordered(99))  # never test images in training


@pytest.mark.parametrize(
    ("splits", "val", "test"),
    [(("train", "test"), 6, "test"), (("train", "val"), 6, "val"), (("train", "val", "test"), 20, "test")],
)
@pytest.mark.parametrize("memory_mb", [0, 100])
def test_the_test_split_is_test_or_else_val(tmp_path, splits, val, test, memory_mb):
    for seed, name in enumerate(splits):
        write_folder(tmp_path / name, each=30 if name == "train" else 10, seed=seed)
    data = load(config(tmp_path, memory_mb=memory_mb, workers=0))
    assert data.streamed == (not memory_mb)
    assert len(data.val) == val and len(data.train) == (60 if val == 20 else 54)
    alone = load(config(tmp_path / test, memory_mb=memory_mb, workers=0))
    expected = [*contents(alone.train), *contents(alone.val), *contents(alone.finish())]
    assert sorted(contents(data.finish())) == sorted(expected)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("1", 1), ("P", 3), ("RGBA", 3)])
def test_pixels_in_memory_are_pillows(tmp_path, mode, channels):
    folder = write_folder(tmp_path / "data", each=10, mode=mode)
    images, labels = next(load(config(folder)).finish().ordered(9))
    assert images.shape == (4, channels, 8, 8)
    files = [Image.open(file).convert("RGB") for file in folder.rglob("*.png")]
    expected = {np.asarray(file).transpose(2, 0, 1)[:channels].tobytes() for file in files}
    assert {image.numpy().tobytes() for image in images} < expected


@pytest.mark.parametrize(
    ("sizes", "options", "info"),
    [
        ([(8, 8)], {}, (8, False)),
        ([(8, 8)], {"memory_mb": 0}, (8, True)),
        ([(8, 6)], {}, (6, True)),
        ([(8, 8), (10, 12), (12, 12)], {}, (10, True)),
        ([(240, 240)], {}, (224, True)),
        ([(224, 224)], {}, (224, False)),
        ([(224, 224)], {"memory_mb": 1}, (224, True)),
    ],
)
def test_what_lives_in_memory(tmp_path, sizes, options, info):
    for number, size in enumerate(sizes):
        write_folder(tmp_path / "data", classes=(f"a{number}", f"b{number}"), each=6, size=size)
    wanted = config(tmp_path / "data", workers=0, **options)
    data = load(wanted)
    assert (data.size, data.streamed) == info
    assert Info(wanted.name, len(data.classes), *info) == describe(wanted)
    images, _, _ = next(data.train.batches(4, seed=0, epoch=0))
    assert images.shape == (4, 3, data.size, data.size)


def test_all_headers_are_read_before_a_folder_of_many_goes_into_memory(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "data", each=20)
    monkeypatch.setattr("nasaug.data.folder.PROBED", 10)
    assert not load(config(folder, workers=0)).streamed
    Image.new("RGB", (9, 9)).save(folder / "cat" / "001.png")  # not in the sample of every fourth
    assert load(config(folder, workers=0)).streamed


def text_file(path):
    path.write_text("not an image")


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_unreadable_images_are_named_and_counted(tmp_path, memory_mb):
    folder = write_folder(tmp_path / "data", each=10)
    text_file(folder / "cat" / "003.png")
    text_file(folder / "dog" / "004.png")
    with pytest.raises(BadInput, match=r"2 of 20 images.*00[34]\.png.*repair or remove") as error:
        load(config(folder, memory_mb=memory_mb))
    assert "\n" not in str(error.value)


def test_truncated_images_are_found_when_read_into_memory(tmp_path):
    for name in ("train", "test"):
        write_folder(tmp_path / name, each=10, size=(64, 64))
    file = tmp_path / "test" / "dog" / "002.png"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"1 of 40 images in .*test/dog/002\.png"):
        load(config(tmp_path))


def deep_images(folder):
    write_folder(folder, each=10)
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(folder / "cat" / "000.png")


def differing(folder):
    write_folder(folder / "train", classes=("a", "b", "c"))
    write_folder(folder / "test", classes=("a", "b", "d"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.mkdir(), "no class folders"),
        (lambda f: (write_folder(f), (f / "empty").mkdir()), "no images in empty"),
        (lambda f: write_folder(f, classes=("cat",)), "one class, 'cat'"),
        (lambda f: write_folder(f, each=1), "too few to split"),
        (lambda f: write_folder(f, each=5), "too few to hold out a tenth"),
        (lambda f: write_folder(f / "test"), "only test/"),
        (lambda f: (write_folder(f / "train"), write_folder(f / "Training", seed=1)), "both for training"),
        (lambda f: (write_folder(f / "test"), write_folder(f / "val")), "only val/ and test/"),
        (differing, "only one of train/ and test/ has c, d"),
        (deep_images, "more than 8 bits .mode I"),
    ],
)
def test_unusable_folders_are_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "data")
    with pytest.raises(BadInput, match=message) as error:
        load(config(tmp_path / "data"))
    assert "\n" not in str(error.value) and ": " in str(error.value)
