"""What the viewer of a page shows: slices as JPEG in grey, labels as PNG, and where the lesions lie.

Everything stands in the page, so that it opens offline. NiiVue would bring 2.4 MB of script and needs WebGL 2; axial
slices with a mask need a canvas and a few lines (``viewer.js``).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from liver_monai.report.canvas import LIVER_COLOUR, TUMOR_COLOUR
from liver_monai.report.findings import Lesion, Line
from liver_monai.report.mask_pictures import axial_text, view_ends
from liver_monai.report.view import RadiologicalView, gray_values

SHOWN_HU = (-250.0, 400.0)
"""Grey values from 0 to 255: steps of 2.5 HU, less than the noise of a CT, for windows to choose from."""
MAX_SLICES = 200
"""So many of 512 x 512 make a page of less than 10 MB; of a longer scan the liver's are shown, or every few of them."""
MARGIN_MM = 20.0
"""Below and above the liver, where not all slices are shown."""
LABEL_STEP = 100
"""Between the grey values of labels, so that they can be seen in the file, too."""
JPEG_QUALITY = 80
"""On average 5 HU beside the CT, a fraction of its noise. WebP takes a fifth less space and six times the time."""


def build_viewer(
    view: RadiologicalView, lesions: Sequence[Lesion], *, numbers: Sequence[int], has_ct: bool
) -> dict[str, Any]:
    """JSON for ``viewer.js``, of the image and of the mask ``"mask"``.

    Args:
        numbers: what the slices of the view are called.
        has_ct: whether the image is worth showing.
    """
    slices = choose_shown(view, [round(float(view_ends(view, lesion.longest)[0, 2])) for lesion in lesions])
    width, height, _ = view.image.shape
    return {
        "width": width,
        "height": height,
        "aspect": float(view.spacing_mm[1] / view.spacing_mm[0]),
        "hu": list(SHOWN_HU),
        "hasCt": has_ct,
        "labelStep": LABEL_STEP,
        "colours": [LIVER_COLOUR, TUMOR_COLOUR],
        "slices": [{"number": numbers[z], **_slice(view, z, has_ct=has_ct)} for z in slices],
        "lesions": [_lesion(view, lesion, slices) for lesion in lesions],
    }


def choose_shown(view: RadiologicalView, wanted: Sequence[int]) -> list[int]:
    """Slices to show, from the feet to the head: all, or those of the liver; ``wanted`` ones are among them."""
    n_slices = view.image.shape[2]
    if n_slices <= MAX_SLICES:
        return list(range(n_slices))
    occupied = np.flatnonzero(view.masks["mask"].any(axis=(0, 1)))
    margin = round(MARGIN_MM / float(view.spacing_mm[2]))
    first, last = (occupied[0] - margin, occupied[-1] + margin) if occupied.size else (0, n_slices - 1)
    first, last = max(int(first), 0), min(int(last), n_slices - 1)
    step = -(-(last - first + 1) // MAX_SLICES)
    return sorted({*range(first, last + 1, step), *wanted})


def _slice(view: RadiologicalView, z: int, *, has_ct: bool) -> dict[str, Any]:
    shown = {"z": round(view.position_mm(z), 1), "labels": _labels(view.masks["mask"][:, :, z])}
    if has_ct:
        shown["ct"] = _jpeg(gray_values(view.image[:, :, z], SHOWN_HU))
    return shown


def _lesion(view: RadiologicalView, lesion: Lesion, slices: Sequence[int]) -> dict[str, Any]:
    z = round(float(view_ends(view, lesion.longest)[0, 2]))
    return {
        "id": lesion.lesion_id,
        "text": f"{lesion.lesion_id}: {lesion.volume_ml:.3g} mL, {axial_text(lesion)}",
        "slice": slices.index(z),
        "lines": [_pixels(view, line) for line in (lesion.longest, lesion.perpendicular)],
    }


def _pixels(view: RadiologicalView, line: Line) -> list[list[float]]:
    """Ends in pixels of the picture, from its upper left corner."""
    ends = view_ends(view, line)
    return [[round(x + 0.5, 2), round(view.image.shape[1] - y - 0.5, 2)] for x, y, _ in ends.tolist()]


def _picture(plane: np.ndarray) -> Image.Image:
    """``(X, Y)`` of left and anterior as grey values, the front up."""
    return Image.fromarray(np.ascontiguousarray(plane.T[::-1]))


def _jpeg(plane: np.ndarray) -> str:
    return _encoded(_picture(plane), format="jpeg", quality=JPEG_QUALITY)


def _labels(plane: np.ndarray) -> str:
    """Empty where there is none."""
    return _encoded(_picture(plane * np.uint8(LABEL_STEP)), format="png", compress_level=4) if plane.any() else ""


def _encoded(picture: Image.Image, **how: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, **how)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
