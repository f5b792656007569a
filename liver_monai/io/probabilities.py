"""Probability maps beside masks: how sure a network is of each voxel, a file a structure.

A folder holds ``<case_id>_liver.nii.gz`` and ``<case_id>_tumor.nii.gz`` on the grid of the case's CT. They are uint8,
where 255 stands for a probability of 1, or floating point from 0 to 1. The liver includes its tumours, here as
everywhere: its map is the probability of label 1 or 2, the tumour's that of label 2.

``<case_id>_entropy.nii.gz`` beside them says how undecided the network is between the labels: uint8, from 0 where it is
sure to 255 where all labels are equally probable.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.masks import write_mask
from liver_monai.io.volumes import Source, read_volume
from liver_monai.spec import BACKGROUND, LABELS, TUMOR

STRUCTURES = ("liver", "tumor")
ENTROPY = "entropy"
FULL = 255
"""A probability of 1 in a byte."""


def _entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """From 0 to 1, that of labels which are equally probable."""
    entropy: torch.Tensor = torch.special.entr(probabilities).sum(dim=0)
    return entropy / log(len(LABELS))


MAPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "liver": lambda probabilities: 1 - probabilities[BACKGROUND],
    "tumor": lambda probabilities: probabilities[TUMOR],
    ENTROPY: _entropy,
}
"""Each map from probabilities ``(3, X, Y)``, as values from 0 to 1."""


def map_slice(name: str, probabilities: torch.Tensor) -> torch.Tensor:
    """A slice ``(X, Y)`` of a map, in bytes."""
    return (MAPS[name](probabilities) * FULL).round().clamp(0, FULL).to(torch.uint8)


def write_map(values: np.ndarray, path: Path, *, ct: Source, affine: np.ndarray) -> None:
    """Write a map ``(X, Y, Z)`` in bytes as ``write_mask`` writes a mask."""
    write_mask(values, path, ct=ct, affine=affine, description=f"liver-monai: {FULL} is 1")


def probability_file(folder: Path, case_id: str, structure: str) -> Path:
    """Where a case's map of a structure lies."""
    return folder / f"{case_id}_{structure}.nii.gz"


def read_probabilities(path: Path) -> MetaTensor:
    """Read a map as ``(1, X, Y, Z)``: uint8, where 255 stands for a probability of 1, or float32 from 0 to 1.

    Raises:
        InputError: as ``read_volume``, or values that are no probabilities.
    """
    volume = read_volume(path)
    is_whole = not volume.is_floating_point()
    low, high = float(volume.min()), float(volume.max())
    if low < 0 or high > (FULL if is_whole else 1):
        rule = f"whole numbers from 0 to {FULL}" if is_whole else "floating-point numbers from 0 to 1"
        raise InputError(f"{path}: holds values from {low:g} to {high:g}; probabilities are {rule}. Scale the file.")
    return volume.to(torch.uint8) if is_whole else volume
