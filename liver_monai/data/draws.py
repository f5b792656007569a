"""Random slabs for training: which ones are drawn, and what becomes of a draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset, DistributedSampler

from liver_monai.data.cases import Case
from liver_monai.data.slabs import slab_indices
from liver_monai.data.store import build_store, process_rank
from liver_monai.data.stored_case import Lesion, StoredCase
from liver_monai.data.synthetic_tumors import RandLiverTumord
from liver_monai.data.transforms import augmentation
from liver_monai.errors import InputError
from liver_monai.spec import LIVER, TUMOR, ModelSpec

CENTRED_ON = {TUMOR: 0.5, LIVER: 0.35, None: 0.15}
"""How often a slab is centred on a tumour voxel, on a liver voxel, or anywhere: half on lesions as H-DenseUNet
(Li, IEEE TMI 2018), and slices without liver so that false positives are seen in training."""

AIR_HU = -1024
"""What a crop shows where the slice does not reach; black in every window."""


class Draw(NamedTuple):
    """What a slab is centred on: a slice of a case, and a class or nothing, of tumours perhaps one lesion."""

    case: StoredCase
    z: int
    value: int | None
    lesion: Lesion | None = None


class SlabDataset(Dataset[dict[str, torch.Tensor]]):
    """Random slabs of a store: ``image`` ``(slab_size, H, W)`` and, of those in the middle, ``label``
    ``(output_slices, H, W)``.

    An item depends on the seed and its number alone, whichever worker or process makes it and whatever was made
    before. Numbers go on from epoch to epoch (``DrawSampler``), so that no epoch repeats another.

    Args:
        data: cases to draw from, each equally often.
        spec: slab_size, output_slices and roi_size.
        folder: of the store.
        n_samples: slabs an epoch.
        transform: applied to each slab; by default ``augmentation(spec)``.
        seed: another seed gives other slabs.
        lesion_power: a slab with a tumour in its centre is centred on a lesion of n voxels with a probability that
            grows like n^lesion_power, on each of its slices equally often: -0.5 has small ones seen that voxels or
            slices would hardly ever choose. ``None``: on each slice with tumour equally often.
        centres: case_id -> slices that a slab may be centred on, at least one a case; ``None``: all.
        synthetic_tumors: draws tumours into slabs; then a slab that should be centred on a tumour is centred on the
            liver where the case has none.
    """

    def __init__(
        self,
        data: Sequence[Case],
        *,
        spec: ModelSpec,
        folder: str | Path,
        n_samples: int,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        lesion_power: float | None = None,
        centres: Mapping[str, Sequence[int]] | None = None,
        synthetic_tumors: RandLiverTumord | None = None,
    ) -> None:
        self.spec = spec
        self.cases = build_store(data, spec=spec, folder=folder)
        self.transform = augmentation(spec) if transform is None else transform
        self.n_samples = n_samples
        self.seed = seed
        self.lesion_power = lesion_power
        self.centres = centres
        self.synthetic_tumors = synthetic_tumors if synthetic_tumors is not None and synthetic_tumors.prob > 0 else None

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        draw = self._draw(rng)
        case, z = draw.case, draw.z
        corner = _draw_corner(rng, case.shape[1:], voxels=_voxels(draw), roi_size=self.spec.roi_size)
        slices = case.slab(z, slab_size=self.spec.slab_size)
        slab = self._crop(slices, corner, fill=AIR_HU).astype(np.float32)
        labels = self._crop(_labels(case, z, n_slices=self.spec.output_slices), corner, fill=0)
        state = np.random.RandomState(rng.bit_generator)
        if self.synthetic_tumors is not None:
            self.synthetic_tumors.set_random_state(state=state)
            slab, labels = self._with_tumors(self.synthetic_tumors, slab, case, z, corner)
        _share_stream(state, self.transform)
        with _plain_tensors():
            item: dict[str, torch.Tensor] = self.transform({"image": slab, "label": labels})
        return item

    def draw(self, number: int) -> Draw:
        """What the slab of a number is centred on; no voxel is read."""
        return self._draw(np.random.default_rng([self.seed, number]))

    def _draw(self, rng: np.random.Generator) -> Draw:
        case = self.cases[rng.integers(len(self.cases))]
        value = self._draw_class(rng, case)
        centres = None if self.centres is None else self.centres[case.case_id]
        if value == TUMOR and self.lesion_power is not None:
            lesions = slices_of_lesions(case, centres)
            if lesions:
                chances = lesion_probabilities([lesion.n_voxels for lesion, _ in lesions], power=self.lesion_power)
                lesion, slices = lesions[rng.choice(len(lesions), p=chances)]
                return Draw(case, int(rng.choice(slices)), TUMOR, lesion)
        value, z = _draw_slice(rng, case, value=value, centres=centres)
        return Draw(case, z, value)

    def _draw_class(self, rng: np.random.Generator, case: StoredCase) -> int | None:
        """What to centre on."""
        value = list(CENTRED_ON)[rng.choice(len(CENTRED_ON), p=list(CENTRED_ON.values()))]
        is_to_draw = self.synthetic_tumors is not None and len(case.slices_with[TUMOR]) == 0
        return LIVER if value == TUMOR and is_to_draw else value

    def _with_tumors(
        self, tumors: RandLiverTumord, slab: np.ndarray, case: StoredCase, z: int, corner: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A cropped slab with synthetic tumours, and the label ``(output_slices, H, W)`` of those in its middle.

        They are drawn as if the slab had slices beyond the ends of the CT, too. There the first or last slice stands
        in for them, with the tumours that it has.
        """
        n_slices, margin = self.spec.slab_size, self.spec.slab_size // 2
        label = self._crop(_labels(case, z, n_slices=n_slices), corner, fill=0)
        drawn = tumors({"image": slab, "label": label})
        shown = [index - (z - margin) for index in slab_indices(z, n_slices=case.shape[0], slab_size=n_slices)]
        left_out = margin - self.spec.output_slices // 2
        return drawn["image"][shown], drawn["label"][shown][left_out : n_slices - left_out]

    def _crop(self, slices: np.ndarray, corner: tuple[int, int], *, fill: int) -> np.ndarray:
        return np.stack([_crop(plane, corner, self.spec.roi_size, fill=fill) for plane in slices])


