"""Masks out: NIfTI on the grid of the CT they belong to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from liver_monai.io.files import whole_file
from liver_monai.io.nifti import build_nifti, is_nifti
from liver_monai.io.volumes import Source, read_header

FREE_TEXTS = ("db_name", "aux_file", "intent_name")
"""Of a NIfTI header, beside its description."""

MASK = "liver-monai: 0 background, 1 liver, 2 tumor"


def write_mask(
    mask: np.ndarray, path: Path, *, ct: Source, affine: np.ndarray | None = None, description: str = MASK
) -> None:
    """Write a mask as uint8 NIfTI on the grid of its CT.

    Of a NIfTI CT the header is kept, so that sform, qform, their codes and the units stay as they are to the bit; data
    type and intensity scaling change, and what may name a patient goes: free texts and extensions, which hold whole
    DICOM headers at times. Of other formats, DICOM for one, the affine is kept.

    Args:
        mask: ``(X, Y, Z)``, the shape of the CT.
        path: where to write; appears whole or not at all.
        ct: what the mask was made from.
        affine: that of the CT, where it is known; else it is read. A NIfTI CT has its own.
        description: what the values mean, for the header; 79 characters at most.
    """
    if is_nifti(str(ct)):
        image = _like_nifti(mask, ct)
    else:
        image = build_nifti(mask.astype(np.uint8, copy=False), _affine_of(mask, ct) if affine is None else affine)
    image.header["descrip"] = description.encode("ascii")
    with whole_file(path) as temporary:
        nib.save(image, temporary)


def _like_nifti(mask: np.ndarray, ct: Source) -> nib.Nifti1Image:
    header = nib.load(str(ct)).header.copy()
    _check_shape(mask, tuple(header.get_data_shape()[:3]), ct)
    header.set_data_shape(mask.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # display range of the CT, wrong for labels
    header.extensions.clear()
    for text in FREE_TEXTS:
        header[text] = b""
    return nib.Nifti1Image(mask.astype(np.uint8, copy=False), affine=None, header=header)


def _affine_of(mask: np.ndarray, ct: Source) -> np.ndarray:
    header = read_header(ct)
    _check_shape(mask, header.shape, ct)
    return header.affine


def _check_shape(mask: np.ndarray, shape: tuple[int, ...], ct: Source) -> None:
    if mask.shape != shape:
        raise ValueError(f"mask of shape {mask.shape} does not belong to {ct} of shape {shape}")
