"""What the tests of the compiled kernels share."""

import pytest
import torch
import torch.nn.functional as F

from nasaug.kernels import build

# Asked of the compiler, not of what it made: a source that no longer compiles must fail here, not be left out.
WITHOUT = bool(build.unsupported())
needs_compiler = pytest.mark.skipif(WITHOUT, reason="this machine has no C compiler, or NASAUG_KERNELS is off")
EPS = 1e-5


def image_batch(*shape, seed=0, scale=1.0, shift=0.0):
    """Normal noise of this shape, channels last."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=g) * scale + shift).contiguous(memory_format=torch.channels_last)


def close(one, two, tolerance=2e-5):
    """Equal but for `tolerance` of the largest value, at single precision."""
    return (one.double() - two.double()).abs().max() <= tolerance * two.abs().max().clamp_min(1e-3)


ACTS = {"": lambda z: z, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish}
