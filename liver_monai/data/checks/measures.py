"""Measures of a volume that several checks share, each made in one pass over its planes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

BLOCK_MM = 5.0
"""Smaller than what anatomy is told by (spine, lungs, liver), large enough that noise averages out."""
MOST_BLOCKS = 128
"""Along an axis: a header with a wrong spacing must not cost memory."""

AIR_HU = -1024
"""Lowest value of the Hounsfield scale as scanners store it; what is below it is padding."""
BODY_HU = -300.0  # between air and fat
BONE_HU = 400.0  # above contrast medium in the portal-venous phase
METAL_HU = 3000.0  # just below 3071, where CTs of 12 bits end
HU_LIMIT = 32768
"""Values of 16 bits run from its negative up to one less."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often each whole Hounsfield unit occurs; values beyond 16 bits count as the outermost ones.

    Args:
        counts: ``(65536,)``, of -32768 HU and up.
        low, high: smallest and largest value as they are, unrounded.
    """

    counts: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, voxels: np.ndarray) -> Histogram:
        """Of a volume, a plane at a time."""
        counts = np.zeros(2 * HU_LIMIT, dtype=np.int64)
        low, high = np.inf, -np.inf
        for plane in voxels:
            low, high = min(low, float(plane.min())), max(high, float(plane.max()))
            rounded = plane if plane.dtype.kind in "iu" else np.rint(plane)
            shifted = np.clip(rounded, -HU_LIMIT, HU_LIMIT - 1).astype(np.int64) + HU_LIMIT
            counts += np.bincount(shifted.ravel(), minlength=len(counts))
        return cls(counts=counts, low=low, high=high)

    @property
    def total(self) -> int:
        """Voxels in all."""
        return int(self.counts.sum())

    @property
    def padding_share(self) -> float:
        """Share of the voxels below air."""
        return float(self._padding.sum() / self.total)

    @property
    def padding_hu(self) -> int:
        """The value below air that most voxels have."""
        return int(np.argmax(self._padding)) - HU_LIMIT

    @property
    def _padding(self) -> np.ndarray:
        return self.between(-HU_LIMIT, AIR_HU - 1)

    def between(self, low_hu: int, high_hu: int) -> np.ndarray:
        """Counts of ``low_hu`` up to and including ``high_hu``."""
        return self.counts[low_hu + HU_LIMIT : high_hu + HU_LIMIT + 1]

    def n_at(self, hu: float) -> int:
        """Voxels that round to this value."""
        return int(self.counts[int(np.clip(round(hu), -HU_LIMIT, HU_LIMIT - 1)) + HU_LIMIT])

    def percentile(self, percent: float) -> int:
        """The value that this share of all voxels does not exceed, padding left out."""
        counts = self.between(AIR_HU, HU_LIMIT - 1)
        if not counts.any():
            return AIR_HU
        return AIR_HU + int(np.searchsorted(np.cumsum(counts), percent / 100 * counts.sum()))


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A volume in blocks of about ``BLOCK_MM``, turned by its affine to RAS: x to the right, y to the front, z up.

    Args:
        hu: ``(X, Y, Z)`` mean of each block, padding counted as air.
        bone: share of its voxels above ``BONE_HU``, metal left out.
        liver: share of its voxels that the mask marks, all 0 without a mask.
        size_mm: of a block along x, y and z.
    """

    hu: np.ndarray
    bone: np.ndarray
    liver: np.ndarray
    size_mm: np.ndarray

    @classmethod
    def of(cls, voxels: np.ndarray, label: np.ndarray | None, *, affine: np.ndarray) -> Blocks:
        """Of ``(X, Y, Z)`` voxels and their mask on the same grid; ``affine`` is ``(4, 4)`` to mm, RAS."""
        spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
        turn = ornt_transform(io_orientation(affine), axcodes2ornt("RAS"))
        hu = _blocks(voxels, lambda hu: np.maximum(hu, AIR_HU), affine=affine)
        return cls(
            hu=hu,
            bone=_blocks(voxels, lambda hu: (hu > BONE_HU) & (hu < METAL_HU), affine=affine),
            liver=np.zeros_like(hu) if label is None else _blocks(label, lambda labels: labels > 0, affine=affine),
            size_mm=(spacing_mm * _steps(voxels.shape, affine))[np.argsort(turn[:, 0])],
        )

    def with_mask(self, label: np.ndarray, *, affine: np.ndarray) -> Blocks:
        """The same volume with a mask ``(X, Y, Z)`` on its grid."""
        return replace(self, liver=_blocks(label, lambda labels: labels > 0, affine=affine))

    @cached_property
    def body(self) -> np.ndarray:
        """The largest connected part that is no air, without the table, its lungs and bowel filled in."""
        foreground = self.hu > BODY_HU
        opened = ndimage.binary_opening(foreground, iterations=2) if min(foreground.shape) > 8 else foreground
        parts, n_parts = ndimage.label(opened)
        if n_parts == 0:
            return np.zeros(foreground.shape, dtype=bool)
        largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        filled = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, 2, 0)]
        return np.stack(filled, axis=2)

    @property
    def block_ml(self) -> float:
        """Volume of a block."""
        return float(np.prod(self.size_mm)) / 1000

    def centre_mm(self, weights: np.ndarray) -> np.ndarray:
        """Centre of mass along right, front and head, from the volume's corner."""
        return np.asarray(ndimage.center_of_mass(weights) * self.size_mm)


def _steps(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """How many voxels a block has along each stored axis."""
    smallest = np.ceil(np.array(shape) / MOST_BLOCKS)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(np.maximum(smallest, np.clip(np.rint(BLOCK_MM / spacing_mm), 1, shape)).astype(int))


def _blocks(volume: np.ndarray, value: Callable[[np.ndarray], np.ndarray], *, affine: np.ndarray) -> np.ndarray:
    """Means of ``value(voxels)``, turned to RAS."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("RAS"))
    return np.asarray(apply_orientation(_block_means(volume, _steps(volume.shape, affine), value), turn))


def _block_means(volume: np.ndarray, steps: np.ndarray, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean of ``value(voxels)`` in each block; the last blocks of an axis may be smaller."""
    starts = [np.arange(0, size, step) for size, step in zip(volume.shape, steps, strict=True)]
    means = np.zeros([len(each) for each in starts], dtype=np.float32)
    sizes = [np.diff([*each, size]) for each, size in zip(starts, volume.shape, strict=True)]
    for index, (start, count) in enumerate(zip(starts[0], sizes[0], strict=True)):
        planes = value(volume[start : start + count])
        summed = planes.sum(axis=0, dtype=np.float32 if planes.dtype.kind == "f" else np.int32)
        summed = np.add.reduceat(np.add.reduceat(summed, starts[1], axis=0), starts[2], axis=1)
        means[index] = summed / (count * np.outer(sizes[1], sizes[2]))
    return means