class DrawSampler(DistributedSampler[int]):
    """Numbers of the slabs of an epoch, shared among the processes that train together.

    MONAI's trainer tells the epoch to every ``DistributedSampler``.

    Args:
        dataset: what the numbers are of.
        batch_size: slabs a step, to be refused here: MONAI trains nothing, without a word, where an epoch has no step.

    Raises:
        InputError: no step, or a step of one slab, of which batch normalisation cannot take the variance.
    """

    def __init__(self, dataset: SlabDataset, *, batch_size: int = 2) -> None:
        rank, n_processes = process_rank()
        super().__init__(dataset, num_replicas=n_processes, rank=rank, shuffle=False)
        if not 2 <= batch_size <= self.num_samples:
            raise InputError(
                f"batch_size is {batch_size}; it must be 2 or more, and no more than the {self.num_samples} slabs that "
                "slabs_per_epoch gives each process"
            )
        self.n_samples = len(dataset)
        self.n_to_skip = 0

    def skip_once(self, n_slabs: int) -> None:
        """Begin the next epoch after its first slabs of this process: they were trained on before an interruption."""
        self.n_to_skip = n_slabs

    def __iter__(self) -> Iterator[int]:
        first, self.n_to_skip = self.n_to_skip, 0
        return (self.epoch * self.n_samples + index for index in islice(super().__iter__(), first, None))


