"""The common corruptions of Hendrycks and Dietterich (ICLR 2019), on batches of uint8 images.

Written from the paper and its published code, which works image by image and draws from one global generator. Here an
image's noise depends only on (seed, corruption, severity, place), so every net sees the same corrupted images.
docs/howto/robustness.md lists where an operator is not exactly the published one.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import COMMON, EXTRA, SMALL, size_of, strength

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK = 256  # images that share a generator
GREY = (0.299, 0.587, 0.114)
Frosts = tuple[Tensor, ...]  # photographs of frost, uint8 [3, h, w] each


def corrupt(
    images: Tensor, name: str, severity: int, *, block: int = 0, seed: int = 0, frosts: Frosts = ()
) -> Tensor:  # fmt: skip
    """The corrupted images, uint8 like `images` [n, 1 or 3, h, h], on the CPU.

    Args:
        name: one of COMMON or EXTRA.
        severity: 1 to 5.
        block: the number of this batch in its split, for batches of BLOCK images.
        frosts: photographs for `frost`; without any, a drawn stand-in.
    """
    random = np.random.default_rng((seed, zlib.crc32(name.encode()), severity, block))
    c = strength(name, severity, images.shape[-1])
    if name in _ON_BYTES:
        return _ON_BYTES[name](images, c, random)
    x = images.float().div_(255)
    x = _frost(x, c, random, frosts) if name == "frost" else _CORRUPTIONS[name](x, c, random)
    return x.clamp_(0, 1).mul_(255).to(torch.uint8)  # truncated, as published


_QUANTILES = 2048  # equally probable ones of a distribution, as what is drawn; a table of them fits into a core's cache
_AT = (np.arange(_QUANTILES) + 0.5) / _QUANTILES


@functools.cache
def _standard_normal() -> np.ndarray:
    from scipy.stats import norm

    return norm.ppf(_AT)


def _normal(random: np.random.Generator, *shape: int) -> Tensor:
    drawn = random.integers(0, _QUANTILES, shape, dtype=np.uint16)
    return torch.from_numpy(_standard_normal().astype(np.float32).take(drawn))


def _uniform(random: np.random.Generator, *shape: int) -> Tensor:
    """In [-1, 1)."""
    return torch.from_numpy(random.random(shape, dtype=np.float32)).mul_(2).sub_(1)


# --- noise ---


def _noisy(noise: Callable[[float], np.ndarray], images: Tensor, c: float, random: np.random.Generator) -> Tensor:
    drawn = random.integers(0, _QUANTILES, images.shape, dtype=np.uint16)
    index = torch.from_numpy(drawn).to(torch.int32).add_(images.to(torch.int32) * _QUANTILES)
    return _table(noise, c)[index.flatten()].view(images.shape)


@functools.lru_cache(16)
def _table(noise: Callable[[float], np.ndarray], c: float) -> Tensor:
    """The noisy pixel, uint8 [256 x _QUANTILES], for each value of a pixel at equally probable quantiles of the noise:
    drawing from this table is faster than drawing from the distribution (docs/howto/robustness.md)."""
    return torch.from_numpy((np.clip(noise(c), 0, 1) * 255).astype(np.uint8).reshape(-1))


_VALUES = (np.arange(256) / 255)[:, None]


def _gaussian_noise(c: float) -> np.ndarray:
    return _VALUES + c * _standard_normal()


def _speckle_noise(c: float) -> np.ndarray:
    return _VALUES + c * _VALUES * _standard_normal()


def _shot_noise(c: float) -> np.ndarray:
    from scipy.stats import poisson

    counts = np.arange(int(c + 10 * math.sqrt(c)) + 10)
    return np.stack([np.searchsorted(poisson.cdf(counts, c * value), _AT) for value in _VALUES[:, 0]]) / c


def _impulse_noise(x: Tensor, c: float, random: np.random.Generator) -> Tensor:
    drawn = torch.from_numpy(random.random(x.shape, dtype=np.float32))
    return x.masked_fill_(drawn < c, 1.0).masked_fill_(drawn < c / 2, 0.0)


# --- blur ---


def _separable(x: Tensor, rows: Tensor, columns: Tensor | None = None) -> Tensor:
    """A linear map of each plane: rows [h', h] @ x [..., h, w] @ columns.T [w, w']."""
    return rows @ (x @ (rows if columns is None else columns).T)


@functools.lru_cache(64)
def _gaussian(side: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Tensor:
    """The matrix [side, side] of a Gaussian filter along one axis: scipy's, applied to unit vectors."""
    from scipy.ndimage import gaussian_filter1d

    unit = np.eye(side, dtype=np.float64)
    blurred = gaussian_filter1d(unit, sigma, axis=0, mode=mode, truncate=truncate) if sigma > 0 else unit
    return torch.from_numpy(blurred).float()


