"""Pictures for a report: outlines on CT slices, scores of a dataset, curves of a training.

Every ``draw_*`` returns the bytes of a PNG; every ``*_figure`` the matplotlib figure behind it. Figures are built as
objects, so nothing here touches pyplot's global state and several threads may draw at once.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from liver_monai.spec import LIVER, TUMOR

LIVER_COLOUR, TUMOR_COLOUR = "#56b4e9", "#e69f00"
"""Sky blue and orange of Okabe and Ito's palette, told apart in every common form of colour blindness."""

LINE_STYLES: dict[str, Literal["solid", "dashed"]] = {"prediction": "solid", "reference": "dashed"}

BODY_HU = -300.0  # between air and fat
BODY_MARGIN_MM = 8.0
SHEET_WIDTH_INCH = 12.0
DPI = 100
COMPRESSION = 3
"""Of PNG: a CT takes 40 % less time than at the usual 6, and no more bytes."""

_INK, _QUIET, _RULE = "#1d2329", "#57606a", "#d5dade"
_OVER_GRID = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}


# Outlines on CT slices -----------------------------------------------------------------------------------------------


def draw_overlays(
    image: np.ndarray,
    masks: Mapping[str, np.ndarray],
    *,
    affine: np.ndarray,
    n_slices: int = 6,
    hu_window: tuple[float, float] = (-100.0, 200.0),
) -> bytes:
    """Contact sheet (PNG) of axial slices with the outlines of liver and tumours; see :func:`overlay_figure`."""
    return figure_png(overlay_figure(image, masks, affine=affine, n_slices=n_slices, hu_window=hu_window))


def overlay_figure(
    image: np.ndarray,
    masks: Mapping[str, np.ndarray],
    *,
    affine: np.ndarray,
    n_slices: int = 6,
    hu_window: tuple[float, float] = (-100.0, 200.0),
) -> Figure:
    """Axial slices from head to feet, the patient's right on the left of the picture, cropped to the body.

    Only the drawn slices are converted or copied, whatever the size of the volume.

    Args:
        image: ``(X, Y, Z)`` in Hounsfield units, in any orientation.
        masks: name -> ``(X, Y, Z)`` labels on the image's grid. ``"reference"`` is drawn dashed, the others solid.
        affine: ``(4, 4)`` from voxels to mm, RAS.
        n_slices: most slices to draw; fewer where the liver spans fewer.
        hu_window: Hounsfield units shown as black and as white.

    Raises:
        ValueError: a mask is not on the image's grid.
    """
    for name, mask in masks.items():
        if mask.shape != image.shape:
            raise ValueError(f"mask '{name}' has shape {mask.shape}, the image has {image.shape}; they must be equal")

    view = RadiologicalView.of(image, masks, np.asarray(affine, dtype=np.float64))
    slices = choose_slices(list(view.masks.values()), n_slices=n_slices)
    crop = _body_crop(view, slices)

    figure, panels = contact_sheet(len(slices), aspect=view.height_mm(crop) / view.width_mm(crop))
    for panel, z in zip(panels, slices, strict=True):
        _draw_slice(panel, view, z, crop=crop, hu_window=hu_window)
    _add_sheet_texts(figure, view.masks, hu_window=hu_window)
    return figure


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


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of a slice."""

    x: slice
    y: slice


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


def _body_crop(view: RadiologicalView, slices: Sequence[int]) -> Crop:
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


def _draw_slice(panel: Axes, view: RadiologicalView, z: int, *, crop: Crop, hu_window: tuple[float, float]) -> None:
    width_mm, height_mm = view.width_mm(crop), view.height_mm(crop)
    pixels = np.asarray(view.image[crop.x, crop.y, z], dtype=np.float32).T
    panel.imshow(
        pixels,
        cmap="gray",
        vmin=hu_window[0],
        vmax=hu_window[1],
        origin="lower",
        extent=(0, width_mm, 0, height_mm),
        interpolation="hanning",
    )
    for name, mask in sorted(view.masks.items(), key=lambda item: item[0] != "reference"):  # prediction on top
        labels = mask[crop.x, crop.y, z].T
        for region, colour in ((labels >= LIVER, LIVER_COLOUR), (labels == TUMOR, TUMOR_COLOUR)):
            draw_outline(panel, region, spacing_mm=view.spacing_mm, colour=colour, style=LINE_STYLES.get(name, "solid"))
    panel.set(xlim=(0, width_mm), ylim=(0, height_mm), xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    corner_text(panel, 0.02, 0.03, f"{view.position_mm(z):.0f} mm".replace("-", "\N{MINUS SIGN}"))
    corner_text(panel, 0.02, 0.5, "R")


def draw_outline(panel: Axes, region: np.ndarray, *, spacing_mm: np.ndarray, colour: str, style: str) -> None:
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


def _add_sheet_texts(figure: Figure, masks: Mapping[str, np.ndarray], *, hu_window: tuple[float, float]) -> None:
    empty = [name for name, mask in masks.items() if not mask.any()]
    title = "axial slices, head to feet"
    if len(empty) == len(masks):
        title = f"no liver and no tumour in the {' and the '.join(empty)}: slices from the middle of the scan"
    elif empty:
        title = f"no liver and no tumour in the {empty[0]}"
    window = f"window {hu_window[0]:.0f} to {hu_window[1]:.0f} HU".replace("-", "\N{MINUS SIGN}")
    figure.text(0.5, 1 - 0.2 / figure.get_figheight(), f"{title}  ·  {window}", color="white", ha="center", va="center")

    lines = [
        Line2D(
            [], [], color=colour, linewidth=1.8, linestyle=LINE_STYLES.get(name, "solid"), label=f"{structure}{suffix}"
        )
        for structure, colour in (("liver", LIVER_COLOUR), ("tumour", TUMOR_COLOUR))
        for name, suffix in ((name, f", {name}" if len(masks) > 1 else "") for name in masks)
    ]
    figure.legend(
        handles=lines,
        ncols=len(lines),
        loc="center",
        bbox_to_anchor=(0.5, 0.2 / figure.get_figheight()),
        frameon=False,
        labelcolor="white",
        handlelength=2.6,
    )


# Scores and curves ---------------------------------------------------------------------------------------------------


def draw_score_plot(cases: Sequence[Mapping[str, Any]]) -> bytes:
    """Every case's Dice of liver and tumour as a dot over a box plot (PNG); see :func:`score_figure`."""
    return figure_png(score_figure(cases))


