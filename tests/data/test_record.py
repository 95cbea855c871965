"""Which image is in which split: recorded, recognised after a move, and never changed silently."""

import shutil

import pytest
import torch
from PIL import Image

from nasaug.core.errors import BadInput
from nasaug.data import Like, Record, load
from support.images import config, contents, write_folder


@pytest.fixture
def pets(tmp_path):
    return write_folder(tmp_path / "pets", each=50)


@pytest.fixture(params=[100, 0], ids=["memory", "streamed"])
def read(request):
    """read(folder, …): the data, from memory and streamed."""

    def made(folder, *, begun=None, like=None, **options):
        return load(config(folder, memory_mb=request.param, workers=0, **options), begun=begun, like=like)

    return made


def files(data, split):
    return {data.record.files[i].decode() for i in data.record.places(split).tolist()}


def test_a_record_is_read_back_as_it_was_written(pets, tmp_path):
    record = load(config(pets, train_images=20)).record
    record.save(tmp_path)
    again = Record.of_run(tmp_path)
    assert (again.name, again.classes, again.files.tolist()) == (record.name, record.classes, record.files.tolist())
    for name in ("labels", "splits", "sizes", "digests"):
        assert torch.equal(getattr(again, name), getattr(record, name))
    assert again.whole_key == record.whole_key and len(again.places("spare")) == 52
    assert Record.of_run(pets) is None


def test_a_set_that_is_no_folder_is_recorded_by_its_splits(fashion, tmp_path):
    data = load(fashion)
    data.record.save(tmp_path)
    again = Record.of_run(tmp_path)
    assert again.whole == data.record.whole and again.classes == data.classes
    assert load(fashion, begun=again).key == data.key
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    shutil.copy(tmp_path / "fashion-mnist" / "train-labels-idx1-ubyte.gz", tmp_path / "x.gz")
    again.whole["test"] = "another"
    with pytest.raises(BadInput):
        load(fashion, begun=again)


def test_a_damaged_record_is_refused_in_one_line(pets, tmp_path):
    record = load(config(pets)).record
    record.save(tmp_path)
    file = tmp_path / "data.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BadInput, match="truncated") as error:
        Record.of_run(tmp_path)
    assert "\n" not in str(error.value)


def test_the_same_images_elsewhere_are_in_the_same_splits(pets, tmp_path, read):
    begun = read(pets)
    moved = shutil.copytree(pets, tmp_path / "elsewhere" / "photos")
    alike = read(moved)  # drawn again: names decide
    for data in (alike, read(moved, begun=begun.record)):
        assert data.key == begun.key
        for split in ("train", "val", "test"):
            assert files(data, split) == files(begun, split)
        assert contents(data.val) == contents(begun.val) and contents(data.finish()) == contents(begun._test)


def test_images_that_are_gone_move_no_other(pets, read):
    begun = read(pets)
    gone = {"train": 2, "test": 1}
    removed = [file for split, count in gone.items() for file in sorted(files(begun, split))[:count]]
    for file in removed:
        (pets / file).unlink()
    data = read(pets, begun=begun.record)
    assert "are gone (2 training, 1 test)" in data.told() and data.key == begun.key
    assert contents(data.val) == contents(begun.val)
    assert len(data.train) == len(begun.train)  # batches and steps are unchanged
    assert torch.equal(data.train.labels, begun.train.labels)
    old = dict(zip(range(len(begun.train)), begun.record.places("train").tolist(), strict=True))
    before = [begun.record.files[old[i]].decode() for i in range(len(begun.train))]
    if not data.streamed:
        now, then = contents(data.train), contents(read(shutil.copytree(pets, pets.parent / "rest")).train)
        assert len(set(now)) == len(begun.train) - 2 and set(now) <= {*now, *then}
    assert sum(file in removed for file in before) == 2
    assert len(data.finish()) == 19


def test_other_images_are_refused(pets, read):
    begun = read(pets).record
    told = r"has other images than the run began with \(1 {}, such as {}\); give data.*or start a new run"
    new = pets / "cat" / "new.png"
    shutil.copy(pets / "cat" / "000.png", new)
    with pytest.raises(BadInput, match=told.format("new", "cat/new.png")):
        read(pets, begun=begun)
    new.unlink()
    Image.new("RGB", (8, 8), "red").save(pets / "dog" / "003.png")
    with pytest.raises(BadInput, match=told.format("changed", "dog/003.png")):
        read(pets, begun=begun)
    shutil.move(pets / "dog", pets / "wolf")
    with pytest.raises(BadInput, match="has the classes cat, wolf, but the run began with cat, dog"):
        read(pets, begun=begun)


def test_a_split_or_the_training_images_of_a_class_that_are_all_gone_are_refused(pets, read):
    begun = read(pets)
    for file in files(begun, "val"):
        (pets / file).unlink()
    with pytest.raises(BadInput, match="none of the 8 validation images left"):
        read(pets, begun=begun.record)
    for file in files(begun, "train"):
        if file.startswith("cat"):
            (pets / file).unlink()
    with pytest.raises(BadInput, match="all training images of class .* are gone"):
        read(pets, begun=begun.record)


@pytest.mark.parametrize("options", [{}, {"split_seed": 3}, {"val_images": 3}])
def test_no_test_image_was_trained_on_where_weights_are_taken_over(pets, read, options):
    begun = read(pets)
    for file in sorted(files(begun, "test"))[:7]:  # a new test split would be drawn from trained images
        (pets / file).unlink()
    write_folder(pets.parent / "more", each=30, seed=5)
    for file in (pets.parent / "more").rglob("*.png"):
        shutil.copy(file, pets / file.parent.name / f"new-{file.name}")
    data = read(pets, like=Like(begun.record, not options), **options)
    assert data.record.trained_on_in("test", begun.record) == 0
    assert not files(data, "train") & files(begun, "test")
    assert len(data.record.places("test")) == 13 + round(0.2 * 60)  # the remaining ones and their share of the new ones
    if not options:
        assert files(begun, "val") <= files(data, "val")


def test_a_few_images_more_move_few_others(pets, read):
    begun = read(pets)
    write_folder(pets.parent / "more", each=5, seed=5)
    for file in (pets.parent / "more").rglob("*.png"):
        shutil.copy(file, pets / file.parent.name / f"new-{file.name}")
    data = read(pets)
    assert len(files(data, "test") ^ files(begun, "test")) <= 6


def test_images_that_are_in_two_splits_are_counted(tmp_path, read):
    for split in ("train", "test"):
        write_folder(tmp_path / split, each=30, seed=len(split))
    for i in range(3):
        shutil.copy(tmp_path / "train" / "cat" / f"00{i}.png", tmp_path / "test" / "cat" / f"copy{i}.png")
    data = read(tmp_path)
    counts = data.record.seen_again()
    assert sum(counts.values()) == 3
    for (one, two), count in counts.items():
        words = {"train": "training", "val": "validation", "test": "test"}
        n = len(data.record.places(two))
        assert f"warning: {count} of the {n} {words[two]} images are {words[one]} images too" in data.told()
