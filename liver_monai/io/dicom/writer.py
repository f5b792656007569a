"""Masks out as DICOM segmentations (SEG), which refer to the CT that they were made from.

The patient and the study are the CT's, as the standard asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DSfloat

from liver_monai._version import __version__
from liver_monai.io.dicom.series import DicomVolume
from liver_monai.io.dicom.source_images import (
    DESCRIPTION,
    NAME,
    PRODUCER,
    SERIES_NUMBERS,
    SourceImages,
    read_source_images,
    repeating_headers,
)
from liver_monai.io.dicom.structures import Structure, structures
from liver_monai.io.files import whole_file


def write_segmentation(
    mask: np.ndarray, path: Path, *, ct: DicomVolume, lesions: np.ndarray | None = None
) -> hd.seg.Segmentation:
    """Write a mask as one DICOM-SEG file with a segment for each of its ``structures``; returns what was written.

    Args:
        mask: ``(X, Y, Z)`` of ``LABELS`` on the grid that ``read_volume`` gives ``ct``.
        path: where to write; appears whole or not at all.
        ct: the series it was made from.
        lesions: ``(X, Y, Z)``, numbers from 1; then each has a segment instead of all tumours together.

    Raises:
        ValueError: the mask has not the shape of the CT.
        InputError: a tilted series, or headers that lack what a segmentation must repeat.
    """
    source = read_source_images(ct, shape=mask.shape)
    for header in source.headers:
        _set_thickness(header, source.thickness_mm)
    parts = list(structures(mask, lesions))
    order = _order(source)
    pixels = np.stack([part.marked.transpose(2, 1, 0)[order] for part in parts], axis=-1)
    with repeating_headers(ct):
        segmentation = _build(source.headers, pixels, parts)
    with whole_file(path) as temporary:
        segmentation.save_as(temporary)
    return segmentation


def _order(source: SourceImages) -> list[int]:
    """Slices as their files are in order: of a multi-frame file, that of its frames."""
    order = list(range(len(source.frames)))
    if len(source.files) < len(order):
        order.sort(key=lambda z: (source.files.index(source.frames[z].file), source.frames[z].index))
    return order


def _set_thickness(header: Dataset, thickness_mm: float) -> None:
    """Of the grid: slices are as thick as they are apart, whatever the CT says of how thick they were measured."""
    groups = header.get("SharedFunctionalGroupsSequence")
    measures = groups[0].get("PixelMeasuresSequence") if groups else [header]
    if measures:
        measures[0].SliceThickness = DSfloat(thickness_mm, auto_format=True)


def _build(headers: list[Dataset], pixels: np.ndarray, parts: list[Structure]) -> hd.seg.Segmentation:
    return hd.seg.Segmentation(
        source_images=headers,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,  # what every viewer reads
        segment_descriptions=[_describe(number, part) for number, part in enumerate(parts, start=1)],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        **PRODUCER,
        content_label="LIVER",
        content_description=DESCRIPTION,
        series_description=DESCRIPTION,
    )


def _describe(number: int, part: Structure) -> hd.seg.SegmentDescription:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=NAME, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    region: dict[str, Any] = {} if part.is_liver else {"anatomic_regions": [codes.SCT.Liver]}
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=part.name,
        segmented_property_category=part.category,
        segmented_property_type=part.type,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=part.name,
        **region,
    )
