"""What a NIfTI header says in its several places, as stored: readers choose one of them without a word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener

from liver_monai.io.nifti import is_nifti
from liver_monai.io.volumes import Source


@dataclass(frozen=True, kw_only=True)
class StoredHeader:
    """The fields of a NIfTI header that can contradict each other.

    Args:
        dtype: data type of the stored voxels, before slope and intercept.
        pixdim_mm: the three spacings, unmended: negative and zero ones too.
        unit: of the spacings, such as ``"mm"`` or ``"unknown"``.
        qform: ``(4, 4)`` affine, ``None`` where its code is 0; ``sform`` likewise.
    """

    dtype: np.dtype
    pixdim_mm: tuple[float, float, float]
    unit: str
    qform: np.ndarray | None
    sform: np.ndarray | None


def read_stored_header(source: Source) -> StoredHeader | None:
    """The header as stored; ``None`` for other formats, which say each thing once."""
    if not isinstance(source, (str, Path)) or not is_nifti(source):
        return None
    header = nib.load(source).header
    with ImageOpener(source) as file:
        stored = type(header).from_fileobj(file, check=False)  # nibabel's check mends zero and negative spacings
    x, y, z = (float(value) for value in stored["pixdim"][1:4])
    return StoredHeader(
        dtype=header.get_data_dtype(),
        pixdim_mm=(x, y, z),
        unit=_unit(header),
        qform=_qform(header),
        sform=_form(header.get_sform(coded=True)),
    )


def _unit(header: Any) -> str:
    try:
        return str(header.get_xyzt_units()[0])
    except KeyError as error:
        return f"a unit of the unknown code {error.args[0]}"


def _qform(header: Any) -> np.ndarray | None:
    """As ``_form``; none where its quaternion is no rotation, and nobody can read it."""
    try:
        return _form(header.get_qform(coded=True))
    except ValueError:
        return None


def _form(coded: tuple[np.ndarray | None, int]) -> np.ndarray | None:
    affine, code = coded
    return None if code == 0 else affine
