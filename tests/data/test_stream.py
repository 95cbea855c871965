import math
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nasaug.core.errors import BadInput, RunFault
from nasaug.data import folder as folders
from nasaug.data import load, picture
from nasaug.data import stream as streaming
from nasaug.data.stream import crop_box
from support.images import config, same, stream_split, write_folder


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


def test_streamed_evaluation_is_resize_and_centre_crop(tmp_path):
    folder = write_folder(tmp_path / "data", each=10, size=(50, 40))
    split = load(config(folder, memory_mb=0, workers=0), size=21).finish()
    for size in (21, 16):
        usual = transforms.Compose([transforms.Resize(math.ceil(size / 0.875)), transforms.CenterCrop(size)])
        files = [file for name in ("cat", "dog") for file in sorted((folder / name).iterdir())]
        expected = np.stack([np.asarray(usual(Image.open(file))).transpose(2, 0, 1) for file in files]).astype(int)
        found = torch.cat([images for images, _ in split.ordered(8, size)]).numpy()
        apart = np.abs(found[:, None].astype(int) - expected).max(axis=(2, 3, 4))  # each image against all files
        assert found.shape == (4, 3, size, size) and len(set(apart.argmin(1))) == len(split) == 4
        assert apart.min(1).max() <= 1  # Pillow rounds after each of the two passes


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
            assert (image.int() - transforms.functional.pil_to_tensor(cut).int()).abs().max() <= 1


@pytest.mark.filterwarnings("ignore:The image decoding")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("decoder", [True, False])
def test_jpeg_files_have_pillows_pixels(tmp_path, monkeypatch, mode, decoder):
    if not decoder:
        monkeypatch.setattr(picture, "jpeg_decoder", lambda: None)
    rng, path = np.random.default_rng(0), tmp_path / "image.jpg"
    Image.fromarray(rng.integers(0, 256, (33, 47, 3), dtype=np.uint8)).convert(mode).save(path, quality=80)
    expected = transforms.functional.pil_to_tensor(Image.open(path).convert("RGB"))
    assert torch.equal(picture.decoded(np.fromfile(path, dtype=np.uint8), "white"), expected)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(picture.Unreadable, match="truncated"):
        picture.decoded(np.fromfile(path, dtype=np.uint8), "white")


def test_a_killed_worker_is_a_fault_in_one_line(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nmore")
        yield

    monkeypatch.setattr(streaming, "DataLoader", killed)
    with pytest.raises(RunFault, match=r"pid 7.*data\.workers=0") as error:
        next(stream_split(tmp_path).ordered(4))
    assert "\n" not in str(error.value)


def test_a_decoding_process_that_is_killed_ends_the_epoch_in_one_line(tmp_path):
    others = set(multiprocessing.active_children())
    batches = stream_split(tmp_path, workers=1).batches(4, seed=0, epoch=0)
    next(batches)
    (decoder,) = set(multiprocessing.active_children()) - others
    decoder.kill()
    decoder.join()
    for _ in range(1000):  # torch's handler of SIGCHLD would raise here
        pass
    with pytest.raises(RunFault, match=rf"a decoding process failed \(.*{decoder.pid}.*data\.workers=0") as error:
        list(batches)
    assert "\n" not in str(error.value)


def test_streamed_images_are_decoded_once_before_training_and_all_bad_ones_are_named(tmp_path):
    folder = write_folder(tmp_path / "data", each=10, size=(64, 64))
    for name in ("cat/003.png", "dog/007.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"2 of 20 images in .*cat/003\.png.*dog/007\.png.*repair or remove") as error:
        load(config(folder, memory_mb=0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_of_many_streamed_images_a_sample_and_all_test_images_are_decoded_before(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(folders, "ALL_DECODED", 20)
    monkeypatch.setattr(folders, "SAMPLED", 7)
    for split, each in (("train", 30), ("test", 10)):
        write_folder(tmp_path / split, each=each, size=(64, 64), seed=each)
    bad = [tmp_path / name for name in ("test/dog/007.png", "train/cat/007.png", "train/cat/008.png")]
    good = [file.read_bytes() for file in bad]
    for file in bad:
        file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"2 of 29 images .*train/cat/007\.png.*test/dog/007\.png"):
        load(config(tmp_path, memory_mb=0))
    for file, content in zip(bad[:2], good[:2], strict=True):
        file.write_bytes(content)
    with pytest.raises(BadInput, match=r"cannot read the image '.*cat/008\.png'.*remove it, and.*resume") as error:
        data = load(config(tmp_path, memory_mb=0, workers=workers))
        for split in (data.train, data.val):  # whichever split has it
            list(split.ordered(4))
    assert "\n" not in str(error.value)