def score_figure(cases: Sequence[Mapping[str, Any]]) -> Figure:
    """One row for the liver and one for the tumours: a dot a case, quartiles from five cases on, the median labelled.

    Args:
        cases: ``{"liver_dice": ..., "tumor_dice": ...}``; ``None`` or NaN where a score is not defined.
    """
    figure = new_figure((9.0, 2.9))
    axes = figure.add_axes((0.1, 0.2, 0.87, 0.76))
    rows = (("liver", "liver_dice", LIVER_COLOUR, 1.0), ("tumour", "tumor_dice", TUMOR_COLOUR, 0.0))
    for _, key, colour, y in rows:
        _draw_scores(axes, _defined(case.get(key) for case in cases), colour=colour, y=y)
    labels = [f"{name}\nn = {len(_defined(case.get(key) for case in cases))}" for name, key, _, _ in rows]
    axes.set_yticks([y for *_, y in rows], labels)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, 1.6), xlabel="Dice, one dot a case")
    calm(axes, grid_axis="x")
    return figure


def _defined(values: Any) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _draw_scores(axes: Axes, scores: list[float], *, colour: str, y: float) -> None:
    if not scores:
        axes.text(0.5, y, "not defined in any case", color=_QUIET, ha="center", va="center", bbox=_OVER_GRID)
        return
    if len(scores) >= 5:  # quartiles of fewer cases say less than the dots do
        line = {"color": _QUIET, "linewidth": 1.0}
        axes.boxplot(
            [scores],
            positions=[y],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": _INK, "linewidth": 1.6},
        )
    axes.scatter(scores, y + _spread(scores), s=26, color=colour, edgecolors=_INK, linewidths=0.5, alpha=0.9, zorder=3)
    median = float(np.median(scores))
    axes.annotate(
        f"median {median:.3f}", (median, y + 0.32), ha="right" if median > 0.5 else "left", va="bottom", color=_INK
    )


def _spread(scores: Sequence[float]) -> np.ndarray:
    """Vertical offsets that keep dots of like scores apart: alternating outwards in each bin, the same every time."""
    bin_width, widest, limit = 0.012, 0.06, 0.22
    bins = np.floor(np.asarray(scores) / bin_width).astype(int)
    ranks = np.zeros(len(scores), dtype=int)
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        ranks[members] = np.arange(len(members))
    steps_out = (ranks + 1) // 2
    step = min(widest, limit / max(1, int(steps_out.max())))
    return np.asarray(steps_out * np.where(ranks % 2, step, -step))


