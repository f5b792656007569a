"""Lesions: connected tumours, which predicted one belongs to which reference one, and which are found.

A lesion is a connected component by faces. Correspondence follows the LiTS challenge (Bilic et al., Medical Image
Analysis 84, 2023) as it was meant; ``lits_2017`` holds what its public scorer does instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix

from liver_monai.scoring.measures import TOLERANCE_MM, MaskPair

SIZE_BINS_MM = (("<10 mm", 0.0, 10.0), ("10-20 mm", 10.0, 20.0), (">20 mm", 20.0, float("inf")))
"""Name and bounds by equivalent diameter; a lesion of exactly 10 or 20 mm counts as 10-20 mm."""


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the components of a bool mask from 1, in the order of their first voxel: int32 map and their number."""
    labels = np.empty(mask.shape, dtype=np.int32)
    return labels, int(ndimage.label(mask, output=labels))


def _compact_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """``components`` in half the memory, unless there are too many of them."""
    labels: Any = np.empty(mask.shape, dtype=np.int16)  # SciPy's types know of larger ones only
    try:
        return labels, int(ndimage.label(mask, output=labels))
    except RuntimeError:  # "insufficient bit-depth"
        return components(mask)


def equivalent_diameter_mm(volume_ml: float) -> float:
    """Diameter of the sphere of that volume."""
    return float(np.cbrt(6 * volume_ml * 1000 / np.pi))


def size_bin(diameter_mm: float) -> str:
    """Name of the size bin of an equivalent diameter."""
    if diameter_mm < SIZE_BINS_MM[1][1]:
        return SIZE_BINS_MM[0][0]
    return SIZE_BINS_MM[1][0] if diameter_mm <= SIZE_BINS_MM[1][2] else SIZE_BINS_MM[2][0]


@dataclass(frozen=True, kw_only=True)
class OverlapTable:
    """Voxels of every component and of every pair of components that touch; components count from 0 here."""

    prediction_voxels: np.ndarray
    reference_voxels: np.ndarray
    shared: dict[tuple[int, int], int]  # (prediction, reference) -> voxels, by prediction, then reference

    @cached_property
    def by_prediction(self) -> dict[int, dict[int, int]]:
        """prediction -> reference -> shared voxels."""
        rows: dict[int, dict[int, int]] = {}
        for (predicted, referred), voxels in self.shared.items():
            rows.setdefault(predicted, {})[referred] = voxels
        return rows


