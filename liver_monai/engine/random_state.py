"""Where the random generators of a process stand, so that a resumed training draws what it would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


class RandomState:
    """The global generators of Python, NumPy and torch, GPUs included.

    Slabs do not depend on them (``SlabDataset``), but dropout does.
    """

    def state_dict(self) -> dict[str, Any]:
        """As types that torch loads without running code."""
        numpy = np.random.get_state(legacy=False)
        numpy["state"]["key"] = numpy["state"]["key"].tolist()
        return {
            "python": random.getstate(),
            "numpy": numpy,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the generators back; those of GPUs if there are as many."""
        random.setstate(state["python"])
        numpy = {**state["numpy"], "state": dict(state["numpy"]["state"])}
        numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
        np.random.set_state(numpy)
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all(state["cuda"])
