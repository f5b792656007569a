"""A CT a slice at a time: as it lies in the patient, and as a network sees it.

No volume is copied here: what is turned, resampled, widened to float32 and windowed is a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRanged
from monai.utils import convert_to_tensor

from liver_monai.data.grid import SliceResampler, grid_shape
from liver_monai.data.slabs import slab_indices
from liver_monai.data.transforms import hu_window
from liver_monai.spec import ModelSpec


class RasSlices(Mapping[int, torch.Tensor]):
    """The slices ``(X', Y')`` of a volume from inferior to superior, X' to the right, Y' to the front.

    Args:
        volume: ``(X, Y, Z)`` as it is stored, in any orientation. Slices that are set are written into it.
        affine: of the volume; each of its axes counts as the patient's axis that it is nearest to.
    """

    def __init__(self, volume: torch.Tensor, affine: np.ndarray) -> None:
        orientation = nib.orientations.io_orientation(affine)
        order = [int(axis) for axis in np.argsort(orientation[:, 0])]
        self._slices = volume.permute(order[2], order[0], order[1])
        is_flipped = orientation[order, 1] < 0
        self._flips = [axis for axis in (0, 1) if is_flipped[axis]]
        self._is_upside_down = bool(is_flipped[2])
        self.shape = tuple(volume.shape[axis] for axis in order)
        self.affine = affine @ nib.orientations.inv_ornt_aff(orientation, tuple(volume.shape))

    def __getitem__(self, z: int) -> torch.Tensor:
        return self._slices[self._stored(z)].flip(self._flips)

    def __setitem__(self, z: int, values: torch.Tensor) -> None:
        self._slices[self._stored(z)] = values.flip(self._flips)

    def _stored(self, z: int) -> int:
        return len(self) - 1 - z if self._is_upside_down else z

    def __len__(self) -> int:
        return self.shape[2]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


class ModelSlices:
    """What a network sees of a CT, made when it is asked for.

    Args:
        volume: ``(1, X, Y, Z)`` HU in any orientation; or ``(1, H, W, D)`` that is on the model grid and windowed
            already, known by the metadata that ``to_model_grid`` leaves.
        spec: grid, window and slab_size.
        n_kept: slices that are kept for the next slab; by default those of one.

    Attributes:
        shape: ``(H, W, D)`` on the model grid.
        native_shape: of the CT's own grid along right, anterior and superior.
        to_native: what brings slices ``(..., H, W)`` back to that grid.
    """

    def __init__(self, volume: MetaTensor, spec: ModelSpec, *, n_kept: int | None = None) -> None:
        self._slab_size = spec.slab_size
        voxels, meta = volume.as_tensor()[0], volume.meta
        is_on_model_grid = "oriented_shape" in meta
        native = RasSlices(voxels, np.asarray(volume.affine, dtype=np.float64))
        affine = np.asarray(meta["oriented_affine"] if is_on_model_grid else native.affine)
        self.native_shape = tuple(int(size) for size in (meta["oriented_shape"] if is_on_model_grid else native.shape))
        native_mm, model_mm = np.linalg.norm(affine[:3, :3], axis=0), np.asarray(spec.spacing_mm)
        self.shape = grid_shape(self.native_shape, native_mm, model_mm)
        self.to_native = _resampler(self.native_shape, self.shape, native_mm / model_mm)
        self._slice: Callable[[int], torch.Tensor] = lambda z: voxels[:, :, z]
        if not is_on_model_grid:
            to_model = _resampler(self.shape, self.native_shape, model_mm / native_mm)
            window = hu_window(spec)
            self._slice = lru_cache(maxsize=n_kept or spec.slab_size)(lambda z: _seen(z, native, to_model, window))

    def slab(self, z: int) -> torch.Tensor:
        """``(slab_size, H, W)`` around slice ``z``; neighbouring slabs that follow each other share their slices."""
        indices = slab_indices(z, n_slices=self.shape[2], slab_size=self._slab_size)
        return torch.stack([self._slice(index) for index in indices])


def _resampler(shape_out: tuple[int, ...], shape_in: tuple[int, ...], step: np.ndarray) -> SliceResampler:
    return SliceResampler(shape_out=shape_out, shape_in=shape_in, step=step)


def _seen(z: int, native: RasSlices, to_model: SliceResampler, window: ScaleIntensityRanged) -> torch.Tensor:
    hu = to_model.slice_at(z, {source: native[source].float() for source in to_model.sources(z)})
    values: torch.Tensor = convert_to_tensor(window({"image": hu})["image"], track_meta=False)
    return values


def zeros_as_stored(n: int, shape: tuple[int, ...], affine: np.ndarray) -> torch.Tensor:
    """uint8 ``(n, X, Y, Z)`` that ``RasSlices`` sees in ``shape``; slices lie together, as in a NIfTI file."""
    orientation = nib.orientations.io_orientation(affine)
    x, y, z = (shape[int(axis)] for axis in orientation[:, 0])
    return torch.zeros((n, z, y, x), dtype=torch.uint8).permute(0, 3, 2, 1)
