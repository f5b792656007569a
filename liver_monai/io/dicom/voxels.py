"""Pixels of DICOM slices -> Hounsfield units, or mask values."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import open_archive
from liver_monai.io.dicom.frames import DAMAGED, Frame
from liver_monai.io.dicom.geometry import place_slices, stack_shape
from liver_monai.io.dicom.series import DicomVolume
from liver_monai.io.limits import require_possible

logger = logging.getLogger(__name__)

AIR_HU = -1024
"""What voxels outside of the scanned field become: the lowest HU of a CT's ordinary 12 bits."""
MAX_TISSUE_HU = 3071
"""The highest HU of ordinary 12 bits; a padding value between air and this could be tissue just as well."""
HU_LIMITS = np.iinfo(np.int16)
UNDECODABLE = (*DAMAGED, RuntimeError)
"""What pydicom and its decoders raise: also where all decoders fail, and where none knows the transfer syntax."""


def read_hu(volume: DicomVolume) -> tuple[np.ndarray, np.ndarray]:
    """Read a CT volume.

    Slope and intercept are applied slice by slice. Padding becomes air (-1024 HU) unless its value could be tissue.

    Returns:
        HU ``(X, Y, Z)``, int16 where they are whole numbers, else float32, and the ``(4, 4)`` affine to RAS+
        millimetres.

    Raises:
        InputError: slices that make no volume, no rescale to HU, pixels that cannot be decoded or cannot be HU.
    """
    frames, affine, tilt_degrees = place_slices(volume.frames, name=str(volume))
    _require_hu(volume)
    if tilt_degrees:
        logger.warning("%s: gantry tilt of %.1f degrees, kept as shear of the affine", volume, tilt_degrees)
    is_whole = all(value.is_integer() for frame in frames for value in frame.rescale)
    shape = stack_shape(frames)
    require_possible(volume, shape)
    hu = np.empty(shape, dtype=np.int16 if is_whole else np.float32)
    is_inverted = False
    for z, (frame, dataset) in enumerate(_datasets(volume.path, frames)):
        hu[:, :, z] = _slice_hu(dataset, frame, volume).T
        is_inverted |= dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    if is_inverted:
        _check_not_inverted(hu, volume)
    return hu, affine


def read_values(volume: DicomVolume) -> tuple[np.ndarray, np.ndarray]:
    """Stored values ``(X, Y, Z)`` of a series of masks, and its affine.

    Raises:
        InputError: slices that make no volume, or pixels that cannot be decoded.
    """
    frames, affine, _ = place_slices(volume.frames, name=str(volume))
    require_possible(volume, stack_shape(frames))
    planes = [_stored(dataset, frame, volume)[0].T for frame, dataset in _datasets(volume.path, frames)]
    return np.stack(planes, axis=-1), affine


def _require_hu(volume: DicomVolume) -> None:
    lacking = [frame.file for frame in volume.frames if not frame.rescale]
    if lacking:
        raise InputError(
            f"{volume}: {lacking[0]} has no RescaleSlope and RescaleIntercept ({len(lacking)} of {volume.n_slices} "
            "slices), so its values cannot be told in HU; add them, for most scanners 1 and -1024"
        )
    if any(not np.isfinite(frame.rescale).all() or frame.rescale[0] == 0 for frame in volume.frames):
        raise InputError(f"{volume}: a RescaleSlope or RescaleIntercept is zero or not finite")


def _datasets(path: Path, frames: Sequence[Frame]) -> Iterator[tuple[Frame, Dataset]]:
    """Each frame with the data set it is in; neighbours in a multi-frame file share it."""
    with open_archive(path) as (_, open_file), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in frames.py
        dataset, name = Dataset(), ""
        for frame in frames:
            if frame.file != name:
                with open_file(frame.file) as file:
                    try:
                        dataset, name = _read_dataset(file), frame.file
                    except DAMAGED as error:
                        raise InputError(f"{path}: {frame.file} is damaged ({one_line(error)})") from error
            yield frame, dataset


def _read_dataset(file: BinaryIO) -> Dataset:
    """A data set; one without meta information is not compressed, so that its encoding tells its transfer syntax."""
    dataset = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    return dataset


