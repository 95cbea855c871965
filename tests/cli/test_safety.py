"""No file that nasaug loads runs code, names a place outside its folder, or is believed about its size."""

import io
import json
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
import torch

import nasaug
from nasaug.arch.plan import from_dict, plan
from nasaug.core import tensorfile
from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, boxes, load, numbers, pixel_cache
from nasaug.data.picture import Unreadable, check, decoded, header
from nasaug.nets.net import Net
from nasaug.nets.store import load_net, save_net
from nasaug.pool import processes
from support.commands import TRAIN, call, done
from support.fuzzing import COCO, READERS, lay_out, tried
from support.searches import SPACE


class Payload:
    def __reduce__(self):
        return os.mkdir, ("RAN",)


def pickles():
    """Content that runs code when it is unpickled, plain and as torch saves it."""
    whole = io.BytesIO()
    torch.save({"net": Payload(), "meta": Payload()}, whole)
    return [*(pickle.dumps(Payload(), protocol) for protocol in range(6)), whole.getvalue()]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    return tmp_path


def test_the_payload_runs_where_it_is_unpickled(scratch):
    pickle.loads(pickles()[0])
    assert Path("RAN").is_dir()


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.name])
def test_no_reader_unpickles_what_it_reads(scratch, name):
    for content in pickles():
        tried(READERS[name], content, scratch)
    assert not Path("RAN").exists()


def test_no_command_unpickles_what_lies_in_the_place_of_a_runs_files(here):
    for content in pickles()[::3]:
        for path in [Path("found.json"), *(p for p in Path("runs").rglob("*") if p.is_file())]:
            kept = path.read_bytes()
            path.write_bytes(content)
            if path.suffix in (".safetensors", ".json", ".toml", ".db"):
                verb = "search" if "search" in str(path) else "netaug-train"
                call(verb, "--resume", "--run", f"runs/{verb}-1")
                if path.name == "found.json":
                    call(*TRAIN, "--run", "other", "--set", "epochs=1")
            path.write_bytes(kept)
        for name in ("x.pt", "x.pt2", "x.onnx", "x.safetensors", "x.npy"):
            Path(name).write_bytes(content)
            with pytest.raises(BadInput):
                nasaug.load(name)
        assert pixel_cache.read(Path("x.safetensors"), 3) is None
    assert not Path("RAN").exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_sets_in_pickles_are_read_only_if_they_are_the_published_ones(scratch, monkeypatch, name):
    monkeypatch.setenv("NASAUG_DATA", str(scratch))
    monkeypatch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
    monkeypatch.setattr("socket.socket.connect", lambda *a: (_ for _ in ()).throw(OSError("no network")))
    places = {
        "cifar10": ["cifar-10-batches-py/" + f for f in ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)))],
        "cifar100": ["cifar-100-python/" + f for f in ("meta", "train", "test")],
        "imagenet": ["imagenet/" + f for f in ("meta.bin", "ILSVRC2012_devkit_t12.tar.gz")],
    }[name]
    for content in (pickles()[2], pickles()[-1]):
        for place in places:
            Path(place).parent.mkdir(exist_ok=True)
            Path(place).write_bytes(content)
        assert call(*f"train --arch mobilenetv2-tiny --data {name}".split()).code == 2
    assert not Path("RAN").exists()


def test_annotations_and_targets_cannot_name_files_outside_their_folder(scratch):
    outside = scratch / "a.png"
    outside.write_bytes((scratch / "labels" / "a.png").read_bytes())
    for name in ("../a.png", str(outside), "x/../../a.png"):
        (scratch / "labels" / "labels.csv").write_text(f"file,value\nb.png,1\n{name},2\n")
        with pytest.raises(BadInput, match="must lie below"):
            numbers.listing(str(scratch / "labels"))
        images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "b.png"}]
        (scratch / "coco" / "instances.json").write_text(json.dumps(COCO | {"images": images}))
        with pytest.raises(BadInput, match="lies outside|is missing"):
            boxes.find(str(scratch / "coco"))


def test_lists_of_sets_cannot_name_files_outside_their_folder(scratch, monkeypatch):
    monkeypatch.setenv("NASAUG_DATA", str(scratch))
    place = scratch / "CUB_200_2011"
    place.mkdir()
    lists = {
        "images.txt": "1 ../../a.png\n2 b/b.png\n", "image_class_labels.txt": "1 1\n2 1\n",
        "train_test_split.txt": "1 1\n2 0\n", "classes.txt": "1 a\n",
    }  # fmt: skip
    for name, content in lists.items():
        (place / name).write_text(content)
    with pytest.raises(BadInput, match=r"names '\.\./a\.png', which lies outside"):
        load(DataConfig(name="cub200"))


