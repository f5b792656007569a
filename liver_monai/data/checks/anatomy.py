"""Checks of orientation by anatomy: header and body must tell the same about left, front and head.

The evidence: the liver lies on the patient's right, the spine behind the middle of the body, the lungs above the
liver, and the body runs through the first and last axial slices while air bounds it elsewhere. Each check is silent
where its evidence is missing or slight: a scan without lungs contradicts nothing. Without a mask nothing is said of
left and right, because stomach, spleen and heart differ too much between patients.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from liver_monai.data.checks.findings import Observed
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.data.checks.measures import BODY_HU, Blocks

LUNG_HU = (-920.0, -550.0)
"""Aerated lung; bowel gas is lower, and blocks at the skin are thinned out by an erosion."""
LEAST_LUNG_ML = 150.0
LEAST_BONE_ML = 5.0
"""Our choice: with less of either, the evidence is slight."""
AGAINST = 0.03
"""Of the body's width or depth: organs this far on the wrong side of the middle are no matter of posture."""
TOO_LOW = 0.15
"""Of the scan's height: in a CT of the chest alone the lung lies somewhat below the middle."""
THROUGH, BARE = 0.15, 0.01
"""Share of a volume's face that the body fills where it goes on, and where it has ended."""


def turned(case: LoadedCase) -> Iterator[Observed]:
    """The body runs on through the faces of another axis than foot-head."""
    foreground = case.blocks.hu > BODY_HU
    faces = [min(float(foreground.take(end, axis=axis).mean()) for end in (0, -1)) for axis in range(3)]
    if faces[2] < BARE and max(faces[:2]) > THROUGH:
        along = ("left-right", "front-back")[int(np.argmax(faces[:2]))]
        yield Observed(
            text=f"the body runs through both ends of the {along} axis and ends in air at head and foot: the header "
            f"({case.orientation}) may name the wrong axes",
            figures={"body_at_both_ends": [round(face, 3) for face in faces]},
        )


def back_to_front(case: LoadedCase) -> Iterator[Observed]:
    """The spine in front."""
    offset = spine_offset(case.blocks)
    if offset is not None and offset > AGAINST:
        yield Observed(
            text=f"bone lies {offset:.0%} of the body's depth before its middle; the spine must lie behind it: the "
            f"header ({case.orientation}) may exchange front and back",
            figures={"spine_offset": round(offset, 3)},
        )


def upside_down(case: LoadedCase) -> Iterator[Observed]:
    """The lungs at the feet."""
    offset = lung_offset_mm(case.blocks)
    height_mm = case.blocks.hu.shape[2] * float(case.blocks.size_mm[2])
    if offset is not None and offset < -TOO_LOW * height_mm:
        below = "liver" if case.blocks.liver.any() else "middle of the scan"
        yield Observed(
            text=f"lung lies {-offset:.0f} mm below the {below}: the header ({case.orientation}) may exchange head "
            "and foot",
            figures={"lung_offset_mm": round(offset, 1)},
        )


def mirrored(case: LoadedCase) -> Iterator[Observed]:
    """The liver on the left."""
    offset = liver_offset(case.blocks)
    if offset is None or offset > -AGAINST:
        return
    spine = spine_offset(case.blocks)
    kind = "left and right are exchanged: possibly a mirror image"
    if spine is not None and spine > AGAINST:
        kind = "front and back are exchanged, too: the scan is turned by 180 degrees, not mirrored"
    yield Observed(
        text=f"the marked liver lies {-offset:.0%} of the body's width to the left of its middle, by the header "
        f"({case.orientation}); {kind}",
        figures={"liver_offset": round(offset, 3)},
    )


def liver_offset(blocks: Blocks) -> float | None:
    """How far right of the body's middle the liver lies, in widths of the body; ``None`` without a mask or body."""
    if not blocks.liver.any() or not blocks.body.any():
        return None
    return float((blocks.centre_mm(blocks.liver) - blocks.centre_mm(blocks.body))[0] / _body_size_mm(blocks, 0))


def spine_offset(blocks: Blocks) -> float | None:
    """How far before the body's middle its bone lies, in depths of the body; ``None`` with too little bone."""
    bone = blocks.bone * blocks.body
    if float(bone.sum()) * blocks.block_ml < LEAST_BONE_ML:
        return None
    return float((blocks.centre_mm(bone) - blocks.centre_mm(blocks.body))[1] / _body_size_mm(blocks, 1))


def lung_offset_mm(blocks: Blocks) -> float | None:
    """How far above the liver, or the middle of the scan, the lungs lie; ``None`` with too little lung."""
    aerated = (blocks.hu > LUNG_HU[0]) & (blocks.hu < LUNG_HU[1]) & blocks.body
    lung = ndimage.binary_erosion(aerated)
    if float(lung.sum()) * blocks.block_ml < LEAST_LUNG_ML:
        return None
    z_mm = blocks.centre_mm(lung)[2]
    middle_mm = blocks.hu.shape[2] * blocks.size_mm[2] / 2
    return float(z_mm - (blocks.centre_mm(blocks.liver)[2] if blocks.liver.any() else middle_mm))


def contrast_figures(blocks: Blocks) -> dict[str, int]:
    """Mean HU of the liver's inside, of the body's soft tissue, and of its brightest hundredth without bone.

    They show the contrast phase to who knows them; which phase it is they do not say.
    """
    away_from_bone = ~ndimage.binary_dilation(blocks.bone > 0, iterations=2)
    soft = blocks.body & (blocks.hu > -20) & (blocks.hu < 500) & away_from_bone
    if not soft.any():
        return {}
    values = blocks.hu[soft]
    figures = {"soft_tissue_hu": round(float(values.mean())), "brightest_hu": round(float(np.percentile(values, 99)))}
    inside = blocks.hu[blocks.liver > 0.999]
    if inside.size:
        figures |= {"liver_hu": round(float(inside.mean())), "liver_sd_hu": round(float(inside.std()))}
    return figures


def _body_size_mm(blocks: Blocks, axis: int) -> float:
    others = tuple(each for each in range(3) if each != axis)
    filled = np.flatnonzero(blocks.body.any(axis=others))
    return float((filled[-1] - filled[0] + 1) * blocks.size_mm[axis])
