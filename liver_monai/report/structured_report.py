"""Findings as a DICOM measurement report (TID 1500), which refers to the segments of a segmentation and to the CT.

A lesion has two groups of measurements of one tracking identifier: of its segment (TID 1411) all figures, as readers of
volumes look for them; and its two diameters once more (TID 1501) with where they begin and end, which the former
template has no place for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from liver_monai._version import __version__
from liver_monai.io.dicom.source_images import NAME, PRODUCER, SERIES_NUMBERS, SourceImages, repeating_headers
from liver_monai.io.dicom.structures import MAX_LESIONS
from liver_monai.io.files import whole_file
from liver_monai.report.findings import Findings, Lesion, Line

DECIMALS = 4
"""Of every figure: decimal strings hold 16 characters."""
MILLILITRE = codes.UCUM.CubicCentimeter
"""The unit of volume in DICOM's lists that is one millilitre."""


def write_measurement_report(
    found: Findings, path: Path, *, source: SourceImages, segmentation: hd.seg.Segmentation
) -> None:
    """Write liver and lesions as a Comprehensive 3D SR.

    Args:
        found: of the mask that the segmentation was made from, its numbers those of the lesions there.
        path: where to write; appears whole or not at all.
        source: the CT.
        segmentation: with a segment for the liver and one for each lesion, see ``io.dicom.structures``.

    Raises:
        InputError: headers that lack what a report must repeat.
    """
    with repeating_headers(source.ct):
        document = _document(_content(found, source, segmentation), source, segmentation)
    with whole_file(path) as temporary:
        document.save_as(temporary)


def _document(content: sr.MeasurementReport, source: SourceImages, segmentation: Dataset) -> sr.Comprehensive3DSR:
    return sr.Comprehensive3DSR(
        evidence=[*source.headers, segmentation],
        content=content,
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        is_complete=True,
        series_description="Measurements. Research use only.",
        **PRODUCER,
    )


def _content(found: Findings, source: SourceImages, segmentation: hd.seg.Segmentation) -> sr.MeasurementReport:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[NAME, __version__]), name=NAME, manufacturer_name=NAME, model_name=NAME
    )
    liver, *tumors = segmentation.SegmentSequence
    groups: list[Any] = [
        _volume_group(liver, [_volume(found.liver_ml)], source=source, segmentation=segmentation, is_liver=True)
    ]
    for lesion, segment in zip(found.lesions[:MAX_LESIONS], tumors, strict=False):
        groups.append(_volume_group(segment, _figures(lesion), source=source, segmentation=segmentation))
        groups.append(_diameter_group(segment, lesion, source=source))
    further = found.lesions[MAX_LESIONS:]
    if further:
        volume = _volume(sum(lesion.volume_ml for lesion in further))
        groups.append(_volume_group(tumors[-1], [volume], source=source, segmentation=segmentation))
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device, observer_identifying_attributes=device
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )


def _volume_group(
    segment: Dataset,
    measurements: list[sr.Measurement],
    *,
    source: SourceImages,
    segmentation: hd.seg.Segmentation,
    is_liver: bool = False,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **_what(segment, is_liver=is_liver),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=int(segment.SegmentNumber),
            source_series=sr.SourceSeriesForSegmentation(source.ct.series_uid),
        ),
        measurements=measurements,
    )


def _diameter_group(
    segment: Dataset, lesion: Lesion, *, source: SourceImages
) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        **_what(segment, is_liver=False),
        measurements=[
            _diameter(codes.SCT.LongAxis, lesion.longest, source=source),
            _diameter(codes.SCT.ShortAxis, lesion.perpendicular, source=source),
        ],
    )


def _what(segment: Dataset, *, is_liver: bool) -> dict[str, Any]:
    """What a group of measurements is of."""
    said = {
        "tracking_identifier": sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        "finding_category": codes.SCT.Organ if is_liver else codes.SCT.MorphologicallyAbnormalStructure,
        "finding_type": codes.SCT.Liver if is_liver else codes.SCT.Neoplasm,
        "algorithm_id": sr.AlgorithmIdentification(name=NAME, version=__version__),
    }
    return said if is_liver else {**said, "finding_sites": [sr.FindingSite(codes.SCT.Liver)]}


def _figures(lesion: Lesion) -> list[sr.Measurement]:
    figures = [
        _volume(lesion.volume_ml),
        _diameter(codes.SCT.LongAxis, lesion.longest),
        _diameter(codes.SCT.ShortAxis, lesion.perpendicular),
    ]
    for value, derivation in ((lesion.mean_hu, codes.SCT.Mean), (lesion.median_hu, codes.SCT.Median)):
        if value is not None:
            figures.append(_brightness(value, derivation))
    return figures


def _volume(volume_ml: float) -> sr.Measurement:
    return sr.Measurement(
        name=codes.SCT.Volume,
        value=round(volume_ml, DECIMALS),
        unit=MILLILITRE,
        method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
    )


def _brightness(hu: float, derivation: Code) -> sr.Measurement:
    return sr.Measurement(
        name=codes.DCM.AttenuationCoefficient,
        value=round(hu, DECIMALS),
        unit=codes.UCUM.HounsfieldUnit,
        derivation=derivation,
    )


def _diameter(name: Code, line: Line, *, source: SourceImages | None = None) -> sr.Measurement:
    """With its ends, if the images are given that these lie on."""
    ends = None if source is None else [_ends(line, source)]
    length_mm = round(line.length_mm, DECIMALS)
    return sr.Measurement(name=name, value=length_mm, unit=codes.UCUM.Millimeter, referenced_coordinates=ends)


def _ends(line: Line, source: SourceImages) -> sr.CoordinatesForMeasurement | sr.CoordinatesForMeasurement3D:
    """On their slice, as viewers draw them; in the patient, where slices are not axial and the line crosses several."""
    ends = np.array(line.ends_voxel)
    slices = np.unique(ends[:, 2].round(DECIMALS))
    if len(slices) == 1 and slices[0].is_integer():
        sop_class, sop_instance, frame_numbers = source.reference(int(slices[0]))
        return sr.CoordinatesForMeasurement(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=ends[:, :2] + 0.5,  # DICOM counts from the upper left corner of the first pixel
            source_image=sr.SourceImageForRegion(sop_class, sop_instance, frame_numbers),
        )
    return sr.CoordinatesForMeasurement3D(
        graphic_type=sr.GraphicTypeValues3D.POLYLINE,
        graphic_data=np.array(line.ends_mm),
        frame_of_reference_uid=source.headers[0].FrameOfReferenceUID,
    )
