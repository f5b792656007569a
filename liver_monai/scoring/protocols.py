"""Protocols: which structures, which measures, which rules; one case a time, then all of them together.

``lits`` is the rule of the LiTS challenge as it was meant, ``lits-2017`` its public scorer with its faults, ``msd`` the
classes of the Medical Segmentation Decathlon, ``seed`` the slice-level scores of 2D notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any

import numpy as np

from liver_monai.scoring import lits_2017
from liver_monai.scoring.lesions import (
    SIZE_BINS_MM,
    Detection,
    LesionMaps,
    OverlapTable,
    detect,
    equivalent_diameter_mm,
    size_bin,
)
from liver_monai.scoring.measures import MEASURES, TOLERANCE_MM, MaskPair, measure
from liver_monai.scoring.overlap import count_table, pixel_accuracy
from liver_monai.scoring.slices import slice_scores

OVERLAP = ("dice", "iou")
SEGMENTATION = ("dice", "iou", "voe", "rvd", "abs_rvd", "assd_mm", "rmsd_mm", "msd_mm", "hd95_mm", "nsd")
THRESHOLDS = {"overlap": 0.0, "iou_50": 0.5}
"""Name and IoU that the merged objects must exceed."""
SEGMENTED_AT = "iou_50"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a number stands for.

    Args:
        structures: labels of each structure.
        measures: of each structure, a case at a time.
        detect: rule by which lesions are found; ``None``: not looked for.
        undefined: what stands for a measure that is not defined; NaN is left out of means and counted.
        drops_empty: a case where both masks lack a structure says nothing about it, instead of being perfect.
        is_faulty: with the faults of the public LiTS scorer.
    """

    name: str
    structures: dict[str, tuple[int, ...]]
    measures: dict[str, tuple[str, ...]]
    detect: Callable[[OverlapTable, float], Detection] | None = None
    undefined: float = nan
    drops_empty: bool = False
    is_faulty: bool = False


LIVER_WITH_TUMOR = {"liver": (1, 2), "tumor": (2,)}
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="lits",
            structures=LIVER_WITH_TUMOR,
            measures={"liver": SEGMENTATION, "tumor": OVERLAP},
            detect=detect,
        ),
        Protocol(
            name="lits-2017",
            structures=LIVER_WITH_TUMOR,
            measures={"liver": SEGMENTATION, "tumor": OVERLAP},
            detect=lits_2017.detect,
            undefined=lits_2017.UNDEFINED,
            is_faulty=True,
        ),
        Protocol(
            name="msd",
            structures={"liver": (1,), "tumor": (2,)},
            measures={"liver": ("dice", "nsd"), "tumor": ("dice", "nsd")},
            drops_empty=True,
        ),
        Protocol(name="seed", structures={}, measures={}),
    )
}


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Voxels of one structure in one case."""

    prediction: int
    reference: int
    shared: int


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
    rules = PROTOCOLS[protocol]
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, reference {reference.shape}; they must agree")
    spacing = tuple(float(step) for step in spacing_mm)
    slices = slice_scores(prediction, reference, axis=slice_axis) if protocol == "seed" else np.empty((0, 2))
    if not rules.is_faulty:  # whose faults depend on the order of the axes
        prediction, reference, spacing = _in_order_of_memory(prediction, reference, spacing)
    box = foreground_box(prediction, reference)
    predicted, referred = prediction[box], reference[box]
    table = count_table(predicted, referred) if predicted.size else np.zeros((3, 3), dtype=np.int64)
    table[0, 0] += prediction.size - predicted.size

    counts = {name: _counts(table, labels) for name, labels in rules.structures.items()}
    if rules.is_faulty and table[:, 1].sum() == 0:  # the scorer looks for label 1 alone to know of a liver
        counts["liver"] = Counts(prediction=0, reference=counts["liver"].reference, shared=0)
    values = {
        name: _structure_values(rules, name, predicted, referred, counts[name], spacing, tolerance_mm)
        for name in rules.structures
    }
    score: dict[str, Any] = {
        "protocol": protocol,
        "tolerance_mm": tolerance_mm,
        "table": table,
        "voxel_ml": float(np.prod(spacing)) / 1000,
        "counts": counts,
        "values": values,
        "slices": slices,
    }
    if rules.detect is None:
        return CaseScore(**score)
    maps = _lesion_maps(predicted, referred, spacing, tolerance_mm)
    detections = {name: rules.detect(maps.table, threshold) for name, threshold in THRESHOLDS.items()}
    pairs = [measure(maps.pair(match), SEGMENTATION) for match in detections[SEGMENTED_AT].matches]
    return CaseScore(
        **score,
        detections=detections,
        objects=pairs,
        lesions=lesion_rows(maps, detections, pairs),
        burden=(_burden(table.sum(axis=0)), _burden(table.sum(axis=1))),
    )


def foreground_box(prediction: np.ndarray, reference: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around everything that is not 0 in either mask; empty when nothing is."""
    across = np.zeros(prediction.shape[1:], dtype=bool)
    planes = []
    for number, (predicted, referred) in enumerate(zip(prediction, reference, strict=True)):
        if predicted.max(initial=0) or referred.max(initial=0):
            planes.append(number)
            across |= (predicted != 0) | (referred != 0)
    if not planes:
        return tuple(slice(0, 0) for _ in prediction.shape)
    return (slice(planes[0], planes[-1] + 1), *(_extent(np.any(across, axis=1 - axis)) for axis in range(2)))


