"""A case on a stamp: three planes through its liver, small enough that a page shows hundreds of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from liver_monai.spec import ModelSpec

HEIGHT_PX = 128
WIDEST_PX = 256
GAP_PX = 3


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """Axial, coronal and sagittal plane side by side, the patient's right and front to the left, head up.

    Args:
        gray: ``(H, W)`` uint8, the image in the default HU window.
        labels: ``(H, W)`` uint8, the mask in the same places.
    """

    gray: np.ndarray
    labels: np.ndarray


def make_thumbnail(voxels: np.ndarray, label: np.ndarray | None, *, affine: np.ndarray) -> Thumbnail:
    """Planes through the middle of the mask, or of the volume where there is none, in true proportions.

    Args:
        voxels: ``(X, Y, Z)`` in Hounsfield units; ``label`` on the same grid.
        affine: ``(4, 4)`` from voxels to mm, RAS.
    """
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(turn[:, 0])]
    mask = np.broadcast_to(np.uint8(0), voxels.shape) if label is None else label
    image, mask = (apply_orientation(volume, turn) for volume in (voxels, mask))
    middle = _middle(mask)
    gray = [_as_gray(_stamp(plane, mm)) for plane, mm in _planes(image, middle, spacing_mm)]
    labels = [_stamp(plane, mm).astype(np.uint8) for plane, mm in _planes(mask, middle, spacing_mm)]
    return Thumbnail(gray=_side_by_side(gray), labels=_side_by_side(labels))


def _planes(
    volume: np.ndarray, middle: tuple[int, int, int], spacing_mm: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Axial, coronal and sagittal plane ``(rows, columns)``, each with the spacing of its rows and columns."""
    x, y, z = middle
    return [
        (volume[:, :, z].T, spacing_mm[[1, 0]]),
        (volume[:, y, ::-1].T, spacing_mm[[2, 0]]),
        (volume[x, :, ::-1].T, spacing_mm[[2, 1]]),
    ]


def _middle(mask: np.ndarray) -> tuple[int, int, int]:
    """The slice with the most liver along each axis, or the middle one where there is no mask."""
    counts = [np.zeros(size, dtype=np.int64) for size in mask.shape]
    for z in range(mask.shape[2]):
        plane = mask[:, :, z] > 0
        counts[0] += plane.sum(axis=1)
        counts[1] += plane.sum(axis=0)
        counts[2][z] = plane.sum()
    x, y, z = (int(np.argmax(count)) if count.any() else len(count) // 2 for count in counts)
    return x, y, z


def _stamp(plane: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Rows and columns picked so that the plane is ``HEIGHT_PX`` high, in true proportions."""
    height_mm, width_mm = np.array(plane.shape) * spacing_mm
    width_px = int(np.clip(round(HEIGHT_PX * width_mm / height_mm), 8, WIDEST_PX))
    picked = (np.arange(count) * size // count for count, size in zip((HEIGHT_PX, width_px), plane.shape, strict=True))
    return np.asarray(plane[np.ix_(*picked)])


def _as_gray(plane: np.ndarray) -> np.ndarray:
    low, high = ModelSpec.hu_window
    return np.asarray(np.clip((plane.astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8))


def _side_by_side(stamps: list[np.ndarray]) -> np.ndarray:
    gap = np.zeros((HEIGHT_PX, GAP_PX), dtype=np.uint8)
    return np.hstack([stamps[0], gap, stamps[1], gap, stamps[2]])