def _gaussian_blur(x: Tensor, c: float, random: np.random.Generator) -> Tensor:
    return _separable(x, _gaussian(x.shape[-1], c))


@functools.lru_cache(64)
def _disk(radius: float, sigma: float) -> Tensor:
    """A disk, antialiased by a small Gaussian, [k, k], without its border of zeros."""
    reach, width = (8, 1) if radius <= 8 else (int(radius), 2)
    at = torch.arange(-reach, reach + 1)
    disk = ((at[:, None] ** 2 + at[None] ** 2) <= radius**2).float()
    near = torch.arange(-width, width + 1)
    taps = torch.exp(-(near**2) / (2 * sigma**2))
    taps /= taps.sum()
    padded = F.pad((disk / disk.sum())[None, None], [width] * 4, mode="reflect")
    kernel = F.conv2d(padded, (taps[:, None] * taps[None])[None, None])[0, 0]
    seen = torch.nonzero(kernel.sum(0) > 1e-7).flatten()
    return kernel[seen[0] : seen[-1] + 1, seen[0] : seen[-1] + 1]


def _defocus_blur(x: Tensor, c: tuple[float, float], random: np.random.Generator) -> Tensor:
    kernel = _disk(*c)
    width = len(kernel) // 2
    planes = F.pad(x, [min(width, x.shape[-1] - 1)] * 4, mode="reflect").flatten(0, 1)[:, None]
    if width > x.shape[-1] - 1:  # images of a few px
        planes = F.pad(planes, [width - x.shape[-1] + 1] * 4, mode="replicate")
    if len(kernel) > 5:
        return F.conv2d(planes, kernel[None, None]).view(x.shape)
    side, blurred = x.shape[-1], torch.zeros_like(x)
    planes = planes.view(*x.shape[:2], *planes.shape[-2:])
    for dy, dx in torch.nonzero(kernel > 0).tolist():  # few taps: shifted sums are faster than a convolution
        blurred.add_(planes[..., dy : dy + side, dx : dx + side], alpha=kernel[dy, dx].item())
    return blurred


def _glass_blur(x: Tensor, c: tuple[float, int, int], random: np.random.Generator) -> Tensor:
    """Each pixel, from the last to the first, becomes a near one; before and after that, a blur.

    The published code means to exchange the two pixels but, since NumPy assigns through views, only copies; so are the
    published images, and these."""
    sigma, reach, passes = c
    n, side, blur = len(x), x.shape[-1], _gaussian(x.shape[-1], sigma)
    x = _separable(x, blur).mul_(255).to(torch.uint8).float().div_(255)
    sources = np.repeat(np.arange(side * side)[:, None], n, 1)  # of each pixel, by image
    at = np.arange(min(side - reach, side - 1), reach, -1)
    for _ in range(passes):
        steps = random.integers(-reach, reach, (2, len(at), len(at), n), dtype=np.int8).astype(np.int64)
        near = (at[:, None, None] + steps[0]) * side + at[:, None] + steps[1]
        if reach == 1:  # only earlier pixels are near, which are still untouched: all at once
            sources[(at[:, None] * side + at).ravel()] = np.take_along_axis(sources, near.reshape(-1, n), 0)
            continue
        for h, row in zip(at, near, strict=True):
            for w, those in zip(at, row, strict=True):
                sources[h * side + w] = np.take_along_axis(sources, those[None], 0)[0]
    index = torch.from_numpy(sources.T.copy())[:, None].expand(-1, x.shape[1], -1)
    return _separable(x.flatten(2).gather(2, index).view(x.shape), blur)


