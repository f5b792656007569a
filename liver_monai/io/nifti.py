"""NIfTI: files opened, checked and read, or the reason why not; arrays written with an affine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from liver_monai.errors import InputError, one_line
from liver_monai.io.limits import MAX_HEADER_BYTES, MAX_PACKING, require_possible

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SLICES_A_READ = 16
NIFTI2_HEADER_BYTES = 540
UNPACKING = cast(type[Exception], isal_zlib.error)  # isal's own stub takes the type for an instance of it
DAMAGED = (EOFError, OSError, UNPACKING, ValueError)
"""What nibabel and isal raise, by turns, when the voxels of a file cannot be read to their end."""


def is_nifti(path: str | Path) -> bool:
    """Whether the name says so."""
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def open_nifti(path: Path) -> Any:
    """Open a file; nibabel reads its voxels when they are asked for.

    Raises:
        InputError: not NIfTI, not three-dimensional, colour.
    """
    try:
        image = _open(path)
    except EOFError as error:
        raise InputError(f"{path}: is damaged, it ends too early ({one_line(error)}); fetch it anew") from error
    except InputError:
        raise
    except (ImageFileError, HeaderDataError, *DAMAGED) as error:
        raise InputError(f"{path}: is named like NIfTI but cannot be read as NIfTI ({one_line(error)})") from error
    if len(_drop_trailing_ones(image.shape)) != 3:
        raise InputError(
            f"{path}: has the shape {tuple(image.shape)}; a CT has three dimensions. Extract one volume of the series."
        )
    if image.get_data_dtype().fields is not None:
        raise InputError(f"{path}: holds colour values ({image.get_data_dtype()}); a CT has one number a voxel")
    return image


def _open(path: Path) -> Any:
    """As ``nib.load``, a packed file three times as fast; it stays open, or each part would be unpacked from its start.

    It is not mapped: a file that is cut short while it is mapped ends the process.
    """
    is_packed = path.name.lower().endswith(".gz")
    if not is_packed:
        with path.open("rb") as file:
            _class_of(path, file.read(NIFTI2_HEADER_BYTES), is_packed=False)
        return nib.load(path, mmap=False, keep_file_open=True)
    stream = igzip.open(path)
    image_class = _class_of(path, stream.read(NIFTI2_HEADER_BYTES), is_packed=True)
    stream.seek(0)
    return image_class.from_file_map(image_class.make_file_map({"image": stream}), mmap=False)


def _class_of(path: Path, head: bytes, *, is_packed: bool) -> Any:
    """Which NIfTI it is, if what it claims can be."""
    for image_class in (nib.Nifti1Image, nib.Nifti2Image):
        header_class = image_class.header_class
        if header_class.may_contain_header(head):
            header = header_class(head[: header_class.sizeof_hdr], check=False)
            _require_possible(path, header, is_packed=is_packed)
            return image_class
    raise ImageFileError("there is no NIfTI header in it")


def _require_possible(path: Path, header: Any, *, is_packed: bool) -> None:
    """Before what lies behind the header is read."""
    stored_bytes = path.stat().st_size * (MAX_PACKING if is_packed else 1)
    try:
        voxel_bytes = header.get_data_dtype().itemsize
    except KeyError:
        raise ImageFileError(f"data type {header['datatype']} is none of NIfTI's") from None
    require_possible(path, header.get_data_shape(), voxel_bytes=voxel_bytes, stored_bytes=stored_bytes)
    offset = float(header["vox_offset"])
    if not 0 <= offset <= min(MAX_HEADER_BYTES, stored_bytes):
        raise InputError(f"{path}: is damaged, its voxels would begin at byte {offset:g}; fetch it anew")


def nifti_shape(image: Any) -> tuple[int, ...]:
    """``(X, Y, Z)``; some writers store a volume as (X, Y, Z, 1)."""
    return _drop_trailing_ones(image.shape)


def nifti_voxels(path: Path, image: Any) -> np.ndarray:
    """Voxels ``(X, Y, Z)`` with slope and intercept applied: whole numbers as they are stored, others float32.

    They are read a few slices at a time: at once, a packed file takes twice the memory and a scaled one five times.

    Raises:
        InputError: the file ends too early, or its compression is damaged.
    """
    shape = nifti_shape(image)
    try:
        ones = (0,) * (len(image.shape) - 3)  # by index: a reshaped proxy would open the file anew for each part
        starts = range(0, shape[2], SLICES_A_READ)
        parts = (image.dataobj[:, :, first : first + SLICES_A_READ, *ones] for first in starts)
        return _joined(parts, shape)
    except DAMAGED as error:
        raise InputError(f"{path}: is damaged, its voxels end too early ({one_line(error)}); fetch it anew") from error


def _joined(parts: Iterator[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Slices in their places, in the order of the file."""
    first = next(parts)
    voxels = np.empty(shape, dtype=np.float32 if first.dtype.kind == "f" else first.dtype, order="F")
    end = 0
    for part in chain([first], parts):
        voxels[:, :, end : end + part.shape[2]] = part
        end += part.shape[2]
    return voxels


def build_nifti(voxels: np.ndarray, affine: np.ndarray) -> Any:
    """An image in scanner space and millimetres; a quaternion cannot hold shear, so a sheared one has none."""
    image = nib.Nifti1Image(voxels, affine)
    sheared = is_sheared(affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(None if sheared else affine, code="unknown" if sheared else "scanner")
    image.header.set_xyzt_units("mm")
    return image


def is_sheared(affine: np.ndarray) -> bool:
    """Whether its axes are not at right angles, as those of a gantry that was tilted."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)


def _drop_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)
