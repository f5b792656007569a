"""Masks as anatomy allows them: one liver without holes, and tumours in it.

What a network calls liver far away from the liver is false, whatever it looks like: false positives in the pelvis or
the spleen cost more lesion precision than any other fault (Chlebus, Scientific Reports 2018).
"""

from __future__ import annotations

import numpy as np

from liver_monai.engine.components import select_components
from liver_monai.scoring.crop import foreground_box, memory_order
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
    cleaned = mask.copy(order="K")
    view = cleaned.transpose(memory_order(cleaned))
    box = view[foreground_box(view)]  # a view, too: nothing is computed where nothing was predicted
    if not box.size:
        return cleaned
    if largest_component:
        box[~largest_of(box != BACKGROUND)] = BACKGROUND
    if fill_holes:
        _fill_holes(box)
    if min_lesion_mm3:
        box[_small(box == TUMOR, min_voxels=min_lesion_mm3 / voxel_mm3)] = LIVER
    return cleaned


def largest_of(mask: np.ndarray) -> np.ndarray:
    """The component of most voxels of a bool mask; of equals the first."""
    return select_components(mask, lambda found: np.arange(len(found.voxels)) == found.voxels.argmax())


def _fill_holes(mask: np.ndarray) -> None:
    """Fill in place; the tumours first, because what they enclose is enclosed by the liver, too."""
    tumors = mask == TUMOR
    box = foreground_box(tumors)
    for part, encloses, value in ((mask[box], tumors[box], TUMOR), (mask, mask != BACKGROUND, LIVER)):
        if encloses.size:
            part[_holes(encloses) & (part == BACKGROUND)] = value


def _holes(mask: np.ndarray) -> np.ndarray:
    """What is not in the mask and cannot be reached from outside."""
    return select_components(~mask, lambda found: ~found.is_at_face, counts_voxels=False)


def _small(mask: np.ndarray, *, min_voxels: float) -> np.ndarray:
    """Components of fewer voxels."""
    return select_components(mask, lambda found: found.voxels < min_voxels)