def lesion_rows(
    maps: LesionMaps, detections: dict[str, Detection], pairs: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """A row a lesion of the reference, and a row a predicted lesion that belongs to no match found at IoU > 0.5."""
    found = {name: {r for match in each.matches for r in match.references} for name, each in detections.items()}
    matches = detections[SEGMENTED_AT].matches
    match_of = {r: number for number, match in enumerate(matches) for r in match.references}
    rows = []
    for lesion, voxels in enumerate(maps.table.reference_voxels):
        hits = {f"detected_{name}": lesion in found[name] for name in detections}
        match = match_of.get(lesion)
        values = {} if match is None else {"n_merged": len(matches[match].references), **pairs[match]}
        rows.append({**_lesion_facts(maps, "reference", lesion, int(voxels)), **hits, **values})
    used = {p for match in matches for p in match.predictions}
    for lesion, voxels in enumerate(maps.table.prediction_voxels):
        if lesion not in used:
            rows.append(_lesion_facts(maps, "prediction", lesion, int(voxels)))
    return rows


def _lesion_facts(maps: LesionMaps, mask: str, lesion: int, voxels: int) -> dict[str, Any]:
    volume_ml = maps.volume_ml(voxels)
    diameter_mm = equivalent_diameter_mm(volume_ml)
    return {
        "mask": mask,
        "lesion": lesion + 1,
        "volume_ml": volume_ml,
        "diameter_mm": diameter_mm,
        "size": size_bin(diameter_mm),
    }


def _in_order_of_memory(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Views whose last axis is the one that lies closest in memory; no score depends on the order of the axes."""
    order = np.argsort([-abs(stride) for stride in prediction.strides], kind="stable")
    return prediction.transpose(order), reference.transpose(order), tuple(spacing_mm[axis] for axis in order)


def _extent(used: Any) -> slice:
    indices = np.flatnonzero(used)
    return slice(int(indices[0]), int(indices[-1]) + 1)


def _is_in(mask: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
    return np.asarray(mask >= labels[0] if len(labels) == 2 else mask == labels[0])


def _counts(table: np.ndarray, labels: tuple[int, ...]) -> Counts:
    chosen = list(labels)
    return Counts(
        prediction=int(table[:, chosen].sum()),
        reference=int(table[chosen].sum()),
        shared=int(table[np.ix_(chosen, chosen)].sum()),
    )


def _structure_values(
    rules: Protocol,
    name: str,
    predicted: np.ndarray,
    referred: np.ndarray,
    counts: Counts,
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
) -> dict[str, float]:
    names = rules.measures[name]
    n_empty = (counts.prediction == 0) + (counts.reference == 0)
    if n_empty == 0:
        masks = [_is_in(mask, rules.structures[name]) for mask in (predicted, referred)]
        box = foreground_box(*masks)
        return measure(
            MaskPair(prediction=masks[0][box], reference=masks[1][box], spacing_mm=spacing_mm,
                     tolerance_mm=tolerance_mm),
            names,
        )  # fmt: skip
    is_perfect = n_empty == 2 and not (rules.is_faulty and name == "liver")  # the scorer knows no case without liver
    values = {each: MEASURES[each].both_empty if is_perfect else MEASURES[each].one_empty for each in names}
    if rules.drops_empty and n_empty == 2:
        return dict.fromkeys(names, nan)
    return {each: rules.undefined if isnan(value) else value for each, value in values.items()}


def _lesion_maps(
    predicted: np.ndarray, referred: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> LesionMaps:
    masks = [mask == 2 for mask in (predicted, referred)]
    box = foreground_box(*masks)
    return LesionMaps(masks[0][box], masks[1][box], spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)


def _burden(label_voxels: np.ndarray) -> float:
    """Tumour voxels over liver and tumour voxels; NaN without a liver."""
    organ = int(label_voxels[1] + label_voxels[2])
    return float(label_voxels[2] / organ) if organ else nan


# All cases together --------------------------------------------------------------------------------------------------


def summarize(scores: Sequence[CaseScore], *, protocol: str = "lits") -> dict[str, Any]:
    """Means over cases and pooled figures, each with the counts that a mean hides; ``None``: not defined."""
    rules = PROTOCOLS[protocol]
    summary: dict[str, Any] = {"protocol": protocol, "n": len(scores)}
    if not scores:
        return summary
    if protocol == "seed":
        return summary | {"slices": _slice_summary(scores)}
    summary["tolerance_mm"] = scores[0].tolerance_mm
    for name in rules.structures:
        summary[name] = _structure_summary(scores, name, rules)
    if rules.detect is not None:
        summary["lesion_detection"] = {name: _detection_summary(scores, name) for name in THRESHOLDS}
        summary["lesion_detection_by_size"] = {name: _size_summary(scores, name) for name, _, _ in SIZE_BINS_MM}
        summary["lesion_segmentation"] = _segmentation_summary(scores, rules)
        summary["tumor_burden"] = _burden_summary(scores, rules)
    pooled = np.sum([score.table for score in scores], axis=0)
    summary["pixel_accuracy"] = {
        "per_case": float(np.mean([pixel_accuracy(score.table) for score in scores])),
        "global": pixel_accuracy(pooled),
    }
    return summary


def _structure_summary(scores: Sequence[CaseScore], name: str, rules: Protocol) -> dict[str, Any]:
    counts = [score.counts[name] for score in scores]
    shared, sizes = sum(each.shared for each in counts), sum(each.prediction + each.reference for each in counts)
    nothing = None if rules.drops_empty else 1.0  # all masks of all cases are empty
    means = {
        (f"{each}_per_case" if each in OVERLAP else each): mean_of_defined(s.values[name][each] for s in scores)
        for each in rules.measures[name]
    }
    return {
        **means,
        "dice_global": 2 * shared / sizes if sizes else nothing,
        "iou_global": shared / (sizes - shared) if sizes else nothing,
        "n_missing": sum(each.reference > 0 and each.prediction == 0 for each in counts),
        "n_spurious": sum(each.reference == 0 and each.prediction > 0 for each in counts),
        "n_both_empty": sum(each.reference == 0 and each.prediction == 0 for each in counts),
        "n_measured": sum(each.reference > 0 and each.prediction > 0 for each in counts),
    }


def _detection_summary(scores: Sequence[CaseScore], name: str) -> dict[str, Any]:
    counts = [score.detections[name] for score in scores]
    tp, fp, fn = (sum(getattr(each, key) for each in counts) for key in ("tp", "fp", "fn"))
    return {
        "n_references": tp + fn,
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
    }


def _size_summary(scores: Sequence[CaseScore], name: str) -> dict[str, Any]:
    """Recall by the size of the reference lesion; predictions that found nothing, by their own size."""
    rows = [row for score in scores for row in score.lesions if row["size"] == name]
    references = [row for row in rows if row["mask"] == "reference"]
    found = {key: sum(row[f"detected_{key}"] for row in references) for key in THRESHOLDS}
    recalls = {f"recall_{key}": hits / len(references) if references else None for key, hits in found.items()}
    return {"n_references": len(references), **recalls, "n_false_positives": len(rows) - len(references)}


def _segmentation_summary(scores: Sequence[CaseScore], rules: Protocol) -> dict[str, Any]:
    objects = [each for score in scores for each in score.objects]
    means = {name: mean_of_defined(each[name] for each in objects) for name in SEGMENTATION}
    if not objects and rules.is_faulty:
        lone = {name: MEASURES[name].one_empty for name in SEGMENTATION}
        means = {name: rules.undefined if isnan(value) else value for name, value in lone.items()}
    return {"n_objects": len(objects), **means}


def _burden_summary(scores: Sequence[CaseScore], rules: Protocol) -> dict[str, Any]:
    """Root mean square and largest difference; the public scorer's largest is that of the signed difference."""
    differences = [referred - _said_burden(score, rules) for score in scores for referred in score.burden[1:]]
    defined = [each for each in differences if not isnan(each)]
    return {
        "rmse": float(np.sqrt(np.mean(np.square(defined)))) if defined else None,
        "max": max(defined if rules.is_faulty else map(abs, defined)) if defined else None,
        "n_undefined": len(differences) - len(defined),
    }


def _said_burden(score: CaseScore, rules: Protocol) -> float:
    has_liver_label = bool(score.table[:, 1].sum())
    return score.burden[0] if has_liver_label or not rules.is_faulty else rules.undefined


def _slice_summary(scores: Sequence[CaseScore]) -> dict[str, Any]:
    rows = np.vstack([score.slices for score in scores])
    accuracy, iou = (float(value) for value in rows.mean(axis=0)) if len(rows) else (None, None)
    return {"n_slices": len(rows), "loss": None, "pixel_accuracy": accuracy, "iou": iou}


def mean_of_defined(values: Iterable[float]) -> float | None:
    """Mean without the values that are not defined, which the caller counts; ``None`` when none is."""
    defined = [value for value in values if not isnan(value)]
    return float(np.mean(defined)) if defined else None