def _slice_hu(dataset: Dataset, frame: Frame, volume: DicomVolume) -> np.ndarray:
    """HU ``(rows, columns)`` of one slice in float64."""
    stored, is_padding = _stored(dataset, frame, volume)
    slope, intercept = frame.rescale
    hu: np.ndarray = stored.astype(np.float64) * slope + intercept  # exact for whole numbers of 32 bits
    is_tissue = (hu > AIR_HU) & (hu <= MAX_TISSUE_HU)
    hu[is_padding & ~is_tissue] = AIR_HU
    if hu.min() < HU_LIMITS.min or hu.max() > HU_LIMITS.max:
        raise InputError(
            f"{volume}: {frame.file} holds values from {hu.min():g} to {hu.max():g}, which are no HU; its "
            "PixelRepresentation, PixelPaddingValue or rescale is wrong"
        )
    return hu


def _stored(dataset: Dataset, frame: Frame, volume: DicomVolume) -> tuple[np.ndarray, np.ndarray]:
    """Values of one image as they are stored, padding with all its bits, and where it is padding."""
    try:
        values = pixel_array(dataset, index=frame.index if dataset.get("NumberOfFrames") else None)
        bits = _all_bits(dataset, frame)
    except UNDECODABLE as error:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        raise InputError(
            f"{volume}: the pixels of {frame.file} cannot be read ({syntax.name if syntax else 'no transfer syntax'}: "
            f"{one_line(error)}); they are damaged, or need to be stored uncompressed"
        ) from error
    if values.ndim != 2 or values.shape != (frame.plane.rows, frame.plane.columns):
        raise InputError(f"{volume}: {frame.file} holds an image of shape {values.shape}, not one of its header's size")
    whole = values.astype(np.int64) if bits is None else bits.astype(np.int64)
    is_padding = _is_padding(whole, dataset)
    if bits is not None and not _has_overlay_bits(dataset) and (values.astype(np.int64) != whole)[~is_padding].any():
        raise InputError(
            f"{volume}: {frame.file} holds values beyond its {dataset.BitsStored} bits stored that are not declared "
            "as padding, so one of BitsStored, PixelRepresentation and PixelPaddingValue is wrong"
        )
    return np.where(is_padding, whole, values), is_padding


def _all_bits(dataset: Dataset, frame: Frame) -> np.ndarray | None:
    """Every bit of uncompressed pixels: padding may be wider than the bits that count."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed or dataset.BitsStored == dataset.BitsAllocated:
        return None
    stored, high = dataset.BitsStored, dataset.HighBit
    dataset.BitsStored, dataset.HighBit = dataset.BitsAllocated, dataset.BitsAllocated - 1
    try:
        return pixel_array(dataset, index=frame.index if dataset.get("NumberOfFrames") else None)
    finally:
        dataset.BitsStored, dataset.HighBit = stored, high


def _is_padding(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Compared as bits: PixelPaddingValue is often written signed for unsigned pixels, and the other way round."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, dtype=bool)
    last = dataset.get("PixelPaddingRangeLimit")
    size = 2**dataset.BitsAllocated
    if last is None:
        same: np.ndarray = values % size == int(first) % size
        return same
    low, high = sorted(_as_stored(int(value), dataset) for value in (first, last))
    return (values >= low) & (values <= high)


def _as_stored(value: int, dataset: Dataset) -> int:
    size = 2**dataset.BitsAllocated
    value %= size
    return value - size if dataset.PixelRepresentation and value >= size // 2 else value


def _has_overlay_bits(dataset: Dataset) -> bool:
    """Old files keep drawings in the bits that pixels leave free."""
    return any(element.tag.group & 0xFF01 == 0x6000 and element.tag.elem == 0x0102 for element in dataset)


def _check_not_inverted(hu: np.ndarray, volume: DicomVolume) -> None:
    """MONOCHROME1 asks a screen to show low values white; HU are as they are (PS3.3, C.7.6.3.1.2).

    Some writers invert the values, too: then the air around the patient is the brightest that there is.
    """
    corners = hu[:: hu.shape[0] - 1, :: hu.shape[1] - 1] if min(hu.shape[:2]) > 1 else hu
    if np.median(corners) > np.median(hu) or np.median(corners) > 0:
        raise InputError(
            f"{volume}: is MONOCHROME1 and its corners, where there is air, have {np.median(corners):.0f} HU: its "
            "values seem to be inverted; export it as MONOCHROME2"
        )
    logger.warning("%s: MONOCHROME1 is how it is shown; its HU are read as they are", volume)
