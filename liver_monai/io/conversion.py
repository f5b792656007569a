"""Volumes and masks from one format to another; what was written is read back before it takes its place."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.dicom import only_volume
from liver_monai.io.dicom.archive import may_hold_dicom
from liver_monai.io.dicom.series import read_content
from liver_monai.io.files import whole_file
from liver_monai.io.itk import build_itk, write_itk
from liver_monai.io.nifti import NIFTI_SUFFIXES, build_nifti, is_nifti
from liver_monai.io.volumes import (
    Source,
    VolumeHeader,
    corners_apart_mm,
    is_volume_file,
    read_header,
    read_mask,
    read_volume,
    read_voxels,
    require_same_grid,
)

WRITTEN_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")
"""One file each; the pairs of MHD and NHDR would not appear as one."""
COPY_TOLERANCE_MM = 0.001
"""Corners of a volume and of its copy: NIfTI keeps an affine in float32, seven digits."""


def convert(
    source: str | Path, out: Path, *, series: str | None = None, ct: Path | None = None, overwrite: bool = False
) -> VolumeHeader:
    """Write a volume or a mask in the format that the name of ``out`` says.

    Args:
        source: anything that ``read_volume`` or ``read_mask`` takes; DICOM that holds no CT but masks is a mask.
        out: ends in .nii, .nii.gz, .nrrd or .mha.
        series: which DICOM series, where there are several.
        ct: the CT of a mask, which it must lie on; a DICOM mask gets all slices of it.
        overwrite: replace a file that is there.

    Returns:
        What was written.

    Raises:
        InputError: a source that cannot be read, a mask off its CT, a format that is not written or cannot hold the
            geometry, or a file that is there.
    """
    source = Path(source).expanduser()
    _check_target(source, out, overwrite=overwrite)
    volume = _read(source, series=series, ct=ct)
    voxels, affine = volume[0].numpy(), np.asarray(volume.affine, dtype=np.float64)
    write_volume(voxels, affine, out)
    return read_header(out)


def write_volume(voxels: np.ndarray, affine: np.ndarray, out: Path) -> None:
    """Write a volume in the format that a file's name says, read it back and compare.

    Args:
        voxels: ``(X, Y, Z)``.
        affine: ``(4, 4)`` from voxels to RAS+ millimetres.
        out: ends in one of ``WRITTEN_SUFFIXES``; appears whole or not at all.

    Raises:
        InputError: the format cannot hold the voxels or the geometry.
    """
    with whole_file(out) as temporary:
        try:
            _write(voxels, affine, temporary)
        except RuntimeError as error:  # ITK's
            raise InputError(f"{out}: cannot be written; make room on the disk, or let it be written to") from error
        _check_copy(temporary, out, voxels, affine)


def _check_target(source: Path, out: Path, *, overwrite: bool) -> None:
    if not out.name.lower().endswith(WRITTEN_SUFFIXES):
        raise InputError(f"{out}: is of a format that is not written; end its name in {', '.join(WRITTEN_SUFFIXES)}")
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: is the file to convert; give the result another name")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give --overwrite or another name")


def _read(source: Path, *, series: str | None, ct: Path | None) -> MetaTensor:
    is_dicom = _is_dicom(source)
    if series and not is_dicom:
        raise InputError(f"--series {series}: is for DICOM, and {source} is not")
    if ct is not None:
        grid = read_volume(only_volume(ct, series=series) if _is_dicom(ct) else ct)
        mask = read_mask(source, grid=grid)
        require_same_grid(mask, grid)
        return mask
    if is_dicom and not series:
        content = read_content(source)
        if not content.cts and (content.masks or content.segmentations):
            return read_mask(source)
    volume = read_volume(only_volume(source, series=series) if is_dicom else source)
    return volume.byte() if not is_dicom and _was_uint8(source, volume) else volume


def _is_dicom(path: Path) -> bool:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return path.is_dir() or (not is_volume_file(path) and may_hold_dicom(path))


def _was_uint8(source: Source, volume: MetaTensor) -> bool:
    """Masks stay as small as they were."""
    return read_header(source).stored_dtype == "uint8" and not volume.is_floating_point() and bool(volume.min() >= 0)


def _write(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    if is_nifti(path):
        nib.save(build_nifti(voxels, affine), path)
    else:
        write_itk(build_itk(voxels, affine), path)


def _check_copy(copy: Path, out: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    try:
        read, read_affine = read_voxels(copy)
    except InputError as error:  # ITK writes to a full disk without a word
        raise InputError(f"{out}: cannot be read back as it was written; make room on the disk") from error
    if read.shape != voxels.shape or not np.array_equal(read, voxels):
        raise InputError(f"{out}: the voxels read back are not those written; choose another format")
    apart_mm = corners_apart_mm(read_affine, affine, voxels.shape)
    if apart_mm > COPY_TOLERANCE_MM:
        raise InputError(
            f"{out}: the format moves voxels by up to {apart_mm:.3g} mm, more than {COPY_TOLERANCE_MM} mm; choose "
            "another format"
        )
