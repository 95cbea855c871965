"""Augmentation policies: which operators are applied to an image and how strongly, sampled independently per image.

Each takes uint8 [n, 1 or 3, h, w] on any device and a generator on the CPU, which advances by an amount that depends
only on n and the options, and returns new uint8 images of the same shape.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..core.errors import BadInput
from .ops import OPERATORS, SIGNED, apply

INVERT, POSTERIZE = OPERATORS.index("Invert"), OPERATORS.index("Posterize")
FINE = 31  # number of magnitudes in RandAugment and TrivialAugment, 0 to 30
COARSE = 10  # number of magnitudes in AutoAugment and AugMix


def randaugment(
    images: Tensor, generator: torch.Generator, magnitude: float | Tensor = 9.0, num_ops: int = 2
) -> Tensor:
    """`num_ops` random operators per image, each with a random sign (Cubuk et al., NeurIPS 2020). The magnitude is one
    number, or one per image as a tensor [n] on the CPU.

    An integer magnitude, 0 to 30, is torchvision's bin of that number; others are interpolated. At 0, only operators
    without a magnitude (AutoContrast, Equalize) have an effect.
    """
    magnitude = torch.as_tensor(magnitude, dtype=torch.float64).expand(len(images))
    outside = magnitude[~((magnitude >= 0) & (magnitude <= FINE - 1))]
    if len(outside):
        raise BadInput(f"magnitude = {outside[0].item():g} is out of range: give 0 to {FINE - 1}")
    shape = (num_ops, len(images))
    chosen = torch.randint(INVERT, shape, generator=generator)  # all but Invert, the last
    negative = torch.rand(shape, generator=generator) <= 0.5
    below = magnitude.long().clamp_(max=FINE - 2)
    ladders = _usual(FINE, images)
    for operators, sign in zip(chosen, negative, strict=True):
        strengths = torch.lerp(ladders[operators, below], ladders[operators, below + 1], magnitude - below)
        strengths = torch.where(operators == POSTERIZE, strengths.round(), strengths)
        images = _signed(images, operators, strengths, sign)
    return images


def trivialaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """One random operator per image, at one of 31 magnitudes with wide ranges (Müller and Hutter, ICCV 2021)."""
    n = len(images)
    operators = torch.randint(INVERT, (n,), generator=generator)
    magnitudes = torch.randint(FINE, (n,), generator=generator)
    negative = torch.rand(n, generator=generator) <= 0.5
    ladders = _ladders(FINE, shear=0.99, shift=(32.0, 32.0), angle=135.0, change=0.99, bits=(8, 2))
    return _signed(images, operators, ladders[operators, magnitudes], negative)


def autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """One of 25 learnt pairs of operators per image, each with its probability and magnitude (Cubuk et al., CVPR 2019).

    Uses the pairs learnt on CIFAR-10 up to 64 px, and those learnt on ImageNet above.
    """
    n = len(images)
    operators, chances, magnitudes = _learnt("CIFAR10" if max(images.shape[-2:]) <= 64 else "IMAGENET")
    pair = torch.randint(len(operators), (n,), generator=generator)
    skipped = torch.rand(2, n, generator=generator) > chances[pair].T
    negative = torch.rand(2, n, generator=generator) <= 0.5
    ladders = _usual(COARSE, images)
    for i in range(2):
        chosen = operators[pair, i].masked_fill(skipped[i], 0)
        images = _signed(images, chosen, ladders[chosen, magnitudes[pair, i]], negative[i])
    return images


def augmix(images: Tensor, generator: torch.Generator, severity: float = 3.0, width: int = 3) -> Tensor:
    """The image mixed with `width` chains of one to three operators (Hendrycks et al., ICLR 2020; alpha = 1).

    severity: 1 to 10; each operator's magnitude is the whole part of a number uniform in [0, severity).
    """
    if not 1 <= severity <= COARSE:
        raise BadInput(f"severity = {severity} is out of range: give 1 to {COARSE}")
    n, depth = len(images), 3
    shape = (depth, width * n)
    lengths = torch.randint(1, depth + 1, (width * n,), generator=generator)
    chosen = torch.randint(1, INVERT, shape, generator=generator)  # Identity is not among them
    magnitudes = (torch.rand(shape, generator=generator) * severity).long()
    negative = torch.rand(shape, generator=generator) <= 0.5
    kept = _ones_dirichlet((n, 2), generator)
    weights = _ones_dirichlet((n, width), generator) * kept[:, 1:]

    third = (images.shape[-1] / 3, images.shape[-2] / 3)
    ladders = _ladders(COARSE, shear=0.3, shift=third, angle=30.0, change=0.9, bits=(4, 0))
    chains = images.repeat(width, 1, 1, 1)
    for i in range(depth):
        operators = chosen[i].masked_fill(lengths <= i, 0)
        chains = _signed(chains, operators, ladders[operators, magnitudes[i]], negative[i])
    share = torch.cat([kept[:, :1], weights], dim=1).T.reshape(width + 1, n, 1, 1, 1).to(images.device)
    mixed = share[0] * images
    for weight, chain in zip(share[1:], chains.view(width, *images.shape), strict=True):
        mixed += weight * chain
    return mixed.to(torch.uint8)  # truncated, like torchvision


def _signed(images: Tensor, operators: Tensor, strengths: Tensor, negative: Tensor) -> Tensor:
    """`apply`, with the strength negated where `negative`, for the operators that have a sign."""
    turned = negative & SIGNED.index_select(0, operators)
    return apply(images, operators, torch.where(turned, -strengths, strengths))


def _usual(bins: int, images: Tensor) -> Tensor:
    """The strengths shared by RandAugment and AutoAugment, for images of this size."""
    height, width = images.shape[-2:]
    shift = (150 / 331 * width, 150 / 331 * height)
    return _ladders(bins, shear=0.3, shift=shift, angle=30.0, change=0.9, bits=(8, 4))


@functools.lru_cache(maxsize=64)
def _ladders(
    bins: int, *, shear: float, shift: tuple[float, float], angle: float, change: float, bits: tuple[int, int]
) -> Tensor:
    """float64 [operators, bins]: each operator's strength at each magnitude, as in torchvision's tables.

    Args:
        shear, angle, change: largest slope, rotation in degrees, and change of brightness, colour, contrast, sharpness.
        shift: largest horizontal and vertical translation in px.
        bits: bits that posterize keeps at the lowest and the highest magnitude; integers in between.
    """
    ends = {
        "ShearX": (0.0, shear),
        "ShearY": (0.0, shear),
        "TranslateX": (0.0, shift[0]),
        "TranslateY": (0.0, shift[1]),
        "Rotate": (0.0, angle),
        "Posterize": bits,
        "Solarize": (1.0, 0.0),
    }
    ends |= dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), (0.0, change))
    ladders = torch.stack([torch.linspace(*ends.get(name, (0.0, 0.0)), bins) for name in OPERATORS]).double()
    ladders[POSTERIZE].round_()
    return ladders


@functools.cache
def _learnt(policy: str) -> tuple[Tensor, Tensor, Tensor]:
    """torchvision's AutoAugment table of this name: operators, probabilities and magnitudes, each [25, 2]."""
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

    pairs = AutoAugment(AutoAugmentPolicy[policy])._policies
    names, chances, magnitudes = zip(*(step for pair in pairs for step in pair), strict=True)
    operators = torch.tensor([OPERATORS.index(name) for name in names])
    bins = torch.tensor([magnitude or 0 for magnitude in magnitudes])
    return operators.view(-1, 2), torch.tensor(chances).view(-1, 2), bins.view(-1, 2)


def _ones_dirichlet(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Rows from Dirichlet(1, …, 1), float32. Unlike torch's sampler, this uses a fixed number of random draws."""
    exponential = -(1 - torch.rand(shape, generator=generator, dtype=torch.float64)).log()
    return (exponential / exponential.sum(dim=1, keepdim=True)).float()
