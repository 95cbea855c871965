"""Views: batches of raw uint8 images made into network input, each image with its own random draws.

Everything is one batched operation on the images' device. The draws come from a CPU generator that the caller
makes anew for each view, so that a CPU and a GPU see the same ones and a resumed run has no state to restore.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from ..config.schedule import STRONGEST, Constant, Schedule
from ..core.checked import Told, checked
from ..core.errors import BadInput
from .erasing import erase
from .ops import GREY
from .policies import augmix, autoaugment, randaugment, trivialaugment

__all__ = ["View", "at_magnitude", "evaluation", "make_view", "mix", "resize"]

USUAL = Constant(9.0)
NONE = Constant(0.0)
Policy = Literal["none", "randaugment", "autoaugment", "trivialaugment", "augmix"]
Strength = Annotated[float, Ge(0), Le(1), Told("is out of range", "give 0 (none) to 1")]
Alpha = Annotated[float, Ge(0), Told("is not a valid alpha", "give 0 (none) or more")]
Crop = Annotated[float, Ge(0), Le(0.5), Told("is not a share of the image's size", "give 0 (none) to 0.5")]
Spread = Annotated[float, Ge(0), Le(STRONGEST), Told("is out of range", "give 0 (all alike) to 30")]
Operators = Annotated[int, Ge(1), Told("is not a valid number of operators", "give 1 or more (none: policy = 'none')")]
Zoom = Annotated[float, Ge(1), Le(8), Told("is out of range", "give 1 (none) to 8")]
ASIDE = {"left_out_if_usual": True}  # recipes of before, and of other tasks, do not have these keys
Severity = Annotated[float, Ge(1), Le(10), Told("is out of range", "give 1 to 10")]


@checked()
class View:
    """How training images are varied: the recipe's `[views.NAME]` table."""

    flip: bool = True
    """Mirror half of the images left to right (only where the data allow it: never digits)."""
    crop: Crop = 0.125
    """Reflect-pad by this share of the size (the shorter side), then crop at random; 0 for none. At most 0.5."""
    brightness: Strength = 0.0
    """Multiply by a factor uniform in [1 - b, 1 + b], as torchvision's ColorJitter."""
    contrast: Strength = 0.0
    """Likewise, blending with the image's mean grey."""
    saturation: Strength = 0.0
    """Likewise, blending with the image in grey."""
    policy: Policy = "none"
    """Operators drawn for each image, after the crop and before the three above: see nasaug.augment.policies."""
    magnitude: Schedule = USUAL
    """RandAugment's, 0 to 30: a number, or a schedule over training. At 0 only the operators without a magnitude have
    an effect; a constant 0 turns the policy off."""
    magnitude_std: Spread = 0.0
    """Each image's own magnitude is normal around it with this standard deviation, within 0 to 30."""
    num_ops: Operators = 2
    """Operators per image of RandAugment."""
    severity: Severity = 3.0
    """AugMix's, 1 to 10."""
    erase: Strength = 0.0
    """Probability with which an image loses a rectangle of 2 to 33 % of its area (Random Erasing)."""
    mixup: Alpha = 0.0
    """MixUp's alpha, images and targets mixed with those of another by a share of Beta(alpha, alpha); 0 for none."""
    cutmix: Alpha = 0.0
    """Likewise CutMix's, a rectangle taken from another image; not together with MixUp."""
    iou_crop: Strength = field(default_factory=lambda: 0.0, metadata=ASIDE)
    """Of images with boxes: the probability of SSD's random crop, torchvision's RandomIoUCrop."""
    zoom_out: Zoom = field(default_factory=lambda: 1.0, metadata=ASIDE)
    """Of images with boxes: half are put on a canvas up to this many times as wide (RandomZoomOut); 1 for none."""
    scale_jitter: Zoom = field(default_factory=lambda: 1.0, metadata=ASIDE)
    """Of images with boxes: enlarge or shrink by a factor between 1 / this and this, then cut or pad at random to the
    same size (large-scale jitter, on the whole batch at once); 1 for none."""

    def __post_init__(self) -> None:
        # at its ends, where it follows from the net
        nets = (self.magnitude.of_net(1e-300, 0.0), self.magnitude.of_net(1e300, 1.0))
        for schedule in dict.fromkeys((self.magnitude, *nets)):
            for value in schedule.sampled():
                if not -1e-9 <= value <= STRONGEST + 1e-9:  # a schedule's end is rounded
                    refused = {"field": "magnitude", "value": self.magnitude, "rule": f"reaches {value:g}"}
                    raise BadInput.of(**refused, remedy="give 0 to 30")
        if self.policy != "randaugment":
            for name, unsaid in (("magnitude", (USUAL, NONE)), ("magnitude_std", (0.0,))):
                if (value := getattr(self, name)) not in unsaid:
                    rule, remedy = f"is RandAugment's, but policy = {self.policy!r}", 'give policy = "randaugment" too'
                    raise BadInput.of(field=name, value=value, rule=rule, remedy=f"{remedy}, or leave it out")
        if self.mixup and self.cutmix:
            rule = f"and cutmix = {self.cutmix:g} exclude each other"
            raise BadInput.of(field="mixup", value=self.mixup, rule=rule, remedy="set one of them to 0")

    @property
    def varies(self) -> bool:
        """Whether it makes different versions of an image, before it is mixed with another."""
        ways = (self.flip, self.crop, self.brightness, self.contrast, self.saturation, self.erase)
        return any(ways) or self.policy != "none"


