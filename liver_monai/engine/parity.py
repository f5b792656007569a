"""Does an exported network give the mask of its run, and how fast? Both see the same slabs of a CT, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import torch

from liver_monai.data.phantom import make_phantom
from liver_monai.engine.inference import Model
from liver_monai.errors import InputError
from liver_monai.io.nifti import build_nifti
from liver_monai.model.network import Logits
from liver_monai.scoring.overlap import CLASSES, count_table, dice

LEAST_DICE = 0.999
"""Of the cleaned masks, for each structure."""
PHANTOM_SHAPE = (192, 192, 64)
WARM_UP = 1
"""Batches that are not timed: runtimes make their plans with the first."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """An exported network against its run on one CT.

    Attributes:
        ct: its name.
        shape: of the CT.
        n_slabs: that both networks saw.
        dice: of the two cleaned masks, by structure; 1 where both lack it.
        voxels: of the run's mask, by structure.
        voxels_that_differ: of the cleaned masks.
        max_logit_difference: absolute, and the ``logit_span`` of the run, largest less smallest logit.
        speed: the run's time over that of the exported network, on a CPU; median of batches seen in turns.
    """

    ct: str
    shape: tuple[int, ...]
    n_slabs: int
    dice: dict[str, float]
    voxels: dict[str, int]
    voxels_that_differ: int
    max_logit_difference: float
    logit_span: float
    speed: float

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON types."""
        return {**asdict(self), "shape": list(self.shape)}


class _SideBySide:
    """Two networks that see the same slabs; the logits of the first go on."""

    def __init__(self, first: Logits, second: Logits) -> None:
        self.networks = (first, second)
        self.seconds: list[tuple[float, float]] = []
        self.n_slabs = 0
        self.difference, self.least, self.most = 0.0, float("inf"), float("-inf")

    def __call__(self, slabs: torch.Tensor) -> torch.Tensor:
        logits, seconds = [], []
        for network in self.networks:
            started_s = time.perf_counter()
            logits.append(network(slabs))
            seconds.append(time.perf_counter() - started_s)
        first, second = logits
        self.seconds.append((seconds[0], seconds[1]))
        self.n_slabs += len(slabs)
        self.difference = max(self.difference, float((first - second).abs().max()))
        self.least, self.most = min(self.least, float(first.min())), max(self.most, float(first.max()))
        return first

    @property
    def speed(self) -> float:
        timed = self.seconds[WARM_UP:] or self.seconds
        return statistics.median(first / second for first, second in timed)


def measure_parity(run: Model, exported: Model, ct: Path) -> Parity:
    """Segment a CT with both.

    Raises:
        InputError: a CT that cannot be read.
    """
    both = _SideBySide(run.network, exported.network)
    masks = [replace(run, network=both).segment(ct), exported.segment(ct)]
    expected, found = (mask[0].numpy() for mask in masks)
    table = count_table(found, expected)
    return Parity(
        ct=ct.name,
        shape=expected.shape,
        n_slabs=both.n_slabs,
        dice={name: dice(table, name) for name in CLASSES},
        voxels={name: int(np.isin(expected, labels).sum()) for name, labels in CLASSES.items()},
        voxels_that_differ=int(table.sum() - np.trace(table)),
        max_logit_difference=both.difference,
        logit_span=both.most - both.least,
        speed=both.speed,
    )


def require_parity(parity: Parity, path: Path) -> None:
    """Refuse what gives another mask.

    Raises:
        InputError: a Dice below ``LEAST_DICE``.
    """
    worst = min(parity.dice, key=lambda name: parity.dice[name])
    if parity.dice[worst] < LEAST_DICE:
        raise InputError(
            f"{path}: gives another mask of {parity.ct} than its run (Dice of the {worst} {parity.dice[worst]:.4f}, at "
            f"least {LEAST_DICE} is asked for); it is not kept, use the run itself"
        )


@contextmanager
def ct_or_phantom(ct: Path | None) -> Iterator[Path]:
    """The CT or, while the block runs, one that is drawn."""
    if ct is not None:
        yield ct.expanduser()
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.nii.gz"
        phantom = make_phantom(seed=0, shape=PHANTOM_SHAPE)
        nib.save(build_nifti(phantom.image, phantom.affine), path)
        yield path
