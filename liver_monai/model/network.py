"""The network: a spec becomes a DeepLabV3+ of segmentation-models-pytorch."""

from __future__ import annotations

import torch

from liver_monai.spec import LABELS, ModelSpec


def build_network(spec: ModelSpec, *, encoder_weights: str | None = None) -> torch.nn.Module:
    """DeepLabV3+ (Chen, ECCV 2018) that maps slabs ``(B, slab_size, H, W)`` to logits ``(B, 3, H, W)``.

    Args:
        spec: encoder and slab_size.
        encoder_weights: ``None`` starts from random weights and needs no network.
    """
    import segmentation_models_pytorch as smp  # after liver_monai has made torchvision importable

    network: torch.nn.Module = smp.DeepLabV3Plus(
        encoder_name=spec.encoder,
        encoder_weights=encoder_weights,
        in_channels=spec.slab_size,
        classes=len(LABELS),
    )
    return network


def distribute(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """A network that trains together with those of the other processes; on GPUs they share batch statistics, too."""
    if device.type != "cuda":  # torch synchronises batch statistics on GPUs only
        return torch.nn.parallel.DistributedDataParallel(network.to(device))
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network).to(device)
    return torch.nn.parallel.DistributedDataParallel(synchronised, device_ids=[device])
