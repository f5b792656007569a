"""Findings: what a mask says of a liver and its lesions, in the millilitres and millimetres a radiologist thinks in.

A lesion is one connected tumour (by faces). Research use only: diameters are taken as RECIST 1.1 takes them
(Eisenhauer et al., European Journal of Cancer 45, 2009), but which lesions to follow is a clinical decision, and none
is made here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

Point = tuple[float, float, float]

MAX_LINES = 20
"""Of text for people; a degenerate mask may hold thousands of specks, and CSV and JSON have them all."""

SUMMED = (2, 5)
"""RECIST 1.1 follows two lesions an organ at the most, and five in all."""
SUM_RULE = (
    "Sums of the two and of the five longest axial diameters: RECIST 1.1 follows two lesions an organ at the most, and "
    "five in all. RECIST-like, not a clinical assessment."
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A diameter: its length, and where it begins and ends, in the file's own voxels and in the patient."""

    length_mm: float
    ends_voxel: tuple[Point, Point]
    ends_mm: tuple[Point, Point]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One lesion.

    Positions in mm are towards the patient's left, posterior and superior, as DICOM counts.

    Args:
        lesion_id: from 1, the largest first.
        volume_ml: voxels times their volume.
        longest: longest diameter on any axial slice.
        perpendicular: longest diameter at a right angle to it, on the same slice.
        maximum_mm: longest diameter in any direction.
        sphere_mm: diameter of the ball of the same volume.
        slices: first and last axial slice, counted from 0 as the file stores them.
        centroid_mm: mean of its voxels.
        depth_mm: from its outermost voxels to those of the liver; 0 where it reaches the surface, ``None`` where the
            image shows no surface. Where the image ends, none is assumed.
        touches_border: it reaches the edge of the image, so that some of it may be missing.
        mean_hu, median_hu: of its voxels; ``None`` without a CT.
        contrast_hu: its mean less that of the liver 2 to 10 mm around it; ``None`` without a CT or liver there.
        confidence: mean probability of its voxels; ``None`` without probabilities.
    """

    lesion_id: int
    volume_ml: float
    longest: Line
    perpendicular: Line
    maximum_mm: float
    sphere_mm: float
    slices: tuple[int, int]
    centroid_mm: Point
    depth_mm: float | None
    touches_border: bool
    mean_hu: float | None = None
    median_hu: float | None = None
    contrast_hu: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a mask says.

    Args:
        liver_ml: liver with its tumours.
        tumor_ml: all tumours.
        burden: share of the liver that is tumour; ``None`` where there is no liver.
        lesions: the largest first.
    """

    liver_ml: float
    tumor_ml: float
    burden: float | None
    lesions: Sequence[Lesion]

    def sum_of_diameters_mm(self, *, at_most: int) -> float:
        """Sum of the ``at_most`` longest axial diameters; see ``SUM_RULE``."""
        return sum(sorted((lesion.longest.length_mm for lesion in self.lesions), reverse=True)[:at_most])

    def to_json(self) -> dict[str, Any]:
        """JSON types, as ``findings_schema`` describes them."""
        sums = {f"sum_of_{n}_longest_mm": self.sum_of_diameters_mm(at_most=n) for n in SUMMED}
        return dict(json.loads(json.dumps({**asdict(self), **sums})))

    def to_text(self) -> str:
        """A line for the liver, one for each of the largest lesions, and the sums."""
        burden = "" if self.burden is None else f", {100 * self.burden:.1f} % of it"
        lines = [f"liver {self.liver_ml:.0f} mL; {_count(len(self.lesions))} of {self.tumor_ml:.1f} mL{burden}"]
        lines += [_describe(lesion) for lesion in self.lesions[:MAX_LINES]]
        if len(self.lesions) > MAX_LINES:
            lines.append(f"  and {len(self.lesions) - MAX_LINES} smaller ones")
        if self.lesions:
            sums = ", ".join(f"{self.sum_of_diameters_mm(at_most=n):.0f} mm ({n} largest)" for n in SUMMED)
            lines.append(f"sum of longest diameters {sums}; RECIST-like, not a clinical assessment")
        return "\n".join(lines)


def findings_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of ``Findings.to_json``, with each field's meaning and unit."""
    text = files("liver_monai.report").joinpath("findings.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def _coordinate(point: Callable[[Lesion], Point], index: int) -> Callable[[Lesion], float]:
    return lambda lesion: point(lesion)[index]


_POINTS: dict[str, Callable[[Lesion], Point]] = {
    "centroid": lambda lesion: lesion.centroid_mm,
    "longest_start": lambda lesion: lesion.longest.ends_mm[0],
    "longest_end": lambda lesion: lesion.longest.ends_mm[1],
    "perpendicular_start": lambda lesion: lesion.perpendicular.ends_mm[0],
    "perpendicular_end": lambda lesion: lesion.perpendicular.ends_mm[1],
}

LESION_COLUMNS: dict[str, Callable[[Lesion], Any]] = {
    "lesion_id": lambda lesion: lesion.lesion_id,
    "volume_ml": lambda lesion: round(lesion.volume_ml, 4),
    "longest_mm": lambda lesion: round(lesion.longest.length_mm, 2),
    "perpendicular_mm": lambda lesion: round(lesion.perpendicular.length_mm, 2),
    "maximum_mm": lambda lesion: round(lesion.maximum_mm, 2),
    "sphere_mm": lambda lesion: round(lesion.sphere_mm, 2),
    "first_slice": lambda lesion: lesion.slices[0],
    "last_slice": lambda lesion: lesion.slices[1],
    "depth_mm": lambda lesion: _rounded(lesion.depth_mm, 2),
    "touches_border": lambda lesion: lesion.touches_border,
    "mean_hu": lambda lesion: _rounded(lesion.mean_hu, 2),
    "median_hu": lambda lesion: _rounded(lesion.median_hu, 2),
    "contrast_hu": lambda lesion: _rounded(lesion.contrast_hu, 2),
    "confidence": lambda lesion: _rounded(lesion.confidence, 4),
    **{
        f"{name}_{axis}_mm": _coordinate(point, index)
        for name, point in _POINTS.items()
        for index, axis in enumerate("xyz")
    },
}
"""Columns of a table of lesions, and what stands in them; x, y and z grow to left, posterior and superior."""


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _count(n: int) -> str:
    return f"{n} tumour{'' if n == 1 else 's'}"


def _describe(lesion: Lesion) -> str:
    axial = f"{lesion.longest.length_mm:.0f} x {lesion.perpendicular.length_mm:.0f} mm"
    parts = [f"{lesion.volume_ml:.3g} mL", axial, f"slices {lesion.slices[0]} to {lesion.slices[1]}"]
    if lesion.mean_hu is not None:
        parts.append(f"{lesion.mean_hu:.0f} HU")
    if lesion.contrast_hu is not None:
        parts.append(f"{lesion.contrast_hu:+.0f} HU to the liver around")
    if lesion.depth_mm is not None:
        parts.append(f"{lesion.depth_mm:.0f} mm deep" if lesion.depth_mm else "at the surface")
    if lesion.confidence is not None:
        parts.append(f"confidence {lesion.confidence:.2f}")
    if lesion.touches_border:
        parts.append("cut off by the image's edge")
    return f"  {lesion.lesion_id}: {', '.join(parts)}"