def _motion(x: Tensor, radius: float, sigma: float, angles: np.ndarray) -> Tensor:
    """ImageMagick's motion blur: a half Gaussian along a line, for each image at its angle (degrees).

    In the order of their angles, neighbours have a tap at the same pixel, and are shifted by it together. Taps that
    weigh less than a quarter of a grey level in all are left out."""
    taps = np.exp(-(np.arange(2 * int(radius) + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    taps = taps[: int(np.searchsorted(np.cumsum(taps), 1 - 0.25 / 255)) + 1]
    order = np.argsort(angles)
    along, radians = np.arange(len(taps)), np.deg2rad(angles[order])[:, None]
    down, right = (np.ceil(along * part(radians) - 0.5).astype(int) for part in (np.sin, np.cos))
    lows, highs = ([max(0, int((sign * by).max())) for by in (right, down)] for sign in (-1, 1))
    ordered = torch.from_numpy(order)
    padded = F.pad(x[ordered], [lows[0], highs[0], lows[1], highs[1]], mode="replicate")
    total = torch.zeros_like(x, memory_format=torch.contiguous_format)
    steps, own = padded.stride(), total.stride()
    places = (down + lows[1]) * steps[2] + (right + lows[0]) * steps[3] + np.arange(len(x))[:, None] * steps[0]
    ends = np.diff(places, axis=0) != steps[0]
    for tap, weight in enumerate(taps.tolist()):
        at, breaks = places[:, tap].tolist(), (np.flatnonzero(ends[:, tap]) + 1).tolist()
        for i, j in itertools.pairwise((0, *breaks, len(x))):
            size = (j - i, *x.shape[1:])  # strided views by hand, since slices take longer than the sum
            total.as_strided(size, own, i * own[0]).add_(padded.as_strided(size, steps, at[i]), alpha=weight)
    return torch.empty_like(total).index_copy_(0, ordered, total)


def _motion_blur(x: Tensor, c: tuple[float, float], random: np.random.Generator) -> Tensor:
    return _motion(x, *c, random.uniform(-45, 45, len(x)))


def _zoom(side: int, factor: float) -> Tensor:
    """The matrix [side, side] that enlarges the centre along one axis: linear, corners aligned, as scipy's zoom."""
    cut = math.ceil(side / factor)
    first, size = (side - cut) // 2, round(cut * factor)
    source = torch.arange(size, dtype=torch.float64) * ((cut - 1) / max(1, size - 1))
    low = source.floor().clamp(max=max(0, cut - 2)).long()
    matrix, at = torch.zeros(size, side, dtype=torch.float64), torch.arange(size)
    matrix[at, first + low] = 1 - (source - low)
    matrix[at, (first + low + 1).clamp(max=side - 1)] += source - low
    trim = (size - side) // 2
    return matrix[trim : trim + side].float()


@functools.lru_cache(16)
def _zooms(side: int, step: float, count: int) -> csr_array:
    """The mean of an image and its zooms as a matrix [pixels, pixels]. It is sparse, since they differ little."""
    from scipy.sparse import csr_array, eye_array, kron

    total = eye_array(side**2, format="csr")
    for i in range(count):
        zoom = csr_array(_zoom(side, 1 + step * i))
        total = total + kron(zoom, zoom, format="csr")
    return (total / (count + 1)).astype(np.float32)


def _zoom_blur(x: Tensor, c: tuple[float, int], random: np.random.Generator) -> Tensor:
    planes = x.flatten(2).flatten(0, 1).T.contiguous()  # the matrix's product is fast along rows
    return torch.from_numpy(_zooms(x.shape[-1], *c) @ planes.numpy()).T.reshape(x.shape)


# --- weather ---


def _grey(x: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else (x * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _snow(x: Tensor, c: tuple[float, ...], random: np.random.Generator) -> Tensor:
    mean, std, zoom, threshold, radius, sigma, share = c
    flakes = _normal(random, len(x), 1, *x.shape[-2:]).mul_(std).add_(mean)
    flakes = _separable(flakes, _zoom(x.shape[-1], zoom))
    flakes = F.threshold(flakes, threshold, 0).clamp_(0, 1)
    flakes = _motion(flakes, radius, sigma, random.uniform(-135, -45, len(x)))
    flakes = flakes + flakes.rot90(2, (2, 3))
    return (x * share).add_(torch.maximum(x, _grey(x) * 1.5 + 0.5), alpha=1 - share).add_(flakes)


def _fractal(random: np.random.Generator, n: int, side: int, decay: float) -> Tensor:
    """Plasma fractals in [0, 1], [n, 1, side, side], by the diamond-square algorithm on a torus."""
    size = max(SMALL, 256 if size_of(side) > SMALL else SMALL, 1 << (side - 1).bit_length())
    a = np.empty((n, size, size), dtype=np.float32)
    a[:, 0, 0] = 0
    step, wobble = size, 100.0

    def mean(total: np.ndarray) -> np.ndarray:
        drawn = random.random(total.shape, dtype=np.float32)
        return total / 4 + np.float32(wobble * wobble) * (2 * drawn - 1)

    while step >= 2:
        half = step // 2
        corners = a[:, ::step, ::step]
        total = corners + np.roll(corners, -1, 1)
        total = total + np.roll(total, -1, 2)
        a[:, half::step, half::step] = mean(total)
        centres = a[:, half::step, half::step]
        a[:, ::step, half::step] = mean(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 2))
        a[:, half::step, ::step] = mean(centres + np.roll(centres, 1, 2) + corners + np.roll(corners, -1, 1))
        step, wobble = half, wobble / decay
    a -= a.min((1, 2), keepdims=True)
    a /= a.max((1, 2), keepdims=True)
    return torch.from_numpy(a[:, None, :side, :side])


def _fog(x: Tensor, c: tuple[float, float], random: np.random.Generator) -> Tensor:
    weight, decay = c
    most = x.amax((1, 2, 3), keepdim=True)
    return torch.add(x, _fractal(random, len(x), x.shape[-1], decay), alpha=weight) * (most / (most + weight))


def _frost(x: Tensor, c: tuple[float, float], random: np.random.Generator, frosts: Frosts) -> Tensor:
    """The image and a random crop of a photograph; without photographs, bright and bluish ridges of fractals."""
    side, n = x.shape[-1], len(x)
    if frosts:
        layer = torch.empty(n, 3, side, side)
        for i, which in enumerate(random.integers(len(frosts), size=n)):
            height, width = frosts[which].shape[1:]
            top, left = random.integers(height - side + 1), random.integers(width - side + 1)
            layer[i] = frosts[which][:, top : top + side, left : left + side].float() / 255
    else:
        ridges = 1 - (2 * _fractal(random, n, side, 1.7) - 1).abs()
        layer = ridges**2 * torch.tensor([0.75, 0.85, 0.95]).view(1, 3, 1, 1)
    layer = _grey(layer) if x.shape[1] == 1 else layer
    return x.mul_(c[0]).add_(layer, alpha=c[1])


def frost_at(photographs: Frosts, side: int) -> Frosts:
    """The photographs at the scale for images of `side` px: a fifth for 32 px, as published, and never smaller than
    the images."""
    scale = 0.2 if size_of(side) == SMALL else 1.0

    def scaled(photograph: Tensor) -> Tensor:
        height, width = (max(side, round(scale * edge)) for edge in photograph.shape[1:])
        if (height, width) == tuple(photograph.shape[1:]):
            return photograph
        resized = F.interpolate(photograph[None].float(), (height, width), mode="bilinear", antialias=True)
        return resized.round().clamp(0, 255).to(torch.uint8)[0]

    return tuple(map(scaled, photographs))


# --- digital ---


def _brightness(x: Tensor, c: float, random: np.random.Generator) -> Tensor:
    """c added to the value of HSV: colours keep hue and saturation, so all channels grow by one factor."""
    value = x.amax(1, keepdim=True)
    factor = (value + c).clamp(max=1) / value.clamp(min=1e-6)
    return torch.where(value > 0, x * factor, torch.full_like(x, c))


def _contrast(x: Tensor, c: float, random: np.random.Generator) -> Tensor:
    return torch.lerp(x.mean((2, 3), keepdim=True), x, c)


def _saturate(x: Tensor, c: tuple[float, float], random: np.random.Generator) -> Tensor:
    """Saturation times and plus a constant (HSV). Grey images have no saturation and stay as they are."""
    if x.shape[1] == 1:
        return x
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    before = chroma / value.clamp(min=1e-6)
    after = (before * c[0] + c[1]).clamp(0, 1)
    # a pixel without a hue has hue 0, red, in the published code: its other channels fall by what is added
    red = torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    share = torch.where(chroma > 0, (value - x) / chroma.clamp(min=1e-6), red)
    return value - value * after * share


def _elastic(x: Tensor, c: tuple[float, float, float], random: np.random.Generator) -> Tensor:
    """A random affine map, then a smooth random displacement; both bilinear, reflected at the border."""
    n, side = len(x), x.shape[-1]
    alpha, sigma, reach = (side * part for part in c)
    centre, third = side // 2, side // 3
    before = np.array([[1, 1], [1, -1], [-1, -1]]) * third + centre
    after = before + random.uniform(-reach, reach, (n, 3, 2))
    ones = np.ones((n, 3, 1))
    solved = np.linalg.solve(np.concatenate([after, ones], 2), np.broadcast_to(before.astype(float), (n, 3, 2)))
    scale = 2 / (side - 1)
    at = torch.arange(side).float()
    back = torch.from_numpy(solved).float()
    grid = at[None, None, :, None] * back[:, 0, None, None] + at[None, :, None, None] * back[:, 1, None, None]
    grid = (grid + back[:, 2, None, None]) * scale - 1
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    if not alpha:
        return x
    moved = _separable(_uniform(random, n, 2, side, side), _gaussian(side, sigma, "reflect", 3.0)).mul_(alpha)
    yy, xx = torch.meshgrid(at, at, indexing="ij")
    grid = (moved.permute(0, 2, 3, 1) + torch.stack([xx, yy], -1)) * scale - 1
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def _spatter(x: Tensor, c: tuple[float, ...], random: np.random.Generator) -> Tensor:
    """Drops of water or mud. The drops' rims are the border of the thresholded liquid (published: Canny's edges)."""
    mean, std, sigma, threshold, strong, mud = c
    n, side = len(x), x.shape[-1]
    liquid = _separable(_normal(random, n, 1, side, side).mul_(std).add_(mean), _gaussian(side, sigma))
    liquid = F.threshold(liquid, threshold, 0)
    if mud:
        cover = _separable((liquid > threshold).float(), _gaussian(side, strong))
        cover = cover.masked_fill_(cover < 0.8, 0)
        brown = torch.tensor([63.0, 42.0, 20.0]).view(1, 3, 1, 1) / 255
        return x * (1 - cover) + cover * (_grey(brown) if x.shape[1] == 1 else brown)
    from torchvision.transforms.v2.functional import equalize

    liquid = liquid[:, 0].permute(1, 2, 0).contiguous()  # images last: neighbours are then whole rows
    wet = liquid > 0
    rim = wet & ~_over_window(_padded(wet, 0), torch.bitwise_and)
    far = _box(_distance(rim)).to(torch.uint8)
    far = equalize(far.permute(2, 0, 1)[:, None].contiguous())[:, 0].permute(1, 2, 0).to(torch.int16).contiguous()
    far = _padded(far, 1)
    up, at, down = far[:-2], far[1:-1], far[2:]
    lit = at[:, 1:-1] + at[:, 2:] + down[:, 1:-1] - up[:, 1:-1] - at[:, :-2] + 2 * (down[:, 2:] - up[:, :-2])
    cover = liquid * _box(lit.clamp_(0, 255).float())
    cover = cover.permute(2, 0, 1)[:, None].contiguous()
    cover = cover / cover.amax((1, 2, 3), keepdim=True).clamp(min=1e-6) * strong
    water = torch.tensor([238.0, 238.0, 175.0]).view(1, 3, 1, 1) / 255  # the published colour, in RGB order
    return torch.addcmul(x, cover, _grey(water) if x.shape[1] == 1 else water)


def _padded(x: Tensor, skipped: int) -> Tensor:
    """Images [h, w, n] with a border of one pixel: the edge's repeated (0 skipped), or mirrored about it (1)."""
    for axis in (0, 1):
        last = x.shape[axis] - 1
        first, end = (x.narrow(axis, min(max(0, place), last), 1) for place in (skipped, last - skipped))
        x = torch.cat([first, x, end], axis)
    return x


def _over_window(padded: Tensor, both: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`both` over the 3 x 3 pixels around each pixel inside the border."""
    rows = both(both(padded[:-2], padded[1:-1]), padded[2:])
    return both(both(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _box(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels of images [h, w, n]."""
    return _over_window(_padded(x, 1), torch.add).div_(9)


def _distance(rim: Tensor, most: int = 20) -> Tensor:
    """The distance of each pixel to the nearest one of its image's rim, at most `most`; images [h, w, n]. Without a
    rim: `most`."""
    down = (~rim).to(torch.int16).mul_(most)  # along the column, by two scans
    for i in range(1, len(down)):
        torch.minimum(down[i], down[i - 1] + 1, out=down[i])
    for i in range(len(down) - 2, -1, -1):
        torch.minimum(down[i], down[i + 1] + 1, out=down[i])
    squares = down * down
    least, width = squares.clone(), rim.shape[1]
    for by in range(1, min(most, width)):  # and then to every column that may be nearer
        if least.amax() <= by * by:
            break
        moved = squares + by * by
        for to, start in ((by, 0), (0, by)):
            there = least.narrow(1, to, width - by)
            torch.minimum(there, moved.narrow(1, start, width - by), out=there)
    return least.float().sqrt_()


def _pixelate(images: Tensor, c: float, random: np.random.Generator) -> Tensor:
    side = images.shape[-1]
    down, up = _boxes(side, max(1, int(side * c))), _boxes(max(1, int(side * c)), side)
    small = _separable(images.float(), down).add_(0.5).floor_()
    return _separable(small, up).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(64)
def _boxes(size: int, to: int) -> Tensor:
    """The matrix [to, size] of Pillow's BOX filter along one axis: the mean over whole pixels when shrinking, the
    nearest one when enlarging."""
    scale = size / to
    centre = (torch.arange(to, dtype=torch.float64) + 0.5) * scale
    support = 0.5 * max(scale, 1.0)
    low = (centre - support + 0.5).floor().clamp(min=0)
    high = (centre + support + 0.5).floor().clamp(max=size)
    at = torch.arange(size)
    offset = (at + 0.5 - centre[:, None]) / max(scale, 1.0)
    inside = (at >= low[:, None]) & (at < high[:, None]) & (offset > -0.5) & (offset <= 0.5)
    matrix = inside.double()
    return (matrix / matrix.sum(1, keepdim=True)).float()


def _jpeg(images: Tensor, c: int, random: np.random.Generator) -> Tensor:
    from torchvision.io import decode_jpeg, encode_jpeg

    return torch.stack(decode_jpeg(encode_jpeg(list(images.contiguous()), quality=c)))


Corruption = Callable[[Tensor, Any, np.random.Generator], Tensor]
_CORRUPTIONS: dict[str, Corruption] = {
    "impulse-noise": _impulse_noise,
    "defocus-blur": _defocus_blur, "glass-blur": _glass_blur, "motion-blur": _motion_blur, "zoom-blur": _zoom_blur,
    "snow": _snow, "fog": _fog, "brightness": _brightness, "contrast": _contrast, "elastic": _elastic,
    "gaussian-blur": _gaussian_blur, "spatter": _spatter, "saturate": _saturate,
}  # fmt: skip
_ON_BYTES: dict[str, Corruption] = {
    "gaussian-noise": partial(_noisy, _gaussian_noise), "shot-noise": partial(_noisy, _shot_noise),
    "speckle-noise": partial(_noisy, _speckle_noise), "pixelate": _pixelate, "jpeg": _jpeg,
}  # fmt: skip
assert {*_CORRUPTIONS, *_ON_BYTES, "frost"} == {*COMMON, *EXTRA}
