"""A case on a stamp: two planes through its liver, small enough that a page shows hundreds of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from liver_monai.spec import ModelSpec

WIDTH_PX, HEIGHT_PX = 180, 240
"""Most that a plane takes; both planes have one scale."""
GAP_PX = 4


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """Axial and coronal plane side by side, the patient's right on the left, front and head up.

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
    size_mm = np.linalg.norm(affine[:3, :3], axis=0) * voxels.shape
    width_mm, depth_mm, height_mm = (float(mm) for mm in size_mm[np.argsort(turn[:, 0])])
    mm_per_px = max(width_mm / WIDTH_PX, depth_mm / HEIGHT_PX, height_mm / HEIGHT_PX)
    sizes_px = [(_pixels(mm, mm_per_px), _pixels(width_mm, mm_per_px)) for mm in (depth_mm, height_mm)]
    mask = np.broadcast_to(np.uint8(0), voxels.shape) if label is None else label
    image, mask = (apply_orientation(volume, turn) for volume in (voxels, mask))
    y, z = _middle(mask)
    gray, labels = (
        [_pick(volume[:, :, z].T, sizes_px[0]), _pick(volume[:, y, ::-1].T, sizes_px[1])] for volume in (image, mask)
    )
    return Thumbnail(
        gray=_side_by_side([_as_gray(plane) for plane in gray]),
        labels=_side_by_side([plane.astype(np.uint8) for plane in labels]),
    )


def _pixels(size_mm: float, mm_per_px: float) -> int:
    return max(1, round(size_mm / mm_per_px))


def _middle(mask: np.ndarray) -> tuple[int, int]:
    """The coronal and the axial slice with the most liver, or the middle ones where there is no mask."""
    coronal, axial = (np.zeros(size, dtype=np.int64) for size in mask.shape[1:])
    for z in range(mask.shape[2]):
        marked = (mask[:, :, z] > 0).sum(axis=0)
        coronal += marked
        axial[z] = marked.sum()
    y, z = (int(np.argmax(count)) if count.any() else len(count) // 2 for count in (coronal, axial))
    return y, z


def _pick(plane: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Rows and columns of a plane picked evenly, without smoothing."""
    rows, columns = (np.arange(count) * size // count for count, size in zip(size_px, plane.shape, strict=True))
    return np.asarray(plane[np.ix_(rows, columns)])


def _as_gray(plane: np.ndarray) -> np.ndarray:
    low, high = ModelSpec.hu_window
    return np.asarray(np.clip((plane.astype(np.float32) - low) / (high - low) * 255, 0, 255).astype(np.uint8))


def _side_by_side(planes: list[np.ndarray]) -> np.ndarray:
    """Centred on black, as high as the higher one."""
    height = max(len(plane) for plane in planes)
    padded = [
        np.pad(plane, (((height - len(plane)) // 2, (height - len(plane) + 1) // 2), (0, GAP_PX))) for plane in planes
    ]
    return np.hstack(padded)[:, :-GAP_PX]
