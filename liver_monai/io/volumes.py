"""Volumes in: a file or a DICOM series becomes a (1, X, Y, Z) MetaTensor that knows where it lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, only_volume
from liver_monai.io.dicom.archive import DICOM_SUFFIXES, is_tar, may_hold_dicom
from liver_monai.io.dicom.geometry import place_slices, stack_shape
from liver_monai.io.itk import ITK_SUFFIXES, itk_affine, itk_dtype, itk_shape, itk_voxels, open_itk
from liver_monai.io.limits import require_place
from liver_monai.io.nifti import NIFTI_SUFFIXES, is_nifti, nifti_shape, nifti_voxels, open_nifti
from liver_monai.spec import LABELS

Source = str | Path | DicomVolume
"""What a volume is read from: a file; a folder, zip or multi-frame file with one DICOM volume; one of several."""

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
"""Of files that hold a whole volume each."""
VOLUME_FORMATS = f"files that end in {', '.join(VOLUME_SUFFIXES[:-1])} or {VOLUME_SUFFIXES[-1]}, or DICOM"

AFFINE_TOLERANCE_MM = 0.1
"""Corners of two grids may lie this far apart: headers are rounded, and a tenth of a voxel moves no voxel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeHeader:
    """What a volume is without its voxels.

    Attributes:
        shape: ``(X, Y, Z)``.
        affine: ``(4, 4)`` from voxels to RAS+ millimetres.
        stored_dtype: of the values on disk, before slope and intercept, in NumPy's words.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    stored_dtype: str

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance of neighbouring voxels along each axis."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    @property
    def axis_codes(self) -> str:
        """Where each axis points to: ``"LPS"`` is left, posterior, superior."""
        return "".join(nib.aff2axcodes(self.affine))


def files_of(source: Source) -> list[Path]:
    """The files on disk that a volume is read from."""
    if isinstance(source, DicomVolume):
        return source.paths
    path = Path(source)
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def is_volume_file(path: Path) -> bool:
    """Whether the name says that this file is a whole volume (and not a hidden or resource-fork file)."""
    return path.name.lower().endswith(VOLUME_SUFFIXES) and not path.name.startswith(".")


def strip_suffix(name: str) -> str:
    """``"liver_3.nii.gz"`` -> ``"liver_3"``, ``"study.zip"`` -> ``"study"``."""
    suffixes = (".nii.gz", *VOLUME_SUFFIXES, ".zip", *DICOM_SUFFIXES)
    return next((name[: -len(suffix)] for suffix in suffixes if name.lower().endswith(suffix)), name)


def read_volume(source: Source) -> MetaTensor:
    """Read a CT in its stored orientation: NIfTI, NRRD, MetaImage, or DICOM (folder, zip, multi-frame file).

    Returns:
        ``(1, X, Y, Z)`` tensor: int16 where every value fits, else float32, with intensity slope and intercept
        applied. ``affine`` maps voxels to millimetres in RAS+ world space.

    Raises:
        InputError: no such file, no known format, damaged, not three-dimensional, colour, not finite, a header whose
            affine cannot place a voxel; DICOM that holds no volume, several, or one that is not whole.
    """
    volume = _found(source)
    if isinstance(volume, DicomVolume):
        from liver_monai.io.dicom.voxels import read_hu  # here, so that NIfTI is read beside pydicom 2: MONAI Label's

        return _tensor(*read_hu(volume), name=str(volume))
    return _tensor(*read_voxels(volume), name=str(volume))


def read_mask(source: Source, *, grid: MetaTensor | None = None) -> MetaTensor:
    """Read a mask as ``(1, X, Y, Z)`` uint8 with the values of ``LABELS``; masks stored as float are accepted.

    Of DICOM, segmentations (SEG) and folders with a series of masks for each structure are read: segments that are
    the liver or its tumours by their SNOMED code or name.

    Args:
        source: a file, folder or zip.
        grid: the CT of the mask. A DICOM mask may leave out slices that it does not mark; with ``grid`` it is laid
            on all slices of the CT.

    Raises:
        InputError: as ``read_volume``, a value that is no label, no liver and no tumour among the segments, or a
            DICOM mask that does not lie on ``grid``.
    """
    path = source.path if isinstance(source, DicomVolume) else Path(source).expanduser()
    if not is_volume_file(path) and may_hold_dicom(path):
        placed = None if grid is None else (tuple(grid.shape[1:]), np.asarray(grid.affine))
        from liver_monai.io.dicom.segments import read_dicom_mask  # here, as above

        return _tensor(*read_dicom_mask(path, grid=placed), name=str(path))
    mask = read_volume(path)
    values = np.unique(mask.numpy())
    unknown = [value for value in values.tolist() if value not in LABELS]
    if unknown:
        known = ", ".join(f"{value} {name}" for value, name in LABELS.items())
        raise InputError(
            f"{path}: holds the value {unknown[0]:g}, which is no label; the labels are {known}. Relabel the file."
        )
    return mask.to(torch.uint8)


def read_voxels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(X, Y, Z)`` and affine of one file that holds a whole volume, as ``read_volume`` gives them."""
    if is_nifti(path):
        image = open_nifti(path)
        affine = _placing(path, nifti_shape(image), image.affine)
        return _compact(path, nifti_voxels(path, image)), affine
    reader = open_itk(path)
    affine = _placing(path, itk_shape(reader), itk_affine(reader))
    return _compact(path, itk_voxels(path, reader)), affine


