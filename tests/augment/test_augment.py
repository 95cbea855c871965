import pytest
import torch
import torchvision.transforms.functional as TF

from nasaug import augment
from nasaug.augment import View, evaluation, make_view, resize
from nasaug.config.schedule import Curve
from nasaug.core.errors import BadInput

RAW = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # leaves pixels in [0, 1]


def noise(n=6, channels=3, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)


def draw(view, images, seed=0, **options):
    return make_view(view, images, torch.Generator().manual_seed(seed), **{**RAW, **options})


def candidates(image, pad, mirror):
    """Every (down, right, mirrored) crop of one reflect-padded uint8 image, as torchvision makes it."""
    size = image.shape[-1]
    padded = TF.pad(image, [pad] * 4, padding_mode="reflect")
    for down in range(2 * pad + 1):
        for right in range(2 * pad + 1):
            crop = TF.crop(padded, down, right, size, size)
            yield (down, right, False), crop
            if mirror:
                yield (down, right, True), TF.hflip(crop)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_one_crop_of_its_own_reflect_padded_self(channels):
    images = noise(n=40, channels=channels, size=16)
    out = (draw(View(crop=0.125), images) * 255).round().to(torch.uint8)
    seen = set()
    for image, result in zip(images, out, strict=True):
        crops = candidates(image.expand(3, -1, -1), 2, mirror=True)
        same = [key for key, crop in crops if torch.equal(crop, result)]
        assert len(same) == 1
        seen.add(same[0])
    assert len(seen) > 20  # of 50: drawn per image
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(5))


def test_half_of_the_images_are_mirrored_where_the_data_allow_it():
    images = noise(n=1000, size=4)
    out = draw(View(crop=0), images)
    plain = evaluation(images, **RAW)
    mirrored = (out == plain.flip(-1)).flatten(1).all(1)
    assert ((out == plain).flatten(1).all(1) ^ mirrored).all()
    assert 450 < mirrored.sum() < 550
    assert torch.equal(draw(View(crop=0), images, flip=False), plain)
    assert torch.equal(draw(View(crop=0, flip=False), images), plain)


@pytest.mark.parametrize(("view", "allowed"), [(View(), False), (View(flip=False), True)])
def test_crops_alone_are_never_mirrored(view, allowed):
    images = torch.arange(10, dtype=torch.uint8).expand(50, 1, 10, 10)  # brighter to the right
    inner = draw(view, images, flip=allowed)[..., 1:-1]
    assert (inner.diff() > 0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("view", [View(flip=False, crop=0), View(), View(brightness=0.2)])
def test_input_is_float_channels_last_with_three_channels(channels, view):
    x = draw(view, noise(channels=channels))
    assert x.shape == (6, 3, 12, 12) and x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_normalises_as_torchvision_and_repeats_grey(channels):
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    images = noise(channels=channels)
    expected = TF.normalize(images.expand(-1, 3, -1, -1) / 255, mean, std)
    torch.testing.assert_close(evaluation(images, mean, std), expected, rtol=1e-5, atol=1e-5)
    nothing = View(flip=False, crop=0, brightness=1e-9)  # the jittered path
    torch.testing.assert_close(draw(nothing, images, mean=mean, std=std), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("brightness", TF.adjust_brightness),
        ("contrast", TF.adjust_contrast),
        ("saturation", TF.adjust_saturation),
    ],
)
def test_jitter_is_torchvisions_with_a_factor_for_each_image(name, reference, channels, monkeypatch):
    images = noise(channels=channels)
    factors = torch.linspace(0.2, 1.8, len(images)).view(-1, 1, 1, 1)
    monkeypatch.setattr(augment, "_factors", lambda *_: factors)
    out = draw(View(flip=False, crop=0, **{name: 0.8}), images)
    expected = [reference(image / 255, factor.item()) for image, factor in zip(images, factors, strict=True)]
    torch.testing.assert_close(out, torch.stack(expected).expand(-1, 3, -1, -1), rtol=0, atol=1e-5)


def test_factors_are_uniform_around_one():
    images = torch.full((4000, 1, 1, 1), 100, dtype=torch.uint8)
    factors = draw(View(flip=False, crop=0, brightness=0.4), images)[:, 0, 0, 0] * 2.55
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4
    histogram = torch.histc(factors, bins=4, min=0.6, max=1.4)
    assert (histogram - 1000).abs().max() < 150


def test_views_depend_on_their_generator_alone():
    view, images = View(brightness=0.3, saturation=0.5), noise()
    torch.manual_seed(1)
    first, state = draw(view, images, seed=5), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(draw(view, images, seed=5), first)
    assert not torch.equal(draw(view, images, seed=6), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator was not touched


def test_a_batch_leaves_its_raw_images_as_they_were():
    images = noise()
    before = images.clone()
    draw(View(brightness=0.5, contrast=0.5, saturation=0.5), images)
    assert torch.equal(images, before)


def test_resize_is_the_identity_at_the_same_size_and_antialiased_when_shrinking():
    x = evaluation(noise(size=28), **RAW)
    assert resize(x, 28) is x
    torch.testing.assert_close(resize(x, 20), TF.resize(x, [20, 20], antialias=True))
    torch.testing.assert_close(resize(x, 32), TF.resize(x, [32, 32], antialias=False))
    assert resize(x, 20).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "bad",
    [
        {"crop": 0.6}, {"crop": -0.1}, {"brightness": 2}, {"saturation": -1}, {"magnitude": 31}, {"magnitude": -1},
        {"magnitude": {"kind": "linear", "start": 0, "end": 31}},
        {"magnitude": {"kind": "pruned", "start": 9, "end": 31}},
        {"magnitude": Curve(0.0, 1.0, 0.0, 40.0)},
        {"magnitude": {"kind": "steps", "at": [0.001, 0.005], "values": [9, 99, 9]}},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_strengths_are_refused_in_one_line(bad):
    with pytest.raises(BadInput, match=next(iter(bad))) as error:
        View(**bad)
    assert "\n" not in str(error.value) and "give 0 " in str(error.value)
