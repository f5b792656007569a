"""Surfaces of masks and the distances between them, in mm: computed once, read by every measure.

A surface is the object XOR its erosion, where what lies outside of the array is background; by default the erosion
looks at the 18 neighbours that share a face or an edge (Heimann et al., IEEE TMI 28, 2009; the LiTS challenge).
Distances run between centres of voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from liver_monai.scoring.nearest import nearest_mm
from liver_monai.scoring.overlap import require_same_shape

FACES, FACES_AND_EDGES, FACES_EDGES_AND_CORNERS = 1, 2, 3
"""Neighbourhoods of 6, 18 and 26 voxels, numbered as in SciPy's ``generate_binary_structure``."""

PLANES_AT_A_TIME = 16
"""An erosion's intermediate results of so many planes stay in a processor's cache, and never fill the memory."""


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """From every voxel of one surface to the nearest of the other, both ways, in mm; neither is empty."""

    prediction_to_reference_mm: np.ndarray
    reference_to_prediction_mm: np.ndarray

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean of both sets together."""
        return self._sum(1) / self._n

    @property
    def rmsd_mm(self) -> float:
        """Root mean square symmetric surface distance, of both sets together."""
        return float(np.sqrt(self._sum(2) / self._n))

    @property
    def msd_mm(self) -> float:
        """Maximum symmetric surface distance, which others call Hausdorff distance; not a mean."""
        return max(float(distances.max()) for distances in self._both)

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directions' 95th percentiles (Metrics Reloaded; MONAI)."""
        return max(float(np.percentile(distances, 95)) for distances in self._both)

    def nsd(self, tolerance_mm: float) -> float:
        """Normalized surface distance or surface Dice: share of both surfaces within a tolerance of the other."""
        return sum(int(np.count_nonzero(distances <= tolerance_mm)) for distances in self._both) / self._n

    @property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        return self.prediction_to_reference_mm, self.reference_to_prediction_mm

    @property
    def _n(self) -> int:
        return sum(len(distances) for distances in self._both)

    def _sum(self, power: int) -> float:
        return sum(float((distances**power).sum()) for distances in self._both)


def surface_distances(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    connectivity: int = FACES_AND_EDGES,
) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        prediction, reference: bool ``(X, Y, Z)``, of the same shape.
        spacing_mm: voxel spacing along the masks' axes.
        connectivity: the neighbourhood of the erosion; MONAI's default is ``FACES``.

    Raises:
        ValueError: shapes differ, or a mask is empty: then no distance is defined.
    """
    require_same_shape(prediction, reference)
    if not (prediction.any() and reference.any()):
        raise ValueError("a mask is empty; distances need a surface on both sides")
    surfaces = [surface(mask, connectivity=connectivity) for mask in (prediction, reference)]
    return SurfaceDistances(
        prediction_to_reference_mm=nearest_mm(*surfaces, spacing_mm=spacing_mm),
        reference_to_prediction_mm=nearest_mm(*surfaces[::-1], spacing_mm=spacing_mm),
    )


def surface(mask: np.ndarray, *, connectivity: int = FACES_AND_EDGES) -> np.ndarray:
    """Voxels of a bool mask ``(X, Y, Z)`` that have background, or the end of the array, in their neighbourhood."""
    found = np.empty(mask.shape, dtype=bool)
    n_planes = len(mask)
    for start in range(0, n_planes, PLANES_AT_A_TIME):
        stop = min(start + PLANES_AT_A_TIME, n_planes)
        first, end = max(start - 1, 0), min(stop + 1, n_planes)  # with the neighbouring planes
        inside = _erode(mask[first:end], connectivity=connectivity)[start - first : stop - first]
        np.greater(mask[start:stop], inside, out=found[start:stop])
    found[[0, -1]] = mask[[0, -1]]
    return found


def _erode(mask: np.ndarray, *, connectivity: int) -> np.ndarray:
    """The 18-neighbourhood is three squares, and a square is a row of three, shrunk along another axis."""
    eroded = mask.copy()
    for axes in combinations(range(mask.ndim), connectivity):
        part = mask
        for axis in axes:
            part = _shrink(part, axis)
        eroded &= part
    return eroded


def _shrink(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels whose two neighbours along an axis are in the mask, too."""
    shrunk = mask.copy()
    source, target = np.moveaxis(mask, axis, 0), np.moveaxis(shrunk, axis, 0)
    target[1:] &= source[:-1]
    target[:-1] &= source[1:]
    target[[0, -1]] = False
    return shrunk
