"""Calibration: of the voxels that a network calls 80 % likely, are 80 % true?

Every voxel of a scan falls into a bin by its probability (Guo et al., ICML 2017; MONAI's ``calibration_binning``, whose
float32 counts end at 16.7 million voxels a bin, less than one CT has).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_BINS = 15
"""As Guo et al.; 255 is 15 times 17, so that bins are bounded by values that bytes can have."""
FULL = 255
"""A probability of 1 in a byte."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What each bin of equal width holds; the first begins at 0, the last ends with 1. Several add up exactly.

    Args:
        voxels, true_voxels: int64 ``(N_BINS,)``.
        probability_sums: float64 ``(N_BINS,)``.
    """

    voxels: np.ndarray
    true_voxels: np.ndarray
    probability_sums: np.ndarray

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            voxels=self.voxels + other.voxels,
            true_voxels=self.true_voxels + other.true_voxels,
            probability_sums=self.probability_sums + other.probability_sums,
        )

    @property
    def mean_probability(self) -> np.ndarray:
        """What the network says, a bin; NaN where it is empty."""
        return self._per_voxel(self.probability_sums)

    @property
    def true_share(self) -> np.ndarray:
        """What is true, a bin; NaN where it is empty."""
        return self._per_voxel(self.true_voxels)

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap over voxels. Most are sure background, so it is always small."""
        return float(np.abs(self.probability_sums - self.true_voxels).sum() / self.voxels.sum())

    @property
    def ace(self) -> float:
        """Average calibration error: the mean gap over the bins that hold any voxel, however few."""
        return float(np.nanmean(self._gaps))

    @property
    def mce(self) -> float:
        """Maximum calibration error: the gap of the worst bin."""
        return float(np.nanmax(self._gaps))

    @property
    def _gaps(self) -> np.ndarray:
        return np.asarray(np.abs(self.mean_probability - self.true_share))

    def _per_voxel(self, sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.divide(sums, self.voxels, out=np.full(N_BINS, np.nan), where=self.voxels > 0))


def calibrate(probabilities: np.ndarray, truth: np.ndarray) -> Calibration:
    """Calibration of one structure in one scan, a plane at a time.

    Args:
        probabilities: ``(X, Y, Z)`` float from 0 to 1, or uint8 where 255 stands for 1.
        truth: bool of the same shape.
    """
    if probabilities.shape != truth.shape:
        raise ValueError(f"probabilities have the shape {probabilities.shape}, truth {truth.shape}; they must agree")
    if probabilities.size == 0:
        raise ValueError("there is no voxel to calibrate")
    count = _count_bytes if probabilities.dtype == np.uint8 else _count_floats
    first, *others = (count(*plane) for plane in zip(probabilities, truth, strict=True))
    return sum(others, start=first)


def _count_bytes(probabilities: np.ndarray, truth: np.ndarray) -> Calibration:
    """Bytes are counted one by one and then binned, which is exact."""
    levels = np.arange(FULL + 1)
    voxels, true_voxels = (
        np.bincount(chosen.ravel(), minlength=len(levels)) for chosen in (probabilities, probabilities[truth])
    )
    bins = np.minimum(levels * N_BINS // FULL, N_BINS - 1)
    return Calibration(
        voxels=_sum_by(bins, voxels).astype(np.int64),
        true_voxels=_sum_by(bins, true_voxels).astype(np.int64),
        probability_sums=_sum_by(bins, voxels * levels) / FULL,
    )


def _count_floats(probabilities: np.ndarray, truth: np.ndarray) -> Calibration:
    bins = np.minimum((probabilities * N_BINS).astype(np.int64), N_BINS - 1)
    return Calibration(
        voxels=np.bincount(bins.ravel(), minlength=N_BINS),
        true_voxels=np.bincount(bins[truth], minlength=N_BINS),
        probability_sums=_sum_by(bins.ravel(), probabilities.ravel()),
    )


def _sum_by(bins: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(bins, weights=values, minlength=N_BINS)
