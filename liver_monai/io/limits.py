"""How much a file may claim: sizes are checked before memory is taken for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from liver_monai.errors import InputError

MAX_VOXELS = 2**30
"""1024 slices of 1024 x 1024; read, these take 2 to 4 GiB. A whole body of 512 x 512 x 2500 is 0.6 of it."""
MAX_EXTENT_MM = 4000
"""Of a scan along an axis: a whole body is 2000. The model grid has a voxel for every few millimetres of it, however
few the file has."""
MAX_MM = 1e6
"""A kilometre from the scanner, where no patient lies."""
LEAST_ANGLE = 0.1
"""Volume between three axes of length 1: at right angles 1, with a gantry's tilt of 45 degrees 0.7."""
MAX_PLANE = 4096
"""Rows or columns of a DICOM image; the finest CTs have 2048."""
MAX_PACKING = 1032
"""Deflate, which gzip, zip and compressed NRRD use, makes files this many times smaller at most."""
MAX_MEMBER_BYTES = 2**30
"""Of a file in a zip, unpacked: a multi-frame CT of 512 x 512 x 2000."""
MAX_ZIP_BYTES = 2**34
"""Of all files in a zip, unpacked."""
MAX_DEFLATED_BYTES = 2**21
"""Of a DICOM file in Deflated Explicit VR, which is unpacked as a whole; a slice of 1024 x 1024 fits."""
MAX_HEADER_BYTES = 2**26
"""Before the voxels of a NIfTI file: its header, and what others put behind that."""


def require_possible(
    name: object, shape: Sequence[int], *, voxel_bytes: int = 1, stored_bytes: int | None = None
) -> None:
    """Refuse a shape that no CT has, or more voxels than a file can hold.

    Args:
        name: of the file.
        shape: that its header claims, in voxels.
        voxel_bytes: of one voxel in the file.
        stored_bytes: of the file, and what it may be unpacked to at most; ``None`` where they lie in another file.

    Raises:
        InputError: names shape and limit.
    """
    n_voxels = math.prod(int(size) for size in shape)
    if min(shape, default=0) < 1 or n_voxels > MAX_VOXELS:
        raise InputError(
            f"{name}: claims the shape {tuple(shape)}, which is more than {MAX_VOXELS} voxels or none; its header is "
            "damaged, or it is no CT"
        )
    if stored_bytes is not None and n_voxels * voxel_bytes > stored_bytes:
        raise InputError(
            f"{name}: is damaged, it claims {n_voxels * voxel_bytes} bytes of voxels and can hold {stored_bytes} at "
            "most; fetch it anew"
        )


def require_place(name: object, shape: Sequence[int], affine: np.ndarray) -> None:
    """Refuse an affine ``(4, 4)`` to millimetres that puts voxels nowhere, or a scan of this shape beyond any scanner.

    Raises:
        InputError: names affine or extent, and limit.
    """
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0) if _is_finite(affine) else np.zeros(3)
    if spacing_mm.prod() < 1e-9 or abs(np.linalg.det(affine[:3, :3] / spacing_mm)) < LEAST_ANGLE:
        raise InputError(
            f"{name}: its affine {affine[:3].tolist()} does not place voxels in space; every axis needs a finite "
            "direction of its own and a spacing above 0 mm. Repair the header."
        )
    extent_mm = spacing_mm * shape
    if extent_mm.max() > MAX_EXTENT_MM:
        raise InputError(
            f"{name}: is {extent_mm.max():.4g} mm long by its header, spacing {spacing_mm.round(4).tolist()} mm; a "
            f"scan has up to {MAX_EXTENT_MM}. Repair the header, or give the true spacing"
        )


def _is_finite(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and np.abs(affine).max() < MAX_MM)
