"""Images that tell augmentation operators apart, and torchvision's results for them."""

import torch
from torchvision.transforms import v2

from nasaug.augment.ops import OPERATORS

RAW = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # leaves pixels in [0, 1]
REFERENCE = v2.RandAugment()
RANGES = dict.fromkeys(OPERATORS, (-1.0, 1.0)) | {
    "TranslateX": (-20.0, 20.0),
    "TranslateY": (-20.0, 20.0),
    "Rotate": (-180.0, 180.0),
    "Posterize": (0.0, 8.0),
    "Solarize": (0.0, 1.0),
}


def seeded(seed=0):
    """A generator of torch's random numbers."""
    return torch.Generator().manual_seed(seed)


def pictures(n, channels, height, width, seed=0):
    """Images of noise, low contrast, tinted grey, flat colour and digit-like shapes."""
    generator = seeded(seed)
    images = torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)
    images[1::5] = images[1::5] // 4 + 60
    images[2::5] = images[2::5, :1]
    images[3::5] = images[3::5, :, :1, :1]
    images[4::5] *= images[4::5] > 200
    return images


def theirs(image, name, value):
    """One uint8 image under torchvision's operator."""
    nearest = v2.InterpolationMode.NEAREST
    return REFERENCE._apply_image_or_video_transform(image, name, float(value), nearest, REFERENCE._fill)


def share_that_differs(images, names, values, out):
    """The share of pixels in which `out` differs from torchvision's result for the images."""
    expected = [theirs(*each) for each in zip(images, names, values, strict=True)]
    return (torch.stack(expected) != out).float().mean().item()
