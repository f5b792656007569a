"""Checks of a reference mask, and of how it fits its CT."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from liver_monai.data.checks.findings import Observed
from liver_monai.data.checks.header import read_stored_header
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.spec import LABELS, LIVER, TUMOR

OUTSIDE_MM = 5.0
"""Tumours at the capsule may be drawn this far from the voxels of the liver."""
TINY_MM = 3.0
"""Equivalent diameter: below it a lesion is a few voxels, often a slip of the brush."""
LIVER_ML = (500.0, 4000.0)
"""Adult livers measure 800 to 2500 mL; resections and large tumours leave this range seldom."""
LEAST_PART = 0.01
"""Of the liver's volume: a second part so large is no speck."""
MOST_VALUES_SHOWN = 5


def unreadable_label(case: LoadedCase) -> Iterator[Observed]:
    """As ``unreadable_image``."""
    if case.label_error:
        yield Observed(text=case.label_error)


def label_grid(case: LoadedCase) -> Iterator[Observed]:
    """Shape and place of mask and CT."""
    if case.grid_error:
        yield Observed(text=case.grid_error)


def float_label(case: LoadedCase) -> Iterator[Observed]:
    """Masks stored as floating-point numbers."""
    header = read_stored_header(case.case.label) if case.case.label and not case.label_error else None
    if header is not None and header.dtype.kind == "f":
        yield Observed(text=f"the mask is stored as {header.dtype}; whole numbers are accepted as labels")


def label_values(case: LoadedCase) -> Iterator[Observed]:
    """Values that are no label."""
    unknown = case.unknown_labels
    if unknown:
        most = sorted(unknown.items(), key=lambda item: -item[1])[:MOST_VALUES_SHOWN]
        known = ", ".join(f"{value} {name}" for value, name in LABELS.items())
        yield Observed(
            text=f"{sum(unknown.values())} voxels hold values that are no label, "
            f"{'such as ' if len(unknown) > len(most) else ''}"
            f"{', '.join(f'{value:g} ({count})' for value, count in most)}; the labels are {known}",
            figures={"n_voxels": sum(unknown.values()), "values": [value for value, _ in most]},
        )


def empty_label(case: LoadedCase) -> Iterator[Observed]:
    """Nothing marked."""
    if case.mask is not None and case.liver_box is None:
        yield Observed(text="the mask marks neither liver nor tumour")


def tumor_outside_liver(case: LoadedCase) -> Iterator[Observed]:
    """Lesions that do not touch the liver."""
    parts, n_parts = ndimage.label(case.marked == TUMOR)
    if n_parts == 0:
        return
    liver = case.marked == LIVER
    touching = set(np.unique(parts[ndimage.binary_dilation(liver)]).tolist())
    boxes = ndimage.find_objects(parts)
    outside = [
        int(np.count_nonzero(parts[box] == part))
        for part, box in enumerate(boxes, start=1)
        if part not in touching and not _is_near(parts == part, liver, box, spacing_mm=case.spacing_mm)
    ]
    if outside:
        volume_ml = sum(outside) * case.voxel_ml
        yield Observed(
            text=f"{len(outside)} of {n_parts} lesions ({volume_ml:.2g} mL) lie more than {OUTSIDE_MM:g} mm from the "
            "marked liver",
            figures={"n_lesions": len(outside), "volume_ml": round(volume_ml, 4)},
        )


def tiny_lesions(case: LoadedCase) -> Iterator[Observed]:
    """Lesions of a few voxels."""
    limit_ml = np.pi * TINY_MM**3 / 6000
    n_tiny = int((case.lesions_ml < limit_ml).sum())
    if n_tiny:
        yield Observed(
            text=f"{n_tiny} of {len(case.lesions_ml)} lesions are smaller than a ball of {TINY_MM:g} mm",
            figures={"n_tiny": n_tiny, "n_lesions": len(case.lesions_ml)},
        )


def liver_volume(case: LoadedCase) -> Iterator[Observed]:
    """Livers too small or too large to be whole, or in millimetres that are not true."""
    low, high = LIVER_ML
    if case.liver_box is not None and not low <= case.liver_ml <= high:
        yield Observed(
            text=f"the marked liver measures {case.liver_ml:.0f} mL; adult livers measure {low:g} to {high:g} mL",
            figures={"liver_ml": round(case.liver_ml, 1)},
        )


def liver_parts(case: LoadedCase) -> Iterator[Observed]:
    """A liver in pieces."""
    parts_ml = case.liver_parts_ml
    large = parts_ml[parts_ml > LEAST_PART * parts_ml.sum()]
    if len(large) > 1:
        yield Observed(
            text=f"the marked liver falls into {len(large)} large parts of "
            f"{', '.join(f'{part_ml:.0f}' for part_ml in large[:MOST_VALUES_SHOWN])} mL; a liver is one",
            figures={"parts_ml": [round(float(part_ml), 1) for part_ml in large[:MOST_VALUES_SHOWN]]},
        )


def liver_cut(case: LoadedCase) -> Iterator[Observed]:
    """A liver that goes on beyond the scan."""
    if case.mask is None:
        return
    slices = np.moveaxis(case.mask, case.slice_axis, 0)
    ends = [name for name, plane in (("first", slices[0]), ("last", slices[-1])) if plane.any()]
    if ends:
        yield Observed(
            text=f"the marked liver reaches the {' and the '.join(ends)} slice: it is not in the scan as a whole",
            figures={"ends": ends},
        )


def _is_near(lesion: np.ndarray, liver: np.ndarray, box: tuple[slice, ...], *, spacing_mm: np.ndarray) -> bool:
    """Whether a lesion within a box comes as close to the liver as ``OUTSIDE_MM``."""
    margins = np.ceil(OUTSIDE_MM / spacing_mm).astype(int)
    around = tuple(
        slice(max(0, side.start - margin), side.stop + margin) for side, margin in zip(box, margins, strict=True)
    )
    if not liver[around].any():
        return False
    distances_mm = ndimage.distance_transform_edt(~liver[around], sampling=spacing_mm)
    return bool(distances_mm[lesion[around]].min() <= OUTSIDE_MM)