LESION_KINDS = {"IoU above 0.5": "#009e73", "overlap": "#e69f00", "no": "#d55e00", "false positive": "#999999"}
"""How a lesion was found, and its colour of Okabe and Ito's palette."""


def draw_lesion_plot(lesions: Sequence[tuple[float, str, float | None]]) -> bytes:
    """Every lesion's Dice over its size (PNG); see :func:`lesion_figure`."""
    return figure_png(lesion_figure(lesions))


def lesion_figure(lesions: Sequence[tuple[float, str, float | None]]) -> Figure:
    """A dot a lesion: Dice over equivalent diameter; what was not found, or found nothing, stands below the axis.

    Args:
        lesions: equivalent diameter in mm, one of ``LESION_KINDS``, and Dice, ``None`` without a match.
    """
    figure = new_figure((9.0, 3.4))
    axes = figure.add_axes((0.08, 0.17, 0.72, 0.78))
    below = dict(zip(LESION_KINDS, (-0.1, -0.1, -0.2, -0.3), strict=True))
    for kind, colour in LESION_KINDS.items():
        chosen = [(diameter_mm, dice) for diameter_mm, each, dice in lesions if each == kind]
        heights = [below[kind] if dice is None else dice for _, dice in chosen]
        label = f"{kind} ({len(chosen)})" if kind != "no" else f"not found ({len(chosen)})"
        axes.scatter(
            [size for size, _ in chosen], heights, s=26, color=colour, edgecolors=_INK, linewidths=0.5, label=label
        )
    axes.set_xscale("log")
    axes.set(ylim=(-0.38, 1.04), xlabel="equivalent diameter (mm)", ylabel="Dice")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    for bound_mm in (10, 20):
        axes.axvline(bound_mm, color=_RULE, linewidth=1.0, zorder=0)
    calm(axes, grid_axis="y")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], labels=["1", "2", "5", "10", "20", "50", "100", "200"])
    axes.set_xticks([], minor=True)
    sizes_mm = [diameter_mm for diameter_mm, _, _ in lesions] or [1.0]
    axes.set_xlim(min(5.0, 0.8 * min(sizes_mm)), max(50.0, 1.25 * max(sizes_mm)))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=_INK)
    return figure


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One line of a forest plot: a difference with its interval, ``None`` where it has none, and which side is good."""

    label: str
    unit: str
    difference: float | None
    low: float | None
    high: float | None
    is_larger_better: bool


def draw_forest_plot(rows: Sequence[ForestRow]) -> bytes:
    """Differences with their intervals (PNG); see :func:`forest_figure`."""
    return figure_png(forest_figure(rows))


def forest_figure(rows: Sequence[ForestRow]) -> Figure:
    """A panel a unit; a dot and its interval a row, green where the interval is on the better side, red on the worse.

    Args:
        rows: at least one.
    """
    units = list(dict.fromkeys(row.unit for row in rows))
    groups = [[row for row in rows if row.unit == unit] for unit in units]
    row_inch, gap_inch, label_inch = 0.34, 0.75, 3.2
    height = sum(row_inch * len(group) + gap_inch for group in groups)
    figure = new_figure((9.0, height))
    top = height - 0.1
    for unit, group in zip(units, groups, strict=True):
        inches = row_inch * len(group)
        box = (label_inch / 9.0, (top - inches) / height, 1 - (label_inch + 0.3) / 9.0, inches / height)
        _draw_forest(figure.add_axes(box), group, unit=unit)
        top -= inches + gap_inch
    return figure


def _draw_forest(axes: Axes, rows: Sequence[ForestRow], *, unit: str) -> None:
    for y, row in enumerate(reversed(rows)):
        if row.difference is None:
            axes.text(0, y, "not defined", color=_QUIET, ha="center", va="center", bbox=_OVER_GRID)
            continue
        colour = _forest_colour(row)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.0)
        axes.plot([row.difference], [y], marker="s", markersize=6, color=colour)
    axes.axvline(0, color=_INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"difference, {unit}" if unit else "difference")
    calm(axes, grid_axis="x")


def _forest_colour(row: ForestRow) -> str:
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return _QUIET
    return "#009e73" if (row.low > 0) == row.is_larger_better else "#d55e00"


def draw_reliability_plot(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """What probabilities say against what is true (PNG); see :func:`reliability_figure`."""
    return figure_png(reliability_figure(curves))


def reliability_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """A panel a structure: share of true voxels over mean probability, a dot a bin, larger where it holds more voxels.

    Args:
        curves: by structure, ``voxels``, ``mean_probability`` and ``true_share`` of each bin, ``None`` where empty.
    """
    figure = new_figure((9.0, 4.0))
    for panel, (name, bins) in enumerate(curves.items()):
        axes = figure.add_axes((0.08 + 0.48 * panel, 0.14, 0.36, 0.76))
        filled = [each for each in bins if each["voxels"]]
        said, true = ([each[key] for each in filled] for key in ("mean_probability", "true_share"))
        sizes = [6 + 4 * math.log10(each["voxels"]) ** 2 for each in filled]
        colour = TUMOR_COLOUR if name == "tumour" else LIVER_COLOUR
        axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1.2, zorder=1)
        axes.plot(said, true, color=colour, linewidth=1.4)
        axes.scatter(said, true, s=sizes, color=colour, edgecolors=_INK, linewidths=0.5, zorder=3, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of true voxels")
        axes.set_title(name, loc="left", fontsize=11, color=_INK)
        calm(axes, grid_axis="both")
        axes.tick_params(pad=9)  # the dot at 0 is large
    return figure


def draw_dot_rows(rows: Mapping[str, Sequence[float]]) -> bytes:
    """How values spread, each row on an axis of its own (PNG); see :func:`dot_rows_figure`."""
    return figure_png(dot_rows_figure(rows))


def dot_rows_figure(rows: Mapping[str, Sequence[float]]) -> Figure:
    """A row a quantity, a dot a value, with the smallest, median and largest in words.

    Args:
        rows: label -> at least one value each.
    """
    row_inch, base_inch = 0.62, 0.1
    height = row_inch * len(rows) + base_inch
    figure = new_figure((9.0, height))
    for index, (label, values) in enumerate(rows.items()):
        bottom = height - row_inch * (index + 1) + 0.26
        axes = figure.add_axes((0.24, bottom / height, 0.72, 0.3 / height))
        axes.scatter(values, [0.0] * len(values), s=22, color="#0072b2", alpha=0.35, edgecolors="none")
        axes.plot([float(np.median(values))] * 2, [-1, 1], color=_INK, linewidth=1.4)
        axes.set(ylim=(-1, 1), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.tick_params(labelsize=8.5)
        calm(axes, grid_axis="x")
        figure.text(0.22, (bottom + 0.15) / height, label, color=_INK, ha="right", va="center", fontsize=10)
    return figure


def draw_thumbnail(gray: np.ndarray, labels: np.ndarray) -> bytes:
    """A small picture as JPEG: ``(H, W)`` grey values with the edges of liver and tumours in ``(H, W)`` labels."""
    colours = np.repeat(gray[..., None], 3, axis=2)
    for region, colour in ((labels >= LIVER, LIVER_COLOUR), (labels == TUMOR, TUMOR_COLOUR)):
        edge = region & ~ndimage.binary_erosion(region)
        colours[edge] = np.rint(np.array(to_rgb(colour)) * 255)
    buffer = io.BytesIO()
    imsave(buffer, colours, format="jpeg", pil_kwargs={"quality": 85, "subsampling": 0})
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its interval, ``None`` where they are not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class IntervalPanel:
    """One figure of several methods: method -> series -> interval; one series may have the empty name."""

    title: str
    rows: Mapping[str, Mapping[str, Interval]]


SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito's palette, for series in their order."""


