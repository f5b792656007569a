"""2.5D: a volume viewed as slabs of neighbouring slices, which the network sees as channels.

The prediction belongs to the centre slice, or to a few around it. Training samples slabs, prediction walks them.
"""

from __future__ import annotations

import torch

from liver_monai.spec import LABELS, offsets


def slab_indices(centre: int, *, n_slices: int, slab_size: int) -> list[int]:
    """The slices of the slab around ``centre``; the first and last slice stand in for those beyond the ends."""
    return [min(max(centre + offset, 0), n_slices - 1) for offset in offsets(slab_size)]


def slab_view(volume: torch.Tensor, slab_size: int) -> torch.Tensor:
    """All slabs of a volume ``(H, W, D)``, as overlapping views of one edge-padded copy.

    Returns:
        ``(D, slab_size, H, W)``; slab ``z`` holds the slices ``slab_indices(z)``.
    """
    n_slices, margin = volume.shape[2], slab_size // 2
    edge_padded = torch.arange(-margin, n_slices + margin).clamp(0, n_slices - 1)
    slices = volume.permute(2, 0, 1)[edge_padded]
    return slices.unfold(0, slab_size, 1).permute(0, 3, 1, 2)


def by_slice(logits: torch.Tensor) -> torch.Tensor:
    """A network's channels ``(B, output_slices * 3, H, W)`` as ``(B, output_slices, 3, H, W)``."""
    sliced: torch.Tensor = logits.unflatten(1, (-1, len(LABELS)))
    return sliced
