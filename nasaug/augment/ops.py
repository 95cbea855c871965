"""The operators of RandAugment and related policies on whole batches of uint8 images, with one value per image.

Results are bit-identical to torchvision.transforms.v2 for the same operator and value with nearest interpolation and
fill 0, with two limits: contrast up to 256 x 256 px, where the sum of grey levels is exact in float32; and geometric
operators only if torch rounds a sum of products like torchvision's matrix product, which can only affect pixels whose
source lies halfway between two others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import BadInput, unknown
from ..kernels import build
from ..kernels.choice import SAMPLES, select_operators

# torchvision's names, grouped by the batched function that computes them; Invert, which most policies lack, is last
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
TABLED = ("Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
OPERATORS = ("Identity", *GEOMETRIC, "Color", "Sharpness", *TABLED)
SIGNED = torch.tensor([1 <= index <= OPERATORS.index("Contrast") for index in range(len(OPERATORS))])
GREY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as torchvision rounds it


def apply(images: Tensor, operators: Tensor | str, values: Tensor | float) -> Tensor:
    """Apply an operator with a value to each image. Returns new uint8 [n, 1 or 3, h, w] on the images' device.

    Args:
        images: uint8 [n, 1 or 3, h, w].
        operators: int64 [n] on the CPU, indices into `OPERATORS`; or one name for all.
        values: float [n] on the CPU, or one number for all, in torchvision's units: shear as a slope; translation
            in px (truncated); rotation in degrees; brightness, colour, contrast and sharpness as a change of at least
            -1 (0 keeps the image); posterize as the number of bits to keep, 0 to 8; solarize as the threshold, a
            fraction of 255; ignored by the others.
    """
    n = len(images)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise BadInput(f"images are {images.dtype} {list(images.shape)}: give uint8 [n, 1 or 3, h, w]")
    if isinstance(operators, Tensor) and operators.shape != (n,):
        raise BadInput(f"operators are {list(operators.shape)} for {n} images: give one for each")
    if isinstance(operators, str):
        if operators not in OPERATORS:
            raise unknown("operator", operators, OPERATORS)
        operators = torch.full((n,), OPERATORS.index(operators))

    operators, values = operators.long(), torch.as_tensor(values, dtype=torch.float64).expand(n)
    if select_operators(images):
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        given = (images, out, operators, values)
        build.call("operators", *(tensor.contiguous() for tensor in given), *images.shape)
        return out
    return _by_torch(images, operators, values)


def _by_torch(images: Tensor, operators: Tensor, values: Tensor) -> Tensor:
    """`apply` for any device: sorts the images by operator and transforms each group in one batch."""
    order = operators.argsort(stable=True)
    ordered = images.index_select(0, order.to(images.device))
    values = values.index_select(0, order)
    counts = torch.bincount(operators, minlength=len(OPERATORS)).tolist()
    done, begun = [], 0
    for size, transform in _GROUPS:
        here, counts = counts[:size], counts[size:]
        part = slice(begun, begun := begun + sum(here))
        if sum(here):
            done.append(transform(ordered[part], values[part], here))
    return torch.cat(done or [ordered]).index_select(0, order.argsort().to(images.device))


def grey(pixels: Tensor) -> Tensor:
    """Luma of [n, 1 or 3, h, w] as float32 [n, 1, h, w], in the pixels' units, summed in torchvision's order."""
    if pixels.shape[1] == 1:
        return pixels.float()
    red, green, blue = pixels.split(1, dim=1)
    return red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _identity(images: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    return images


def _geometric(images: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    """Shears about the upper left corner, translations, and rotations about the centre, in one grid sampling."""
    n, _, height, width = images.shape
    slopes, shifts, angles = values.split([sum(counts[:2]), sum(counts[2:4]), counts[4]])
    angles = torch.deg2rad(angles)
    # maps output to source coordinates, both relative to the centre: two rows of (by x, by y, offset)
    changes = _changes(height, width).repeat_interleave(torch.tensor(counts), dim=0, output_size=n)
    matrix = changes * torch.cat([slopes, shifts.trunc(), angles.sin()]).unsqueeze(1)
    diagonal = matrix[:, ::4]
    diagonal.fill_(1)[n - counts[4] :] = angles.cos().unsqueeze(1)

    # From here on the same steps as torchvision, so that a source halfway between two pixels is rounded to the same
    # one, except for its matrix product, whose precision is a global setting. The grid is in units of half the size.
    half = (matrix.float().view(n, 2, 3) / torch.tensor([[width / 2], [height / 2]])).to(images.device)
    by_x, by_y, offset = half[..., None, None].unbind(2)
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=images.device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=images.device).unsqueeze(1)
    grid = (by_x * x + by_y * y).add_(offset).permute(0, 2, 3, 1)
    return _cut(F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False))


@functools.lru_cache(maxsize=64)
def _changes(height: int, width: int) -> Tensor:
    """float64 [5, 6]: change of the flattened matrix per unit of each geometric operator (for rotation, its sine)."""
    rows = [
        [0, 1, height / 2, 0, 0, 0],
        [0, 0, 0, 1, 0, width / 2],
        [0, 0, -1, 0, 0, 0],
        [0, 0, 0, 0, 0, -1],
        [0, -1, 0, 1, 0, 0],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _color(images: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    if images.shape[1] == 1:  # grey images have no colour
        return images
    return _blend(images, grey(images).floor_(), (1 + values).view(-1, 1, 1, 1))


def _sharpness(images: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    """Extrapolate from, or blend with, a blur by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; 1 px at the border is kept."""
    if min(images.shape[2:]) <= 2:
        return images
    wide = images.short()
    inner = wide[..., 1:-1, 1:-1]
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    total = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4)
    change = (total / 13).round_().sub_(inner)  # no multiple of 1/13 lies halfway, so rounding is exact in any order
    out = images.clone()
    out[..., 1:-1, 1:-1] = _cut(_fused(inner, change, -values.view(-1, 1, 1, 1)))
    return out


def _tabled(images: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    """The operators that map a channel's 256 levels independently: one lookup table each, applied by one gather."""
    n, channels = images.shape[:2]
    levels = torch.arange(256, device=images.device)
    values = values.view(n, 1, 1)
    tables = torch.empty(n, channels, 256, dtype=torch.uint8, device=images.device)
    parts = zip(_TABLES, tables.split(counts), images.split(counts), values.split(counts), strict=True)
    for table, out, its_images, its_values in parts:
        if len(out):
            out.copy_(table(levels, its_images, its_values))
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


