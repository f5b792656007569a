"""The liver in three dimensions: its surface as glass, the tumours within."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from liver_monai.report.canvas import LIVER_COLOUR, TUMOR_COLOUR, figure_png, new_figure
from liver_monai.report.view import RadiologicalView
from liver_monai.scoring.crop import occupied_box
from liver_monai.spec import LIVER, TUMOR

N_VOXELS = 128
"""Along the longest side: enough for a picture of a few hundred pixels."""
GLASS = 0.3
"""How much of a pixel is liver where a tumour lies behind."""
MARGIN = 4
VIEWS = {"from the front": (1, -1), "from the right": (0, 1), "from below": (2, 1)}
"""Axis that is looked along, and the direction of looking: 1 where it grows with distance."""


def draw_surface(view: RadiologicalView) -> bytes:
    """Three views (PNG) of the mask ``"mask"``, which must hold something."""
    mask = view.masks["mask"]
    cut = mask[occupied_box(mask)]
    size_mm = np.array(cut.shape) * view.spacing_mm
    fields = [_field(cut >= LIVER, view, size_mm), _field(cut == TUMOR, view, size_mm)]
    figure = new_figure((12.0, 4.4), facecolor="black")
    for index, (title, (axis, direction)) in enumerate(VIEWS.items()):
        panel = figure.add_axes((index / 3 + 0.01, 0.02, 0.313, 0.86))
        panel.imshow(_render(*(_facing(field, axis, direction) for field in fields)), interpolation="bilinear")
        panel.set_axis_off()
        figure.text((index + 0.5) / 3, 0.94, title, color="white", fontsize=11, ha="center", va="center")
    return figure_png(figure)


def _field(region: np.ndarray, view: RadiologicalView, size_mm: np.ndarray) -> np.ndarray:
    """A smooth field ``float32`` on a cubic grid that is above a half within."""
    factors = view.spacing_mm * N_VOXELS / size_mm.max()
    coarse = ndimage.zoom(region.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    return np.asarray(ndimage.gaussian_filter(np.pad(coarse, MARGIN), 1.2))


def _facing(field: np.ndarray, axis: int, direction: int) -> np.ndarray:
    """A field of left, anterior, superior as ``(rows, columns, depth)``: what grows last stands upright.

    So the patient's head or, from below, the front is up; the left is on the right, and so is the front from the right.
    """
    turned = np.moveaxis(field, axis, -1)[:, :, ::direction]
    return np.asarray(turned.transpose(1, 0, 2)[::-1])


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """What is hit first: where anything is, and how it is lit, ``(rows, columns)``."""

    is_hit: np.ndarray
    light: np.ndarray


def _render(liver: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """RGB ``(rows, columns, 3)``."""
    picture = np.zeros((*liver.shape[:2], 3))
    outer, inner = _surface(liver), _surface(tumor)
    glass = outer.light[..., None] * to_rgb(LIVER_COLOUR)
    solid = inner.light[..., None] * to_rgb(TUMOR_COLOUR)
    picture[outer.is_hit] = glass[outer.is_hit]
    picture[inner.is_hit] = (GLASS * picture + (1 - GLASS) * solid)[inner.is_hit]
    return np.clip(picture, 0, 1)


def _surface(field: np.ndarray) -> _Surface:
    """Lambert's cosine law, the light coming from the eye and a little from above."""
    inside = field > 0.5
    is_hit, first = np.asarray(inside.any(axis=2)), inside.argmax(axis=2)
    rows, columns = np.nonzero(is_hit)
    depth = first[rows, columns]
    slopes = np.stack(
        [field[rows + 1, columns, depth] - field[rows - 1, columns, depth],
         field[rows, columns + 1, depth] - field[rows, columns - 1, depth],
         field[rows, columns, depth + 1] - field[rows, columns, depth - 1]]
    )  # fmt: skip
    normals = slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-6)  # they point inwards
    light = np.zeros(is_hit.shape)
    light[rows, columns] = 0.25 + 0.75 * np.clip(normals.T @ (0.4, 0.2, 0.9), 0, 1)
    return _Surface(is_hit=is_hit, light=light)
