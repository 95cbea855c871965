import gzip
import math
import os
import pickle  # to write CIFAR's own format, which torchvision reads
import shutil
import struct
import sys
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from nasaug.data import DataConfig, Info, describe, load, named, names
from nasaug.data import stream as streaming
from nasaug.data.split import MemorySplit, hold_out
from nasaug.data.stream import StreamSplit, crop_box
from nasaug.errors import BadInput, MissingExtra, RunFault

DEBIAN = named.DEBIAN_FASHION_MNIST


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No data on this machine, and none to be downloaded, unless the test puts some there."""

    def refuse(*_, **__):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv("NASAUG_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", tmp_path / "no-debian")
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def write_fashion_mnist(folder, train=600, test=100, suffix=".gz", side=28):
    """Made-up Fashion-MNIST: an image's first two pixels are its number; class = number modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if suffix else open
    for part, first, count in (("train", 0, train), ("t10k", 10_000, test)):
        numbers = np.arange(first, first + count)
        pixels = np.zeros((count, side, side), dtype=np.uint8)
        pixels[:, 0, 0], pixels[:, 0, 1] = numbers // 256, numbers % 256
        labels = (numbers % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            with opener(folder / f"{part}-{kind}-ubyte{suffix}", "wb") as file:
                header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
                file.write(header + array.tobytes())


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    write_fashion_mnist(tmp_path / "fashion-mnist")
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    return DataConfig()


def numbers(split):
    images = torch.cat([images for images, _ in split.ordered(64)])
    return (images[:, 0, 0, 0].int() * 256 + images[:, 0, 0, 1]).tolist()


def write_folder(folder, classes=("cat", "dog"), each=30, size=(8, 8), mode="RGB", seed=0):
    """PNG files of noise, `folder`/CLASS/N.png."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            array = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(array).convert(mode).save(folder / name / f"{i:03}.png")
    return folder


def config(path, **options):
    return DataConfig(str(path), **options)


# how images are held out


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=8),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_hold_out_is_disjoint_complete_and_stratified(sizes, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    most = len(labels) - len(sizes)
    count = round(share * most)
    kept, held = hold_out(labels, count, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert torch.bincount(labels[kept], minlength=len(sizes)).min() >= 1
    assert len(held) <= count
    for size, part in zip(sizes, torch.bincount(labels[held], minlength=len(sizes)).tolist(), strict=True):
        exact = size * count / len(labels)
        assert part <= math.ceil(exact) and part >= min(math.floor(exact), size - 1)


def test_validation_is_held_out_of_training_in_proportion_to_the_classes(fashion):
    data = load(fashion)
    train, val, test = numbers(data.train), numbers(data.val), numbers(data.finish())
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


# orders and batches


def memory_split(n=70):
    return MemorySplit(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4), torch.arange(n))


def stream_split(tmp_path, workers=0):
    folder = write_folder(tmp_path / "streamed", each=35, size=(20, 14))
    return load(config(folder, memory_mb=0, workers=workers), size=12).train


def same(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right) > 0
    return all(torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))


def test_an_epoch_is_every_image_once_in_an_order_of_seed_and_epoch():
    split = memory_split()
    order = split.order(seed=3, epoch=2)
    assert sorted(order.tolist()) == list(range(70))
    torch.manual_seed(99)
    assert torch.equal(order, split.order(seed=3, epoch=2))
    assert not torch.equal(order, split.order(seed=3, epoch=3))
    assert not torch.equal(order, split.order(seed=2, epoch=2))
    for images, labels, index in split.batches(16, seed=3, epoch=2):
        assert images.shape == (16, 1, 4, 4)
        assert images[:, 0, 0, 0].tolist() == labels.tolist() == index.tolist()
        assert torch.equal(index, order[:16])
        order = order[16:]
    assert len(order) == 70 % 16  # the short batch is dropped


def test_a_split_smaller_than_a_batch_is_one_batch():
    split = memory_split(5)
    assert split.steps(16) == 1
    assert [len(images) for images, _, _ in split.batches(16, seed=0, epoch=0)] == [5]


def test_memory_batches_resume_at_any_batch():
    split = memory_split()
    for start in range(4):
        rest = list(split.batches(16, seed=1, epoch=4))[start:]
        assert same(rest, split.batches(16, seed=1, epoch=4, start=start))
    assert list(split.batches(16, seed=1, epoch=4, start=4)) == []


def test_streamed_batches_resume_and_are_the_same_for_any_number_of_workers(tmp_path):
    alone, helped = stream_split(tmp_path), stream_split(tmp_path, workers=2)
    state = torch.get_rng_state()
    epoch = list(alone.batches(16, seed=1, epoch=4))
    assert same(epoch, helped.batches(16, seed=1, epoch=4))
    assert same(epoch[2:], helped.batches(16, seed=1, epoch=4, start=2))
    assert same(epoch[1:], alone.batches(16, seed=1, epoch=4, start=1))
    assert same(alone.ordered(20), helped.ordered(20))
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn from the global generator
    assert not same(epoch, alone.batches(16, seed=1, epoch=5))


def test_an_image_is_cropped_alike_wherever_its_batch_begins_and_otherwise_each_epoch(tmp_path):
    split = stream_split(tmp_path)

    def crops(batch, epoch):
        found = {}
        for images, _, index in split.batches(batch, seed=0, epoch=epoch):
            found.update(zip(index.tolist(), images, strict=True))
        return found

    large, small, later = crops(16, 0), crops(1, 0), crops(1, 1)
    assert all(torch.equal(image, small[place]) for place, image in large.items())
    assert not any(torch.equal(small[place], later[place]) for place in small)


@pytest.mark.parametrize("kind", ["memory", "stream"])
def test_take_draws_without_replacement(kind, tmp_path):
    split = memory_split(50) if kind == "memory" else stream_split(tmp_path)
    everything = {image.numpy().tobytes() for images, _ in split.ordered(16) for image in images}
    taken = split.take(20, seed=7)
    images = [image.numpy().tobytes() for images, _ in taken.ordered(16) for image in images]
    assert len(taken) == len(set(images)) == 20 and set(images) < everything
    assert same(taken.ordered(16), split.take(20, seed=7).ordered(16))
    assert not same(taken.ordered(16), split.take(20, seed=8).ordered(16))
    assert len(split.take(1000, seed=7)) == len(split)


def test_ordered_serves_every_image_once_at_the_size_asked_for():
    split = memory_split(10)
    assert torch.cat([labels for _, labels in split.ordered(4)]).tolist() == list(range(10))
    images = torch.cat([images for images, _ in split.ordered(4, size=2)])
    assert images.shape == (10, 1, 2, 2) and images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(10))


# streamed images against torchvision's transforms


def test_streamed_evaluation_is_resize_and_centre_crop(tmp_path):
    folder = write_folder(tmp_path / "data", each=10, size=(50, 40))
    split = load(config(folder, memory_mb=0, workers=0), size=21).finish()
    for size in (21, 16):
        usual = transforms.Compose([transforms.Resize(math.ceil(size / 0.875)), transforms.CenterCrop(size)])
        files = [file for name in ("cat", "dog") for file in sorted((folder / name).iterdir())]
        expected = {np.asarray(usual(Image.open(file))).transpose(2, 0, 1).tobytes() for file in files}
        found = [image.numpy().tobytes() for images, _ in split.ordered(8, size) for image in images]
        assert len(set(found)) == len(split) == 4 and set(found) < expected


@pytest.mark.parametrize(("height", "width"), [(40, 50), (20, 200)])
def test_random_crops_are_distributed_as_torchvisions(height, width):
    rng, image = np.random.default_rng(0), torch.empty(3, height, width)
    torch.manual_seed(0)
    ours = np.array([crop_box(height, width, rng) for _ in range(3000)])
    usual = transforms.RandomResizedCrop.get_params
    theirs = np.array([usual(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    assert (ours.min(0) >= [0, 0, 1, 1]).all()
    assert (ours[:, 0] + ours[:, 2]).max() <= height and (ours[:, 1] + ours[:, 3]).max() <= width
    error = ours.std(0) * math.sqrt(2 / 3000)
    assert (abs(ours.mean(0) - theirs.mean(0)) <= 4 * error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.1, atol=0.01)


def test_training_crops_are_the_boxes_drawn(tmp_path):
    split = stream_split(tmp_path)
    for images, _, index in split.batches(8, seed=5, epoch=1):
        for image, place in zip(images, index.tolist(), strict=True):
            path = os.path.join(split._root, os.fsdecode(split._files[place]))
            box = crop_box(14, 20, streaming.random(streaming.CROP, 5, 1, place))
            cut = transforms.functional.resized_crop(Image.open(path), *box, [12, 12])
            assert torch.equal(image, transforms.functional.pil_to_tensor(cut))


def test_a_killed_worker_is_a_fault_in_one_line(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nmore")
        yield

    monkeypatch.setattr(streaming, "DataLoader", killed)
    with pytest.raises(RunFault, match=r"pid 7.*data\.workers=0") as error:
        next(stream_split(tmp_path).ordered(4))
    assert "\n" not in str(error.value)


# named sets


def test_the_names_are_the_documented_ones():
    assert set(names()) == {"fashion-mnist", "cifar10", "cifar100", "imagenet", "digits"}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("where", ["data", "data/fashion-mnist", "data/FashionMNIST/raw", "user-cache/nasaug/fashion-mnist", "no-debian"])
def test_fashion_mnist_is_found_in_all_its_places(tmp_path, monkeypatch, where, suffix):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path / "data"))
    write_fashion_mnist(tmp_path / where, suffix=suffix)
    data = load(DataConfig())
    assert (len(data.train), len(data.val), len(data.finish()), data.size) == (540, 60, 100, 28)
    assert data.classes[0] == "T-shirt/top" and data.flip and not data.streamed


def test_fashion_mnist_is_downloaded_once(tmp_path, monkeypatch):
    class Fake(torchvision.datasets.FashionMNIST):
        calls = 0

        def __init__(self, root, download):
            assert download
            Fake.calls += 1
            write_fashion_mnist(Path(root) / "FashionMNIST" / "raw", suffix="")

    monkeypatch.setattr(named.tv, "FashionMNIST", Fake)
    assert len(load(DataConfig()).train) == len(load(DataConfig()).train) == 540
    assert Fake.calls == 1
    assert [p.name for p in (tmp_path / "user-cache" / "nasaug").iterdir()] == ["fashion-mnist"]


def test_where_nothing_works_the_error_names_all_ways_and_nothing_is_left(tmp_path):
    with pytest.raises(BadInput) as error:
        load(DataConfig())
    for way in ("$NASAUG_DATA", "user-cache", "dataset-fashion-mnist", "download", "digits"):
        assert way in str(error.value)
    assert "\n" not in str(error.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not (tmp_path / "user-cache" / "nasaug").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: truncate(f / "train-images-idx3-ubyte.gz"), "cannot read .*train-images"),
        (lambda f: (f / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip"), "cannot read .*t10k-images"),
        (lambda f: (f / "train-labels-idx1-ubyte.gz").unlink(), "lacks train-labels"),
        (lambda f: write_fashion_mnist(f, side=20), "not fashion-mnist: .* at 20 px"),
        (
            lambda f: shutil.copy(f / "t10k-labels-idx1-ubyte.gz", f / "train-labels-idx1-ubyte.gz"),
            "do not belong together",
        ),
        (
            lambda f: shutil.copy(f / "t10k-labels-idx1-ubyte.gz", f / "train-images-idx3-ubyte.gz"),
            "do not belong together",
        ),
    ],
)
def test_damaged_fashion_mnist_is_refused(fashion, tmp_path, damage, message):
    damage(tmp_path / "fashion-mnist")
    with pytest.raises(BadInput, match=message):
        load(fashion)


def test_plain_idx_files_cut_short_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    write_fashion_mnist(tmp_path, suffix="")
    truncate(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(BadInput, match="cannot read"):
        load(DataConfig())


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_the_real_fashion_mnist(monkeypatch):
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", DEBIAN)
    data = load(DataConfig())
    assert (len(data.train), len(data.val), len(data.finish())) == (55_000, 5_000, 10_000)
    assert data.mean == pytest.approx((0.2860,) * 3, abs=0.002)  # torchvision's users' constants
    assert data.std == pytest.approx((0.3530,) * 3, abs=0.002)


def write_cifar(folder, kind, monkeypatch):
    """Made-up CIFAR in its own format, its checksums known to torchvision's class for this test."""
    place = folder / kind.base_folder
    place.mkdir(parents=True)
    rng, digest = np.random.default_rng(0), torchvision.datasets.utils.calculate_md5
    key = "labels" if kind.meta["key"] == "label_names" else "fine_labels"
    classes = 10 if key == "labels" else 100

    def write(name, content):
        (place / name).write_bytes(pickle.dumps(content))
        return [name, digest(place / name)]

    def batch(name):
        pixels = rng.integers(0, 256, (200, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, key: [i % classes for i in range(200)]})

    meta = write(kind.meta["filename"], {kind.meta["key"]: [f"class {i}" for i in range(classes)]})
    monkeypatch.setattr(kind, "train_list", [batch(name) for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [batch(name) for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta[1]})
    return place


@pytest.mark.parametrize(
    ("name", "kind", "images"),
    [("cifar10", torchvision.datasets.CIFAR10, 1000), ("cifar100", torchvision.datasets.CIFAR100, 200)],
)
def test_cifar_in_its_own_format(tmp_path, monkeypatch, name, kind, images):
    place = write_cifar(tmp_path / "user-cache" / "nasaug" / name, kind, monkeypatch)
    data = load(DataConfig(name))
    assert len(data.train) + len(data.val) == images and len(data.val) == images // 10
    first, labels = next(data.finish().ordered(3))
    expected = pickle.loads((place / kind.test_list[0][0]).read_bytes())["data"][:3].reshape(3, 3, 32, 32)
    assert np.array_equal(first.numpy(), expected) and labels.tolist() == [0, 1, 2]
    assert Info(name, len(data.classes), data.size, data.streamed) == describe(DataConfig(name))


def test_damaged_or_missing_cifar_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="cifar10 was not found.*no network"):
        load(DataConfig("cifar10"))
    place = write_cifar(tmp_path / "user-cache" / "nasaug", torchvision.datasets.CIFAR10, monkeypatch)
    truncate(place / "data_batch_2")
    with pytest.raises(BadInput, match="damaged"):
        load(DataConfig("cifar10"))


@pytest.fixture
def small_imagenet(monkeypatch):
    monkeypatch.setitem(named.NAMED, "imagenet", replace(named.NAMED["imagenet"], classes=2))
    return DataConfig("imagenet", workers=0)


def test_imagenet_is_streamed_and_its_val_is_the_test_split(tmp_path, monkeypatch, small_imagenet):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    root = tmp_path / "imagenet"
    write_folder(root / "train", classes=("n01", "n02"), each=20)
    write_folder(root / "val", classes=("n01", "n02"), each=5)
    (root / "test").mkdir()  # the unlabelled images that are often beside them
    data = load(small_imagenet, size=32)
    assert data.streamed and data.size == 32 and (len(data.train), len(data.val)) == (36, 4)
    images, labels = next(data.finish().ordered(10))
    assert images.shape == (10, 3, 32, 32) and labels.tolist() == [0] * 5 + [1] * 5
    assert load(small_imagenet).size == describe(small_imagenet).size == 224
    monkeypatch.setitem(named.NAMED, "imagenet", replace(named.NAMED["imagenet"], classes=1000))
    with pytest.raises(BadInput, match="not imagenet: it has 2 classes"):
        load(small_imagenet)


def test_imagenets_archives_are_unpacked_by_torchvision(tmp_path, monkeypatch, small_imagenet):
    root = tmp_path / "user-cache" / "nasaug" / "imagenet"
    root.mkdir(parents=True)
    with pytest.raises(BadInput, match="imagenet was not found.*archives"):
        load(small_imagenet)
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"cut short")
    with pytest.raises(BadInput, match="cannot unpack"):
        load(small_imagenet)

    def unpack(place, split):
        write_folder(Path(place) / split, classes=("n01", "n02"), each=20)

    monkeypatch.setattr(named.tv, "ImageNet", unpack)
    assert len(load(small_imagenet).finish()) == 40


