"""Predictions: every kind of picture is seen as training saw it, and what is no picture is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from nasaug.arch.plan import plan
from nasaug.core.errors import BadInput
from nasaug.data import picture
from nasaug.deployment.predict import Model
from support.spaces import SPACES

SPACE = SPACES["squeeze"]
FACTS = {"mean": [0.5] * 3, "std": [0.25] * 3, "classes": ["a", "b", "c"]}


def model_with(**facts):
    torch.manual_seed(0)
    model = Model(plan(SPACE, SPACE.smallest, 3), FACTS | facts)
    model.reset(0)
    px = model.plan.resolution
    return model.train().calibrate([torch.randn(32, 3, px, px)]).eval()


@pytest.fixture(scope="module")
def model():
    return model_with()


def photo(seed=0, size=(40, 30)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def seen_by(model, image):
    (found,) = model.predict([image])
    return found.probabilities


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "L", "1", "P", "RGBA", "LA"])
def test_an_image_of_any_mode_is_seen_as_its_colours(model, mode):
    image = photo().convert(mode)
    torch.testing.assert_close(seen_by(model, image), seen_by(model, image.convert("RGB")))


def test_a_turned_image_is_seen_alike_as_a_file_and_opened(model, tmp_path):
    exif = Image.Exif()
    exif[picture.ORIENTATION] = 6
    photo().save(tmp_path / "phone.png", exif=exif)
    by_path, opened = seen_by(model, tmp_path / "phone.png"), seen_by(model, Image.open(tmp_path / "phone.png"))
    assert torch.equal(by_path, opened)
    assert not torch.allclose(by_path, seen_by(model, photo()))


def test_transparency_lies_on_the_background_of_training():
    clear = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    black, white = (Image.new("RGB", (16, 16), colour) for colour in ("black", "white"))
    model = model_with(background="black")
    assert torch.equal(seen_by(model, clear), seen_by(model, black))
    assert torch.equal(seen_by(model_with(), clear), seen_by(model, white))
    assert not torch.allclose(seen_by(model, black), seen_by(model, white))


@pytest.mark.parametrize("central", [1.0, 0.875])
def test_a_tensor_is_cut_as_a_picture_is(central):
    model, image = model_with(central=central), photo(size=(60, 40))
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    torch.testing.assert_close(model.predict(tensor)[0].probabilities, seen_by(model, image))


def truncated():
    file = io.BytesIO()
    photo().save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:-900]))


@pytest.mark.parametrize(
    ("images", "told"),
    [([5], "an image is a int; give paths"), ([np.zeros((8, 8, 3), np.uint8)], "an image is a ndarray; give paths"),
     (None, "a list of images"), ([Image.new("I;16", (8, 8))], "more than 8 bits"), ([truncated()], "truncated"),
     ([Image.new("F", (8, 8))], "more than 8 bits"), (torch.zeros(3, 8, 8, dtype=torch.uint8), "must be uint8")],
)  # fmt: skip
def test_what_is_no_image_is_refused(model, images, told):
    with pytest.raises(BadInput, match=told):
        model.predict(images)


def test_a_net_in_training_mode_is_refused_and_left_as_it_was():
    model = model_with().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(BadInput, match=r"call eval\(\) first"):
        model.predict([photo()])
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
