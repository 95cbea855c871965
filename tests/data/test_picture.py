"""As a viewer shows images: EXIF orientation, transparency on a background; damage is reported, whatever is raised."""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nasaug.core.errors import BadInput
from nasaug.data import DataConfig, load, picture
from nasaug.data.picture import Unreadable
from support.images import config, contents, write_folder

HALVES = Image.new("RGB", (16, 16), "black")
ImageDraw.Draw(HALVES).rectangle((0, 0, 15, 7), fill="white")  # the upper half is white


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(form, tag):
    """An image shown with its upper half white, whatever the pixel order in the file."""
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270,
            2: Image.Transpose.FLIP_LEFT_RIGHT, 5: Image.Transpose.TRANSPOSE}[tag]  # fmt: skip
    exif = Image.Exif()
    exif[picture.ORIENTATION] = tag
    return saved(HALVES.transpose(back) if back is not None else HALVES, form, exif=exif)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("tag", [1, 2, 3, 5, 6, 8])
def test_images_are_turned_as_their_tag_says(form, tag):
    content = turned(form, tag)
    seen = picture.pixels(content, "RGB", "white").astype(int)
    assert np.abs(seen - np.asarray(HALVES)).max() <= 10
    streamed = picture.decoded(np.frombuffer(content, dtype=np.uint8).copy(), "white").permute(1, 2, 0).numpy()
    assert np.array_equal(streamed, seen)


def icon(mode):
    """A black square on transparency. All colours are black, so only the alpha channel holds the shape."""
    alpha = Image.new("L", (8, 8), 0)
    ImageDraw.Draw(alpha).rectangle((2, 2, 5, 5), fill=255)
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putalpha(alpha)
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
@pytest.mark.parametrize(("background", "colour"), [("white", (255,) * 3), ("#102030", (16, 32, 48))])
def test_transparent_images_lie_on_the_background(mode, background, colour):
    content = (
        saved(icon("RGBA").quantize(4), "PNG") if mode == "P" else saved(icon(mode), "TIFF" if mode == "PA" else "PNG")
    )
    seen = picture.pixels(content, "RGB", background)
    assert tuple(seen[0, 0]) == colour and tuple(seen[3, 3]) == (0, 0, 0)


def test_a_grey_image_with_one_transparent_value_too(tmp_path):
    path = tmp_path / "grey.png"
    path.write_bytes(saved(Image.new("L", (8, 8), 9), "PNG", transparency=9))
    assert picture.header(path) == (8, 8, "RGB")
    assert tuple(picture.pixels(path.read_bytes(), "RGB", "red")[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_the_background_is_an_option_of_the_recipe(tmp_path, memory_mb):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        for i in range(20):
            image = icon("RGBA")
            image.putpixel((0, 0), (i, seed, 0, 255))
            image.save(tmp_path / name / f"{i}.png")
    white, blue = (
        load(config(tmp_path, memory_mb=memory_mb, workers=0, background=colour)) for colour in ("white", "blue")
    )
    assert white.key == blue.key and contents(white.val) != contents(blue.val)
    with pytest.raises(BadInput, match="data.background = blurple is not a colour: give white, black"):
        DataConfig(background="blurple")


@pytest.mark.parametrize("memory_mb", [0, 100])
def test_images_of_one_colour_and_classes_of_one_image_are_told(tmp_path, memory_mb):
    folder = write_folder(tmp_path / "data", each=20)
    for i in range(20):
        Image.new("RGB", (8, 8), "grey").save(folder / "cat" / f"{i:03}.png")
    told = load(config(folder, memory_mb=memory_mb, workers=0)).told()
    assert "warning: all 20 images of class 'cat' are the same" in told and "nearly of" not in told
    for i in range(20):
        Image.new("RGB", (8, 8), (128, 128, 128 + i % 2)).save(folder / "dog" / f"{i:03}.png")
    assert "are almost a single colour" in load(config(folder, memory_mb=memory_mb, workers=0)).told()


def png_with(kind, body):
    """A PNG file with a chunk of this kind and body before its pixels."""
    whole = saved(HALVES, "PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return whole[:33] + chunk + whole[33:]


DAMAGED = {
    "empty": b"",
    "text": b"not an image",
    "cut.jpg": saved(HALVES.resize((64, 64)), "JPEG")[:200],
    "cut.png": saved(HALVES.resize((64, 64)).effect_spread(9), "PNG")[:150],
    "cut.gif": saved(HALVES, "GIF")[:60],
    "cut.bmp": saved(HALVES, "BMP")[:300],
    "cut.tiff": saved(HALVES, "TIFF")[:-40],
    "cut.webp": saved(HALVES.effect_spread(5), "WEBP")[:90],
    "profile": png_with(b"iCCP", b"x" * 9),
    "wide.png": saved(HALVES, "PNG").replace(struct.pack(">II", 16, 16), struct.pack(">II", 16, 2**31 - 1)),
    "strips.tiff": saved(HALVES, "TIFF").replace(b"\x11\x01\x04\x00", b"\x11\x01\x07\x00"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_a_decoder_raises_the_image_is_unreadable_or_read(name):
    content = DAMAGED[name]
    for work in (
        lambda: picture.pixels(content, "RGB", "white"),
        lambda: picture.decoded(np.frombuffer(content, dtype=np.uint8).copy(), "white"),
        lambda: picture.check(content),
    ):
        try:
            work()
        except Unreadable as error:
            assert "\n" not in str(error) and str(error) and "BytesIO" not in str(error)
        else:
            assert name in ("profile", "cut.gif")  # which can be read nevertheless


@pytest.mark.parametrize("kind", [IndexError, struct.error, RuntimeError, MemoryError, KeyError, zlib.error])
def test_a_decoder_that_stumbles_names_its_file(tmp_path, monkeypatch, kind):
    folder = write_folder(tmp_path / "data", each=20)
    opened = Image.open

    def stumbling(file, *args):
        image = opened(file, *args)
        if image.size == (9, 9):
            image.load = image.convert = lambda *_: (_ for _ in ()).throw(kind("oh"))
        return image

    Image.new("RGB", (9, 9)).save(folder / "cat" / "007.png")
    monkeypatch.setattr(Image, "open", stumbling)
    with pytest.raises(BadInput, match=r"1 of 40 images .*cat/007\.png' \(.*oh"):
        load(config(folder))


def test_strips_do_not_fill_the_memory(tmp_path):
    folder = write_folder(tmp_path / "data", each=10, size=(20, 20))
    Image.effect_noise((1, 60_000), 50).convert("RGB").save(folder / "cat" / "000.png")
    Image.effect_noise((60_000, 1), 50).convert("RGB").save(folder / "dog" / "000.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = load(config(folder, workers=0), size=160)
    for split in (data.train, data.val, data.finish()):
        for images, _ in split.ordered(8):
            assert images.shape[1:] == (3, 160, 160)
    list(data.train.batches(4, seed=0, epoch=0))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB; 6.5 GB per strip before
