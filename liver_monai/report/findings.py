"""Findings: what a mask says of a liver and its lesions, in the millilitres and millimetres a radiologist thinks in.

A lesion is one connected tumour (by faces). Research use only: diameters are taken as RECIST 1.1 takes them
(Eisenhauer et al., European Journal of Cancer 45, 2009), but which lesions to follow is a clinical decision, and none
is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial import cKDTree

from liver_monai.report.diameters import AxialDiameters, Diameter, axial_diameters, edge_points, maximum_diameter
from liver_monai.scoring.lesions import components, equivalent_diameter_mm
from liver_monai.spec import BACKGROUND, LIVER, TUMOR

AROUND_MM = (2.0, 10.0)
"""Liver this far from a lesion's edge is what its brightness is held against: near, but beyond the blur of the edge."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A diameter: its length and the voxels, in the file's own order, where it begins and ends."""

    length_mm: float
    ends: tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One lesion.

    Args:
        lesion_id: from 1, the largest first.
        volume_ml: voxels times their volume.
        longest: longest diameter on any axial slice.
        perpendicular: longest diameter at a right angle to it, on the same slice.
        maximum_mm: longest diameter in any direction.
        sphere_mm: diameter of the ball of the same volume.
        slices: first and last axial slice, counted from 0 as the file stores them.
        centroid_mm: in the patient: towards left, posterior, superior, as DICOM counts.
        depth_mm: from its edge to the surface of the liver; 0 where it reaches it.
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
    centroid_mm: tuple[float, float, float]
    depth_mm: float
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
        """Of the ``at_most`` longest axial diameters: RECIST-like, not a clinical assessment.

        RECIST 1.1 follows two lesions an organ at the most, and five in all.
        """
        return sum(sorted((lesion.longest.length_mm for lesion in self.lesions), reverse=True)[:at_most])

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        sums = {f"sum_of_{n}_longest_mm": self.sum_of_diameters_mm(at_most=n) for n in (2, 5)}
        return {**asdict(self), **sums}


def find_findings(
    mask: np.ndarray, affine: np.ndarray, *, image: np.ndarray | None = None, probabilities: np.ndarray | None = None
) -> Findings:
    """Measure a mask.

    Args:
        mask: ``(X, Y, Z)`` uint8 of ``LABELS``, in any orientation.
        affine: voxels to millimetres in RAS+ world space, ``(4, 4)``.
        image: the CT in HU on the same grid.
        probabilities: of tumour, 0 to 1, on the same grid.

    Raises:
        ValueError: the arrays differ in shape.
    """
    for other in (image, probabilities):
        if other is not None and other.shape != mask.shape:
            raise ValueError(f"arrays of shape {other.shape} and {mask.shape} do not lie on one grid")
    scan = _Scan(mask, np.asarray(affine, dtype=np.float64), image=image, probabilities=probabilities)
    labels, _ = components(scan.mask == TUMOR)
    boxes = ndimage.find_objects(labels)
    voxels = np.bincount(labels.ravel())[1:]
    surface = cKDTree(scan.to_mm(edge_points(scan.mask != BACKGROUND)))
    lesions = [
        _measure(scan, labels, number=int(index) + 1, box=boxes[index], rank=rank, surface=surface)
        for rank, index in enumerate(np.argsort(-voxels, kind="stable"), start=1)
    ]
    liver_ml, tumor_ml = (float(np.count_nonzero(mask >= value)) * scan.voxel_ml for value in (LIVER, TUMOR))
    return Findings(
        liver_ml=liver_ml, tumor_ml=tumor_ml, burden=tumor_ml / liver_ml if liver_ml else None, lesions=lesions
    )


class _Scan:
    """Everything with its axes along the patient's, slices last, cut to what is not background."""

    def __init__(
        self,
        mask: np.ndarray,
        affine: np.ndarray,
        *,
        image: np.ndarray | None,
        probabilities: np.ndarray | None,
    ) -> None:
        self.orientation = nib.orientations.io_orientation(affine)
        self.stored_affine = affine
        self.full_shape = self._oriented(mask).shape
        found = ndimage.find_objects((self._oriented(mask) != BACKGROUND).view(np.uint8))
        self.box = found[0] if found else tuple(slice(0, size) for size in self.full_shape)
        self.first = np.array([part.start for part in self.box])
        to_stored = nib.orientations.inv_ornt_aff(self.orientation, mask.shape)
        shift = nib.affines.from_matvec(np.eye(3), self.first)
        self.to_stored = to_stored @ shift
        self.affine = affine @ self.to_stored
        self.voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
        self.spacing_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        self.mask = self._oriented(mask)[self.box]
        self.image = None if image is None else self._oriented(image)[self.box]
        self.probabilities = None if probabilities is None else self._oriented(probabilities)[self.box]

    def _oriented(self, array: np.ndarray) -> np.ndarray:
        oriented: np.ndarray = nib.orientations.apply_orientation(array, self.orientation)
        return oriented

    def to_mm(self, points: np.ndarray) -> np.ndarray:
        """World millimetres of points in voxels of the cut."""
        moved: np.ndarray = apply_affine(self.affine, points)
        return moved

    def line(self, diameter: Diameter, *, offset: np.ndarray, slice_index: int) -> Line:
        """A diameter on a slice of a box at ``offset``, in voxels as they are stored."""
        points = np.column_stack([diameter.ends, np.full(2, slice_index)]) + offset
        first, second = apply_affine(self.to_stored, points).round(2).tolist()
        return Line(length_mm=diameter.length_mm, ends=(tuple(first), tuple(second)))

    def stored_slices(self, first: int, last: int) -> tuple[int, int]:
        """The numbers of two slices of the cut in the file, ascending."""
        axis = int(np.flatnonzero(self.orientation[:, 0] == 2)[0])
        numbers = apply_affine(self.to_stored, [[0, 0, first], [0, 0, last]])[:, axis].round().astype(int)
        return int(numbers.min()), int(numbers.max())


