"""A mask and its findings as DICOM objects beside each other: which there are, what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume
from liver_monai.report.findings import Findings
from liver_monai.report.measurement import number_lesions
from liver_monai.report.scan import MaskedScan

SUFFIXES = {"dicom-seg": "seg", "sr": "sr", "rtstruct": "rtstruct"}
"""What may be written, and how names of files end: ``<case_id>_seg.dcm``."""


def require_formats(formats: Sequence[str]) -> None:
    """Refuse formats that there are not, and a report without the segmentation that it measures.

    Raises:
        InputError: which of them.
    """
    unknown = [name for name in formats if name not in SUFFIXES]
    if unknown:
        raise InputError(f"--to {unknown[0]}: no such format; choose among {', '.join(SUFFIXES)}")
    if "sr" in formats and "dicom-seg" not in formats:
        raise InputError("--to sr: refers to the segments of a segmentation; give --to dicom-seg,sr")


def object_paths(folder: Path, case_id: str, formats: Sequence[str]) -> dict[str, Path]:
    """Where the objects of a case go, by format."""
    return {name: folder / f"{case_id}_{SUFFIXES[name]}.dcm" for name in formats}


def write_objects(scan: MaskedScan, found: Findings, folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Write a mask and its findings as DICOM objects of its CT's study; returns where they are, by format.

    With a report among them, each lesion has a segment or region of its own instead of all tumours together.

    Raises:
        InputError: the CT is not DICOM, is tilted, or lacks in its headers what objects must repeat.
    """
    from liver_monai.io.dicom.contours import write_structure_set  # here: highdicom takes a second
    from liver_monai.io.dicom.source_images import read_source_images
    from liver_monai.io.dicom.writer import write_segmentation
    from liver_monai.report.structured_report import write_measurement_report

    if not isinstance(scan.ct, DicomVolume):
        raise InputError(
            f"--to {','.join(formats)}: refers to the DICOM series of a CT, and --image is {scan.ct}; give that series"
        )
    paths = object_paths(folder, scan.case_id, formats)
    lesions = number_lesions(scan.mask, scan.affine) if "sr" in formats else None
    if "dicom-seg" in formats:
        segmentation = write_segmentation(scan.mask, paths["dicom-seg"], ct=scan.ct, lesions=lesions)
    if "rtstruct" in formats:
        write_structure_set(scan.mask, paths["rtstruct"], ct=scan.ct, lesions=lesions)
    if "sr" in formats:
        source = read_source_images(scan.ct, shape=scan.mask.shape)
        write_measurement_report(found, paths["sr"], source=source, segmentation=segmentation)
    return paths
