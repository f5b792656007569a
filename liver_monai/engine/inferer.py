"""Streaming inference: slabs of the model grid become a mask on the CT's own grid, a few slices at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor_fn
from monai.inferers import Inferer, sliding_window_inference

from liver_monai.data.grid import SliceResampler
from liver_monai.data.slabs import slab_view
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec


class SlabInferer(Inferer):  # type: ignore[misc]  # MONAI is untyped
    """Walk the slabs of a preprocessed CT and bring each slice of logits back to the CT's grid before the argmax.

    Logits exist for a few slices only: one batch of slabs and the neighbours that the next native slice is made of.

    Args:
        spec: slab_size, spacing_mm and roi_size.
        sw_batch_size: slabs a forward pass.
        overlap: of neighbouring windows, for slices larger than twice ``roi_size``; smaller ones are one window.
    """

    def __init__(self, spec: ModelSpec, *, sw_batch_size: int = 4, overlap: float = 0.25) -> None:
        super().__init__()
        self.spec = spec
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap

    def __call__(
        self, inputs: MetaTensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> MetaTensor:
        """Segment a batch of one CT.

        Args:
            inputs: ``(1, 1, H, W, D)`` from ``preprocessing``, on the model grid.
            network: slabs ``(B, slab_size, H, W)`` -> logits ``(B, 3, H, W)``.

        Returns:
            ``(1, 1, X, Y, Z)`` uint8 mask on the CT's grid as it was stored.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"a batch holds {inputs.shape[0]} CTs; CTs differ in shape, so segment them one by one")
        volume = inputs[0]
        mask = self._segment(volume, network)
        original_affine = volume.meta["original_affine"]
        stored = _reorient(mask.numpy(), np.asarray(volume.meta["oriented_affine"]), np.asarray(original_affine))
        meta = {**volume.meta, "affine": original_affine}
        return collate_meta_tensor_fn([MetaTensor(torch.from_numpy(stored)[None], meta=meta)])

    def _segment(self, volume: MetaTensor, network: Callable[..., torch.Tensor]) -> torch.Tensor:
        """``(1, H, W, D)`` on the model grid -> uint8 ``(X, Y, Z)`` on the oriented grid of the CT."""
        shape = tuple(int(size) for size in volume.meta["oriented_shape"])
        spacing_mm = np.linalg.norm(np.asarray(volume.meta["oriented_affine"])[:3, :3], axis=0)
        resampler = SliceResampler(
            shape_out=shape, shape_in=tuple(volume.shape[1:]), step=spacing_mm / np.asarray(self.spec.spacing_mm)
        )
        slabs = slab_view(volume.as_tensor()[0], self.spec.slab_size)
        logits: dict[int, torch.Tensor] = {}
        computed = 0
        mask = torch.empty(shape, dtype=torch.uint8)
        for z in range(shape[2]):
            sources = resampler.sources(z)
            logits = {source: values for source, values in logits.items() if source >= sources[0]}
            while computed <= sources[-1]:
                batch = self._logits(slabs[computed : computed + self.sw_batch_size], network)
                logits.update(enumerate(batch, start=computed))
                computed += len(batch)
            mask[:, :, z] = _labels(resampler.slice_at(z, logits))
        return mask

    def _logits(self, slabs: torch.Tensor, network: Callable[..., torch.Tensor]) -> torch.Tensor:
        windows = [
            min(-(-size // OUTPUT_STRIDE) * OUTPUT_STRIDE, 2 * roi)
            for size, roi in zip(slabs.shape[2:], self.spec.roi_size, strict=True)
        ]
        logits: torch.Tensor = sliding_window_inference(
            slabs, windows, sw_batch_size=self.sw_batch_size, predictor=network, overlap=self.overlap, mode="gaussian"
        )
        return logits


def _labels(logits: torch.Tensor) -> torch.Tensor:
    """``logits.argmax(dim=0)`` as uint8; comparing planes is 20 times faster on a CPU than reducing three values."""
    best, labels = logits[0], torch.zeros(logits.shape[1:], dtype=torch.uint8, device=logits.device)
    for label in range(1, len(logits)):
        labels.masked_fill_(logits[label] > best, label)
        best = torch.maximum(best, logits[label])
    return labels


def _reorient(mask: np.ndarray, from_affine: np.ndarray, to_affine: np.ndarray) -> np.ndarray:
    """Flip and permute the axes of one affine into those of another; no voxel is interpolated."""
    orientation = nib.orientations
    change = orientation.ornt_transform(orientation.io_orientation(from_affine), orientation.io_orientation(to_affine))
    return np.ascontiguousarray(orientation.apply_orientation(mask, change))
