"""Probability maps beside masks: how sure a network is of each voxel, a file a structure.

A folder holds ``<case_id>_liver.nii.gz`` and ``<case_id>_tumor.nii.gz`` on the grid of the case's CT. They are uint8,
where 255 stands for a probability of 1, or floating point from 0 to 1. The liver includes its tumours, here as
everywhere: its map is the probability of label 1 or 2, the tumour's that of label 2.
"""

from __future__ import annotations

from pathlib import Path

import torch
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.volumes import read_volume

STRUCTURES = ("liver", "tumor")
FULL = 255
"""A probability of 1 in a byte."""


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
