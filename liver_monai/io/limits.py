"""How much a file may claim: sizes are checked before memory is taken for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from liver_monai.errors import InputError

MAX_VOXELS = 2**30
"""1024 slices of 1024 x 1024; read, these take 2 to 4 GiB. A whole body of 512 x 512 x 2500 is 0.6 of it."""
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
    if min(shape, default=0) < 0 or n_voxels > MAX_VOXELS:
        raise InputError(
            f"{name}: claims the shape {tuple(shape)}, which is more than {MAX_VOXELS} voxels or none; its header is "
            "damaged, or it is no CT"
        )
    if stored_bytes is not None and n_voxels * voxel_bytes > stored_bytes:
        raise InputError(
            f"{name}: is damaged, it claims {n_voxels * voxel_bytes} bytes of voxels and can hold {stored_bytes} at "
            "most; fetch it anew"
        )
