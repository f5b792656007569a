"""Measures of two masks of one structure: a table with unit, best, worst, and what empty masks give.

A new measure is one function of a ``MaskPair`` and one row of ``_ROWS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf, nan

import numpy as np

from liver_monai.scoring.surface import SurfaceDistances, surface_distances

TOLERANCE_MM = 2.0
"""Our choice, about two in-plane voxels of an abdominal CT. NSD says nothing without its tolerance: state both."""


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """Prediction and reference of one structure: bool ``(X, Y, Z)`` of the same shape, nothing else in them."""

    prediction: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    tolerance_mm: float = TOLERANCE_MM

    @cached_property
    def n_prediction(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def n_reference(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def n_shared(self) -> int:
        """Voxels of both."""
        return int(np.count_nonzero(self.prediction & self.reference))

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Distances between the surfaces, computed once for all measures."""
        return surface_distances(self.prediction, self.reference, spacing_mm=self.spacing_mm)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure: its name as a column (with the unit as suffix), its range, and its values without a surface.

    Args:
        both_empty, one_empty: value where both masks are empty or exactly one is; NaN: not defined, to be counted.
        of: value of two masks that both hold voxels.
    """

    name: str
    title: str
    unit: str
    best: float
    worst: float
    both_empty: float
    one_empty: float
    of: Callable[[MaskPair], float]


def dice(pair: MaskPair) -> float:
    """2 |P and R| / (|P| + |R|)."""
    return 2 * pair.n_shared / (pair.n_prediction + pair.n_reference)


def iou(pair: MaskPair) -> float:
    """Intersection over union, Jaccard's index."""
    return pair.n_shared / (pair.n_prediction + pair.n_reference - pair.n_shared)


def rvd(pair: MaskPair) -> float:
    """Relative volume difference as in LiTS: (|R| - |P|) / |P|, signed and relative to the prediction."""
    return (pair.n_reference - pair.n_prediction) / pair.n_prediction


_ROWS = (
    # name, title, unit, best, worst, both empty, one empty, of
    ("dice", "Dice", "", 1, 0, 1, 0, dice),
    ("iou", "IoU", "", 1, 0, 1, 0, iou),
    ("voe", "VOE", "", 0, 1, 0, 1, lambda pair: 1 - iou(pair)),
    ("rvd", "RVD", "", 0, inf, nan, nan, rvd),
    ("abs_rvd", "|RVD|", "", 0, inf, nan, nan, lambda pair: abs(rvd(pair))),
    ("assd_mm", "ASSD", "mm", 0, inf, nan, nan, lambda pair: pair.distances.assd_mm),
    ("rmsd_mm", "RMSD", "mm", 0, inf, nan, nan, lambda pair: pair.distances.rmsd_mm),
    ("msd_mm", "MSD (Hausdorff)", "mm", 0, inf, nan, nan, lambda pair: pair.distances.msd_mm),
    ("hd95_mm", "HD95", "mm", 0, inf, nan, nan, lambda pair: pair.distances.hd95_mm),
    ("nsd", "NSD", "", 1, 0, 1, 0, lambda pair: pair.distances.nsd(pair.tolerance_mm)),
)

MEASURES = {
    name: Measure(
        name=name, title=title, unit=unit, best=best, worst=worst, both_empty=both, one_empty=one, of=function
    )
    for name, title, unit, best, worst, both, one, function in _ROWS
}
"""Every measure by its name."""


def measure(pair: MaskPair, names: Iterable[str]) -> dict[str, float]:
    """Values of the named measures; NaN where one is not defined."""
    n_empty = (pair.n_prediction == 0) + (pair.n_reference == 0)
    return {name: _value(MEASURES[name], pair, n_empty) for name in names}


def _value(each: Measure, pair: MaskPair, n_empty: int) -> float:
    if n_empty == 0:
        return float(each.of(pair))
    return each.one_empty if n_empty == 1 else each.both_empty
