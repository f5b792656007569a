"""Masks out: NIfTI on the grid of the CT they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageWriter

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


class MaskWriter(ImageWriter):  # type: ignore[misc]  # MONAI is untyped
    """``write_mask`` in the form that MONAI's ``SaveImaged(writer=...)`` calls."""

    def __init__(self, output_dtype: Any = np.uint8, **kwargs: Any) -> None:
        super().__init__(output_dtype=output_dtype, affine=None, channel_dim=0, **kwargs)
        self.ct = ""

    def set_data_array(self, data_array: torch.Tensor, **kwargs: Any) -> None:
        """Take the ``(1, X, Y, Z)`` mask."""
        self.data_obj = np.asarray(data_array[0].cpu())

    def set_metadata(self, meta_dict: Any = None, **kwargs: Any) -> None:
        """Take the name of the CT, whose header the mask gets."""
        self.ct = meta_dict["filename_or_obj"]

    def write(self, filename: str, verbose: bool = False, **kwargs: Any) -> None:
        """Write the mask to ``filename``."""
        write_mask(self.data_obj, Path(filename), ct=self.ct)
