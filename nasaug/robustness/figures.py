"""What errors under corruption add up to: mCE and relative mCE (Hendrycks and Dietterich, ICLR 2019, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from .constants import COMMON

Errors = Mapping[str, Mapping[int, float]]  # in %, by corruption and severity


def mean_error(errors: Errors) -> float | None:
    """The mean over the common corruptions among them; None if there are none."""
    means = [fmean(errors[name].values()) for name in COMMON if name in errors]
    return fmean(means) if means else None


def mce(errors: Errors, reference: Errors) -> float | None:
    """Mean corruption error in %: the mean over the common corruptions among them of the error over all severities as
    a share of the reference's. None if there are none, or where the reference makes no error."""
    return _mean_of_shares(errors, reference, 0.0, 0.0)


def relative_mce(errors: Errors, clean: float, reference: Errors, reference_clean: float) -> float | None:
    """The same of the errors beyond those on clean images. None also where the reference loses nothing."""
    return _mean_of_shares(errors, reference, clean, reference_clean)


def _mean_of_shares(errors: Errors, reference: Errors, less: float, reference_less: float) -> float | None:
    shares = []
    for name in (name for name in COMMON if name in errors):
        below = sum(error - reference_less for error in reference[name].values())
        if below <= 0:
            return None
        shares.append(100 * sum(error - less for error in errors[name].values()) / below)
    return fmean(shares) if shares else None
