"""One case by a protocol: counted once, cropped to what its masks hold, then every measure of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Any

import numpy as np

from liver_monai.scoring.crop import foreground_box, in_order_of_memory
from liver_monai.scoring.lesion_table import lesion_rows
from liver_monai.scoring.lesions import Detection, LesionMaps
from liver_monai.scoring.measures import MEASURES, TOLERANCE_MM, MaskPair, measure
from liver_monai.scoring.overlap import N_LABELS, count_table, require_same_shape
from liver_monai.scoring.rules import PROTOCOLS, SEGMENTATION, SEGMENTED_AT, THRESHOLDS, Protocol
from liver_monai.scoring.slices import slice_scores


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Voxels of one structure in one case."""

    prediction: int
    reference: int
    shared: int

    @property
    def is_missing(self) -> bool:
        """The reference holds the structure and the prediction none of it."""
        return self.reference > 0 and self.prediction == 0

    @property
    def is_spurious(self) -> bool:
        """The prediction holds the structure and the reference none of it."""
        return self.prediction > 0 and self.reference == 0


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Everything that one case says, to be summed up by ``summarize``.

    Args:
        table: voxels of each (reference label, predicted label).
        values: structure -> measure -> value, NaN where it is not defined.
        detections: counts at each threshold.
        objects: measures of each detected (merged) lesion.
        lesions: a row a lesion of the reference, and a row a predicted one that found none.
        burden: tumour voxels over liver and tumour voxels, of prediction and reference; NaN without a liver.
        slices: pixel accuracy and mean IoU of each slice.
    """

    protocol: str
    tolerance_mm: float
    table: np.ndarray
    voxel_ml: float
    counts: dict[str, Counts]
    values: dict[str, dict[str, float]]
    detections: dict[str, Detection] = field(default_factory=dict)
    objects: Sequence[dict[str, float]] = ()
    lesions: Sequence[dict[str, Any]] = ()
    burden: tuple[float, float] = (nan, nan)
    slices: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    protocol: str = "lits",
    tolerance_mm: float = TOLERANCE_MM,
    slice_axis: int = 2,
) -> CaseScore:
    """Score one case by a protocol.

    Args:
        prediction, reference: ``(X, Y, Z)`` with the labels 0, 1 and 2, on the same grid.
        spacing_mm: voxel spacing along the masks' axes.
        protocol: a name in ``PROTOCOLS``.
        tolerance_mm: of the normalized surface distance (NSD).
        slice_axis: the axis from slice to slice, for protocol ``seed``.

    Raises:
        ValueError: shapes differ, or a mask holds another label.
    """
    require_same_shape(prediction, reference)
    rules = PROTOCOLS[protocol]
    masks = _crop(prediction, reference, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm, rules=rules)
    table = masks.count(n_voxels=prediction.size)
    counts = _structure_counts(table, rules)
    score = CaseScore(
        protocol=protocol,
        tolerance_mm=tolerance_mm,
        table=table,
        voxel_ml=float(np.prod(masks.spacing_mm)) / 1000,
        counts=counts,
        values={name: _structure_values(masks, name, counts[name], rules) for name in rules.structures},
    )
    if protocol == "seed":
        return replace(score, slices=slice_scores(prediction, reference, axis=slice_axis))
    return score if rules.detect is None else replace(score, **_lesion_scores(masks, table, rules))


@dataclass(frozen=True, kw_only=True)
class _LabelPair:
    """Labels of prediction and reference, cropped to what they hold."""

    prediction: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    tolerance_mm: float

    def count(self, *, n_voxels: int) -> np.ndarray:
        """Voxels of each (reference label, predicted label) in the whole masks, which have ``n_voxels``."""
        if self.prediction.size == 0:
            table = np.zeros((N_LABELS, N_LABELS), dtype=np.int64)
        else:
            table = count_table(self.prediction, self.reference)
        table[0, 0] += n_voxels - self.prediction.size
        return table

    def structure(self, labels: tuple[int, ...]) -> MaskPair:
        """The masks of one structure, cropped to it."""
        masks = [mask >= labels[0] if len(labels) == 2 else mask == labels[0]  # (1, 2) or one
                 for mask in (self.prediction, self.reference)]  # fmt: skip
        box = foreground_box(*masks)
        return MaskPair(prediction=masks[0][box], reference=masks[1][box], spacing_mm=self.spacing_mm,
                        tolerance_mm=self.tolerance_mm)  # fmt: skip


def _crop(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    rules: Protocol,
) -> _LabelPair:
    spacing = tuple(float(step) for step in spacing_mm)
    if not rules.is_faulty:  # whose faults depend on the order of the axes
        prediction, reference, spacing = in_order_of_memory(prediction, reference, spacing)
    box = foreground_box(prediction, reference)
    return _LabelPair(
        prediction=np.ascontiguousarray(prediction[box]),  # all that follows goes faster through what lies together
        reference=np.ascontiguousarray(reference[box]),
        spacing_mm=spacing,
        tolerance_mm=tolerance_mm,
    )


def _structure_counts(table: np.ndarray, rules: Protocol) -> dict[str, Counts]:
    counts = {name: _counts(table, labels) for name, labels in rules.structures.items()}
    if rules.is_faulty and table[:, 1].sum() == 0:  # the scorer looks for label 1 alone to know of a liver
        counts["liver"] = Counts(prediction=0, reference=counts["liver"].reference, shared=0)
    return counts


def _counts(table: np.ndarray, labels: tuple[int, ...]) -> Counts:
    chosen = list(labels)
    return Counts(
        prediction=int(table[:, chosen].sum()),
        reference=int(table[chosen].sum()),
        shared=int(table[np.ix_(chosen, chosen)].sum()),
    )


def _structure_values(masks: _LabelPair, name: str, counts: Counts, rules: Protocol) -> dict[str, float]:
    names = rules.measures[name]
    n_empty = (counts.prediction == 0) + (counts.reference == 0)
    if n_empty == 0:
        return measure(masks.structure(rules.structures[name]), names)
    if n_empty == 2 and rules.drops_empty:
        return dict.fromkeys(names, nan)
    is_perfect = n_empty == 2 and not (rules.is_faulty and name == "liver")  # the scorer knows no case without liver
    values = {each: MEASURES[each].both_empty if is_perfect else MEASURES[each].one_empty for each in names}
    return {each: rules.undefined if isnan(value) else value for each, value in values.items()}


def _lesion_scores(masks: _LabelPair, table: np.ndarray, rules: Protocol) -> dict[str, Any]:
    """The fields of a ``CaseScore`` that tell of lesions."""
    if rules.detect is None:
        raise ValueError(f"protocol {rules.name} does not look for lesions")
    lesions = masks.structure((2,))
    maps = LesionMaps(
        lesions.prediction, lesions.reference, spacing_mm=lesions.spacing_mm, tolerance_mm=lesions.tolerance_mm
    )
    detections = {name: rules.detect(maps.table, threshold) for name, threshold in THRESHOLDS.items()}
    objects = [measure(maps.pair(match), SEGMENTATION) for match in detections[SEGMENTED_AT].matches]
    return {
        "detections": detections,
        "objects": objects,
        "lesions": lesion_rows(maps, detections, objects),
        "burden": (_burden(table.sum(axis=0)), _burden(table.sum(axis=1))),
    }


def _burden(label_voxels: np.ndarray) -> float:
    """Tumour voxels over liver and tumour voxels; NaN without a liver."""
    organ = int(label_voxels[1] + label_voxels[2])
    return float(label_voxels[2] / organ) if organ else nan
