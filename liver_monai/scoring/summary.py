"""All cases together: means over cases and pooled figures, each with the counts that a mean hides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

import numpy as np

from liver_monai.scoring.case import CaseScore
from liver_monai.scoring.lesions import SIZE_BINS_MM, Detection
from liver_monai.scoring.measures import MEASURES
from liver_monai.scoring.overlap import pixel_accuracy
from liver_monai.scoring.rules import OVERLAP, PROTOCOLS, SEGMENTATION, THRESHOLDS, Protocol


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
        "n_missing": sum(each.is_missing for each in counts),
        "n_spurious": sum(each.is_spurious for each in counts),
        "n_both_empty": sum(each.reference == 0 and each.prediction == 0 for each in counts),
        "n_measured": sum(each.reference > 0 and each.prediction > 0 for each in counts),
    }


def _detection_summary(scores: Sequence[CaseScore], name: str) -> dict[str, Any]:
    counts = [score.detections[name] for score in scores]
    pooled = Detection(**{key: sum(getattr(each, key) for each in counts) for key in ("tp", "fp", "fn")})
    shares = {key: getattr(pooled, key) for key in ("precision", "recall", "f1")}
    return {
        "n_references": pooled.tp + pooled.fn,
        "tp": pooled.tp,
        "fp": pooled.fp,
        "fn": pooled.fn,
        **{key: None if isnan(share) else share for key, share in shares.items()},
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
