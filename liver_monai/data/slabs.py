"""2.5D: a volume viewed as slabs of neighbouring slices, which the network sees as channels.

The prediction belongs to the centre slice. Training samples slabs, prediction walks them.
"""

from __future__ import annotations

import torch


def slab_indices(centre: int, *, n_slices: int, slab_size: int) -> list[int]:
    """The slices of the slab around ``centre``; the first and last slice stand in for those beyond the ends."""
    margin = slab_size // 2
    return [min(max(z, 0), n_slices - 1) for z in range(centre - margin, centre + margin + 1)]


def slab_view(volume: torch.Tensor, slab_size: int) -> torch.Tensor:
    """All slabs of a volume ``(H, W, D)``, as overlapping views of one edge-padded copy.

    Returns:
        ``(D, slab_size, H, W)``; slab ``z`` holds the slices ``slab_indices(z)``.
    """
    n_slices, margin = volume.shape[2], slab_size // 2
    edge_padded = torch.arange(-margin, n_slices + margin).clamp(0, n_slices - 1)
    slices = volume.permute(2, 0, 1)[edge_padded]
    return slices.unfold(0, slab_size, 1).permute(0, 3, 1, 2)
