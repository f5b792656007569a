"""Masks as anatomy allows them: one liver without holes, and tumours in it.

What a network calls liver far away from the liver is false, whatever it looks like: false positives in the pelvis or
the spleen cost more lesion precision than any other fault (Chlebus, Scientific Reports 2018).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from liver_monai.scoring.lesions import components
from liver_monai.spec import BACKGROUND, LIVER, TUMOR


def clean_mask(
    mask: np.ndarray,
    *,
    voxel_mm3: float,
    largest_component: bool = True,
    fill_holes: bool = True,
    min_lesion_mm3: float = 0.0,
) -> np.ndarray:
    """Remove what cannot be true from a mask; components are connected by faces.

    Args:
        mask: ``(X, Y, Z)`` uint8 of ``LABELS``; not changed.
        voxel_mm3: volume of a voxel.
        largest_component: keep only the largest component of liver and tumours together, so that a tumour which does
            not touch the liver goes, too.
        fill_holes: background that the liver encloses becomes liver, and tumour where a tumour encloses it.
        min_lesion_mm3: smaller tumours become liver.

    Returns:
        uint8 of the same shape.
    """
    cleaned = mask.copy()
    boxes = ndimage.find_objects((mask != BACKGROUND).view(np.uint8))
    if not boxes:
        return cleaned
    box = cleaned[boxes[0]]  # a view: nothing is computed where nothing was predicted
    if largest_component:
        box[~_largest(box != BACKGROUND)] = BACKGROUND
    if fill_holes:
        _fill_holes(box)
    if min_lesion_mm3:
        box[_small(box == TUMOR, min_voxels=min_lesion_mm3 / voxel_mm3)] = LIVER
    return cleaned


def _largest(mask: np.ndarray) -> np.ndarray:
    """The component of most voxels; of equals the first."""
    labels, _ = components(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: np.ndarray = labels == sizes.argmax()
    return largest


def _fill_holes(mask: np.ndarray) -> None:
    """Fill in place; the tumour first, because what it encloses is enclosed by the liver, too."""
    for value, encloses in ((TUMOR, mask == TUMOR), (LIVER, mask != BACKGROUND)):
        mask[_holes(encloses) & (mask == BACKGROUND)] = value


def _holes(mask: np.ndarray) -> np.ndarray:
    """What is not in the mask and cannot be reached from outside."""
    labels, n = components(~mask)
    is_hole = np.ones(n + 1, dtype=bool)
    is_hole[0] = False
    for axis in range(labels.ndim):
        for face in (0, -1):
            is_hole[labels.take(face, axis=axis)] = False
    holes: np.ndarray = is_hole[labels]
    return holes


def _small(mask: np.ndarray, *, min_voxels: float) -> np.ndarray:
    """Components of fewer voxels."""
    labels, _ = components(mask)
    is_small = np.bincount(labels.ravel()) < min_voxels
    is_small[0] = False
    small: np.ndarray = is_small[labels]
    return small
