"""`data.on_bad_image = "skip"`: other training images take the places of those that cannot be read."""

import json

import pytest
import torch

from nasaug.core.errors import BadInput
from nasaug.core.progress import heard_by
from nasaug.data import load
from support.commands import QUICK, call, done, lay_out
from support.images import config, same, write_folder


def folders(tmp_path, size=(8, 8)):
    for name in ("train", "val", "test"):
        write_folder(tmp_path / name, each=20 if name == "train" else 4, size=size, seed=len(name))
    return tmp_path


def bad_image(path):
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_those_known_before_training_are_named_once_and_replaced_by_others_of_their_class(tmp_path, memory_mb):
    folder = folders(tmp_path)
    whole = load(config(folder, memory_mb=memory_mb))
    kept, labels = next(whole.train.ordered(40))
    for name in ("cat/003.png", "dog/004.png"):
        bad_image(folder / "train" / name)
    with pytest.raises(BadInput, match="2 of 56 images in .* cannot be read.* or .* on_bad_image skip"):
        load(config(folder, memory_mb=memory_mb))
    data = load(config(folder, memory_mb=memory_mb, on_bad_image="skip"))
    assert data.bad == {"train/cat/003.png", "train/dog/004.png"} and data.streamed == whole.streamed
    (line,) = (note for note in data.notes if "cannot be read" in note)
    assert line.startswith("warning: 2 of the training images cannot be read, 'train/cat/003.png' (")
    assert torch.equal(data.train.labels, whole.train.labels)
    images, again = next(data.train.ordered(40))
    alike = (kept == images).flatten(1).all(1)
    assert torch.equal(labels, again) and alike.sum() == 38
    for place in (~alike).nonzero().flatten().tolist():  # what is there now is another one of the class
        others = [i for i in range(40) if labels[i] == labels[place] and torch.equal(kept[i], images[place])]
        assert len(others) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_those_met_in_an_epoch_are_replaced_in_their_batch_with_the_label_and_told_once(tmp_path, workers):
    folder, told = folders(tmp_path, (16, 16)), []
    data = load(config(folder, memory_mb=0, workers=workers, on_bad_image="skip"))
    plain = list(data.train.batches(8, seed=0, epoch=0))
    first, bad = plain[0][2].tolist(), plain[0][2][[2, 7]].tolist()
    names = [data.train._files[place].decode() for place in bad]
    for name in names:
        bad_image(folder / name)
    with heard_by(lambda event: told.append(str(event))):
        again = list(data.train.batches(8, seed=0, epoch=0))
        list(data.train.batches(8, seed=0, epoch=1))
    first[2], first[7] = first[3], first[0]
    assert again[0][2].tolist() == first and torch.equal(again[0][1], data.train.labels[first])
    assert torch.equal(again[0][0][[2, 7]], plain[0][0][[3, 0]])
    assert same(again[1:], plain[1:])
    assert data.bad == set(names) and len([line for line in told if "cannot be read" in line]) == 1


def test_validation_and_test_images_are_never_skipped(tmp_path):
    folder = folders(tmp_path)
    bad_image(folder / "test/cat/001.png")
    with pytest.raises(BadInput, match="1 of the validation and test images.*'test/cat/001.png'.*only training"):
        load(config(folder, on_bad_image="skip"))
    (folder / "test/cat/001.png").unlink()
    data = load(config(folder, memory_mb=0, workers=0, on_bad_image="skip"))
    bad_image(folder / "val/cat/001.png")
    with pytest.raises(BadInput, match="cannot read the image '.*val/cat/001.png'"):
        list(data.val.ordered(4))


def test_a_batch_of_which_none_can_be_read_ends_the_training(tmp_path):
    folder = folders(tmp_path)
    data = load(config(folder, memory_mb=0, workers=0, on_bad_image="skip"))
    for path in (folder / "train").rglob("*.png"):
        bad_image(path)
    with pytest.raises(BadInput, match="cannot read the image"):
        next(data.train.batches(4, seed=0, epoch=0))
    with pytest.raises(BadInput, match="none of the 40 training images|cannot be read"):
        load(config(folder, on_bad_image="skip"))


TRAIN = ("train", *QUICK, "--arch", "mobilenetv2-tiny", "--data", "photos", "--method", "baseline", "--run", "r")


def test_a_run_goes_on_without_them_and_counts_them(empty_folder, monkeypatch):
    lay_out(empty_folder)
    folders(empty_folder / "photos", (12, 12))
    streamed = ("--set", "data.memory_mb=0", "--set", "data.workers=0", "--set", "data.train_images=0")
    damaged = [empty_folder / "photos/train/cat/003.png", empty_folder / "photos/train/dog/005.png"]
    from nasaug.training.loop import Trainer

    end_epoch = Trainer.end_epoch

    def spoil(trainer):
        row = end_epoch(trainer)
        for path in damaged if len(trainer.history) == 1 else ():
            bad_image(path)
        return row

    monkeypatch.setattr(Trainer, "end_epoch", spoil)
    told = call(*TRAIN, *streamed, "--set", "epochs=4")
    assert told.code == 2 and "remove it, and go on with --resume" in told.err
    done("train", "--resume", "--run", "r", "--on-bad-image", "skip")
    result = json.loads((empty_folder / "r/result.json").read_text())
    logged = [line["image"] for line in map(json.loads, open("r/log.jsonl")) if line["event"] == "bad image"]
    assert result["bad_images"] == 2 and sorted(logged) == ["train/cat/003.png", "train/dog/005.png"]
    assert 'on_bad_image = "skip"' in (empty_folder / "r/recipe.toml").read_text()
