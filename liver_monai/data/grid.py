"""The model grid: a volume along its own axes, at the spacing a model was trained on.

Resampling is separable and antialiased, one small matrix an axis, so that slices stay the acquired slices (rotation
and gantry shear are kept) and a range of slices can be made, or brought back, without touching the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from monai.data import MetaTensor

from liver_monai.spec import LABELS


def grid_shape(shape: tuple[int, ...], spacing_mm: np.ndarray, target_mm: np.ndarray) -> tuple[int, ...]:
    """Voxels an axis that cover the same extent at the target spacing, at least one."""
    return tuple(max(1, round(n * mm / new)) for n, mm, new in zip(shape, spacing_mm, target_mm, strict=True))


def interpolation_matrix(n_out: int, n_in: int, *, step: float) -> torch.Tensor:
    """Weights ``(n_out, n_in)`` of linear interpolation between two grids that share their centre.

    Where the output is coarser, the interpolated line is averaged over a box, so that every input voxel counts and
    noise averages out instead of aliasing. The box is as wide as turns voxels of the input's size into voxels of the
    output's (variances of boxes add up): nothing is blurred at ``step`` 1, and a linear ramp stays exact at any step.

    Args:
        step: spacing of the output grid in voxels of the input grid.
    """
    centres = (torch.arange(n_out, dtype=torch.float64) - (n_out - 1) / 2) * step + (n_in - 1) / 2
    centres = centres.clamp(0, n_in - 1)  # outside of the volume its edge goes on
    offsets = centres[:, None] - torch.arange(n_in, dtype=torch.float64)
    box = max(step**2 - 1, 0.0) ** 0.5
    if box > MIN_BOX:
        weights = _hat_integral(offsets + box / 2) - _hat_integral(offsets - box / 2)
    else:
        weights = (1 - offsets.abs()).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


MIN_BOX = 1e-3
"""Voxels; a narrower box changes nothing and would divide rounding errors by its width."""


def _hat_integral(x: torch.Tensor) -> torch.Tensor:
    """The integral up to ``x`` of the triangle from -1 over 0 to 1, the kernel of linear interpolation."""
    x = x.clamp(-1, 1)
    return 0.5 + x - 0.5 * x * x.abs()


class SliceResampler:
    """Resamples a volume slice by slice.

    Args:
        shape_out, shape_in: ``(X, Y, Z)`` of both grids, which share their centre.
        step: spacing of the output grid in voxels of the input grid, an axis each.
    """

    def __init__(self, *, shape_out: tuple[int, ...], shape_in: tuple[int, ...], step: np.ndarray) -> None:
        matrices = [
            interpolation_matrix(n_out, n_in, step=float(s))
            for n_out, n_in, s in zip(shape_out, shape_in, step, strict=True)
        ]
        self.along_x, self.along_y, self.along_z = matrices
        self.n_slices = shape_out[2]
        self._shares: list[dict[int, float]] = [
            {int(source): float(row[source]) for source in row.nonzero()[:, 0]} for row in self.along_z
        ]

    def sources(self, z: int) -> list[int]:
        """The input slices that output slice ``z`` is made of, ascending."""
        return list(self._shares[z])

    def in_plane(self, slices: torch.Tensor) -> torch.Tensor:
        """``(..., X, Y)`` -> ``(..., X', Y')``."""
        along_x, along_y = self.along_x.to(slices.device), self.along_y.to(slices.device)
        return along_x @ slices @ along_y.T

    def blend(self, z: int, slices: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Output slice ``z`` on the input's grid in plane, from a mapping of input slices ``(..., X, Y)``."""
        (first, share), *others = self._shares[z].items()
        blended = slices[first] * share
        for source, share in others:
            blended.add_(slices[source], alpha=share)
        return blended

    def slice_at(self, z: int, slices: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Output slice ``z`` ``(..., X', Y')`` from a mapping of input slices ``(..., X, Y)``."""
        return self.in_plane(self.blend(z, slices))


def to_model_grid(volume: MetaTensor, *, spacing_mm: tuple[float, float, float], is_mask: bool = False) -> MetaTensor:
    """Resample ``(1, X, Y, Z)`` to ``spacing_mm`` along its own axes.

    The metadata keep ``oriented_shape`` and ``oriented_affine``, the grid before: what a prediction is brought back
    to. A mask is resampled as one volume a class and gets the class that covers most of a voxel.

    Returns:
        float32, or uint8 for a mask.
    """
    affine = np.asarray(volume.affine, dtype=np.float64)
    shape = tuple(volume.shape[1:])
    old_mm = np.linalg.norm(affine[:3, :3], axis=0)
    new_mm = np.asarray(spacing_mm)
    new_shape = grid_shape(shape, old_mm, new_mm)
    resampler = SliceResampler(shape_out=new_shape, shape_in=shape, step=new_mm / old_mm)
    slices = _SlicesOf(volume.as_tensor()[0], is_mask=is_mask)
    resampled = torch.empty((1, *new_shape), dtype=torch.uint8 if is_mask else torch.float32)
    for z in range(new_shape[2]):
        values = resampler.slice_at(z, slices)
        resampled[0, :, :, z] = values.argmax(dim=0) if is_mask else values
    meta = {
        **volume.meta,
        "affine": torch.from_numpy(_scaled_affine(affine, shape, new_shape, new_mm / old_mm)),
        "oriented_affine": torch.from_numpy(affine),
        "oriented_shape": torch.tensor(shape),
    }
    return MetaTensor(resampled, meta=meta)


class _SlicesOf(Mapping[int, torch.Tensor]):
    """The slices of a volume as floats, one at a time; of a mask, ``(classes, X, Y)`` of 0 and 1."""

    def __init__(self, volume: torch.Tensor, *, is_mask: bool) -> None:
        self.volume, self.is_mask = volume, is_mask

    def __getitem__(self, z: int) -> torch.Tensor:
        values = self.volume[:, :, z]
        if not self.is_mask:
            return values.float()
        return torch.nn.functional.one_hot(values.long(), len(LABELS)).permute(2, 0, 1).float()

    def __len__(self) -> int:
        return self.volume.shape[2]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))


def _scaled_affine(
    affine: np.ndarray, shape: tuple[int, ...], new_shape: tuple[int, ...], step: np.ndarray
) -> np.ndarray:
    """The affine of the grid with the same centre, directions and shear, and ``step`` times the spacing."""
    first_voxel = (np.asarray(shape) - 1) / 2 - (np.asarray(new_shape) - 1) / 2 * step
    scaled = affine.copy()
    scaled[:3, :3] = affine[:3, :3] * step
    scaled[:3, 3] = affine[:3, :3] @ first_voxel + affine[:3, 3]
    return scaled