def test_digits_are_upscaled_never_mirrored_and_split_for_good():
    data = load(DataConfig("digits"))
    images, labels = next(data.train.ordered(4))
    assert images.shape == (4, 1, 28, 28) and images.dtype == torch.uint8 and images.max() > 250
    assert not data.flip and data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val), len(data.finish())) == (1294, 143, 360)
    assert set(data.test.labels.bincount().tolist()) <= {35, 36, 37}
    other = load(DataConfig("digits", split_seed=1))
    assert not torch.equal(other.val.labels, data.val.labels)
    assert same(other.finish().ordered(360), data.test.ordered(360))


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"nasaug\[data\]"):
        load(DataConfig("digits"))


# folders


def test_a_single_folder_is_split_in_three(tmp_path):
    folder = write_folder(tmp_path / "pets", each=50)
    data = load(config(folder))
    parts = [[i.numpy().tobytes() for x, _ in s.ordered(9) for i in x] for s in (data.train, data.val, data.finish())]
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
    images = torch.cat([x for x, _ in data.finish().ordered(7)])
    alone = load(config(tmp_path / test, memory_mb=memory_mb, workers=0))
    expected = [x for split in (alone.train, alone.val, alone.finish()) for x, _ in split.ordered(99)]
    assert {i.numpy().tobytes() for i in images} == {i.numpy().tobytes() for i in torch.cat(expected)}


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("1", 1), ("P", 3), ("RGBA", 3)])
def test_pixels_in_memory_are_pillows(tmp_path, mode, channels):
    folder = write_folder(tmp_path / "data", each=10, mode=mode)
    images, labels = next(load(config(folder)).finish().ordered(9))
    assert images.shape == (4, channels, 8, 8)
    files = sorted(folder.rglob("*.png"))
    expected = [np.asarray(Image.open(f).convert("RGB")).transpose(2, 0, 1)[:channels].tobytes() for f in files]
    assert {image.numpy().tobytes() for image in images} < set(expected)


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
    with pytest.raises(BadInput, match=r"1 of 20 images.*002\.png"):
        load(config(tmp_path))


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_images_are_found_when_streamed(tmp_path, workers):
    folder = write_folder(tmp_path / "data", each=10, size=(64, 64))
    for file in folder.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:2000])
    data = load(config(folder, memory_mb=0, workers=workers))
    with pytest.raises(BadInput, match=r"cannot read the image '.*\.png'.*repair or remove") as error:
        next(data.train.batches(4, seed=0, epoch=0))
    assert "\n" not in str(error.value)


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
        (lambda f: write_folder(f, each=5), "no tenth can be held out"),
        (lambda f: write_folder(f / "train"), "only train/"),
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


# what a run records of its data


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
