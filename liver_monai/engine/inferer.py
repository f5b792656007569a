"""Streaming inference: slabs of the model grid become a mask on the CT's own grid, a few slices at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor_fn
from monai.inferers import Inferer, sliding_window_inference

from liver_monai.data.slices import ModelSlices, RasSlices, zeros_as_stored
from liver_monai.engine.memory import fitting_batch
from liver_monai.engine.search import search_liver
from liver_monai.engine.stream import LogitStream
from liver_monai.model.network import Logits
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec

SEARCHES = ("liver", "whole")

SEEN_TWICE = 128
"""A search looks at a liver's slices twice; kept, they are made once. At 340 x 340 pixels they take 60 MB."""


class SlabInferer(Inferer):
    """Walk the slabs of a CT and bring each slice of logits back to the CT's grid before the argmax.

    Logits exist for a few slices only: one batch of slabs and the neighbours that the next native slice is made of.

    Args:
        spec: grid, window, slab_size, output_slices and roi_size.
        sw_batch_size: slabs a forward pass.
        overlap: of neighbouring windows, for slices larger than twice ``roi_size``; smaller ones are one window.
        search: ``"liver"`` looks at every few slices first and then at those only between which the liver lies;
            beyond them the mask is background. ``"whole"`` looks at all slices.
        maps: of ``io.probabilities.MAPS``, to be made beside the mask; all slices are looked at for them.
        max_memory_gb: of the process, in 10^9 bytes; a pass takes fewer slabs where these do not fit.
    """

    def __init__(  # what a bundle can set
        self,
        spec: ModelSpec,
        *,
        sw_batch_size: int = 4,
        overlap: float = 0.25,
        search: str = "whole",
        maps: Sequence[str] = (),
        max_memory_gb: float | None = None,
    ) -> None:
        super().__init__()
        if search not in SEARCHES:
            raise ValueError(f"search is {search!r}; it must be {' or '.join(map(repr, SEARCHES))}")
        self.spec = spec
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.search = search
        self.maps = tuple(maps)
        self.max_memory_gb = max_memory_gb

    def __call__(self, inputs: MetaTensor, network: Logits, *args: Any, **kwargs: Any) -> MetaTensor:
        """Segment a batch of one CT.

        Args:
            inputs: ``(1, 1, X, Y, Z)`` as ``ModelSlices`` takes it.
            network: slabs ``(B, slab_size, H, W)`` -> logits ``(B, output_slices * 3, H, W)``.

        Returns:
            ``(1, 1 + len(maps), X, Y, Z)`` uint8 on the CT's grid as it was stored: the mask, then the maps. The
            metadata's ``searched`` says which slices were looked at, and where these are all in spite of a search, why.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"a batch holds {inputs.shape[0]} CTs; CTs differ in shape, so segment them one by one")
        volume = inputs[0]
        affine = np.asarray(volume.meta["original_affine"], dtype=np.float64)
        slices = ModelSlices(volume, self.spec, n_kept=SEEN_TWICE if self.search == "liver" else None)
        stored = zeros_as_stored(1 + len(self.maps), slices.native_shape, affine)
        batch_size = fitting_batch(
            self.sw_batch_size, pixels=math.prod(slices.shape[:2]), max_memory_gb=self.max_memory_gb
        )
        stream = LogitStream(
            slices,
            lambda slabs: self._logits(slabs, network),
            batch_size=batch_size,
            output_slices=self.spec.output_slices,
        )
        mask, *maps = (RasSlices(channel, affine) for channel in stored)
        searched = self._fill(mask, stream, dict(zip(self.maps, maps, strict=True)))
        meta = {**volume.meta, "affine": volume.meta["original_affine"], "searched": searched}
        return batch_of_one(MetaTensor(stored, meta=meta))

    def _fill(self, mask: RasSlices, stream: LogitStream, maps: dict[str, RasSlices]) -> str:
        """Fill a mask that is background; returns where was looked."""
        n_slices = len(mask)
        if self.search == "whole" or maps:
            stream.fill(mask, range(n_slices), maps=maps)
            return "all slices"
        filled, reason = search_liver(stream, mask, self.spec)
        if not reason:
            return f"slices {filled.start + 1}-{filled.stop} of {n_slices}"
        stream.fill(mask, range(filled.start))
        stream.fill(mask, range(filled.stop, n_slices))
        return f"all slices: {reason}"

    def _logits(self, slabs: torch.Tensor, network: Logits) -> torch.Tensor:
        windows = [
            min(-(-size // OUTPUT_STRIDE) * OUTPUT_STRIDE, 2 * roi)
            for size, roi in zip(slabs.shape[2:], self.spec.roi_size, strict=True)
        ]
        logits: torch.Tensor = sliding_window_inference(
            slabs, windows, sw_batch_size=len(slabs), predictor=network, overlap=self.overlap, mode="gaussian"
        )
        return logits


def batch_of_one(volume: MetaTensor) -> MetaTensor:
    """What MONAI's data loader makes of one volume, without a copy of it."""
    batch = MetaTensor(volume.as_tensor()[None])
    like = collate_meta_tensor_fn([MetaTensor(torch.empty(0), meta=volume.meta)])
    return batch.copy_meta_from(like, copy_attr=False)
