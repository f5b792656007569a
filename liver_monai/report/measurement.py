"""How a mask is measured: every lesion in a box of its own, what concerns the whole liver in one go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage

from liver_monai.io.probabilities import FULL
from liver_monai.io.volumes import slice_axis, voxel_ml
from liver_monai.report.diameters import Diameter, axial_diameters, maximum_diameter
from liver_monai.report.findings import Findings, Lesion, Line, Point
from liver_monai.scoring.crop import occupied_box
from liver_monai.scoring.lesions import components, equivalent_diameter_mm
from liver_monai.scoring.nearest import nearest_mm
from liver_monai.spec import BACKGROUND, LIVER, TUMOR

AROUND_MM = (2.0, 10.0)
"""Liver this far from a lesion's edge is what its brightness is held against: near, but beyond the blur of the edge."""

Box = tuple[slice, ...]


def find_findings(
    mask: np.ndarray, affine: np.ndarray, *, image: np.ndarray | None = None, probabilities: np.ndarray | None = None
) -> Findings:
    """Measure a mask.

    Where the grid is tilted, depth and the liver around a lesion are taken as if its axes stood at right angles; every
    other figure knows of the tilt.

    Args:
        mask: ``(X, Y, Z)`` uint8 of ``LABELS``, in any orientation.
        affine: voxels to millimetres in RAS+ world space, ``(4, 4)``.
        image: the CT in HU on the same grid.
        probabilities: of tumour, 0 to 1, or uint8 where 255 stands for 1, on the same grid.

    Raises:
        ValueError: the arrays differ in shape.
    """
    for other in (image, probabilities):
        if other is not None and other.shape != mask.shape:
            raise ValueError(f"arrays of shape {other.shape} and {mask.shape} do not lie on one grid")
    scan = _Scan(mask, np.asarray(affine, dtype=np.float64), image=image, probabilities=probabilities)
    lesions = [_measure(scan, number, lesion_id=rank) for rank, number in enumerate(scan.largest_first(), start=1)]
    liver_ml, tumor_ml = (float(np.count_nonzero(scan.mask >= value)) * scan.voxel_ml for value in (LIVER, TUMOR))
    burden = tumor_ml / liver_ml if liver_ml else None
    return Findings(liver_ml=liver_ml, tumor_ml=tumor_ml, burden=burden, lesions=lesions)


