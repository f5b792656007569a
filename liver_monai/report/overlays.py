"""Outlines on CT slices: contact sheets, and small pictures.

Every ``draw_*`` returns the bytes of a picture; every ``*_figure`` the matplotlib figure behind it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from scipy import ndimage

from liver_monai.report.canvas import LIVER_COLOUR, TUMOR_COLOUR, figure_png, new_figure
from liver_monai.report.view import WINDOW_HU, Crop, RadiologicalView, body_crop, choose_slices, gray_values
from liver_monai.spec import LIVER, TUMOR

Style = Literal["solid", "dashed"]
LINE_STYLES: dict[str, Style] = {"prediction": "solid", "reference": "dashed"}
SHEET_WIDTH_INCH = 12.0
STAMP_WIDTH = 224
"""Pixels: twice what a table shows, for sharp screens."""


def draw_overlays(image: np.ndarray, masks: Mapping[str, np.ndarray], *, affine: np.ndarray) -> bytes:
    """Contact sheet (PNG) of axial slices with the outlines of liver and tumours; see :func:`overlay_figure`."""
    return figure_png(overlay_figure(image, masks, affine=affine))


def overlay_figure(
    image: np.ndarray, masks: Mapping[str, np.ndarray], *, affine: np.ndarray, n_slices: int = 6
) -> Figure:
    """Axial slices from head to feet, the patient's right on the left of the picture, cropped to the body.

    Only the drawn slices are converted or copied, whatever the size of the volume.

    Args:
        image: ``(X, Y, Z)`` in Hounsfield units, in any orientation.
        masks: name -> ``(X, Y, Z)`` labels on the image's grid. ``"reference"`` is drawn dashed, the others solid.
        affine: ``(4, 4)`` from voxels to mm, RAS.
        n_slices: most slices to draw; fewer where the liver spans fewer.

    Raises:
        ValueError: a mask is not on the image's grid.
    """
    for name, mask in masks.items():
        if mask.shape != image.shape:
            raise ValueError(f"mask '{name}' has shape {mask.shape}, the image has {image.shape}; they must be equal")

    view = RadiologicalView.of(image, masks, np.asarray(affine, dtype=np.float64))
    slices = choose_slices(list(view.masks.values()), n_slices=n_slices)
    crop = body_crop(view, slices)

    figure, panels = contact_sheet(len(slices), aspect=view.height_mm(crop) / view.width_mm(crop))
    for panel, z in zip(panels, slices, strict=True):
        draw_slice(panel, view, z, crop=crop)
    add_sheet_texts(figure, _sheet_title(view.masks), _outline_legend(view.masks))
    return figure


def contact_sheet(n_panels: int, *, aspect: float) -> tuple[Figure, list[Axes]]:
    """A black sheet with equal panels of the given height/width, a line of text above and a legend below."""
    n_columns = {1: 1, 2: 2, 4: 2}.get(n_panels, 3)
    n_rows = math.ceil(n_panels / n_columns)
    gap, header, footer = 0.06, 0.42, 0.42  # inch
    sheet_width = SHEET_WIDTH_INCH
    width = sheet_width / max(2, n_columns) - gap
    height = width * aspect
    sheet_height = header + footer + n_rows * height + (n_rows - 1) * gap
    figure = new_figure((sheet_width, sheet_height), facecolor="black")
    left = (sheet_width - n_columns * width - (n_columns - 1) * gap) / 2

    panels = []
    for index in range(n_panels):
        row, column = divmod(index, n_columns)
        x = left + column * (width + gap)
        y = footer + (n_rows - 1 - row) * (height + gap)
        box = (x / sheet_width, y / sheet_height, width / sheet_width, height / sheet_height)
        panels.append(figure.add_axes(box, facecolor="black"))
    return figure, panels


def draw_slice(panel: Axes, view: RadiologicalView, z: int, *, crop: Crop) -> None:
    """Draw a part of a slice with the outlines of its masks on a panel in mm."""
    width_mm, height_mm = view.width_mm(crop), view.height_mm(crop)
    pixels = np.asarray(view.image[crop.x, crop.y, z], dtype=np.float32).T
    panel.imshow(
        pixels,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        origin="lower",
        extent=(0, width_mm, 0, height_mm),
        interpolation="hanning",
    )
    for name, mask in sorted(view.masks.items(), key=_reference_first):
        labels = mask[crop.x, crop.y, z].T
        for region, colour in ((labels >= LIVER, LIVER_COLOUR), (labels == TUMOR, TUMOR_COLOUR)):
            draw_outline(panel, region, spacing_mm=view.spacing_mm, colour=colour, style=LINE_STYLES.get(name, "solid"))
    panel.set(xlim=(0, width_mm), ylim=(0, height_mm), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    corner_text(panel, 0.02, 0.03, f"{view.position_mm(z):.0f} mm".replace("-", "\N{MINUS SIGN}"))
    corner_text(panel, 0.02, 0.5, "R")


def draw_outline(panel: Axes, region: np.ndarray, *, spacing_mm: np.ndarray, colour: str, style: Style) -> None:
    """Draw the edge of a bool region ``(rows, columns)`` on a panel in mm."""
    if not region.any():
        return
    padded = np.pad(region, 1).astype(np.uint8)  # so that an outline closes at the picture's edge
    x_mm = (np.arange(padded.shape[1]) - 0.5) * spacing_mm[0]
    y_mm = (np.arange(padded.shape[0]) - 0.5) * spacing_mm[1]
    panel.contour(x_mm, y_mm, padded, levels=[0.5], colors=[colour], linewidths=1.3, linestyles=style)


def corner_text(panel: Axes, x: float, y: float, text: str) -> None:
    """Write on a picture, legibly on bone, too; ``x`` and ``y`` from 0 to 1."""
    halo = withStroke(linewidth=2.5, foreground="black")
    label = panel.text(x, y, text, transform=panel.transAxes, color="white", fontsize=10, path_effects=[halo])
    label.set_verticalalignment("center" if y == 0.5 else "bottom")


def add_sheet_texts(figure: Figure, title: str, lines: Mapping[str, Line2D]) -> None:
    """Write a title with the window above a contact sheet, and what its lines mean below."""
    window = f"window {WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU".replace("-", "\N{MINUS SIGN}")
    edge = 0.2 / figure.get_figheight()
    figure.text(0.5, 1 - edge, f"{title}  ·  {window}", color="white", ha="center", va="center")
    figure.legend(
        list(lines.values()),
        list(lines),
        ncols=len(lines),
        loc="center",
        bbox_to_anchor=(0.5, edge),
        frameon=False,
        labelcolor="white",
        handlelength=2.6,
    )


def legend_line(colour: str, style: Style = "solid") -> Line2D:
    """A line as a legend shows it."""
    return Line2D([], [], color=colour, linewidth=1.8, linestyle=style)


def _sheet_title(masks: Mapping[str, np.ndarray]) -> str:
    empty = [name for name, mask in masks.items() if not mask.any()]
    if len(empty) == len(masks):
        return f"no liver and no tumour in the {' and the '.join(empty)}: slices from the middle of the scan"
    return f"no liver and no tumour in the {empty[0]}" if empty else "axial slices, head to feet"


def _outline_legend(names: Collection[str]) -> dict[str, Line2D]:
    return {
        f"{structure}, {name}" if len(names) > 1 else structure: legend_line(colour, LINE_STYLES.get(name, "solid"))
        for structure, colour in (("liver", LIVER_COLOUR), ("tumour", TUMOR_COLOUR))
        for name in names
    }


def draw_stamp(image: np.ndarray, masks: Mapping[str, np.ndarray], *, affine: np.ndarray) -> bytes:
    """The slice with most of the tumour, or the middle of the liver, as a JPEG ``STAMP_WIDTH`` wide.

    Arguments are those of :func:`overlay_figure`; the edges of ``"reference"`` are white, below the others.
    """
    view = RadiologicalView.of(image, masks, np.asarray(affine, dtype=np.float64))
    (z,) = choose_slices(list(view.masks.values()), n_slices=1)
    crop = body_crop(view, [z])
    size = STAMP_WIDTH, round(STAMP_WIDTH * view.height_mm(crop) / view.width_mm(crop))
    gray = _resized(gray_values(view.image[crop.x, crop.y, z]), size, Image.Resampling.BOX)
    colours = np.repeat(gray[..., None], 3, axis=2)
    for name, mask in sorted(view.masks.items(), key=_reference_first):
        labels = _resized(mask[crop.x, crop.y, z], size, Image.Resampling.NEAREST)
        edges = ("#ffffff", "#ffffff") if name == "reference" else (LIVER_COLOUR, TUMOR_COLOUR)
        _colour_edges(colours, labels, edges, thickness=2)
    return _jpeg(colours, quality=70)


def draw_thumbnail(gray: np.ndarray, labels: np.ndarray) -> bytes:
    """A small picture as JPEG: ``(H, W)`` grey values with the edges of liver and tumours in ``(H, W)`` labels."""
    colours = np.repeat(gray[..., None], 3, axis=2)
    _colour_edges(colours, labels, (LIVER_COLOUR, TUMOR_COLOUR))
    return _jpeg(colours)


def _reference_first(item: tuple[str, np.ndarray]) -> bool:
    """So that predictions lie on top."""
    return item[0] != "reference"


def _resized(plane: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """``(X, Y)`` of left and front as ``(rows, columns)``, the front up."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane.T[::-1], dtype=np.uint8)).resize(size, how))


def _colour_edges(picture: np.ndarray, labels: np.ndarray, colours: tuple[str, str], *, thickness: int = 1) -> None:
    for region, colour in zip((labels >= LIVER, labels == TUMOR), colours, strict=True):
        edge = region & ~ndimage.binary_erosion(region, iterations=thickness)
        picture[edge] = np.rint(np.array(to_rgb(colour)) * 255)


def _jpeg(picture: np.ndarray, *, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="jpeg", quality=quality, subsampling=0)
    return buffer.getvalue()