@dataclass(frozen=True, kw_only=True)
class Match:
    """Merged predictions and the merged references they belong to; components count from 0."""

    predictions: tuple[int, ...]
    references: tuple[int, ...]
    iou: float


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Counts of one case at one threshold, and the detected matches."""

    tp: int
    fp: int
    fn: int
    matches: Sequence[Match] = field(default=())

    @property
    def precision(self) -> float:
        """Share of true detections; NaN where nothing is predicted."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of lesions that are detected; NaN where the reference holds none."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Dice of lesions instead of voxels; as for voxels, 1 where neither mask holds any."""
        n = 2 * self.tp + self.fp + self.fn
        return _share(2 * self.tp, n) if n else 1.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else nan


def best_prediction(table: OverlapTable) -> dict[int, int]:
    """reference -> the prediction that covers it most; of equals the first."""
    best: dict[int, int] = {}
    for (predicted, referred), voxels in table.shared.items():
        if referred not in best or voxels > table.shared[best[referred], referred]:
            best[referred] = predicted
    return best


def merged_references(table: OverlapTable) -> list[tuple[int, ...]]:
    """References joined by one prediction, ordered by their first; one that no prediction touches is left out."""
    groups: dict[int, list[int]] = {}
    for referred, predicted in sorted(best_prediction(table).items()):
        groups.setdefault(predicted, []).append(referred)
    return sorted(tuple(group) for group in groups.values())


def correspond(table: OverlapTable) -> list[Match]:
    """Matches of merged predictions and merged references, ordered by their first reference.

    References joined by one prediction are merged, each going to the prediction that covers it most; then every
    prediction goes to the merged reference it shares most with, and predictions that share one are merged.
    """
    groups = merged_references(table)
    group_of = groups_by_reference(groups)
    chosen: dict[int, list[int]] = {}
    for predicted, row in table.by_prediction.items():
        shared = shared_with_groups(row, group_of)
        chosen.setdefault(max(shared, key=lambda group: (shared[group], -group)), []).append(predicted)
    return [_match(table, chosen[number], group) for number, group in enumerate(groups) if number in chosen]


def groups_by_reference(groups: Sequence[Sequence[int]]) -> dict[int, int]:
    """reference -> number of its group."""
    return {referred: number for number, group in enumerate(groups) for referred in group}


def shared_with_groups(row: dict[int, int], group_of: dict[int, int]) -> dict[int, int]:
    """Voxels that one prediction shares with each group of references it touches."""
    shared: dict[int, int] = {}
    for referred, voxels in row.items():
        shared[group_of[referred]] = shared.get(group_of[referred], 0) + voxels
    return shared


def detect(table: OverlapTable, min_iou: float) -> Detection:
    """Lesions whose merged objects overlap by more than ``min_iou``; a merged reference counts for all it merges."""
    matches = [match for match in correspond(table) if match.iou > min_iou]
    tp = sum(len(match.references) for match in matches)
    n_used = sum(len(match.predictions) for match in matches)
    return Detection(
        tp=tp, fp=len(table.prediction_voxels) - n_used, fn=len(table.reference_voxels) - tp, matches=matches
    )


def _match(table: OverlapTable, predictions: Sequence[int], references: Sequence[int]) -> Match:
    shared = sum(table.shared.get((each, other), 0) for each in predictions for other in references)
    sizes = int(table.prediction_voxels[list(predictions)].sum() + table.reference_voxels[list(references)].sum())
    return Match(predictions=tuple(predictions), references=tuple(references), iou=shared / (sizes - shared))


class LesionMaps:
    """The lesions of two masks: their component maps, overlap table, and any merged objects as a small pair of masks.

    Args:
        prediction, reference: bool ``(X, Y, Z)`` of the same shape, true where there is tumour.
        spacing_mm: voxel spacing along the masks' axes.
    """

    def __init__(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        *,
        spacing_mm: Sequence[float],
        tolerance_mm: float = TOLERANCE_MM,
    ) -> None:
        self.spacing_mm = tuple(float(step) for step in spacing_mm)
        self.tolerance_mm = tolerance_mm
        self._prediction, n_predictions = _compact_components(prediction)
        self._reference, n_references = _compact_components(reference)
        self._boxes = [
            ndimage.find_objects(labels, n) if n else []  # of an empty array it would look for a maximum
            for labels, n in ((self._prediction, n_predictions), (self._reference, n_references))
        ]
        self.table = self._count(np.flatnonzero(prediction | reference), n_predictions, n_references)

    def volume_ml(self, voxels: int) -> float:
        """Volume of so many voxels."""
        return float(voxels * np.prod(self.spacing_mm) / 1000)

    def pair(self, match: Match) -> MaskPair:
        """The merged objects of a match, cropped to the box around both."""
        boxes = [self._boxes[0][each] for each in match.predictions]
        boxes += [self._boxes[1][each] for each in match.references]
        box = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*boxes, strict=True))
        return MaskPair(
            prediction=_members(self._prediction[box], match.predictions),
            reference=_members(self._reference[box], match.references),
            spacing_mm=self.spacing_mm,
            tolerance_mm=self.tolerance_mm,
        )

    def _count(self, voxels: np.ndarray, n_predictions: int, n_references: int) -> OverlapTable:
        predicted, referred = self._prediction.ravel()[voxels], self._reference.ravel()[voxels]
        both = (predicted > 0) & (referred > 0)
        pairs = (predicted[both] - 1, referred[both] - 1)
        table = coo_matrix((np.ones(len(pairs[0]), dtype=np.int64), pairs), shape=(n_predictions, n_references))
        table = table.tocsr().tocoo()  # sums up equal pairs, in order
        shared = zip(table.row.tolist(), table.col.tolist(), table.data.tolist(), strict=True)
        return OverlapTable(
            prediction_voxels=np.bincount(predicted, minlength=n_predictions + 1)[1:],
            reference_voxels=np.bincount(referred, minlength=n_references + 1)[1:],
            shared={(p, r): voxels for p, r, voxels in sorted(shared)},
        )


def _members(labels: np.ndarray, numbers: Iterable[int]) -> np.ndarray:
    """Where a component map holds one of the components, counted from 0."""
    wanted = [number + 1 for number in numbers]
    return np.asarray(labels == wanted[0] if len(wanted) == 1 else np.isin(labels, wanted))
