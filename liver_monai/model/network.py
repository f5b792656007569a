"""The network: a spec becomes a DeepLabV3+ of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from liver_monai.errors import InputError, nearest, one_line
from liver_monai.spec import LABELS, ModelSpec

PARTS = ("encoder", "decoder", "segmentation_head")
"""Of the network, as segmentation-models-pytorch calls them."""

Logits = Callable[[torch.Tensor], torch.Tensor]
"""Slabs ``(B, slab_size, H, W)`` -> logits ``(B, 3, H, W)``: the network, its graph, or several as one."""


def build_network(spec: ModelSpec, *, encoder_weights: str | None = None, freeze: str | None = None) -> torch.nn.Module:
    """DeepLabV3+ (Chen, ECCV 2018) that maps slabs ``(B, slab_size, H, W)`` to logits ``(B, output_slices * 3, H, W)``.

    Args:
        spec: encoder, slab_size and output_slices.
        encoder_weights: ``None`` starts from random weights and needs no network; ``"imagenet"`` fetches the
            encoder's published weights; anything else is a file with the encoder's state_dict.
        freeze: one of ``PARTS`` that no training changes, its batch statistics included.

    Raises:
        InputError: no such encoder, one that cannot be dilated as DeepLabV3+ needs it, weights out of reach, or no
            such part.
    """
    import segmentation_models_pytorch as smp  # after liver_monai has made torchvision importable

    published = encoder_weights if encoder_weights in (None, "imagenet") else None
    try:
        network: torch.nn.Module = smp.DeepLabV3Plus(
            encoder_name=spec.encoder,
            encoder_weights=published,
            in_channels=spec.slab_size,
            classes=spec.output_slices * len(LABELS),
        )
    except OSError as error:  # every failed download is one
        raise InputError(
            f"encoder_weights 'imagenet' of '{spec.encoder}' cannot be fetched ({one_line(error)[:200]}); "
            "give a file instead: --set spec#encoder_weights=FILE, a state_dict of the encoder"
        ) from error
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        known = smp.encoders.get_encoder_names()
        raise InputError(
            f"encoder '{spec.encoder}' makes no DeepLabV3+ ({one_line(error)[:200]}){nearest(spec.encoder, known)}; it "
            "must be an encoder of segmentation-models-pytorch, or tu- and a timm name, that can be dilated"
        ) from error
    if encoder_weights is not None and published is None:
        _load_encoder(network, Path(encoder_weights))
    if freeze is not None:
        _freeze(network, freeze)
    return network


def _freeze(network: torch.nn.Module, part: str) -> None:
    if part not in PARTS:
        raise InputError(f"freeze is '{part}'; it must be null or one of {', '.join(PARTS)}{nearest(part, PARTS)}")
    module = network.get_submodule(part)
    module.requires_grad_(requires_grad=False)
    module.register_forward_pre_hook(_use_kept_statistics)


def _use_kept_statistics(module: torch.nn.Module, _: Any) -> None:
    """A trainer calls ``train()`` on the whole network before each step."""
    module.eval()


def _load_encoder(network: Any, path: Path) -> None:
    """Load an encoder's state_dict; the first layer is left random where it was made for other channels."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; spec#encoder_weights is null, imagenet, or an encoder's state_dict")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        own = network.encoder.state_dict()
        fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    except Exception as error:  # torch raises a dozen types for a file that is not its own
        raise InputError(f"{path}: is no state_dict ({one_line(error)[:200]})") from error
    if len(fitting) < len(own) - 1:
        missing = sorted(own.keys() - fitting.keys())
        raise InputError(
            f"{path}: fits {len(fitting)} of the encoder's {len(own)} layers; the first it lacks: {missing[0]}"
        )
    network.encoder.load_state_dict(fitting, strict=False)


def distribute(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """A network that trains together with those of the other processes; on GPUs they share batch statistics, too."""
    if device.type != "cuda":  # torch synchronises batch statistics on GPUs only
        return torch.nn.parallel.DistributedDataParallel(network.to(device))
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network).to(device)
    return torch.nn.parallel.DistributedDataParallel(synchronised, device_ids=[device])
