"""The page of one mask: findings, a viewer, and pictures of its liver and its lesions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from liver_monai.io.dicom.patient import Patient
from liver_monai.io.volumes import slice_axis
from liver_monai.report.findings import SUM_RULE, SUMMED, Findings, Lesion
from liver_monai.report.mask_pictures import draw_histogram, draw_lesions
from liver_monai.report.overlays import draw_overlays
from liver_monai.report.page import MISSING, CasePanel, Figure, Table, write_page
from liver_monai.report.surface_picture import VIEWS, draw_surface
from liver_monai.report.view import RadiologicalView
from liver_monai.report.viewer import build_viewer
from liver_monai.scoring.crop import occupied_box

MAX_LESIONS = 12
"""On pictures; the table has more of them."""
MAX_ROWS = 200
"""A degenerate mask may hold thousands of specks; the page stays readable, the CSV file has them all."""
AIR_HU = -1000
"""Black behind the outlines, where there is no CT."""

NOTE = (
    "A lesion is one connected tumour. Longest: the longest diameter on any axial slice; its perpendicular on the same "
    "slice. Sphere: diameter of the ball of the same volume. Slices count from 0 as the file has them. Depth: to the "
    "liver's surface. To liver: mean less that of the liver 2 to 10 mm around. Cut off: it reaches the edge of the "
    f"image. {SUM_RULE}"
)


def write_mask_page(
    path: Path,
    *,
    case_id: str,
    found: Findings,
    mask: np.ndarray,
    affine: np.ndarray,
    image: np.ndarray | None,
    patient: Patient | None = None,
    provenance: Mapping[str, str],
) -> None:
    """Write the page, whole or not at all.

    Args:
        found: what ``find_findings`` says of the mask.
        mask: ``(X, Y, Z)`` uint8 of ``LABELS``, in any orientation.
        affine: voxels to millimetres in RAS+ world space, ``(4, 4)``.
        image: the CT in HU on the same grid.
        patient: shown where given.
    """
    shown = np.broadcast_to(np.int16(AIR_HU), mask.shape) if image is None else image
    view = RadiologicalView.of(shown, {"mask": mask}, affine)
    histogram = [] if image is None or not mask.any() else [_histogram(image, mask)]
    write_page(
        path,
        title=f"Findings in {case_id}",
        summary=[*_patient_cards(patient), *_cards(found)],
        tables=[_table(found)] if found.lesions else [],
        figures=histogram,
        panels=_panels(view, found, draw_overlays(shown, {"mask": mask}, affine=affine)),
        viewer=build_viewer(
            view, found.lesions[:MAX_ROWS], numbers=_stored_numbers(affine, view), has_ct=image is not None
        ),
        provenance=provenance,
    )


def _patient_cards(patient: Patient | None) -> list[tuple[str, str]]:
    return [] if patient is None else [("patient", patient.name or MISSING), ("patient ID", patient.id or MISSING)]


def _cards(found: Findings) -> list[tuple[str, str]]:
    cards = [("liver with tumours", f"{found.liver_ml:.0f} mL"), ("tumours", f"{found.tumor_ml:.1f} mL")]
    cards.append(("tumour burden", MISSING if found.burden is None else f"{100 * found.burden:.1f} %"))
    cards.append(("lesions", str(len(found.lesions))))
    if found.lesions:
        cards.append((f"sum of {max(SUMMED)} longest", f"{found.sum_of_diameters_mm(at_most=max(SUMMED)):.0f} mm"))
    return cards


_CELLS: dict[str, Any] = {
    "lesion": lambda lesion: str(lesion.lesion_id),
    "volume (mL)": lambda lesion: lesion.volume_ml,
    "longest (mm)": lambda lesion: round(lesion.longest.length_mm),
    "perpen\N{SOFT HYPHEN}dicular (mm)": lambda lesion: round(lesion.perpendicular.length_mm),
    "in 3\N{NON-BREAKING HYPHEN}D (mm)": lambda lesion: round(lesion.maximum_mm),
    "sphere (mm)": lambda lesion: round(lesion.sphere_mm),
    "slices": lambda lesion: f"{lesion.slices[0]}\N{EN DASH}{lesion.slices[1]}",
    "depth (mm)": lambda lesion: _whole(lesion.depth_mm),
    "mean (HU)": lambda lesion: _whole(lesion.mean_hu),
    "median (HU)": lambda lesion: _whole(lesion.median_hu),
    "to liver (HU)": lambda lesion: _whole(lesion.contrast_hu),
    "confi\N{SOFT HYPHEN}dence": lambda lesion: lesion.confidence,
    "cut off": lambda lesion: "yes" if lesion.touches_border else "no",
}


def _table(found: Findings) -> Table:
    rows = [[cell(lesion) for cell in _CELLS.values()] for lesion in found.lesions[:MAX_ROWS]]
    known = [index for index, column in enumerate(zip(*rows, strict=True)) if any(cell is not None for cell in column)]
    names = list(_CELLS)
    left_out = len(found.lesions) - len(rows)
    return Table(
        title="Lesions",
        columns=[names[index] for index in known],
        rows=[[row[index] for index in known] for row in rows],
        note=NOTE + (f" {left_out} smaller lesions are left out here." if left_out else ""),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _panels(view: RadiologicalView, found: Findings, overview_png: bytes) -> list[CasePanel]:
    panels = [CasePanel(case_id="Liver", picture_png=overview_png, facts={}, alt=_overview_alt(found))]
    shown = found.lesions[:MAX_LESIONS]
    if shown:
        alt = "; ".join(f"lesion {_size(lesion)}" for lesion in shown)
        title = "Lesions" if len(shown) == len(found.lesions) else f"The {len(shown)} largest lesions"
        panels.append(
            CasePanel(case_id=title, picture_png=draw_lesions(view, shown), facts={}, alt=f"Axial slices: {alt}")
        )
    if found.liver_ml:
        alt = f"Surface of the liver with its tumours, seen {', '.join(VIEWS)}"
        panels.append(CasePanel(case_id="Surface", picture_png=draw_surface(view), facts={}, alt=alt))
    return panels


def _overview_alt(found: Findings) -> str:
    return (
        f"Axial slices with the outlines of a liver of {found.liver_ml:.0f} mL and of {len(found.lesions)} "
        f"lesions, {found.tumor_ml:.1f} mL in all"
    )


def _size(lesion: Lesion) -> str:
    return f"{lesion.lesion_id}, {lesion.longest.length_mm:.0f} by {lesion.perpendicular.length_mm:.0f} mm"


def _histogram(image: np.ndarray, mask: np.ndarray) -> Figure:
    said = "Share of the voxels of liver tissue and of tumours over their Hounsfield units; medians in the table"
    box = occupied_box(mask)
    return Figure(title="Brightness of liver and tumours", png=draw_histogram(image[box], mask[box]), alt=said)


def _stored_numbers(affine: np.ndarray, view: RadiologicalView) -> list[int]:
    """What the file calls the slices of a view, counted from 0."""
    is_upward = nib.orientations.io_orientation(affine)[slice_axis(affine), 1] > 0
    numbers = list(range(view.image.shape[2]))
    return numbers if is_upward else numbers[::-1]
