"""Paired comparison of scores of the same cases: bootstrap intervals, the signed-rank test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from scipy.stats import wilcoxon

N_RESAMPLES = 10_000
"""Of the bootstrap: 250 of them lie beyond each end of the interval."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How the scores of two methods differ on the cases where both have one.

    Args:
        n: cases with both scores; ``n_undefined`` have not, so no figure here speaks of them.
        low, high: bounds of the mean difference's 95 % interval; NaN with fewer than two cases.
        p: two-sided p-value of Wilcoxon's signed-rank test; NaN without a case.
    """

    n: int
    n_undefined: int
    mean_first: float
    mean_second: float
    low: float
    high: float
    p: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.mean_second - self.mean_first


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Compare two methods by their scores of the same cases, in the same order; NaN where one is not defined."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores against {len(second)}; a paired comparison needs the same cases")
    scores = np.array([first, second], dtype=np.float64)
    paired = scores[:, ~np.isnan(scores).any(axis=0)]
    n = paired.shape[1]
    differences = paired[1] - paired[0]
    means = paired.mean(axis=1) if n else (nan, nan)
    low, high = bootstrap_interval(differences, n_resamples=n_resamples, seed=seed)
    return PairedDifference(
        n=n,
        n_undefined=len(first) - n,
        mean_first=float(means[0]),
        mean_second=float(means[1]),
        low=low,
        high=high,
        p=signed_rank_p(differences),
    )


def bootstrap_interval(values: np.ndarray, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean, drawing cases with replacement; the same seed draws the same cases."""
    if len(values) < 2:
        return nan, nan
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(n_resamples)]
    return percentile_interval(means)


def percentile_interval(resampled: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The bounds between which ``CONFIDENCE`` of the resampled figures lie; at least one is needed."""
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return float(low), float(high)


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; equal pairs are left out, and 1 when all are equal."""
    if len(differences) == 0:
        return nan
    unequal = differences[differences != 0]
    return float(wilcoxon(unequal).pvalue) if len(unequal) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) of all tests of one comparison; NaN stays NaN and counts for none."""
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(len(p), nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return [float(value) for value in adjusted]
