"""Masks out as DICOM structure sets (RTSTRUCT): the outlines of their voxels, a slice at a time.

Outlines run along the edges of voxels, so that no centre lies on one, and every reader that asks which centres lie
inside gets the mask back. A hole is joined to what surrounds it by a channel of no width (PS3.3, C.8.8.6.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.base import SOPClass
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from liver_monai.io.dicom.frames import Frame
from liver_monai.io.dicom.series import DicomVolume
from liver_monai.io.dicom.source_images import (
    DESCRIPTION,
    PRODUCER,
    SERIES_NUMBERS,
    SourceImages,
    read_source_images,
    repeating_headers,
)
from liver_monai.io.dicom.structures import Structure, structures
from liver_monai.io.files import whole_file

LIVER_RGB, TUMOR_RGB = [0, 158, 115], [230, 80, 0]
"""What viewers are asked to draw regions in."""
DECIMALS = 4
"""Of coordinates in mm: more than positions in headers are exact to, and few enough for a decimal string."""

Corner = tuple[int, int]
"""Column and row of a voxel's corner: half a voxel before the centre of the voxel of these indices."""


def write_structure_set(mask: np.ndarray, path: Path, *, ct: DicomVolume, lesions: np.ndarray | None = None) -> None:
    """Write a mask as an RTSTRUCT file with a region for each of its ``structures``.

    Args:
        mask: ``(X, Y, Z)`` of ``LABELS`` on the grid that ``read_volume`` gives ``ct``.
        path: where to write; appears whole or not at all.
        ct: the series it was made from.
        lesions: ``(X, Y, Z)``, numbers from 1; then each has a region instead of all tumours together.

    Raises:
        ValueError: the mask has not the shape of the CT.
        InputError: a tilted series, or headers that lack what a structure set must repeat.
    """
    source = read_source_images(ct, shape=mask.shape)
    with repeating_headers(ct):
        dataset = _structure_set(source, structures(mask, lesions))
    with whole_file(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def outlines(plane: np.ndarray) -> list[list[Corner]]:
    """A closed polygon for each part of a bool plane ``(X, Y)`` that hangs together by edges.

    Each holds, by the even-odd rule as by the nonzero rule, the centres of the part's voxels and no other.
    """
    parts, _ = ndimage.label(plane)
    boxes = ndimage.find_objects(parts)
    return [
        _outline(parts[box] == number, first=(box[0].start, box[1].start)) for number, box in enumerate(boxes, start=1)
    ]


def _outline(part: np.ndarray, *, first: Corner) -> list[Corner]:
    outer, *holes = sorted(_loops(part), key=min)
    for hole in holes:
        outer = _join(outer, hole)
    return [(x + first[0], y + first[1]) for x, y in _without_needless(outer)]


def _loops(part: np.ndarray) -> Iterator[list[Corner]]:
    """Closed paths along the edges of voxels, the part at one hand all the way."""
    ways: dict[Corner, list[Corner]] = {}
    for start, end in _edges(part):
        ways.setdefault(start, []).append(end)
    while ways:
        loop = [next(iter(ways))]
        while loop[-1] in ways:
            corner = loop[-1]
            loop.append(ways[corner].pop())
            if not ways[corner]:
                del ways[corner]
        yield loop[:-1]


def _edges(part: np.ndarray) -> Iterator[tuple[Corner, Corner]]:
    """Where the part ends: directed edges of length 1."""
    outside = np.pad(~part, 1, constant_values=True)
    sides = {
        ((0, 0), (1, 0)): outside[1:-1, :-2],
        ((1, 0), (1, 1)): outside[2:, 1:-1],
        ((1, 1), (0, 1)): outside[1:-1, 2:],
        ((0, 1), (0, 0)): outside[:-2, 1:-1],
    }
    for (start, end), is_outside in sides.items():
        for x, y in np.argwhere(part & is_outside).tolist():
            yield (x + start[0], y + start[1]), (x + end[0], y + end[1])


def _join(outer: list[Corner], hole: list[Corner]) -> list[Corner]:
    """One path of two: along a channel to the left of the hole, which meets what lies further left, if nothing else."""
    x, y = start = min(hole)
    corners = set(outer)
    while (x, y) not in corners:
        x -= 1
    at = outer.index((x, y))
    turn = hole.index(start)
    return [*outer[: at + 1], *hole[turn:], *hole[:turn], start, *outer[at:]]


def _without_needless(path: Sequence[Corner]) -> list[Corner]:
    """Without corners that are given twice in a row, or at which the path goes straight on."""
    points = np.array(path)
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    crosses = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    goes_on = (crosses == 0) & ((before * after).sum(axis=1) > 0)
    return [(x, y) for x, y in points[~goes_on].tolist()]


def _structure_set(source: SourceImages, parts: Iterator[Structure]) -> Dataset:
    header = source.headers[0]
    now = datetime.now()
    dataset = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["RTSTRUCT"],
        sop_instance_uid=hd.UID(),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        transfer_syntax_uid=ImplicitVRLittleEndian,  # others hold 64 kB of coordinates at most
        **PRODUCER,
        series_description=DESCRIPTION,
    )
    dataset.copy_patient_and_study_information(header)
    dataset.OperatorsName = None
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = header.PositionReferenceIndicator
    dataset.StructureSetLabel = "LIVER"
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, part in enumerate(parts, start=1):
        dataset.StructureSetROISequence.append(_region(number, part, frame_of_reference=header.FrameOfReferenceUID))
        dataset.ROIContourSequence.append(_contours(number, part, source))
        dataset.RTROIObservationsSequence.append(_observation(number, part))
    return dataset


