"""The operators that were made fast give the images of the plain forms that they replaced, up to rounding."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torchvision.transforms.v2.functional import equalize

from nasaug.robustness import corruptions
from nasaug.robustness.constants import SEVERITIES, strength
from support.pictures import pictures


def zoom_blur(x, c, random):
    step, count = c
    zooms = [corruptions._zoom(x.shape[-1], 1 + step * i) for i in range(count)]
    return (x + sum(z @ x @ z.T for z in zooms)) / (count + 1)


def motion(x, radius, sigma, angles):
    """Each image by itself, tap by tap."""
    taps = np.exp(-(np.arange(2 * int(radius) + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    count, side = int(np.searchsorted(np.cumsum(taps), 1 - 0.25 / 255)) + 1, x.shape[-1]
    padded, total = F.pad(x, [count] * 4, mode="replicate"), torch.zeros(x.shape)
    for i, angle in enumerate(np.deg2rad(angles)):
        for tap in range(count):
            top, left = (count + int(np.ceil(tap * part(angle) - 0.5)) for part in (np.sin, np.cos))
            total[i].add_(padded[i, :, top : top + side, left : left + side], alpha=taps[tap])
    return total


def box(x):
    return F.avg_pool2d(F.pad(x, [1] * 4, mode="reflect"), 3, 1)


def drops(x, c, random):
    """Spatter's water, with scipy's distance transform and torch's pooling and convolution."""
    mean, std, sigma, threshold, strong, _ = c
    n, side = len(x), x.shape[-1]
    blur = corruptions._gaussian(side, sigma)
    drawn = corruptions._normal(random, n, 1, side, side)
    liquid = blur @ (drawn * std + mean) @ blur.T
    liquid = liquid.masked_fill(liquid < threshold, 0)
    wet = liquid > 0
    rim = wet & (F.avg_pool2d(F.pad(wet.float(), [1] * 4, mode="replicate"), 3, 1) < 1)
    far = [distance_transform_edt(~each[0]) if each.any() else np.full((side, side), 20.0) for each in rim.numpy()]
    far = torch.from_numpy(np.minimum(np.stack(far), 20).astype(np.float32))[:, None]
    far = equalize(box(far).to(torch.uint8)).float()
    kernel = torch.tensor([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]])[None, None]
    lit = box(F.conv2d(F.pad(far, [1] * 4, mode="reflect"), kernel).clamp(0, 255))
    cover = liquid * lit
    cover = cover / cover.amax((1, 2, 3), keepdim=True).clamp(min=1e-6) * strong
    water = torch.tensor([238.0, 238.0, 175.0]).view(1, 3, 1, 1) / 255
    return x + cover * (corruptions._grey(water) if x.shape[1] == 1 else water)


def alike(name, severities, plain):
    """Whether the operator's values in [0, 1] are the plain one's to a hundredth of a grey level."""
    fast = corruptions._CORRUPTIONS[name]
    for images in (pictures(12, 3, 32, 32), pictures(5, 1, 32, 32), pictures(3, 3, 48, 48), pictures(3, 3, 9, 9)):
        for severity in severities:
            c, x = strength(name, severity, images.shape[-1]), images.float() / 255
            found = fast(x.clone(), c, np.random.default_rng(1))
            wanted = plain(x.clone(), c, np.random.default_rng(1))
            assert (found - wanted).abs().max() < 0.01 / 255, (images.shape, severity)


def test_zoom_blur_in_one_product_is_the_mean_of_the_zooms():
    alike("zoom-blur", SEVERITIES, zoom_blur)


def test_spatters_drops_are_those_of_scipys_distance_transform():
    alike("spatter", (1, 2, 3), drops)


@pytest.mark.parametrize("name", ["motion-blur", "snow"])
def test_motion_blur_of_a_batch_is_that_of_each_image(name, monkeypatch):
    def plain(*drawn):
        with monkeypatch.context() as patch:
            patch.setattr(corruptions, "_motion", motion)
            return corruptions._CORRUPTIONS[name](*drawn)

    alike(name, (1, 4, 5), plain)


def test_distances_are_exact_and_capped():
    rim = torch.rand(40, 31, 6, generator=torch.Generator().manual_seed(0)) < 0.004
    rim[..., 5] = False
    for i in range(5):
        exact = np.minimum(distance_transform_edt(~rim[..., i].numpy()), 20)
        assert rim[..., i].any() and np.allclose(corruptions._distance(rim)[..., i].numpy(), exact, atol=1e-5)
    assert (corruptions._distance(rim)[..., 5] == 20).all()
