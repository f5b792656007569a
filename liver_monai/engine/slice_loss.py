"""Cross-entropy of a trained network a slice at a time, as the notebooks of protocol ``seed`` report it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from liver_monai.data.slabs import by_slice, slab_view
from liver_monai.data.stored_case import StoredCase
from liver_monai.model.network import Logits
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec

SLABS_A_PASS = 4
"""As many as the shipped bundles take in prediction."""


def slice_losses(network: Logits, case: StoredCase, *, spec: ModelSpec, device: torch.device) -> list[float]:
    """Mean cross-entropy (nats a pixel) of background and liver, on the model grid, in order of the slices.

    As in protocol ``seed`` the tumour is merged into the liver, and only the slices count whose reference holds both
    liver and background.

    Args:
        network: in evaluation mode, on ``device``.
        case: image and label on the grid of ``spec``.
    """
    label = torch.from_numpy(case.label()) > 0
    share = label.float().mean(dim=(1, 2))
    counted = torch.nonzero((share > 0) & (share < 1)).flatten()
    slabs = slab_view(_windowed(case, spec), spec.slab_size)
    losses: list[float] = []
    for first in range(0, len(counted), SLABS_A_PASS):
        chosen = counted[first : first + SLABS_A_PASS]
        losses += _losses(network, slabs[chosen].to(device), label[chosen].to(device))
    return losses


def _windowed(case: StoredCase, spec: ModelSpec) -> torch.Tensor:
    """``(H, W, D)`` in [0, 1], as preprocessing shows it."""
    low, high = spec.hu_window
    image = torch.from_numpy(case.image().astype(np.float32))
    return ((image - low) / (high - low)).clamp(0, 1).permute(1, 2, 0)


def _losses(network: Logits, slabs: torch.Tensor, is_liver: torch.Tensor) -> Iterator[float]:
    height, width = slabs.shape[2:]
    with torch.inference_mode():
        padded = F.pad(slabs, (0, -width % OUTPUT_STRIDE, 0, -height % OUTPUT_STRIDE))
        of_slices = by_slice(network(padded)[:, :, :height, :width])
        log_p = of_slices[:, of_slices.shape[1] // 2].float().log_softmax(dim=1)
        log_p_right = torch.where(is_liver, log_p[:, 1:].logsumexp(dim=1), log_p[:, 0])
        yield from (-log_p_right.mean(dim=(1, 2))).tolist()
