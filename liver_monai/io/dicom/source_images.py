"""The CT that an object is made from: what such objects repeat of its headers, and where its slices lie."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset

from liver_monai._version import __version__
from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import Open, open_archive
from liver_monai.io.dicom.frames import DAMAGED, Frame
from liver_monai.io.dicom.geometry import place_slices, stack_shape
from liver_monai.io.dicom.series import DicomVolume

NAME = "liver-monai"
PRODUCER: dict[str, Any] = {
    "manufacturer": NAME,
    "manufacturer_model_name": NAME,
    "software_versions": __version__,
    "device_serial_number": __version__,
}
"""What every new object says of the equipment that it is from."""
DESCRIPTION = "Liver and tumours. Research use only."
SERIES_NUMBERS = {"SEG": 9000, "SR": 9001, "RTSTRUCT": 9002}
"""Of new series, by modality: far from those that scanners and reconstructions count up to."""
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
"""The standard wants them in objects of a study, if without a value (type 2); anonymized CTs have lost some."""
MUST_BE_GIVEN = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Without them nobody can tell what an object belongs to, or where it lies.

A CT must have a frame of reference (PS3.3, A.3.3 and C.7.4.1), and objects lie in the same room as it if they share its
UID. One with a UID of its own would say that where it lies has nothing to do with the CT; so none is made up.
"""


@dataclass(frozen=True, kw_only=True)
class SourceImages:
    """A CT's slices in the order of its volume, and the headers of its files.

    Attributes:
        frames: a slice each.
        affine: of the volume, as ``place_slices`` gives it.
        files: names of the files, in the order of ``headers``.
        headers: of each file, without pixels.
    """

    ct: DicomVolume
    frames: list[Frame]
    affine: np.ndarray
    files: list[str]
    headers: list[Dataset]

    @property
    def thickness_mm(self) -> float:
        """How far slices are apart."""
        return float(np.linalg.norm(self.affine[:3, 2]))

    def reference(self, slice_index: int) -> tuple[str, str, list[int] | None]:
        """SOP class and instance of a slice and, of a multi-frame file, the number of its frame from 1."""
        frame = self.frames[slice_index]
        header = self.headers[self.files.index(frame.file)]
        numbers = [frame.index + 1] if int(header.get("NumberOfFrames") or 1) > 1 else None
        return str(header.SOPClassUID), str(header.SOPInstanceUID), numbers


def read_source_images(ct: DicomVolume, *, shape: tuple[int, ...]) -> SourceImages:
    """The headers of a CT that a mask of this shape is to refer to.

    Raises:
        ValueError: the mask has not the shape of the CT.
        InputError: a tilted series, or one that lacks a UID.
    """
    frames, affine, tilt_degrees = place_slices(ct.frames, name=str(ct))
    own_shape = stack_shape(frames)
    if shape != own_shape:
        raise ValueError(f"mask of shape {shape} does not belong to {ct} of shape {own_shape}")
    if tilt_degrees:
        raise InputError(
            f"{ct}: its gantry is tilted by {tilt_degrees:.1f} degrees, and readers of DICOM objects take slices that "
            "are stacked at right angles only; write NIfTI, which keeps the tilt as shear"
        )
    files = list(dict.fromkeys(frame.file for frame in frames))
    with open_archive(ct.path) as (_, open_file):
        headers = [_header(open_file, name) for name in files]
    for keyword in MUST_BE_GIVEN:
        if len({str(header.get(keyword) or "") for header in headers} - {""}) != 1:
            raise InputError(
                f"{ct}: its headers lack one {keyword} for all slices, by which objects belong to their CT; give the "
                "series one, or write NIfTI instead"
            )
    return SourceImages(ct=ct, frames=frames, affine=affine, files=files, headers=headers)


@contextmanager
def repeating_headers(ct: DicomVolume) -> Iterator[None]:
    """Make an ``InputError`` of what libraries raise for headers that they cannot take over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values in the CT that break a rule of the standard
            yield
    except DAMAGED as error:
        raise InputError(
            f"{ct}: its headers lack what DICOM objects must repeat of them ({one_line(error)}); write NIfTI instead"
        ) from error


def _header(open_file: Open, name: str) -> Dataset:
    with open_file(name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in frames.py
        header = pydicom.dcmread(file, stop_before_pixels=True)
    if not header.get("SOPInstanceUID"):  # some archives have it beside the data set only
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
    for keyword in MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    return header