def _measure(
    scan: _Scan,
    labels: np.ndarray,
    *,
    number: int,
    box: tuple[slice, ...],
    rank: int,
    surface: Any,
) -> Lesion:
    lesion = labels[box] == number
    offset = np.array([part.start for part in box])
    volume_ml = float(np.count_nonzero(lesion)) * scan.voxel_ml
    axial: AxialDiameters = axial_diameters(lesion, scan.affine)
    lines = [
        scan.line(diameter, offset=offset, slice_index=axial.slice_index)
        for diameter in (axial.longest, axial.perpendicular)
    ]
    centroid = scan.to_mm(np.argwhere(lesion).mean(axis=0) + offset) * (-1, -1, 1)  # RAS to LPS
    depths_mm, _ = surface.query(scan.to_mm(edge_points(lesion) + offset))
    return Lesion(
        lesion_id=rank,
        volume_ml=volume_ml,
        longest=lines[0],
        perpendicular=lines[1],
        maximum_mm=maximum_diameter(lesion, scan.affine).length_mm,
        sphere_mm=equivalent_diameter_mm(volume_ml),
        slices=scan.stored_slices(box[2].start, box[2].stop - 1),
        centroid_mm=tuple(centroid.round(2).tolist()),
        depth_mm=float(np.min(depths_mm)),
        touches_border=_touches_border(scan, box),
        confidence=None if scan.probabilities is None else float(scan.probabilities[box][lesion].mean()),
        **_brightness(scan, labels, number=number, box=box),
    )


def _brightness(scan: _Scan, labels: np.ndarray, *, number: int, box: tuple[slice, ...]) -> dict[str, float | None]:
    if scan.image is None:
        return {}
    hu = scan.image[box][labels[box] == number]
    around = _liver_around(scan, scan.image, labels, number=number, box=box)
    return {
        "mean_hu": float(hu.mean()),
        "median_hu": float(np.median(hu)),
        "contrast_hu": float(hu.mean() - around.mean()) if around.size else None,
    }


def _liver_around(
    scan: _Scan, image: np.ndarray, labels: np.ndarray, *, number: int, box: tuple[slice, ...]
) -> np.ndarray:
    """HU of the liver at ``AROUND_MM`` from a lesion; other lesions are left out."""
    margin = np.ceil(AROUND_MM[1] / scan.spacing_mm).astype(int)
    wider = tuple(slice(max(part.start - more, 0), part.stop + more) for part, more in zip(box, margin, strict=True))
    distance_mm = ndimage.distance_transform_edt(labels[wider] != number, sampling=scan.spacing_mm)
    is_around = (scan.mask[wider] == LIVER) & (distance_mm >= AROUND_MM[0]) & (distance_mm <= AROUND_MM[1])
    around: np.ndarray = image[wider][is_around]
    return around


def _touches_border(scan: _Scan, box: tuple[slice, ...]) -> bool:
    return any(
        part.start + first == 0 or part.stop + first == size
        for part, first, size in zip(box, scan.first, scan.full_shape, strict=True)
    )
