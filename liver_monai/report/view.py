"""A scan as radiologists look at it, and which of its slices are worth seeing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from liver_monai.spec import LIVER, TUMOR

BODY_HU = -300.0  # between air and fat
BODY_MARGIN_MM = 8.0
WINDOW_HU = (-100.0, 200.0)
"""What every picture shows as black and as white, fat at its low end and vessels in contrast at its high one; on pages
it is the viewer's window of the liver."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of a slice."""

    x: slice
    y: slice

    @classmethod
    def whole(cls, image: np.ndarray) -> Crop:
        """All of the slices of ``(X, Y, Z)``."""
        return cls(x=slice(0, image.shape[0]), y=slice(0, image.shape[1]))


@dataclass(frozen=True, kw_only=True)
class RadiologicalView:
    """Image and masks as numpy views whose axes run to the patient's left, front and head."""

    image: np.ndarray
    masks: dict[str, np.ndarray]
    affine: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, masks: Mapping[str, np.ndarray], affine: np.ndarray) -> RadiologicalView:
        """Of arrays in any orientation, see :func:`overlay_figure`."""
        turn = ornt_transform(io_orientation(affine), axcodes2ornt("LAS"))
        return cls(
            image=apply_orientation(image, turn),
            masks={name: apply_orientation(mask, turn) for name, mask in masks.items()},
            affine=affine @ inv_ornt_aff(turn, image.shape),
        )

    @property
    def spacing_mm(self) -> np.ndarray:
        """Of the voxels along the view's axes."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    def width_mm(self, crop: Crop) -> float:
        """Of a part of a slice, from right to left."""
        return float((crop.x.stop - crop.x.start) * self.spacing_mm[0])

    def height_mm(self, crop: Crop) -> float:
        """Of a part of a slice, from back to front."""
        return float((crop.y.stop - crop.y.start) * self.spacing_mm[1])

    def position_mm(self, z: int) -> float:
        """Height of the centre of slice ``z``, positive towards the head."""
        centre = [(self.image.shape[0] - 1) / 2, (self.image.shape[1] - 1) / 2, z, 1]
        return float(self.affine[2] @ centre)


def gray_values(hu: np.ndarray, window_hu: tuple[float, float] = WINDOW_HU) -> np.ndarray:
    """HU as uint8, from 0 at a window's low end and below to 255 at its high end and above."""
    low, high = window_hu
    gray = np.rint(np.clip((np.asarray(hu, dtype=np.float32) - low) / (high - low), 0, 1) * 255)
    return np.asarray(gray, dtype=np.uint8)


def body_crop(view: RadiologicalView, slices: Sequence[int]) -> Crop:
    """Box around the body in the drawn slices, and around every mask there, wherever it lies."""
    n_columns, n_rows, _ = view.image.shape
    shown = np.zeros((n_columns, n_rows), dtype=bool)
    for z in slices:
        shown |= _largest_part(ndimage.binary_opening(view.image[:, :, z] > BODY_HU, iterations=2))
        for mask in view.masks.values():
            shown |= mask[:, :, z] >= LIVER
    margin_x, margin_y, _ = np.rint(BODY_MARGIN_MM / view.spacing_mm).astype(int)
    columns, rows = np.nonzero(shown)
    return Crop(
        x=_extent(columns, margin=margin_x, size=n_columns),
        y=_extent(rows, margin=margin_y, size=n_rows),
    )


def _largest_part(foreground: np.ndarray) -> np.ndarray:
    """The largest connected part: the body, without the table below it."""
    parts, n_parts = ndimage.label(foreground)
    if n_parts == 0:
        return foreground
    sizes = np.bincount(parts.ravel())
    return np.asarray(parts == 1 + int(np.argmax(sizes[1:])))


def _extent(indices: np.ndarray, *, margin: int, size: int) -> slice:
    if indices.size == 0:
        return slice(0, size)
    return slice(max(0, int(indices.min()) - margin), min(size, int(indices.max()) + 1 + margin))


def choose_slices(masks: Sequence[np.ndarray], *, n_slices: int) -> list[int]:
    """Slices ``z`` of ``(X, Y, Z)`` masks worth seeing, highest first: spread over the liver, on the tumours.

    The liver's extent is cut into ``n_slices`` equal parts, and each part gives the slice with the largest tumour area,
    or its middle slice when there is none. Without liver and tumour they are spread over the middle of the volume.
    """
    if n_slices < 1:
        raise ValueError(f"n_slices is {n_slices}; it must be at least 1")
    n_planes = masks[0].shape[2]
    counts = [_voxels_per_slice(mask) for mask in masks]
    organ = np.flatnonzero(np.sum([count.organ for count in counts], axis=0))
    tumor = np.max([count.tumor for count in counts], axis=0)
    first, end = (organ[0], organ[-1] + 1) if organ.size else (n_planes // 4, n_planes - n_planes // 4)

    edges = np.linspace(first, end, min(n_slices, end - first) + 1).round().astype(int)
    parts = [(int(low), int(high)) for low, high in pairwise(edges)]
    chosen = [
        low + int(np.argmax(tumor[low:high])) if tumor[low:high].any() else (low + high) // 2 for low, high in parts
    ]
    return chosen[::-1]


@dataclass(frozen=True, kw_only=True)
class _SliceCounts:
    organ: np.ndarray  # voxels of liver and tumour, one number a slice
    tumor: np.ndarray


def _voxels_per_slice(mask: np.ndarray) -> _SliceCounts:
    """Count plane by plane along the axis that lies furthest apart in memory: no copy, no jumping about."""
    axis = int(np.argmax(np.abs(mask.strides)))
    organ, tumor = (np.zeros(mask.shape[2], dtype=np.int64) for _ in range(2))
    for index, plane in enumerate(np.moveaxis(mask, axis, 0)):
        target: int | slice = index if axis == 2 else slice(None)
        over = None if axis == 2 else 0
        organ[target] += np.count_nonzero(plane >= LIVER, axis=over)
        tumor[target] += np.count_nonzero(plane == TUMOR, axis=over)
    return _SliceCounts(organ=organ, tumor=tumor)
