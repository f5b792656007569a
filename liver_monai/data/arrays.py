"""Arrays on disk, compressed a slice at a time, so that a few are read without the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from liver_monai.errors import InputError, one_line

LZ4 = {"codec": blosc2.Codec.LZ4, "clevel": 5, "nthreads": 1}
"""Five slices of 340 x 340 noise: 1.7 ms at 0.6 of the size; ZSTD takes 3.7 ms at 0.45, a memory map of .npy 0.5 ms.
A training step takes hundreds, and a data set that fits into the page cache is read from a disk only once."""
ZSTD = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "nthreads": 1}
"""For what is read as a whole."""
ONE_THREAD = {"nthreads": 1}
"""The cores are the training's."""

DAMAGED = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError)
"""What is raised, by turns, for facts of another kind, and by blosc2 for an array whose header makes no sense to it."""


def write_array(path: Path, array: np.ndarray, *, cparams: dict[str, Any]) -> None:
    """Write an array ``(n, ...)``, a chunk a slice along its first axis, by ``LZ4`` or ``ZSTD``.

    Raises:
        InputError: it cannot be written.
    """
    shape = (1, *array.shape[1:])
    ordered = np.ascontiguousarray(array)
    try:
        blosc2.asarray(ordered, chunks=shape, blocks=shape, cparams=cparams, urlpath=str(path), mode="w")
    except RuntimeError as error:  # all that it says of a full disk
        raise InputError(f"its {path.name} cannot be written ({one_line(error)}); make room on the disk") from error


def read_array(path: Path, slices: slice) -> np.ndarray:
    """Slices of an array along its first axis; no other is unpacked.

    Raises:
        InputError: the file is not there, or damaged.
    """
    try:
        array: np.ndarray = blosc2.open(str(path), mode="r", dparams=ONE_THREAD)[slices]
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: is no longer there; if its files changed and it was prepared anew, go on with --resume"
        ) from error
    except DAMAGED as error:
        raise InputError(
            f"{path}: is damaged ({one_line(error)}); remove its folder and prepare the data again"
        ) from error
    return array
