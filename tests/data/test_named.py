import pickle  # to write CIFAR's own format, which torchvision reads
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from nasaug.core.errors import BadInput, MissingExtra
from nasaug.data import DataConfig, Info, builtin, describe, load
from support.images import same, truncate, write_fashion_mnist, write_folder

DEBIAN = builtin.DEBIAN_FASHION_MNIST


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "where",
    ["data", "data/fashion-mnist", "data/FashionMNIST/raw", "user-cache/nasaug/fashion-mnist", "no-debian"],
)
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

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Fake)
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
    monkeypatch.setattr(builtin, "DEBIAN_FASHION_MNIST", DEBIAN)
    data = load(DataConfig())
    assert (len(data.train), len(data.val), len(data.finish())) == (55_000, 5_000, 10_000)
    assert data.mean == pytest.approx((0.2860,) * 3, abs=0.002)  # the constants commonly used with torchvision
    assert data.std == pytest.approx((0.3530,) * 3, abs=0.002)


def write_cifar(folder, kind, monkeypatch):
    """Synthetic CIFAR in its native format, with its checksums patched into torchvision's class for this test."""
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
    monkeypatch.setitem(builtin.NAMED, "imagenet", replace(builtin.NAMED["imagenet"], classes=2))
    return DataConfig("imagenet", workers=0)


def test_imagenet_is_streamed_and_its_val_is_the_test_split(tmp_path, monkeypatch, small_imagenet):
    monkeypatch.setenv("NASAUG_DATA", str(tmp_path))
    root = tmp_path / "imagenet"
    write_folder(root / "train", classes=("n01", "n02"), each=20)
    write_folder(root / "val", classes=("n01", "n02"), each=5)
    (root / "test").mkdir()  # the unlabelled images that often accompany them
    data = load(small_imagenet, size=32)
    assert data.streamed and data.size == 32 and (len(data.train), len(data.val)) == (36, 4)
    images, labels = next(data.finish().ordered(10))
    assert images.shape == (10, 3, 32, 32) and labels.tolist() == [0] * 5 + [1] * 5
    assert load(small_imagenet).size == describe(small_imagenet).size == 224
    monkeypatch.setitem(builtin.NAMED, "imagenet", replace(builtin.NAMED["imagenet"], classes=1000))
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

    monkeypatch.setattr(torchvision.datasets, "ImageNet", unpack)
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


def test_fashion_mnists_classes_are_torchvisions():
    assert list(builtin.FASHION) == torchvision.datasets.FashionMNIST.classes
