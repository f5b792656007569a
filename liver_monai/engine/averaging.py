"""The running average of a network's weights, which is steadier than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from liver_monai.errors import InputError


def average_weights(network: torch.nn.Module, *, decay: float, device: torch.device) -> AveragedModel:
    """An exponential moving average of weights and batch statistics; ``module`` is a network that has them.

    Of n steps the first ones forget faster, by (1 + n) / (10 + n) as TensorFlow's ExponentialMovingAverage does: a
    short training would otherwise end with an average that still knows the random start.

    Args:
        network: what is averaged.
        decay: share of the average that a step leaves; 0.999 looks back on about a thousand steps.
        device: where the average is kept.

    Raises:
        InputError: a decay that is none.
    """
    if not 0 < decay < 1:
        raise InputError(f"ema_decay is {decay}; it must lie between 0 and 1, such as 0.999, or be null for no average")

    def update(averaged: Iterable[torch.Tensor], current: Iterable[torch.Tensor], n_steps: Any) -> None:
        share = min(decay, (1 + int(n_steps)) / (10 + int(n_steps)))
        get_ema_multi_avg_fn(share)(averaged, current, n_steps)

    return AveragedModel(network, device=device, multi_avg_fn=update, use_buffers=True)


class AverageHandler:
    """Takes the weights of each step into their average."""

    def __init__(self, *, averaged: AveragedModel, network: torch.nn.Module) -> None:
        self.averaged = averaged
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self.averaged.update_parameters(self.network))