# Table functions: levels int64 [256], images, values float64 [n, 1, 1] -> tables [n, 1 or channels, 256]; fractions are
# truncated on assignment to uint8.


def _brightness(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    return levels.mul((1 + values).float().to(levels.device)).clamp_(0, 255)


def _contrast(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    mean = grey(images).floor_().mean(dim=(2, 3)).unsqueeze(2)
    return _blend(levels, mean, 1 + values)


def _posterize(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    dropped = 2 ** (8 - values.long())  # the number of levels merged into one
    return levels.bitwise_and((256 - dropped).to(levels.device))


def _solarize(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    threshold = (255 * values).float().to(levels.device)
    return torch.where(levels >= threshold, 255 - levels, levels)


def _autocontrast(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    """Stretch each channel's range to 0..255; constant channels are kept."""
    planes = images.flatten(2)
    low, high = planes.amin(2, keepdim=True).float(), planes.amax(2, keepdim=True).float()
    flat = low == high
    scale = ((high - low) * (1 / 255)).masked_fill_(flat, 1)
    return (levels - low.masked_fill_(flat, 0)).div_(scale).clamp_(0, 255)


def _equalize(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    """Equalise each channel's histogram by Pillow's rule."""
    planes = images.flatten(2).long()
    counts = torch.zeros(*planes.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, planes, torch.ones_like(planes))
    step = (planes.shape[2] - counts.gather(2, planes.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    spread = ((below + step // 2) / step.clamp(min=1)).clamp_(0, 255)  # exact when truncated, below 2^24 pixels
    return torch.where(step == 0, levels, spread)


def _invert(levels: Tensor, images: Tensor, values: Tensor) -> Tensor:
    return 255 - levels


def _blend(first: Tensor, second: Tensor, factor: Tensor) -> Tensor:
    """uint8 first * factor + second * (1 - factor), like torchvision's `_blend`; factor is float64."""
    return _cut(_fused(first * factor.float().to(first.device), second, 1 - factor))


def _fused(base: Tensor, change: Tensor, factor: Tensor) -> Tensor:
    """float32 base + change * factor, rounded once like the fused multiply-add in torch's `add_(change, alpha=factor)`.

    The product of two float32 is exact in float64, so only the sum is rounded.
    """
    return (base + change.double() * factor.float().double().to(base.device)).float()


def _cut(pixels: Tensor) -> Tensor:
    """Clamp and truncate to uint8, via int16 because torch's direct cast is slow."""
    return pixels.clamp_(0, 255).short().to(torch.uint8)


_TABLES = (_brightness, _contrast, _posterize, _solarize, _autocontrast, _equalize, _invert)
_Transform = Callable[[Tensor, Tensor, list[int]], Tensor]
_GROUPS: tuple[tuple[int, _Transform], ...] = (
    (1, _identity),
    (len(GEOMETRIC), _geometric),
    (1, _color),
    (1, _sharpness),
    (len(TABLED), _tabled),
)  # (number of operators, function), in the order of `OPERATORS`


def _sample(generator: torch.Generator) -> Callable[[], list[Tensor]]:
    """A batch with all operators, for the self-test in kernels/choice.py."""
    images = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=generator)
    which = torch.arange(len(images)) % len(OPERATORS)
    return lambda: [apply(images, which, 0.3)]


SAMPLES["augmentation"] = _sample
