"""Pictures of one mask: each lesion with its diameters, and how bright liver and tumours are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from nibabel.affines import apply_affine

from liver_monai.report.canvas import LIVER_COLOUR, TUMOR_COLOUR, calm, figure_png, new_figure
from liver_monai.report.findings import Lesion, Line
from liver_monai.report.overlays import add_sheet_texts, contact_sheet, corner_text, draw_slice, legend_line
from liver_monai.report.view import Crop, RadiologicalView
from liver_monai.spec import LIVER, TUMOR

FIELD = 1.7
"""Width of a lesion's picture in its longest diameters: enough around it to see where it lies."""
SMALLEST_FIELD_MM = 60.0
"""Lest a lesion of few voxels is all that is seen."""
BAR_MM = 20
HISTOGRAM_HU = (-100.0, 250.0)
"""Of soft tissue with and without contrast medium; what lies outside is counted at the ends."""
BIN_HU = 5.0

LONGEST_COLOUR, PERPENDICULAR_COLOUR = "#ffffff", "#f0e442"


def view_ends(view: RadiologicalView, line: Line) -> np.ndarray:
    """Ends ``(2, 3)`` of a diameter in voxels of a view."""
    world_mm = np.asarray(line.ends_mm) * (-1, -1, 1)  # LPS to RAS
    return np.asarray(apply_affine(np.linalg.inv(view.affine), world_mm))


def axial_text(lesion: Lesion) -> str:
    """Both diameters of a lesion on a slice, as pictures have them."""
    return f"{lesion.longest.length_mm:.0f} \N{MULTIPLICATION SIGN} {lesion.perpendicular.length_mm:.0f} mm"


def draw_lesions(view: RadiologicalView, lesions: Sequence[Lesion]) -> bytes:
    """Contact sheet (PNG): each lesion on the slice of its longest diameter, all at one scale.

    Args:
        view: with the mask ``"mask"``.
        lesions: at least one.
    """
    field_mm = max(SMALLEST_FIELD_MM, FIELD * max(lesion.longest.length_mm for lesion in lesions))
    figure, panels = contact_sheet(len(lesions), aspect=1.0)
    for panel, lesion in zip(panels, lesions, strict=True):
        _draw_lesion(panel, view, lesion, field_mm=field_mm)
    colours = {"liver": LIVER_COLOUR, "tumour": TUMOR_COLOUR}
    colours |= {"longest diameter": LONGEST_COLOUR, "perpendicular": PERPENDICULAR_COLOUR}
    lines = {name: legend_line(colour) for name, colour in colours.items()}
    title = f"each lesion on the slice of its longest diameter  ·  bar {BAR_MM} mm"
    add_sheet_texts(figure, title, lines)
    return figure_png(figure)


def draw_histogram(image: np.ndarray, mask: np.ndarray) -> bytes:
    """Share of the voxels of liver tissue and of tumours over their HU (PNG)."""
    figure = new_figure((9.0, 3.1))
    axes = figure.add_axes((0.06, 0.17, 0.91, 0.76))
    edges = np.arange(HISTOGRAM_HU[0], HISTOGRAM_HU[1] + BIN_HU, BIN_HU)
    for value, name, colour in ((LIVER, "liver", LIVER_COLOUR), (TUMOR, "tumours", TUMOR_COLOUR)):
        hu = image[mask == value]
        if hu.size:
            counts, _ = np.histogram(np.clip(hu, *HISTOGRAM_HU), bins=edges)
            label = f"{name}, median {np.median(hu):.0f} HU".replace("-", "\N{MINUS SIGN}")
            axes.stairs(100 * counts / hu.size, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(100 * counts / hu.size, edges, color=colour, linewidth=1.6, label=label)
    axes.set(xlim=HISTOGRAM_HU, xlabel="HU", ylabel="% of voxels")
    axes.legend(frameon=False)
    calm(axes, grid_axis="y")
    return figure_png(figure)


def _draw_lesion(panel: Axes, view: RadiologicalView, lesion: Lesion, *, field_mm: float) -> None:
    ends = view_ends(view, lesion.longest)
    z = round(float(ends[0, 2]))
    draw_slice(panel, view, z, crop=Crop.whole(view.image))
    _draw_line(panel, view, lesion.perpendicular, colour=PERPENDICULAR_COLOUR)
    _draw_line(panel, view, lesion.longest, colour=LONGEST_COLOUR)
    centre = (ends.mean(axis=0)[:2] + 0.5) * view.spacing_mm[:2]
    panel.set(xlim=centre[0] + np.array([-0.5, 0.5]) * field_mm, ylim=centre[1] + np.array([-0.5, 0.5]) * field_mm)
    corner_text(panel, 0.02, 0.92, f"{lesion.lesion_id}  ·  {lesion.volume_ml:.3g} mL  ·  {axial_text(lesion)}")
    panel.plot([0.95 - BAR_MM / field_mm, 0.95], [0.04, 0.04], color="white", linewidth=2, transform=panel.transAxes)


def _draw_line(panel: Axes, view: RadiologicalView, line: Line, *, colour: str) -> None:
    x_mm, y_mm = ((view_ends(view, line)[:, :2] + 0.5) * view.spacing_mm[:2]).T
    panel.plot(x_mm, y_mm, color=colour, linewidth=1.5, path_effects=[withStroke(linewidth=3, foreground="black")])