def at_magnitude(view: View, magnitude: Schedule) -> View:
    """The view under RandAugment at this magnitude, its `magnitude_std` around it; under no policy where it is 0
    throughout, since RandAugment has operators without a magnitude. Raises BadInput for a view of another policy."""
    if view.policy not in ("none", "randaugment"):
        raise BadInput(f"a magnitude is RandAugment's, but the training view has policy {view.policy}: leave one out")
    if magnitude == NONE:
        return replace(view, policy="none", magnitude=NONE, magnitude_std=0.0)
    return replace(view, policy="randaugment", magnitude=magnitude)


def make_view(
    view: View,
    images: Tensor,
    generator: torch.Generator,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = True,
    progress: float = 0.0,
) -> Tensor:
    """Augmented network input: float32 [n, 3, h, w], channels last, normalised, on the images' device.

    Args:
        images: uint8 [n, 1 or 3, h, w].
        generator: on the CPU; advances by an amount that depends on `view` and the batch's shape alone.
        mean, std: of the three channels, for pixels in [0, 1].
        flip: whether a mirrored image keeps its class (`Data.flip`).
        progress: of training, 0 to 1, for the view's schedules.
    """
    images = _shift(images, round(view.crop * min(images.shape[-2:])), view.flip and flip, generator)
    images = _under_policy(view, images, generator, progress)
    if view.brightness or view.contrast or view.saturation:
        x = _normalise(_jitter(view, images.float() / 255, generator), mean, std, scale=1.0)
    else:
        x = evaluation(images, mean, std)
    return erase(x, view.erase, generator) if view.erase else x