def draw_interval_plot(panels: Sequence[IntervalPanel]) -> bytes:
    """Small multiples of figures with their intervals (PNG); see :func:`interval_figure`."""
    return figure_png(interval_figure(panels))


def interval_figure(panels: Sequence[IntervalPanel]) -> Figure:
    """Panels in rows of two, the methods below each other in all of them alike, the values in a column beside them.

    Args:
        panels: at least one, of the same methods and series; figures from 0 to 1.
    """
    methods, series = list(panels[0].rows), list(next(iter(panels[0].rows.values())))
    row_inch, gap_inch, legend_inch = 0.2 + 0.2 * len(series), 0.75, 0.35 if len(series) > 1 else 0.0
    label_inch = 0.2 + 0.085 * max(len(method) for method in methods)
    width, value_inch = 9.0, 0.6
    panel_inch = ((width - label_inch) / 2 - value_inch, row_inch * len(methods))
    height = legend_inch + math.ceil(len(panels) / 2) * (panel_inch[1] + gap_inch)
    figure = new_figure((width, height))
    for index, panel in enumerate(panels):
        line, column = divmod(index, 2)
        left = label_inch + column * (panel_inch[0] + value_inch)
        bottom = height - legend_inch - line * (panel_inch[1] + gap_inch) - 0.35 - panel_inch[1]
        box = (left / width, bottom / height, panel_inch[0] / width, panel_inch[1] / height)
        _draw_intervals(figure.add_axes(box), panel, series=series, has_labels=column == 0)
    if len(series) > 1:
        marks = [Line2D([], [], color=colour, marker="o", linewidth=2.0) for colour in SERIES_COLOURS[: len(series)]]
        place = (label_inch / width, 1.0)
        figure.legend(
            marks,
            series,
            loc="upper left",
            bbox_to_anchor=place,
            borderaxespad=0.2,
            ncols=len(series),
            frameon=False,
            labelcolor=_INK,
        )
    return figure


