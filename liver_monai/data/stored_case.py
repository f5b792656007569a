"""A case of the store: what is known of it, its tumours, and its slices, read when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from liver_monai.data.arrays import read_array
from liver_monai.data.slabs import slab_indices
from liver_monai.spec import LIVER, TUMOR

IMAGE, LABEL, REFERENCE = "image.b2nd", "label.b2nd", "reference.b2nd"
"""Its arrays: CT and label on the model grid, and the label on the CT's own."""


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One connected tumour on the model grid, voxels that touch by a corner included.

    Args:
        lesion: its number, from 1.
        n_voxels: its size on the model grid.
        volume_ml: likewise in millilitres.
        first_slice, last_slice: where it begins and ends.
        centre: slice, row and column of its centre of mass.
    """

    lesion: int
    n_voxels: int
    volume_ml: float
    first_slice: int
    last_slice: int
    centre: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """One case of the store. Files are opened for each read, so that any number of cases costs no memory.

    Args:
        case_id, patient_id: of the case.
        folder: where it lies.
        shape: ``(D, H, W)`` on the model grid, slices first.
        class_counts: ``(D, 3)`` voxels of each label by slice.
        lesions: connected tumours.
        content_hash: equal for equal images, mirrored ones included; empty where there is too little in it to tell.
        liver_ml, tumor_ml: of the reference on the CT's own grid; the liver includes its tumours.
        geometry: affines and shapes of the grids that the CT was on.
    """

    case_id: str
    patient_id: str
    folder: Path
    shape: tuple[int, int, int]
    class_counts: np.ndarray
    lesions: tuple[Lesion, ...]
    content_hash: str
    liver_ml: float
    tumor_ml: float
    geometry: dict[str, Any]

    @cached_property
    def slices_with(self) -> dict[int, np.ndarray]:
        """The slices that hold liver, and those that hold tumour."""
        return {value: np.flatnonzero(self.class_counts[:, value]) for value in (LIVER, TUMOR)}

    @property
    def burden(self) -> float:
        """The tumours' share of the liver."""
        return self.tumor_ml / self.liver_ml if self.liver_ml else 0.0

    def slab(self, centre: int, *, slab_size: int) -> np.ndarray:
        """HU ``(slab_size, H, W)`` int16 of the slices around ``centre``."""
        slices = slab_indices(centre, n_slices=self.shape[0], slab_size=slab_size)
        first = slices[0]
        return self.image(first, slices[-1] + 1)[[z - first for z in slices]]

    def image(self, first: int = 0, stop: int | None = None) -> np.ndarray:
        """HU ``(n, H, W)`` int16 of a range of slices, by default of all."""
        return read_array(self.folder / IMAGE, slice(first, stop))

    def label(self, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Labels ``(n, H, W)`` uint8 of a range of slices, by default of all."""
        return read_array(self.folder / LABEL, slice(first, stop))

    def voxels_of(self, lesion: Lesion, z: int) -> np.ndarray:
        """Rows and columns ``(n, 2)`` of a lesion in a slice between its first and last."""
        is_alone = all(other is lesion or not other.first_slice <= z <= other.last_slice for other in self.lesions)
        if is_alone:
            return np.argwhere(self.label(z, z + 1)[0] == TUMOR)
        tumors = self.label(lesion.first_slice, lesion.last_slice + 1) == TUMOR
        (box,) = ndimage.find_objects(tumors.any(axis=0).astype(np.uint8))
        numbers, sizes, centres = _connected(tumors[:, *box])
        is_as_large = np.flatnonzero(sizes == lesion.n_voxels)  # others may be cut off where this one begins or ends
        offset = np.array([lesion.first_slice, box[0].start, box[1].start])
        distances = np.linalg.norm(centres[is_as_large] + offset - lesion.centre, axis=1)
        number = is_as_large[distances.argmin()] + 1
        return np.asarray(np.argwhere(numbers[z - lesion.first_slice] == number) + offset[1:])

    def volume(self) -> MetaTensor:
        """``(1, H, W, D)`` float32 HU on the model grid, with what brings a prediction back to the CT's grid."""
        voxels = np.ascontiguousarray(self.image().transpose(1, 2, 0), dtype=np.float32)
        return MetaTensor(torch.from_numpy(voxels)[None], meta=self._meta(affine="affine"))

    def reference(self) -> MetaTensor:
        """``(1, X, Y, Z)`` uint8 reference mask on the CT's own grid."""
        mask = np.ascontiguousarray(read_array(self.folder / REFERENCE, slice(None)))
        return MetaTensor(torch.from_numpy(mask)[None], meta=self._meta(affine="original_affine"))

    def _meta(self, *, affine: str) -> dict[str, Any]:
        geometry = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.geometry.items()}
        geometry["oriented_shape"] = geometry["oriented_shape"].long()
        return {**geometry, "affine": geometry[affine].clone(), "filename_or_obj": self.case_id}


def find_lesions(label: np.ndarray, *, voxel_ml: float) -> list[Lesion]:
    """The connected tumours of a label ``(D, H, W)``."""
    numbers, sizes, centres = _connected(label == TUMOR)
    return [
        Lesion(
            lesion=number,
            n_voxels=int(size),
            volume_ml=round(float(size) * voxel_ml, 4),
            first_slice=int(box[0].start),
            last_slice=int(box[0].stop) - 1,
            centre=(round(centre[0], 2), round(centre[1], 2), round(centre[2], 2)),
        )
        for number, (size, box, centre) in enumerate(
            zip(sizes, ndimage.find_objects(numbers), centres.tolist(), strict=True), start=1
        )
    ]


def _connected(tumors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Connected tumours of a mask ``(D, H, W)``: their numbers in its shape, from 1; sizes; centres ``(n, 3)``."""
    numbers, n_lesions = ndimage.label(tumors, structure=np.ones((3, 3, 3)))
    centres = np.asarray(ndimage.center_of_mass(numbers > 0, numbers, range(1, n_lesions + 1))).reshape(-1, 3)
    return numbers, np.bincount(numbers.ravel(), minlength=n_lesions + 1)[1:], centres