def number_lesions(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``(X, Y, Z)``: of each voxel the ``lesion_id`` that ``find_findings`` gives its lesion, 0 where there is none."""
    scan = _Scan(mask, np.asarray(affine, dtype=np.float64), image=None, probabilities=None)
    ranks = np.zeros(scan.n_lesions + 1, dtype=np.int32)
    for rank, number in enumerate(scan.largest_first(), start=1):
        ranks[number] = rank
    inside = np.argwhere(scan.labels)
    stored = apply_affine(scan.to_stored, inside).round().astype(int)
    lesions = np.zeros(mask.shape, dtype=np.int32)
    lesions[tuple(stored.T)] = ranks[scan.labels[tuple(inside.T)]]
    return lesions


class _Scan:
    """Everything with its axes along the patient's, slices last, cut to the liver and a voxel around it."""

    def __init__(
        self, mask: np.ndarray, affine: np.ndarray, *, image: np.ndarray | None, probabilities: np.ndarray | None
    ) -> None:
        self.orientation = nib.orientations.io_orientation(affine)
        self.slice_axis = slice_axis(affine)
        oriented = self._oriented(mask)
        self.full_shape = oriented.shape
        self.box = _grown(occupied_box(oriented), (1, 1, 1), self.full_shape)
        self.first = np.array([part.start for part in self.box])
        to_stored = nib.orientations.inv_ornt_aff(self.orientation, mask.shape)
        self.to_stored = to_stored @ nib.affines.from_matvec(np.eye(3), self.first)
        self.affine = affine @ self.to_stored
        self.spacing_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        self.voxel_ml = voxel_ml(affine)
        self.mask = oriented[self.box]
        self.image = None if image is None else self._oriented(image)[self.box]
        self.probabilities = None if probabilities is None else self._oriented(probabilities)[self.box]
        self.labels, self.n_lesions = components(self.mask == TUMOR)
        self.lesion_boxes: list[Box] = ndimage.find_objects(self.labels) if self.n_lesions else []

    def largest_first(self) -> list[int]:
        """Numbers of the lesions in the map of labels; of equals the first."""
        voxels = np.bincount(self.labels.ravel(), minlength=self.n_lesions + 1)[1:]
        return [int(index) + 1 for index in np.argsort(-voxels, kind="stable")]

    @cached_property
    def depths_mm(self) -> np.ndarray | None:
        """Of every lesion in the order of their numbers, from 1; ``None`` where there is no surface to see."""
        liver_surface = _surface(self.mask != BACKGROUND)
        if not liver_surface.any():
            return None
        edges = _surface(self.labels > 0) | (liver_surface & (self.labels > 0))
        distances_mm = nearest_mm(edges, liver_surface, spacing_mm=self.spacing_mm.tolist())
        depths_mm = np.full(self.n_lesions + 1, np.inf)
        np.minimum.at(depths_mm, self.labels[edges], distances_mm)
        return depths_mm

    def centre_mm(self, voxels: np.ndarray) -> Point:
        """Where voxels of the cut lie on average in the patient."""
        return _point(_patient_mm(self.affine, voxels.mean(axis=0)))

    def line(self, diameter: Diameter, *, offset: np.ndarray, slice_index: int) -> Line:
        """A diameter on a slice of a box at ``offset``."""
        ends = np.column_stack([diameter.ends, np.full(2, slice_index)]) + offset
        in_file, in_patient = apply_affine(self.to_stored, ends), _patient_mm(self.affine, ends)
        return Line(
            length_mm=diameter.length_mm,
            ends_voxel=(_point(in_file[0], decimals=3), _point(in_file[1], decimals=3)),
            ends_mm=(_point(in_patient[0]), _point(in_patient[1])),
        )

    def stored_slices(self, part: slice) -> tuple[int, int]:
        """Numbers in the file of the first and last slice of a part of the cut, ascending."""
        ends = [[0, 0, part.start], [0, 0, part.stop - 1]]
        numbers = apply_affine(self.to_stored, ends)[:, self.slice_axis].round().astype(int)
        return int(numbers.min()), int(numbers.max())

    def touches_border(self, box: Box) -> bool:
        """Whether a box of the cut reaches the edge of the image."""
        return any(
            part.start + first == 0 or part.stop + first == size
            for part, first, size in zip(box, self.first, self.full_shape, strict=True)
        )

    def _oriented(self, array: np.ndarray) -> np.ndarray:
        return np.asarray(nib.orientations.apply_orientation(array, self.orientation))


def _measure(scan: _Scan, number: int, *, lesion_id: int) -> Lesion:
    box = scan.lesion_boxes[number - 1]
    lesion = scan.labels[box] == number
    offset = np.array([part.start for part in box])
    volume_ml = float(np.count_nonzero(lesion)) * scan.voxel_ml
    axial = axial_diameters(lesion, scan.affine)
    longest, perpendicular = (
        scan.line(diameter, offset=offset, slice_index=axial.slice_index)
        for diameter in (axial.longest, axial.perpendicular)
    )
    return Lesion(
        lesion_id=lesion_id,
        volume_ml=volume_ml,
        longest=longest,
        perpendicular=perpendicular,
        maximum_mm=maximum_diameter(lesion, scan.affine).length_mm,
        sphere_mm=equivalent_diameter_mm(volume_ml),
        slices=scan.stored_slices(box[2]),
        centroid_mm=scan.centre_mm(np.argwhere(lesion) + offset),
        depth_mm=None if scan.depths_mm is None else float(scan.depths_mm[number]),
        touches_border=scan.touches_border(box),
        confidence=_confidence(scan, lesion, box=box),
        **_brightness(scan, lesion, number=number, box=box),
    )


def _confidence(scan: _Scan, lesion: np.ndarray, *, box: Box) -> float | None:
    if scan.probabilities is None:
        return None
    full = FULL if scan.probabilities.dtype == np.uint8 else 1
    return float(scan.probabilities[box][lesion].mean(dtype=np.float64)) / full


def _brightness(scan: _Scan, lesion: np.ndarray, *, number: int, box: Box) -> dict[str, float | None]:
    if scan.image is None:
        return {}
    hu = scan.image[box][lesion].astype(np.float64)
    wider = _grown(box, np.ceil(AROUND_MM[1] / scan.spacing_mm).astype(int).tolist(), scan.mask.shape)
    around = scan.image[wider][_liver_around(scan, number=number, box=wider)]
    return {
        "mean_hu": float(hu.mean()),
        "median_hu": float(np.median(hu)),
        "contrast_hu": float(hu.mean() - around.mean(dtype=np.float64)) if around.size else None,
    }


def _liver_around(scan: _Scan, *, number: int, box: Box) -> np.ndarray:
    """The liver at ``AROUND_MM`` from a lesion; other lesions are left out."""
    distance_mm = ndimage.distance_transform_edt(scan.labels[box] != number, sampling=scan.spacing_mm)
    near_mm, far_mm = AROUND_MM
    return np.asarray((scan.mask[box] == LIVER) & (distance_mm >= near_mm) & (distance_mm <= far_mm))


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with a neighbour across a face outside; beyond the array's edge there is none."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        along, result = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        result[1:] &= along[:-1]
        result[:-1] &= along[1:]
    return np.asarray(mask & ~inside)


def _grown(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """A box with a margin, as far as the array goes."""
    return tuple(
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(box, margin, shape, strict=True)
    )


def _patient_mm(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Voxels to LPS."""
    return np.asarray(apply_affine(affine, points) * (-1, -1, 1))


def _point(values: np.ndarray, *, decimals: int = 2) -> Point:
    x, y, z = (float(value) for value in values.round(decimals))
    return x, y, z
