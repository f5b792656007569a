"""Where the random generators of a process stand, so that a resumed training draws what it would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RandomState:
    """The global generators of Python, NumPy and torch, and that of the GPU that trains.

    Slabs do not depend on them (``SlabDataset``), but dropout does. Processes that train together start with one seed
    and draw as often as each other, so the state of the first holds for all.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state_dict(self) -> dict[str, Any]:
        """As types that torch loads without running code."""
        numpy = np.random.get_state(legacy=False)
        numpy["state"]["key"] = numpy["state"]["key"].tolist()
        return {
            "python": random.getstate(),
            "numpy": numpy,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the generators back; a training may go on on another device."""
        random.setstate(state["python"])
        numpy = {**state["numpy"], "state": dict(state["numpy"]["state"])}
        numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
        np.random.set_state(numpy)
        torch.set_rng_state(state["torch"])
        if self.device.type == "cuda" and state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)
