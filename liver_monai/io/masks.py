"""Masks out: NIfTI on the grid of the CT they belong to."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from liver_monai.io.files import whole_file


def write_mask(mask: np.ndarray, path: Path, *, ct: str | Path) -> None:
    """Write a mask as uint8 NIfTI that keeps the geometry of its CT to the bit.

    The header is the CT's own, so that sform, qform, their codes and the units stay as they are; only data type and
    intensity scaling change.

    Args:
        mask: ``(X, Y, Z)``, the shape of the CT.
        path: where to write; appears whole or not at all.
        ct: the NIfTI file the mask belongs to.
    """
    header = nib.load(ct).header.copy()
    if mask.shape != tuple(header.get_data_shape()[:3]):
        raise ValueError(f"mask of shape {mask.shape} does not belong to {ct} of shape {header.get_data_shape()}")
    header.set_data_shape(mask.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # display range of the CT, wrong for labels
    header["descrip"] = b"liver-monai: 0 background, 1 liver, 2 tumor"
    image = nib.Nifti1Image(mask.astype(np.uint8, copy=False), affine=None, header=header)
    with whole_file(path) as temporary:
        nib.save(image, temporary)