def _draw_intervals(axes: Axes, panel: IntervalPanel, *, series: Sequence[str], has_labels: bool) -> None:
    step = 0.5 / len(series)
    methods = list(panel.rows)[::-1]
    for y, method in enumerate(methods):
        for index, (name, colour) in enumerate(zip(series, SERIES_COLOURS, strict=False)):
            _draw_interval(axes, panel.rows[method][name], y=y + step * ((len(series) - 1) / 2 - index), colour=colour)
    axes.set_yticks(range(len(methods)), methods if has_labels else [""] * len(methods))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(panel.rows) - 0.4))
    axes.set_title(panel.title, loc="left", fontsize=11, color=_INK)
    calm(axes, grid_axis="x")


def _draw_interval(axes: Axes, mark: Interval, *, y: float, colour: str) -> None:
    if mark.value is None:
        axes.text(0.5, y, "not defined", color=_QUIET, ha="center", va="center", fontsize=9, bbox=_OVER_GRID)
        return
    low, high = mark.value if mark.low is None else mark.low, mark.value if mark.high is None else mark.high
    axes.plot([low, high], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([mark.value], [y], marker="o", markersize=6, color=colour)
    axes.text(1.04, y, f"{mark.value:.3f}", ha="left", va="center", fontsize=9, color=_INK)


def draw_training_curves(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss and validation Dice over the epochs (PNG); see :func:`training_figure`."""
    return figure_png(training_figure(rows))


def training_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss on the left, validation Dice with its best epoch marked on the right.

    Args:
        rows: ``{"epoch": int, "loss": float, "val_dice": float or None}``, one an epoch; ``None`` where not validated.
    """
    figure = new_figure((9.0, 3.1))
    loss_axes, dice_axes = (figure.add_axes((left, 0.17, 0.41, 0.68)) for left in (0.07, 0.56))
    loss = _points(rows, "loss")
    _draw_curve(loss_axes, loss, title="training loss", colour="#0072b2")
    values = [0.0, *(value for _, value in loss)]
    loss_axes.set_ylim(min(values), 1.08 * max(values) or 1.0)
    dice = _points(rows, "val_dice")
    _draw_curve(dice_axes, dice, title="validation Dice", colour="#009e73")
    dice_axes.set_ylim(0, 1.02)
    epochs = [int(row["epoch"]) for row in rows] or [1]
    for axes in (loss_axes, dice_axes):
        axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    if dice:
        _mark_best(dice_axes, *max(dice, key=lambda point: point[1]))
    return figure


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    return [
        (int(row["epoch"]), float(row[key])) for row in rows if row.get(key) is not None and math.isfinite(row[key])
    ]


def _draw_curve(axes: Axes, points: list[tuple[int, float]], *, title: str, colour: str) -> None:
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(
            epochs, values, color=colour, linewidth=1.8, marker="o" if len(points) <= 30 else None, markersize=3.5
        )
    else:
        axes.text(
            0.5, 0.5, "no value yet", color=_QUIET, ha="center", va="center", transform=axes.transAxes, bbox=_OVER_GRID
        )
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    calm(axes, grid_axis="y")


def _mark_best(axes: Axes, epoch: int, dice: float) -> None:
    axes.plot([epoch], [dice], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=_INK)
    axes.set_title(f"best {dice:.3f}, epoch {epoch}", loc="right", fontsize=10, color=_QUIET)


def calm(axes: Axes, *, grid_axis: Any) -> None:
    """Take away every line of a plot that says nothing."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(colors=_QUIET, length=0)
    axes.xaxis.label.set_color(_QUIET)
    axes.grid(axis=grid_axis, color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def new_figure(size_inch: tuple[float, float], *, facecolor: str = "white") -> Figure:
    """An empty figure that any thread may draw on."""
    figure = Figure(figsize=size_inch, dpi=DPI, facecolor=facecolor)
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG; the same picture is the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": COMPRESSION})
    return buffer.getvalue()
