"""The corruptions: what they do to images, and that they do it alike for every net."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch

from nasaug.robustness.constants import COMMON, EXTRA, SEVERITIES, size_of, strength
from nasaug.robustness.corruptions import corrupt, frost_at


def pictures(n=8, side=32, channels=3):
    """Smooth coloured shapes, uint8."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(n, channels, 5, 5, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    return (20 + 200 * x.clamp(0, 1)).to(torch.uint8)


def change(one, two):
    return (one.float() - two.float()).abs().mean().item()


@pytest.mark.parametrize("name", [*COMMON, *EXTRA])
def test_each_corruption_depends_on_seed_severity_and_place_alone(name):
    for x in (pictures(), pictures(channels=1), pictures(n=3, side=8)):
        before = x.clone()
        torch.manual_seed(len(x))
        np.random.seed(len(x))
        first = corrupt(x, name, 3)
        assert torch.equal(x, before)
        assert first.shape == x.shape and first.dtype == torch.uint8
        assert torch.equal(first, corrupt(x, name, 3))
    x = pictures()
    assert change(x, corrupt(x, name, 5)) > 0.5
    drawn = {"brightness", "contrast", "pixelate", "jpeg", "defocus-blur", "zoom-blur", "gaussian-blur", "saturate"}
    for other in ({"seed": 1}, {"block": 1}):
        assert torch.equal(corrupt(x, name, 3), corrupt(x, name, 3, **other)) == (name in drawn)


@pytest.mark.parametrize("name", sorted({*COMMON} - {"glass-blur", "elastic", "snow", "frost"}))  # need not rise
def test_higher_severities_change_images_more(name):
    x = pictures(32)
    changes = [change(x, corrupt(x, name, severity)) for severity in SEVERITIES]
    assert changes[0] < changes[2] < changes[4]


def test_common_corruptions_and_those_for_validation_are_apart():
    assert len(COMMON) == 15 and len(EXTRA) == 4 and not {*COMMON} & {*EXTRA}
    assert size_of(28) == size_of(64) == 32 and size_of(160) == size_of(224) == 224
    for name in (*COMMON, *EXTRA):
        for side in (32, 224):
            assert len([strength(name, severity, side) for severity in SEVERITIES]) == 5
            assert corrupt(pictures(1, side), name, 1).shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("name", "std"), [("gaussian-noise", 0.08), ("speckle-noise", 0.12 * 0.5), ("shot-noise", 0.0707)]
)
def test_noise_has_the_published_spread(name, std):
    x = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    noise = corrupt(x, name, 3).double() / 255
    assert noise.std().item() == pytest.approx(std, rel=0.03)
    assert noise.mean().item() == pytest.approx(0.5, abs=0.004)


def test_impulse_noise_sets_the_published_share_of_values_to_black_or_white():
    noisy = corrupt(torch.full((64, 3, 32, 32), 100, dtype=torch.uint8), "impulse-noise", 5)
    assert (noisy == 0).double().mean().item() == pytest.approx(0.035, abs=0.002)
    assert (noisy == 255).double().mean().item() == pytest.approx(0.035, abs=0.002)


@pytest.mark.parametrize("name", ["gaussian-blur", "defocus-blur", "glass-blur", "motion-blur", "zoom-blur", "elastic"])
def test_what_moves_pixels_leaves_a_single_colour_as_it_is(name):
    x = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 32, 32).contiguous()
    for severity in SEVERITIES:
        assert (corrupt(x, name, severity).int() - x.int()).abs().max() <= 1


def test_zoom_blur_is_the_mean_of_scipys_zooms():
    from scipy.ndimage import zoom

    x = pictures(2)
    for severity, count in ((1, 7), (5, 26)):
        for image, made in zip(x.double().numpy(), corrupt(x, "zoom-blur", severity), strict=True):
            total = image.copy()
            for factor in 1 + 0.01 * np.arange(count):
                cut = int(np.ceil(32 / factor))
                first = (32 - cut) // 2
                larger = zoom(image[:, first : first + cut, first : first + cut], (1, factor, factor), order=1)
                trim = (larger.shape[1] - 32) // 2
                total += larger[:, trim : trim + 32, trim : trim + 32]
            assert np.abs(total / (count + 1) - made.numpy()).max() <= 1.5


def test_colour_corruptions_follow_hsv():
    import colorsys

    x = pictures(2)
    for name, part, change_of in (
        ("brightness", 2, lambda v: min(1, v + 0.15)), ("saturate", 1, lambda s: min(1, s * 1.5)),
    ):  # fmt: skip
        made = corrupt(x, name, 3)
        for row, column in ((0, 0), (7, 20), (31, 31)):
            hsv = list(colorsys.rgb_to_hsv(*(x[1, :, row, column].double() / 255).tolist()))
            hsv[part] = change_of(hsv[part])
            expected = torch.tensor(colorsys.hsv_to_rgb(*hsv)) * 255
            assert (made[1, :, row, column] - expected).abs().max() <= 1.01
    grey = pictures(channels=1)
    assert torch.equal(corrupt(grey, "saturate", 5), grey)


def test_pixelate_is_pillows_box_filter_and_jpeg_is_pillows():
    import io

    from PIL import Image

    x = pictures(2)
    for severity, quality, side in ((1, 80, 30), (5, 40, 20)):
        for image, small, coded in zip(x, corrupt(x, "pixelate", severity), corrupt(x, "jpeg", severity), strict=True):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            boxed = np.asarray(picture.resize((side, side), Image.BOX).resize((32, 32), Image.BOX))
            assert np.abs(boxed.astype(int) - small.permute(1, 2, 0).numpy()).max() <= 1
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            assert change(torch.from_numpy(np.array(Image.open(file))), coded.permute(1, 2, 0)) < 1


def test_photographs_of_frost_are_cropped_and_scaled():
    photographs = (torch.full((3, 400, 300), 255, dtype=torch.uint8), torch.full((3, 20, 20), 255, dtype=torch.uint8))
    scaled = frost_at(photographs, 32)
    assert [tuple(each.shape[1:]) for each in scaled] == [(80, 60), (32, 32)]
    x = torch.full((4, 3, 32, 32), 100, dtype=torch.uint8)
    assert (corrupt(x, "frost", 1, frosts=scaled).int() - (100 + 51)).abs().max() <= 1
    assert change(x, corrupt(x, "frost", 1)) > 1


PEER = importlib.util.find_spec("imagecorruptions") is not None


@pytest.mark.skipif(not PEER, reason="imagecorruptions-imaug is not installed (extra robust)")
# docs/howto/robustness.md says how these three differ
@pytest.mark.parametrize("name", sorted({*COMMON, *EXTRA} - {"frost", "elastic", "spatter"}))
def test_corruptions_are_as_strong_as_the_published_ones(name):
    """At 224 px, the only constants that the peer has: the mean change, and its sign."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from imagecorruptions import corrupt as published

    x, theirs = pictures(6, 224), {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}.get(name)
    for severity in (1, 3, 5):
        ours = corrupt(x, name, severity)
        asked = {"corruption_name": theirs or name.replace("-", "_"), "severity": severity}
        other = [published(each.permute(1, 2, 0).numpy(), **asked) for each in x]
        other = torch.stack([torch.from_numpy(np.ascontiguousarray(each)) for each in other]).permute(0, 3, 1, 2)
        assert change(x, ours) == pytest.approx(change(x, other), rel=0.15, abs=0.7)