def test_archives_that_are_not_the_published_ones_are_not_unpacked(scratch, monkeypatch):
    evil, here = io.BytesIO(), scratch / "here"
    here.mkdir()
    with tarfile.open(fileobj=evil, mode="w:gz") as archive:
        for name in ("../escaped", "../../escaped", str(scratch / "escaped"), "plain"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    fetched = []

    def fetch(url, filename, *_, **__):
        fetched.append(url)
        Path(filename).write_bytes(evil.getvalue())

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", fetch)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    names = ("cifar10", "cifar100", "food101", "flowers102", "pets")
    for name in names:
        told = call(*f"train --arch mobilenetv2-tiny --data {name}".split())
        assert told.code == 2 and "download failed" in told.err and told.err.count("\n") == 1
    assert len(fetched) >= len(names) and not [path for path in scratch.rglob("*") if path.name in ("escaped", "plain")]


def test_links_in_a_runs_folder_lead_no_writer_outside(here):
    """A file that a run writes takes the place of a link, and what a link names is neither written nor deleted."""
    outside = here / "outside"
    (outside / "folder").mkdir(parents=True)
    kept = {name: (outside / name) for name in ("result.json", "log.jsonl", "checkpoint.safetensors", "env.json")}
    run = here / "runs/netaug-train-1"
    for name, path in kept.items():
        path.write_bytes((run / name).read_bytes() if (run / name).exists() else b"")
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(path)
    kept["result.json"].unlink()  # a link that leads nowhere: the run is not finished
    before = {path: path.read_bytes() for path in outside.iterdir() if path.is_file()}
    done("netaug-train", "--resume", "--run", str(run))
    assert before == {path: path.read_bytes() for path in outside.iterdir() if path.is_file()}
    assert (run / "result.json").is_file() and not (run / "result.json").is_symlink()

    (run / "job.json").unlink()
    (run / "linked").symlink_to(outside)
    processes._clear(run)
    assert (outside / "folder").is_dir() and not (run / "linked").is_symlink()


def png(width: int, height: int) -> bytes:
    """A PNG of almost no bytes that declares this size."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_images_of_gigapixels_are_refused_by_their_headers(tmp_path):
    import numpy as np

    content = png(100_000, 100_000)
    (tmp_path / "x.png").write_bytes(content)
    for read in (lambda: header(bytes(tmp_path / "x.png")), lambda: check(content),
                 lambda: decoded(np.frombuffer(content, dtype=np.uint8), "white")):  # fmt: skip
        with pytest.raises(Unreadable, match="exceeds limit"):
            read()


def test_sizes_that_files_declare_take_no_memory(scratch):
    for size in (1 << 40, (1 << 64) - 1, 1 << 27):
        Path("x.safetensors").write_bytes(struct.pack("<Q", size) + b"{}")
        with pytest.raises(BadInput, match="truncated or not a safetensors"):
            tensorfile.read("x.safetensors")
    declared = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    text = json.dumps(declared).encode()
    Path("x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(BadInput, match="truncated or not a safetensors"):
        tensorfile.read("x.safetensors")
    Path("train-images-idx3-ubyte").write_bytes(struct.pack(">HBBIII", 0, 8, 3, *[0xFFFFFFFF] * 3))
    assert not tried(READERS["idx"], Path("train-images-idx3-ubyte").read_bytes(), scratch)


def test_a_plan_of_endless_layers_is_not_built_for_a_small_file(scratch):
    small = plan(SPACE, SPACE.smallest, 10)
    told = small.to_dict()
    for row in told["blocks"][:-1]:
        row |= {"width": 1 << 20} if row.get("width") else {}
    huge = from_dict(told)
    save_net(Path("m.safetensors"), Net(small, 0))
    tensors, state = tensorfile.read("m.safetensors")
    tensorfile.write("m.safetensors", tensors, state | {"plan": huge.to_dict()})
    with pytest.raises(BadInput, match="do not fit its plan"):
        load_net(Path("m.safetensors"))


def test_entities_of_xml_do_not_grow(scratch):
    bombs = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = f'<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">{bombs}]><annotation><filename>&a11;</filename></annotation>'
    assert not tried(READERS["voc"], text.encode(), scratch)
