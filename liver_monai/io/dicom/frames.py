"""Headers: what each image of a DICOM file says of itself, for ordinary and for enhanced multi-frame CT alike."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pydicom
from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    SegmentationStorage,
)

from liver_monai.errors import InputError, one_line
from liver_monai.io.limits import MAX_DEFLATED_BYTES, MAX_PLANE

CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
SEGMENTATION_CLASSES = {SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7"}
"""The second is Label Map Segmentation Storage, younger than pydicom's dictionary."""
SEGMENTATION = "segmentation (SEG)"
LOCALIZER_TYPES = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
HU_TYPES = {"", "HU", "HU_MOD", "US"}
"""Values of RescaleType that mean, or in case of ``US`` (unspecified) do not deny, Hounsfield units."""
HU_UNITS = {"[hnsf'U]", "HU"}

SPLITTING = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "AcquisitionTime",
    "NominalPercentageOfCardiacPhase",
    "ImageType",
    "ConvolutionKernel",
    "KVP",
)
"""What tells the phases of a series apart, in this order."""

HEADER = (
    *SPLITTING,
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "NumberOfFrames",
    "PixelPresentation",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""All that is kept of a header: nothing of it names the patient."""

MAX_NUMBER = 1e9
"""Millimetres, cosines, slope and intercept are far below; NaN is below nothing."""
DEFLATED = b"1.2.840.10008.1.2.1.99"
META_BYTES = 2048
"""The transfer syntax stands in these: preamble and meta information."""

DAMAGED = (
    *(BytesLengthException, InvalidDicomError, AttributeError, EOFError, IndexError, KeyError, OSError, OverflowError),
    *(NotImplementedError, RecursionError, TypeError, ValueError, struct.error),
)
"""What pydicom raises, by turns, for a header or pixels that it cannot make sense of.

``NotImplementedError`` is its word for a value representation that DICOM does not have.
"""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """What the slices of one volume have in common.

    Attributes:
        orientation: direction cosines of a row and of a column, in patient space (LPS).
        spacing_mm: between rows, between columns, as DICOM orders them.
    """

    orientation: tuple[float, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image: where it lies in its file and in the patient, and how its pixels become HU.

    Attributes:
        file: its name in the folder or zip.
        index: of the image in a multi-frame file.
        series: SeriesInstanceUID, SeriesNumber and SeriesDescription.
        position_mm: centre of the first pixel in patient space (LPS); empty where the header has none.
        rescale: slope and intercept; empty where the header has none.
        stamps: values of ``SPLITTING``.
        is_ct: False for images that have 8 bits, too few for HU: masks.
    """

    file: str
    index: int
    series: tuple[str, str, str]
    instance: int
    plane: Plane
    position_mm: tuple[float, ...]
    rescale: tuple[float, ...]
    dtype: str
    stamps: tuple[str, ...]
    is_ct: bool


def read_frames(file: BinaryIO, name: str) -> tuple[list[Frame], list[str]]:
    """The images of one DICOM file that may be part of a CT, and for each of the others what it is instead.

    Raises:
        InputError: a damaged header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break a rule of the standard; those we use are checked
            require_unpackable(file)
            dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(HEADER))
            other = _other_object(dataset)
            if other is not None:
                return [], [other] if other else []
            frames: list[Frame] = []
            others: list[str] = []
            for index, parts in enumerate(_frame_parts(dataset)):
                other = _other_image(parts)
                if other:
                    others.append(other)
                else:
                    frames.append(_frame(parts, name, index))
            return frames, others
    except DAMAGED as error:
        raise InputError(f"{name}: its DICOM header cannot be read ({one_line(error)}); fetch the file anew") from error


def require_unpackable(file: BinaryIO) -> None:
    """Refuse what unpacks to more than memory should be taken for; the file is left at its beginning.

    Raises:
        ValueError: it is packed as a whole, and large.
    """
    is_deflated = DEFLATED in file.read(META_BYTES)
    n_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if is_deflated and n_bytes > MAX_DEFLATED_BYTES:
        raise ValueError(f"{n_bytes} bytes in Deflated Explicit VR; up to {MAX_DEFLATED_BYTES} are unpacked")


class _Parts:
    """Attributes of an image, from the functional groups of a multi-frame file or from the data set itself."""

    def __init__(self, dataset: Dataset, groups: Sequence[Dataset] = ()) -> None:
        self.dataset = dataset
        self.items = [item for group in groups for element in group if element.VR == "SQ" for item in element.value]

    def get(self, keyword: str) -> Any:
        for source in (*self.items, self.dataset):
            value = source.get(keyword)
            if value is not None and value != "":
                return value
        return None

    def numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """So many finite numbers, or none."""
        value = self.get(keyword)
        if value is None:
            return ()
        values = tuple(float(each) for each in (value if isinstance(value, MultiValue) else [value]))
        if len(values) != count:
            raise ValueError(f"{keyword} has {len(values)} values, not {count}")
        if not all(abs(each) < MAX_NUMBER for each in values):
            raise ValueError(f"{keyword} is {values}, which no CT has")
        return values

    def text(self, keyword: str) -> str:
        value = self.get(keyword)
        return "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def sop_class(dataset: Dataset) -> UID:
    """What kind of object a file holds; some exports leave it to the file's meta information."""
    return UID(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", ""))


def _other_object(dataset: Dataset) -> str | None:
    """What a file is if it is no CT; empty for a directory of files, which nobody misses."""
    kind = sop_class(dataset)
    if kind in CT_CLASSES or (not kind and dataset.get("Modality") == "CT"):
        return None
    if kind == MediaStorageDirectoryStorage:
        return ""
    if kind in SEGMENTATION_CLASSES:
        return SEGMENTATION
    return f"{kind.name} ({dataset.get('Modality') or 'no modality'})"


def _frame_parts(dataset: Dataset) -> Iterator[_Parts]:
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    each = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(dataset.get("NumberOfFrames") or 1)
    if each and len(each) != count:
        raise ValueError(f"NumberOfFrames is {count}, but {len(each)} frames are described")
    if not each and count > 1:
        raise ValueError(f"NumberOfFrames is {count}, but no frame has a position")
    yield from (_Parts(dataset, [group, *shared]) for group in each) if each else (_Parts(dataset),)


def _other_image(parts: _Parts) -> str:
    """What an image of a CT file is if it is no slice in HU, or nothing."""
    types = set((parts.text("FrameType") or parts.text("ImageType")).upper().split("\\"))
    if types & LOCALIZER_TYPES:
        return "localizer"
    if int(parts.get("SamplesPerPixel") or 1) > 1 or parts.text("PixelPresentation") == "COLOR":
        return "colour image"
    units = parts.get("MeasurementUnitsCodeSequence")
    if units and units[0].CodeValue not in HU_UNITS:
        return f"map of {units[0].CodeMeaning}"
    if parts.text("RescaleType").upper() not in HU_TYPES:
        return f"map of {parts.text('RescaleType')}"
    return ""


def _frame(parts: _Parts, name: str, index: int) -> Frame:
    bits = int(parts.get("BitsAllocated"))
    rows, columns = (int(parts.get(keyword)) for keyword in ("Rows", "Columns"))
    if not (0 < rows <= MAX_PLANE and 0 < columns <= MAX_PLANE and bits in (1, 8, 16, 32)):
        raise ValueError(f"{rows} rows and {columns} columns of {bits} bits; a CT has up to {MAX_PLANE} of 8, 16 or 32")
    slope, intercept = parts.numbers("RescaleSlope", 1), parts.numbers("RescaleIntercept", 1)
    stamps = [parts.text(keyword) for keyword in SPLITTING]
    stamps[0] = parts.text("FrameAcquisitionNumber") or stamps[0]
    stamps[1] = parts.text("TemporalPositionIndex") or stamps[1]
    return Frame(
        file=name,
        index=index,
        series=(parts.text("SeriesInstanceUID"), parts.text("SeriesNumber"), parts.text("SeriesDescription")),
        instance=int(parts.get("InstanceNumber") or 0),
        plane=Plane(
            orientation=parts.numbers("ImageOrientationPatient", 6),
            spacing_mm=parts.numbers("PixelSpacing", 2),
            rows=rows,
            columns=columns,
        ),
        position_mm=parts.numbers("ImagePositionPatient", 3),
        rescale=(*slope, *intercept) if slope and intercept else (),
        dtype=f"{'int' if int(parts.get('PixelRepresentation') or 0) else 'uint'}{bits}",
        stamps=tuple(stamps),
        is_ct=bits > 8,
    )
