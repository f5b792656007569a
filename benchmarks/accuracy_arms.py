"""What ``accuracy.py`` compares: a baseline, and what differs from it, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accuracy_data import ALL, LIVER_ONLY

from liver_monai.data.draws import SlabDataset
from liver_monai.data.stored_case import StoredCase

BASELINE = "baseline"

BATCH = 8
N_EPOCHS = 4
"""An epoch costs a checkpoint; nothing is validated."""

SETTINGS: dict[str, Any] = {
    "fold": None,
    "max_epochs": N_EPOCHS,
    "batch_size": BATCH,
    "spec#slab_size": 5,
    "spec#output_slices": 1,
    "spec#spacing_mm": [3.5, 3.5, 5.0],
    "spec#roi_size": [64, 64],
    "loss": "dice_ce",
    "lesion_power": -0.5,
    "synthetic_tumors#prob": 0.0,
    "drop_neighbors": 0.0,
    "jitter_neighbors": 0.0,
    "mirroring": 0.0,
    "ema_decay": None,
    "max_grad_norm": 1.0,
}
"""Of bundle ``mobilenet``, on a grid as coarse as the phantoms'. What an arm may change is named whatever a bundle's
defaults become."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training that is compared: what is asked, and the ids in which it differs from the baseline.

    ``data`` is what it trains on.
    """

    factor: str
    overrides: dict[str, Any] = field(default_factory=dict)
    data: str = ALL


class UniformSlabs(SlabDataset):
    """Centred anywhere, as a data set without a sampler is."""

    def _draw_class(self, rng: np.random.Generator, case: StoredCase) -> int | None:
        return None


UNIFORM = {
    "_target_": "accuracy_arms.UniformSlabs",
    "data": "$@split.train",
    "transform": "@train#preprocessing",
    "spec": "@spec",
    "folder": "@store",
    "n_samples": "@slabs_per_epoch",
    "seed": "@seed",
}

ARMS = {
    BASELINE: Arm(factor="5 slices, Dice + CE, lesions n^-0.5, 5 mm"),
    "slab-1": Arm(factor="slices", overrides={"spec#slab_size": 1}),
    "slab-3": Arm(factor="slices", overrides={"spec#slab_size": 3}),
    "output-3": Arm(factor="slices a pass", overrides={"spec#output_slices": 3}),
    "output-3-slab-7": Arm(factor="slices a pass", overrides={"spec#slab_size": 7, "spec#output_slices": 3}),
    "dice_topk": Arm(factor="loss", overrides={"loss": "dice_topk"}),
    "dice_focal": Arm(factor="loss", overrides={"loss": "dice_focal"}),
    "tversky": Arm(factor="loss", overrides={"loss": "tversky"}),
    "no-lesion-power": Arm(factor="sampler", overrides={"lesion_power": None}),
    "uniform": Arm(factor="sampler", overrides={"train#dataset": UNIFORM}),
    "synthetic-0.5": Arm(factor="synthetic tumours", overrides={"synthetic_tumors#prob": 0.5}),
    "liver-labels": Arm(factor="no tumour labels", data=LIVER_ONLY),
    "liver-labels-synthetic": Arm(
        factor="no tumour labels", data=LIVER_ONLY, overrides={"synthetic_tumors#prob": 0.75}
    ),
    "ema-0.99": Arm(factor="average of weights", overrides={"ema_decay": 0.99}),
    "z-3mm": Arm(factor="z-spacing", overrides={"spec#spacing_mm": [3.5, 3.5, 3.0]}),
    "z-8mm": Arm(factor="z-spacing", overrides={"spec#spacing_mm": [3.5, 3.5, 8.0]}),
    "drop-0.2": Arm(factor="neighbours dropped", overrides={"drop_neighbors": 0.2}),
    "jitter-0.2": Arm(factor="neighbours jittered", overrides={"jitter_neighbors": 0.2}),
    "mirroring": Arm(factor="left-right mirroring", overrides={"mirroring": 0.5}),
    "not-clipped": Arm(factor="gradients clipped", overrides={"max_grad_norm": None}),
    "rate-0.001": Arm(factor="learning rate", overrides={"learning_rate": 0.001}),
    "rate-0.01": Arm(factor="learning rate", overrides={"learning_rate": 0.01}),
}


def settings_of(arm: Arm, *, steps: int) -> dict[str, Any]:
    """Ids of ``train.json`` and their values, for so many optimizer steps."""
    return {**SETTINGS, "slabs_per_epoch": steps * BATCH // N_EPOCHS, **arm.overrides}