def lesion_probabilities(sizes: Sequence[int], *, power: float) -> np.ndarray:
    """How often each lesion is drawn, by its size in voxels: n^power over the sum of all."""
    weights = np.asarray(sizes, dtype=np.float64) ** power
    return np.asarray(weights / weights.sum())


def slices_of_lesions(case: StoredCase, centres: Sequence[int] | None) -> list[tuple[Lesion, np.ndarray]]:
    """The lesions of a case and the slices of each that a slab may be centred on; without those that have none."""
    slices = [np.arange(lesion.first_slice, lesion.last_slice + 1) for lesion in case.lesions]
    if centres is not None:
        slices = [np.intersect1d(each, centres) for each in slices]
    return [(lesion, each) for lesion, each in zip(case.lesions, slices, strict=True) if len(each)]


def _share_stream(state: np.random.RandomState, transform: Callable[[Any], Any]) -> None:
    """Have all random parts of a transform draw from one stream.

    MONAI's ``Compose`` gives each part a generator with a seed of its own, which took 1.6 of a slab's 7.4 ms.
    """
    parts: Sequence[object] = (transform,)
    if isinstance(transform, Compose):
        transform.R = state
        parts = transform.transforms
    for part in parts:
        if isinstance(part, Randomizable):
            part.set_random_state(state=state)


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Without the metadata that MONAI keeps with each tensor: nobody asks where a slab was, and it takes a third of
    the time that an augmentation takes."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _draw_slice(
    rng: np.random.Generator, case: StoredCase, *, value: int | None, centres: Sequence[int] | None
) -> tuple[int | None, int]:
    """The class to centre on and a slice that holds it; where the case lacks the class, any slice."""
    slices = case.slices_with[value] if value is not None else ()
    if centres is not None:
        slices = np.intersect1d(slices, centres)
    if len(slices) == 0:
        return None, int(rng.integers(case.shape[0]) if centres is None else rng.choice(centres))
    return value, int(rng.choice(slices))


def _labels(case: StoredCase, z: int, *, n_slices: int) -> np.ndarray:
    """``(n_slices, H, W)`` around a slice; the first and last slice stand in for those beyond the ends."""
    slices = slab_indices(z, n_slices=case.shape[0], slab_size=n_slices)
    return case.label(slices[0], slices[-1] + 1)[[index - slices[0] for index in slices]]


def _voxels(draw: Draw) -> np.ndarray | None:
    """Rows and columns ``(n, 2)`` that the slab may be centred on, or ``None`` for all."""
    if draw.value is None:
        return None
    if draw.lesion is not None:
        return draw.case.voxels_of(draw.lesion, draw.z)
    return np.argwhere(draw.case.label(draw.z, draw.z + 1)[0] == draw.value)


def _draw_corner(
    rng: np.random.Generator, shape: tuple[int, int], *, voxels: np.ndarray | None, roi_size: tuple[int, int]
) -> tuple[int, int]:
    """First voxel of the crop: around one of the voxels, inside of the slice where the slice is large enough."""
    centre = rng.integers(shape) if voxels is None else voxels[rng.integers(len(voxels))]
    x, y = (
        min(max(int(c) - roi // 2, 0), size - roi) if size >= roi else (size - roi) // 2
        for c, size, roi in zip(centre, shape, roi_size, strict=True)
    )
    return x, y


def _crop(plane: np.ndarray, corner: tuple[int, int], roi_size: tuple[int, int], *, fill: int) -> np.ndarray:
    """``roi_size`` of a slice from ``corner`` on, ``fill`` where the slice does not reach."""
    cropped = np.full(roi_size, fill, dtype=plane.dtype)
    inside = [slice(max(c, 0), min(c + roi, size)) for c, roi, size in zip(corner, roi_size, plane.shape, strict=True)]
    target = [slice(s.start - c, s.stop - c) for s, c in zip(inside, corner, strict=True)]
    cropped[tuple(target)] = plane[tuple(inside)]
    return cropped