def evaluation(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Network input without augmentation: as `make_view`, from uint8 [n, 1 or 3, h, w]."""
    return _normalise(images, mean, std, scale=255.0)


def resize(x: Tensor, size: int) -> Tensor:
    """[n, c, h, w] at `size` px, bilinear, antialiased when shrinking; `x` itself where it has that size."""
    if x.shape[-2:] == (size, size):
        return x
    shrinks = size < max(x.shape[-2:])
    return F.interpolate(x, (size, size), mode="bilinear", antialias=shrinks, align_corners=False)


def _shift(images: Tensor, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop of the reflect-padded images and random mirroring: whole rows are picked, then columns."""
    n, channels, height, width = images.shape
    if not pad and not flip:
        return images
    down, right = torch.randint(-pad, pad + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < (0.5 if flip else 0.0)
    columns = torch.arange(width)
    columns = torch.where(mirrored, width - 1 - columns, columns)
    rows = _reflect(torch.arange(height) + down, height)
    columns = _reflect(columns + right, width).to(images.device)
    plane = torch.arange(n * channels).view(n, channels, 1) * height
    picked = (plane + rows[:, None, :]).flatten().to(images.device)
    cropped = images.reshape(-1, width).index_select(0, picked).view(images.shape)
    return cropped.gather(3, columns[:, None, None, :].expand(images.shape))


def _under_policy(view: View, images: Tensor, generator: torch.Generator, progress: float) -> Tensor:
    match view.policy:
        case "randaugment":
            magnitude = view.magnitude(progress)
            if view.magnitude_std:
                own = torch.randn(len(images), generator=generator, dtype=torch.float64)
                magnitude = magnitude + view.magnitude_std * own
            magnitude = torch.as_tensor(magnitude, dtype=torch.float64).clamp(0.0, STRONGEST)
            return randaugment(images, generator, magnitude, view.num_ops)
        case "trivialaugment":
            return trivialaugment(images, generator)
        case "autoaugment":
            return autoaugment(images, generator)
        case "augmix":
            return augmix(images, generator, view.severity)
    return images


def _reflect(index: Tensor, size: int) -> Tensor:
    """Indices mirrored at 0 and at size - 1, the edge pixels not repeated."""
    index = index.abs()
    return torch.minimum(index, 2 * (size - 1) - index)


def _jitter(view: View, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, in this order; `pixels` float32 in [0, 1], [n, 1 or 3, h, w]."""
    if view.brightness:
        pixels = (pixels * _factors(view.brightness, pixels, generator)).clamp_(0, 1)
    if view.contrast:
        mean = _grey(pixels).mean(dim=(1, 2, 3), keepdim=True)
        pixels = torch.lerp(mean, pixels, _factors(view.contrast, pixels, generator)).clamp_(0, 1)
    if view.saturation:
        factors = _factors(view.saturation, pixels, generator)
        if pixels.shape[1] == 3:  # a grey image has none
            pixels = torch.lerp(_grey(pixels), pixels, factors).clamp_(0, 1)
    return pixels


def _factors(strength: float, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """One factor per image, uniform in [1 - strength, 1 + strength], [n, 1, 1, 1]."""
    draws = torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (1 + strength * (2 * draws - 1)).to(pixels.device)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] == 1:
        return pixels
    weights = torch.tensor(GREY, device=pixels.device).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True)


def _normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float], scale: float) -> Tensor:
    """(pixels / scale - mean) / std in three channels, float32, channels last."""
    constants = [[1 / (scale * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]]
    factor, offset = torch.tensor(constants).view(2, 1, 3, 1, 1).to(pixels.device)
    return torch.addcmul(offset, pixels, factor).contiguous(memory_format=torch.channels_last)


def mix(view: View, x: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The batch under the view's MixUp or CutMix: images and float32 [n, classes] probabilities.

    torchvision's: one draw of Beta(alpha, alpha) for the batch, each image mixed with the one before it (Zhang et
    al., ICLR 2018; Yun et al., ICCV 2019). A view that asks for neither gives back `x` and `labels` themselves.

    Args:
        x: float [n, c, h, w]; the result is channels last.
        labels: int64 [n] on the same device; or float [n], numbers that are mixed themselves.
        generator: on the CPU; advances by one draw where the view mixes. The global one is left as it was.
    """
    if not (view.mixup or view.cutmix):
        return x, labels
    from torchvision.transforms.v2 import CutMix, MixUp

    seed = torch.randint(2**62, (), generator=generator).item()
    kind, alpha = (MixUp, view.mixup) if view.mixup else (CutMix, view.cutmix)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        if labels.is_floating_point():
            mixed, targets = kind(alpha=alpha)(x, labels[:, None])
            targets = targets[:, 0]
        else:
            mixed, targets = kind(alpha=alpha, num_classes=classes)(x, labels)
    return mixed.contiguous(memory_format=torch.channels_last), targets
