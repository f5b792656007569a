"""The loss of a training: one of a bundle's table, or what MONAI lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.losses import DiceLoss
from torch.nn import functional

from liver_monai.data.slabs import by_slice
from liver_monai.errors import InputError, nearest


class LossBySlice(torch.nn.Module):
    """A loss of networks that segment several slices of a slab, which count as slices of a larger batch."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, output_slices * 3, H, W)`` and labels ``(B, output_slices, H, W)`` to a scalar."""
        loss: torch.Tensor = self.loss(by_slice(logits).flatten(0, 1), label.flatten(0, 1)[:, None])
        return loss


def choose_loss(loss: str | torch.nn.Module, losses: Mapping[str, torch.nn.Module]) -> LossBySlice:
    """The loss of that name, or one of the user's own, of each slice.

    Raises:
        InputError: no such name; says the nearest.
    """
    if not isinstance(loss, str):
        return LossBySlice(loss)
    if loss not in losses:
        raise InputError(f"loss is '{loss}'; it must be one of {', '.join(losses)}{nearest(loss, losses)}")
    return LossBySlice(losses[loss])


class TopKLoss(torch.nn.Module):
    """Mean cross-entropy of the voxels that are hardest: the ``percent`` of a batch where it is largest.

    As in nnU-Net, over all voxels of the batch together. Its source is Wu et al., Bridging category-level and
    instance-level semantic image segmentation (arXiv 1605.06885, 2016).

    Raises:
        InputError: a share that is none.
    """

    def __init__(self, *, percent: float = 10.0) -> None:
        super().__init__()
        if not 0 < percent <= 100:
            raise InputError(f"percent is {percent}; it must be above 0 and at most 100")
        self.percent = percent

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C, ...)`` and labels ``(B, 1, ...)`` to a scalar; at least one voxel counts."""
        losses = functional.cross_entropy(logits, label[:, 0].long(), reduction="none").flatten()
        n_hardest = max(1, int(losses.numel() * self.percent / 100))
        return losses.topk(n_hardest, sorted=False).values.mean()


class DiceTopKLoss(torch.nn.Module):
    """Dice loss plus ``TopKLoss``: the best of twenty losses for liver tumours (Ma, Medical Image Analysis 71, 2021).

    Args:
        percent: of the voxels, those with the largest cross-entropy.
        lambda_dice, lambda_topk: weights of the two.
        dice: options of MONAI's ``DiceLoss``.
    """

    def __init__(
        self, *, percent: float = 10.0, lambda_dice: float = 1.0, lambda_topk: float = 1.0, **dice: Any
    ) -> None:
        super().__init__()
        self.dice = DiceLoss(**dice)
        self.topk = TopKLoss(percent=percent)
        self.lambda_dice = lambda_dice
        self.lambda_topk = lambda_topk

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C, ...)`` and labels ``(B, 1, ...)`` to a scalar."""
        loss: torch.Tensor = self.lambda_dice * self.dice(logits, label) + self.lambda_topk * self.topk(logits, label)
        return loss
