"""Helpers shared by the tests of the compiled kernels."""

import pytest
import torch
import torch.nn.functional as F

from nasaug.kernels import build

# Looks for a compiler, not for a compiled library: a source that no longer compiles must fail tests, not skip them.
WITHOUT = bool(build.unsupported())
needs_compiler = pytest.mark.skipif(WITHOUT, reason="this machine has no C compiler, or NASAUG_KERNELS is off")
EPS = 1e-5


def image_batch(*shape, seed=0, scale=1.0, shift=0.0):
    """Gaussian noise of this shape, channels-last."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=g) * scale + shift).contiguous(memory_format=torch.channels_last)


def close(one, two, tolerance=2e-5):
    """Whether two tensors are equal up to `tolerance` times the largest value, in single precision."""
    return (one.double() - two.double()).abs().max() <= tolerance * two.abs().max().clamp_min(1e-3)


ACTS = {"": lambda z: z, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish}
