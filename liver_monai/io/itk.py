"""NRRD and MetaImage (NHDR, MHA, MHD) by way of ITK."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
from isal import isal_zlib

from liver_monai.errors import InputError, one_line
from liver_monai.io.limits import MAX_PACKING, require_possible
from liver_monai.io.nifti import DAMAGED

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
ITK_SUFFIXES = (*NRRD_SUFFIXES, *META_SUFFIXES)
META_BYTES = 65536
"""A MetaImage's header is a page of text."""
CHUNK_BYTES = 2**20
NRRD_FIELD_BYTES = 400
"""No field of an NRRD header is longer: nine numbers of a direction matrix are some 230 bytes. NrrdIO, with which ITK
reads them, writes beyond its memory when it refuses one of more than 600, and ends the process."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's world is LPS, ours RAS."""


def open_itk(path: Path) -> Any:
    """Read a header and leave the voxels.

    Raises:
        InputError: not in the format of its name, not three-dimensional, several values a voxel.
    """
    kind, image_io = ("NRRD", "NrrdImageIO") if path.suffix.lower() in NRRD_SUFFIXES else ("MetaImage", "MetaImageIO")
    if kind == "NRRD":
        _require_short_fields(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)  # else ITK has each of its formats look at a file that this one refuses
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: is named like {kind} but cannot be read as {kind} ({_reason(error)})") from error
    if len(itk_shape(reader)) != 3:
        raise InputError(
            f"{path}: has the shape {reader.GetSize()}; a CT has three dimensions. Extract one volume of the series."
        )
    if reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: holds {reader.GetNumberOfComponents()} numbers a voxel; a CT has one")
    is_one_file = path.suffix.lower() in (".nrrd", ".mha")
    stored_bytes = path.stat().st_size * MAX_PACKING if is_one_file else None
    require_possible(
        path, itk_shape(reader), voxel_bytes=np.dtype(itk_dtype(reader)).itemsize, stored_bytes=stored_bytes
    )
    return reader


def _require_short_fields(path: Path) -> None:
    """Refuse what would end the process; lines of ``key:=value`` and comments may be long.

    Raises:
        InputError: a field too long, or no header at all.
    """
    with _opened(path) as file:
        while (line := file.readline(CHUNK_BYTES)).strip():
            key, is_pair, _ = line[: NRRD_FIELD_BYTES + 2].partition(b":=")
            is_free = line.startswith(b"#") or (is_pair and b": " not in key)
            if len(line) > NRRD_FIELD_BYTES and not is_free:
                raise InputError(
                    f"{path}: has a line of {len(line)} bytes in its NRRD header; it is damaged, fetch it anew"
                )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read; a disk that fails names it."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); fetch it anew, or let it be read") from error


def itk_shape(reader: Any) -> tuple[int, ...]:
    """``(X, Y, Z)``; a trailing axis of one is none."""
    shape = tuple(reader.GetSize())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def itk_affine(reader: Any) -> np.ndarray:
    """``(4, 4)`` from voxels to RAS+ millimetres."""
    dimensions = reader.GetDimension()
    directions = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def itk_dtype(reader: Any) -> str:
    """The type of the stored values, in NumPy's words."""
    names = {"8-bit": "int8", "16-bit": "int16", "32-bit": "int32", "64-bit": "int64"}
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "float" in kind:
        return "float64" if "64" in kind else "float32"
    sign = "u" if "unsigned" in kind else ""
    return sign + next((name for bits, name in names.items() if bits in kind), "int32")


def itk_voxels(path: Path, reader: Any) -> np.ndarray:
    """Voxels ``(X, Y, Z)``.

    Raises:
        InputError: the voxels end too early, or their file is not there.
    """
    _require_whole(path, reader)
    try:
        voxels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"{path}: is damaged, its voxels cannot be read ({_reason(error)}); fetch it anew") from error
    along_xyz: np.ndarray = voxels.reshape(itk_shape(reader)[::-1]).transpose(2, 1, 0)
    return along_xyz


def _require_whole(path: Path, reader: Any) -> None:
    """Unpack a MetaImage once to see that its checksum holds: ITK passes over damage and goes on with what it has.

    Raises:
        InputError: the packed voxels are damaged, too few or too many.
    """
    with _opened(path) as file:
        head = file.read(META_BYTES)
    fields = dict(re.findall(rb"^(\w+)\s*=\s*(.*?)\s*$", head.partition(b"ElementDataFile")[0], flags=re.MULTILINE))
    where = re.search(rb"^ElementDataFile\s*=\s*(.*?)\s*\n", head, flags=re.MULTILINE)
    if path.suffix.lower() not in META_SUFFIXES or where is None or fields.get(b"CompressedData") != b"True":
        return
    is_here = where[1].upper() in (b"LOCAL", b"LOCALE")
    data = path if is_here else path.parent / os.fsdecode(where[1])
    expected = math.prod(reader.GetSize()) * np.dtype(itk_dtype(reader)).itemsize
    try:
        n_bytes = _unpacked_bytes(data, start=where.end() if is_here else 0, at_most=expected)
    except DAMAGED as error:
        raise InputError(
            f"{path}: is damaged, its voxels cannot be unpacked ({one_line(error)}); fetch it anew"
        ) from error
    if n_bytes != expected:
        raise InputError(f"{path}: is damaged, it holds {n_bytes} bytes of voxels instead of {expected}; fetch it anew")


def _unpacked_bytes(path: Path, *, start: int, at_most: int) -> int:
    """How many bytes a zlib stream holds; nothing of them is kept."""
    unpacker, n_bytes = isal_zlib.decompressobj(), 0
    with path.open("rb") as file:
        file.seek(start)
        while not unpacker.eof and n_bytes <= at_most:
            part = unpacker.unconsumed_tail or file.read(CHUNK_BYTES)
            if not part:
                raise EOFError("it ends too early")
            n_bytes += len(unpacker.decompress(part, CHUNK_BYTES))
    return n_bytes


def build_itk(voxels: np.ndarray, affine: np.ndarray) -> Any:
    """An image of voxels ``(X, Y, Z)`` and an affine to RAS+ millimetres; shear stays in its directions."""
    lps = LPS_TO_RAS @ affine
    spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((lps[:3, :3] / spacing_mm).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_itk(image: Any, path: Path) -> None:
    """Write an image, compressed."""
    sitk.WriteImage(image, str(path), useCompression=True)


def _reason(error: RuntimeError) -> str:
    """The last line of ITK's page, which tells what went wrong."""
    lines = [line.strip() for line in one_line(error).split("sitk::ERROR:")]
    return lines[-1]