def read_header(source: Source) -> VolumeHeader:
    """Read where a CT lies, and leave its voxels on disk.

    Raises:
        InputError: as ``read_volume``, but for what is wrong with the voxels.
    """
    volume = _found(source)
    if isinstance(volume, DicomVolume):
        frames, affine, _ = place_slices(volume.frames, name=str(volume))
        return VolumeHeader(shape=stack_shape(frames), affine=affine, stored_dtype=frames[0].dtype)
    if is_nifti(volume):
        image = open_nifti(volume)
        shape, affine, dtype = nifti_shape(image), image.affine, image.get_data_dtype().newbyteorder("=").name
    else:
        reader = open_itk(volume)
        shape, affine, dtype = itk_shape(reader), itk_affine(reader), itk_dtype(reader)
    return VolumeHeader(shape=shape, affine=_placing(volume, shape, affine), stored_dtype=dtype)


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
    apart_mm = corners_apart_mm(np.asarray(mask.affine), np.asarray(reference.affine), tuple(reference.shape[1:]))
    if apart_mm > AFFINE_TOLERANCE_MM:
        affines = [np.asarray(volume.affine)[:3].round(4).tolist() for volume in (mask, reference)]
        raise InputError(
            f"{names[0]} and {names[1]} lie up to {apart_mm:.4g} mm apart, more than {AFFINE_TOLERANCE_MM} mm: "
            f"affine {affines[0]} against {affines[1]}; one of the headers is wrong"
        )


def voxel_ml(affine: np.ndarray) -> float:
    """Volume of a voxel by an affine ``(4, 4)`` to millimetres, whatever the angles between its axes."""
    return float(abs(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000


def slice_axis(affine: np.ndarray) -> int:
    """The stored axis from slice to slice: the one closest to foot-head, by an affine ``(4, 4)`` to RAS+."""
    return int(np.flatnonzero(nib.orientations.io_orientation(affine)[:, 0] == 2)[0])


def corners_apart_mm(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far the corners of one grid lie from those of another of the same shape, along the worst axis."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.abs((one - other) @ corners).max())


def _found(source: Source) -> Path | DicomVolume:
    """The file with a whole volume, or the one volume of a DICOM source."""
    if isinstance(source, DicomVolume):
        return source
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() and is_volume_file(path):
        return path
    if is_tar(path):
        raise InputError(f"{path}: is a tar archive; unpack it and give the folder, or pack it as zip")
    if may_hold_dicom(path):
        return only_volume(path)
    raise InputError(f"{path}: is not a volume that can be read; give {VOLUME_FORMATS} (a folder, zip or file)")


def _placing(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """The affine in float64, if it does what an affine is for."""
    affine = np.asarray(affine, dtype=np.float64)
    require_place(path, shape, affine)
    return affine


def _compact(path: Path, voxels: np.ndarray) -> np.ndarray:
    """The smallest of int16 and float32 that loses nothing a network can see; also out of foreign byte orders."""
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int(voxels.size - np.isfinite(voxels).sum())
        raise InputError(f"{path}: {count} of {voxels.size} voxels are NaN or infinite; a CT holds finite HU only")
    limits = np.iinfo(np.int16)
    fits = voxels.dtype.kind in "iub" and voxels.min() >= limits.min and voxels.max() <= limits.max
    return np.asarray(voxels, dtype=np.int16 if fits else np.float32)  # in the file's order: slices lie together


ROWS_A_BLOCK = 64
"""With as many slices as a CT has, a block of rows fits into a core's cache."""


def last_axis_first(voxels: np.ndarray) -> np.ndarray:
    """Voxels ``(X, Y, Z)`` whose last axis lies together in memory; in most files it is the first axis that does.

    NumPy alone would walk through one of the two across its order, which takes two to three times as long.
    """
    if voxels.flags.c_contiguous:
        return voxels
    ordered = np.empty(voxels.shape, dtype=voxels.dtype)
    for first in range(0, voxels.shape[0], ROWS_A_BLOCK):
        rows = slice(first, first + ROWS_A_BLOCK)
        for y in range(voxels.shape[1]):
            ordered[rows, y] = voxels[rows, y]
    return ordered


def _tensor(voxels: np.ndarray, affine: np.ndarray, *, name: str) -> MetaTensor:
    meta = {
        "affine": torch.from_numpy(affine),
        "original_affine": torch.from_numpy(affine.copy()),
        "spatial_shape": np.asarray(voxels.shape, dtype=np.int64),
        "original_channel_dim": 0,
        "filename_or_obj": name,
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(voxels)[None], meta=meta)
