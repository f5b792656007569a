"""Volumes in: a file becomes a (1, X, Y, Z) MetaTensor that knows where it lies in the patient, or a clear error."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from liver_monai.errors import InputError, one_line
from liver_monai.spec import LABELS

NIFTI_SUFFIXES = (".nii", ".nii.gz")
DAMAGED = (EOFError, OSError, zlib.error, ValueError)
"""What nibabel raises, by turns, when the voxels of a file cannot be read to their end."""

AFFINE_TOLERANCE_MM = 0.1
"""Corners of two grids may lie this far apart: headers are rounded, and a tenth of a voxel moves no voxel."""


def is_volume_file(path: Path) -> bool:
    """Whether the name says that this is a volume we read (and not a hidden or resource-fork file)."""
    return path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith(".")


def strip_suffix(name: str) -> str:
    """``"liver_3.nii.gz"`` -> ``"liver_3"``."""
    return next((name[: -len(suffix)] for suffix in (".nii.gz", ".nii") if name.lower().endswith(suffix)), name)


def read_volume(path: str | Path) -> MetaTensor:
    """Read a NIfTI volume in its stored orientation.

    Returns:
        ``(1, X, Y, Z)`` tensor: int16 where every value fits, else float32, with intensity slope and intercept
        applied. ``affine`` maps voxels to millimetres in RAS+ world space.

    Raises:
        InputError: no such file, not NIfTI, damaged, not three-dimensional, colour, not finite, or a header whose
            affine cannot place a voxel.
    """
    path = Path(path).expanduser()
    image = _open(path)
    _check_header(path, image)
    voxels = _compact(path, _read_voxels(path, image))
    affine = np.asarray(image.affine, dtype=np.float64)
    meta = {
        "affine": torch.from_numpy(affine),
        "original_affine": torch.from_numpy(affine.copy()),
        "spatial_shape": np.asarray(voxels.shape, dtype=np.int64),
        "original_channel_dim": 0,
        "filename_or_obj": str(path),
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(voxels)[None], meta=meta)


def read_mask(path: str | Path) -> MetaTensor:
    """Read a mask as ``(1, X, Y, Z)`` uint8 with the values of ``LABELS``; masks stored as float are accepted.

    Raises:
        InputError: as ``read_volume``, or a value that is no label.
    """
    mask = read_volume(path)
    values = np.unique(mask.numpy())
    unknown = [value for value in values.tolist() if value not in LABELS]
    if unknown:
        known = ", ".join(f"{value} {name}" for value, name in LABELS.items())
        raise InputError(
            f"{path}: holds the value {unknown[0]:g}, which is no label; the labels are {known}. Relabel the file."
        )
    return mask.to(torch.uint8)


def require_same_grid(mask: MetaTensor, reference: MetaTensor) -> None:
    """Refuse a mask whose voxels do not lie where those of its CT, or of another mask, lie.

    Raises:
        InputError: names both files with their shapes or affines.
    """
    names = [Path(volume.meta["filename_or_obj"]) for volume in (mask, reference)]
    if mask.shape != reference.shape:
        raise InputError(
            f"{names[0]} has the shape {tuple(mask.shape[1:])}, {names[1]} {tuple(reference.shape[1:])}; "
            "both must lie on one grid, that of the CT they were made from"
        )
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in reference.shape[1:]])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart_mm = np.abs((np.asarray(mask.affine) - np.asarray(reference.affine)) @ corners).max()
    if apart_mm > AFFINE_TOLERANCE_MM:
        affines = [np.asarray(volume.affine)[:3].round(4).tolist() for volume in (mask, reference)]
        raise InputError(
            f"{names[0]} and {names[1]} lie up to {apart_mm:.4g} mm apart, more than {AFFINE_TOLERANCE_MM} mm: "
            f"affine {affines[0]} against {affines[1]}; one of the headers is wrong"
        )


def _open(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file() or not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path}: is not a volume that can be read; give a file that ends in .nii or .nii.gz")
    try:
        return nib.load(path)
    except (ImageFileError, HeaderDataError, *DAMAGED) as error:
        raise InputError(f"{path}: is named like NIfTI but cannot be read as NIfTI ({one_line(error)})") from error


def _check_header(path: Path, image: Any) -> None:
    shape = _drop_trailing_ones(image.shape)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"{path}: has the shape {tuple(image.shape)}; a CT has three dimensions. Extract one volume of the series."
        )
    if image.get_data_dtype().fields is not None:
        raise InputError(f"{path}: holds colour values ({image.get_data_dtype()}); a CT has one number a voxel")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{path}: its affine {affine[:3].tolist()} does not place voxels in space; "
            "every axis needs a finite direction and a spacing above 0 mm. Repair the header."
        )


def _read_voxels(path: Path, image: Any) -> np.ndarray:
    try:
        voxels = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise InputError(f"{path}: is damaged, its voxels end too early ({one_line(error)}); fetch it anew") from error
    return np.reshape(voxels, _drop_trailing_ones(voxels.shape))


def _compact(path: Path, voxels: np.ndarray) -> np.ndarray:
    """The smallest of int16 and float32 that loses nothing a network can see; also out of foreign byte orders."""
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int(voxels.size - np.isfinite(voxels).sum())
        raise InputError(f"{path}: {count} of {voxels.size} voxels are NaN or infinite; a CT holds finite HU only")
    limits = np.iinfo(np.int16)
    fits = voxels.dtype.kind in "iub" and voxels.min() >= limits.min and voxels.max() <= limits.max
    return np.ascontiguousarray(voxels, dtype=np.int16 if fits else np.float32)


def _drop_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Some writers store a volume as (X, Y, Z, 1)."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(shape)
