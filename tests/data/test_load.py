import os
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from nasaug.core import files
from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, describe, load, names
from nasaug.data.stream import StreamSplit
from support.images import config, numbers, write_folder


def test_validation_is_held_out_of_training_in_proportion_to_the_classes(fashion):
    data = load(fashion)
    train, val, test = (numbers(split) for split in (data.train, data.val, data.finish()))
    assert sorted(train + val) == list(range(600)) and test == list(range(10_000, 10_100))
    assert data.val.labels.bincount().tolist() == [6] * 10  # a tenth, although 5,000 are asked for
    assert [n % 10 for n in train] == data.train.labels.tolist()


def test_the_split_is_its_own_seeds_and_nothing_elses(fashion):
    val = numbers(load(fashion).val)
    torch.manual_seed(123)
    assert numbers(load(fashion).val) == val
    assert numbers(load(replace(fashion, train_images=50)).val) == val
    assert numbers(load(replace(fashion, split_seed=1)).val) != val


def test_fewer_training_images_are_a_stratified_part_of_all(fashion):
    everything, part = load(fashion), load(replace(fashion, train_images=50))
    assert part.train.labels.bincount().tolist() == [5] * 10
    assert set(numbers(part.train)) < set(numbers(everything.train))


@pytest.mark.parametrize("count", [9, 541])
def test_an_impossible_number_of_training_images_is_refused(fashion, count):
    with pytest.raises(BadInput, match=f"train_images = {count}.*give 10 to 540"):
        load(replace(fashion, train_images=count))


def test_the_test_split_is_read_once_and_at_the_end(fashion):
    data = load(fashion)
    with pytest.raises(RuntimeError, match="finish"):
        _ = data.test
    split = data.finish()
    assert data.test is split
    with pytest.raises(RuntimeError, match="once"):
        data.finish()


def test_the_names_are_the_documented_ones():
    known = "fashion-mnist cifar10 cifar100 imagenet digits food101 flowers102 cars cub200 pets imagenet21k-p"
    assert set(names()) == set(known.split()) == set(files.DATA_SETS)


@pytest.mark.parametrize("ask", [load, describe])
def test_unknown_names_are_refused_with_the_close_ones(ask, tmp_path):
    with pytest.raises(BadInput, match="did you mean fashion-mnist"):
        ask(DataConfig("fashion-minst"))
    with pytest.raises(BadInput, match="no folder"):
        ask(config(tmp_path / "nothing"))


@pytest.mark.parametrize("field", ["val_images", "train_images", "split_seed", "workers", "memory_mb"])
def test_negative_settings_are_refused(field):
    with pytest.raises(BadInput, match=f"data.{field} = -1"):
        DataConfig(**{field: -1})


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path):
    data = load(config(write_folder(tmp_path / "data")))
    pixels = torch.cat([images for images, _ in data.train.ordered(99)]).double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-5)
    assert data.std == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-5)
    streamed = load(config(tmp_path / "data", memory_mb=0))
    assert (streamed.mean[0], streamed.std[0]) == (0.485, 0.229)


def test_constant_pixels_have_a_std_above_zero(fashion, tmp_path):
    for i in range(20):
        for name in ("a", "b"):
            (tmp_path / "flat" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 7).save(tmp_path / "flat" / name / f"{i}.png")
    data = load(config(tmp_path / "flat"))
    assert data.mean == pytest.approx((7 / 255,) * 3) and data.std == (pytest.approx(1 / 255),) * 3


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_the_key_tells_contents_apart_and_nothing_else(tmp_path, memory_mb):
    first = write_folder(tmp_path / "first", each=20)
    shutil.copytree(first, tmp_path / "moved")
    key = load(config(first, memory_mb=memory_mb)).key
    assert load(config(tmp_path / "moved", memory_mb=memory_mb, workers=0)).key == key
    assert load(config(first, memory_mb=100 - memory_mb)).key != key
    assert load(config(first, memory_mb=memory_mb, split_seed=1)).key != key
    assert load(config(first, memory_mb=memory_mb, train_images=10)).key != key
    os.rename(tmp_path / "moved" / "dog", tmp_path / "moved" / "wolf")
    assert load(config(tmp_path / "moved", memory_mb=memory_mb)).key != key


def test_the_key_sees_every_pixel(tmp_path):
    folder = write_folder(tmp_path / "data", each=10)
    key = load(config(folder)).key
    training = load(config(folder, memory_mb=0, workers=0)).train
    assert isinstance(training, StreamSplit)
    file = os.path.join(training._root, os.fsdecode(training._files[3]))
    image = Image.open(file)
    image.putpixel((2, 2), tuple(255 - value for value in image.getpixel((2, 2))))
    image.save(file)
    assert load(config(folder)).key != key
