"""Figures pooled over cases, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from liver_monai.scoring.compare import N_RESAMPLES, percentile_interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and the bounds of its 95 % interval; NaN where they are not defined."""

    value: float
    low: float
    high: float


def pooled(
    numerators: Sequence[float], denominators: Sequence[float], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Estimate:
    """Sum of the numerators over sum of the denominators, with the percentile interval of the bootstrap over cases.

    With denominators of 1 it is a mean, with voxels a global Dice, with lesions a recall or a precision. The same seed
    draws the same cases, so that methods scored on the same cases are resampled alike.

    Args:
        numerators, denominators: one a case. An interval takes two cases or more.
    """
    parts = np.array([numerators, denominators], dtype=np.float64)
    n = parts.shape[1]
    value = _ratio(parts.sum(axis=1))
    if n < 2:
        return Estimate(value=float(value), low=nan, high=nan)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, n, (n_resamples, n))
    ratios = _ratio(np.array([part[drawn].sum(axis=1) for part in parts]))
    defined = ratios[~np.isnan(ratios)]
    low, high = percentile_interval(defined) if len(defined) else (nan, nan)
    return Estimate(value=float(value), low=low, high=high)


def _ratio(parts: np.ndarray) -> np.ndarray:
    """NaN where nothing is to be divided by."""
    ratios = np.full(parts.shape[1:], nan)
    np.divide(parts[0], parts[1], out=ratios, where=parts[1] != 0)
    return ratios
