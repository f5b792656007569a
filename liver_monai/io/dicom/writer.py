"""Masks out as DICOM segmentations (SEG), which refer to the CT that they were made from.

Codes are those of SNOMED CT; the patient and the study are the CT's, as the standard asks for. The liver includes its
tumours, here as everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from liver_monai._version import __version__
from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import open_archive
from liver_monai.io.dicom.frames import DAMAGED, Frame
from liver_monai.io.dicom.geometry import place_slices
from liver_monai.io.dicom.series import DicomVolume
from liver_monai.io.files import whole_file
from liver_monai.spec import LIVER, TUMOR

NAME = "liver-monai"
SERIES_NUMBER = 9000
"""Of the new series: far from those that scanners and reconstructions count up to."""
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""The standard wants them in a segmentation, if without a value (type 2); anonymized CTs have lost some."""


def write_segmentation(mask: np.ndarray, path: Path, *, ct: DicomVolume, lesions: np.ndarray | None = None) -> None:
    """Write a mask as one DICOM-SEG file with a segment for the liver and one for its tumours.

    Args:
        mask: ``(X, Y, Z)`` of ``LABELS`` on the grid that ``read_volume`` gives ``ct``.
        path: where to write; appears whole or not at all.
        ct: the series it was made from.
        lesions: ``(X, Y, Z)``, numbers from 1; then each has a segment instead of all tumours together.

    Raises:
        ValueError: the mask has not the shape of the CT.
        InputError: a tilted series, or headers that lack what a segmentation must repeat.
    """
    frames, affine, tilt_degrees = place_slices(ct.frames, name=str(ct))
    shape = (frames[0].plane.columns, frames[0].plane.rows, len(frames))
    if mask.shape != shape:
        raise ValueError(f"mask of shape {mask.shape} does not belong to {ct} of shape {shape}")
    if tilt_degrees:
        raise InputError(
            f"{ct}: its gantry is tilted by {tilt_degrees:.1f} degrees, and readers of segmentations take slices that "
            "are stacked at right angles only; write NIfTI, which keeps the tilt as shear"
        )
    segments = dict(_segments(mask, lesions))
    order, headers = _source(ct, frames)
    for header in headers:
        _set_thickness(header, float(np.linalg.norm(affine[:3, 2])))
    pixels = np.stack([region.transpose(2, 1, 0)[order] for region in segments.values()], axis=-1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values in the CT that break a rule of the standard
            segmentation = _build(headers, pixels, list(segments))
    except DAMAGED as error:
        raise InputError(
            f"{ct}: its headers lack what a segmentation must repeat of them ({one_line(error)}); write NIfTI instead"
        ) from error
    with whole_file(path) as temporary:
        segmentation.save_as(temporary)


def _segments(mask: np.ndarray, lesions: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """Label and marked voxels ``(X, Y, Z)`` of each segment."""
    yield "Liver", mask >= LIVER
    if lesions is None:
        yield "Tumour", mask == TUMOR
    else:
        for number in range(1, int(lesions.max(initial=0)) + 1):
            yield f"Tumour {number}", lesions == number


def _source(ct: DicomVolume, frames: list[Frame]) -> tuple[list[int], list[Dataset]]:
    """Headers of the CT, and the slices in their order: of a multi-frame file, that of its frames."""
    files = list(dict.fromkeys(frame.file for frame in frames))
    order = list(range(len(frames)))
    if len(files) < len(frames):
        order.sort(key=lambda z: (files.index(frames[z].file), frames[z].index))
    return order, [_header(ct, name) for name in files]


def _header(ct: DicomVolume, name: str) -> Dataset:
    with open_archive(ct.path) as (_, open_file), open_file(name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in frames.py
        header = pydicom.dcmread(file, stop_before_pixels=True)
    if not header.get("SOPInstanceUID"):  # some archives have it beside the data set only
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
    for keyword in MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    return header


def _set_thickness(header: Dataset, thickness_mm: float) -> None:
    """Of the grid: slices are as thick as they are apart, whatever the CT says of how thick they were measured."""
    groups = header.get("SharedFunctionalGroupsSequence")
    measures = groups[0].get("PixelMeasuresSequence") if groups else [header]
    if measures:
        measures[0].SliceThickness = DSfloat(thickness_mm, auto_format=True)


def _build(headers: list[Dataset], pixels: np.ndarray, labels: list[str]) -> hd.seg.Segmentation:
    return hd.seg.Segmentation(
        source_images=headers,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,  # what every viewer reads
        segment_descriptions=[_describe(number, label) for number, label in enumerate(labels, start=1)],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="LIVER",
        content_description="Liver and tumours. Research use only.",
        series_description="Liver and tumours. Research use only.",
    )


def _describe(number: int, label: str) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    shared: dict[str, Any] = {
        "segment_number": number,
        "segment_label": label,
        "algorithm_type": hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        "algorithm_identification": algorithm,
        "tracking_uid": hd.UID(),
        "tracking_id": label,
    }
    if label == "Liver":
        return hd.seg.SegmentDescription(
            **shared, segmented_property_category=codes.SCT.Organ, segmented_property_type=codes.SCT.Liver
        )
    return hd.seg.SegmentDescription(
        **shared,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Neoplasm,
        anatomic_regions=[codes.SCT.Liver],
    )