def _frame_of_reference(source: SourceImages) -> Dataset:
    header = source.headers[0]
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [_image(str(each.SOPClassUID), str(each.SOPInstanceUID)) for each in source.headers]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, which the standard asks for
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(sop_class: str, sop_instance: str, frame_numbers: list[int] | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if frame_numbers:
        item.ReferencedFrameNumber = frame_numbers
    return item


def _region(number: int, part: Structure, *, frame_of_reference: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = number, part.name
    item.ReferencedFrameOfReferenceUID = frame_of_reference
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    return item


def _observation(number: int, part: Structure) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType = "ORGAN" if part.is_liver else None  # whether it is a target, nobody has decided
    item.ROIInterpreter = None
    item.RTROIIdentificationCodeSequence = [_code(part.type)]
    return item


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _contours(number: int, part: Structure, source: SourceImages) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = number
    item.ROIDisplayColor = LIVER_RGB if part.is_liver else TUMOR_RGB
    contours = [
        _contour(corners, source, slice_index=int(z))
        for z in np.flatnonzero(part.marked.any(axis=(0, 1)))
        for corners in outlines(part.marked[:, :, z])
    ]
    if contours:
        item.ContourSequence = contours
    return item


def _contour(corners: list[Corner], source: SourceImages, *, slice_index: int) -> Dataset:
    item = Dataset()
    item.ContourImageSequence = [_image(*source.reference(slice_index))]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(corners)
    item.ContourData = [f"{mm:.{DECIMALS}f}" for mm in _patient_mm(corners, source.frames[slice_index]).ravel()]
    return item


def _patient_mm(corners: list[Corner], frame: Frame) -> np.ndarray:
    """``(n, 3)`` towards left, posterior and superior."""
    columns, rows = np.array(corners).T - 0.5
    between_rows_mm, between_columns_mm = frame.plane.spacing_mm
    along_row, along_column = np.array(frame.plane.orientation).reshape(2, 3)
    in_plane_mm = np.outer(columns * between_columns_mm, along_row) + np.outer(rows * between_rows_mm, along_column)
    return np.asarray(frame.position_mm + in_plane_mm)
