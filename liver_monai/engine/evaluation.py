"""Evaluation: predicted masks against reference masks, several cases at a time, then all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from liver_monai.data.cases import Case, Reference
from liver_monai.errors import InputError, one_line
from liver_monai.io.files import write_json
from liver_monai.io.probabilities import STRUCTURES, probability_file, read_probabilities
from liver_monai.io.tables import write_rows
from liver_monai.io.volumes import read_mask, require_same_grid, slice_axis
from liver_monai.processes import ALONE, Pool
from liver_monai.scoring.calibration import Calibration, calibrate
from liver_monai.scoring.measures import TOLERANCE_MM
from liver_monai.scoring.overlap import CLASSES, pixel_accuracy
from liver_monai.scoring.protocols import CaseScore, score_case
from liver_monai.scoring.protocols import summarize as summarize_cases

DETECTED = ("tp", "fp", "fn", "precision", "recall", "f1")
CALIBRATION_ERRORS = ("ece", "ace", "mce")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One case: what its masks say, or the error why they say nothing."""

    case: Case | Reference
    prediction: Path | None
    result: CaseScore | None = None
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    error: str = ""


def evaluate(
    predictions: dict[str, Path],
    references: Sequence[Case | Reference],
    *,
    protocol: str = "lits",
    tolerance_mm: float = TOLERANCE_MM,
    probabilities: Path | None = None,
    pool: Pool = ALONE,
) -> Iterator[Score]:
    """Score every reference against the prediction of its case, in order, yielding each as it is there.

    Args:
        predictions: mask files by case_id.
        references: cases with a label.
        protocol: a name in ``scoring.protocols.PROTOCOLS``.
        tolerance_mm: of the normalized surface distance (NSD).
        probabilities: folder of probability maps, see ``io.probabilities``, whose calibration is scored, too.
        pool: who scores them.
    """
    tasks = [(case, predictions.get(case.case_id), protocol, tolerance_mm, probabilities) for case in references]
    return pool.results(_try_case, tasks, killed=_killed)


def score_row(score: Score) -> dict[str, Any]:
    """The row of a case in ``cases.csv``: volumes in millilitres, units in the names, ``None`` where not defined."""
    if score.result is None:
        return {"case_id": score.case.case_id, "error": score.error}
    result = score.result
    row: dict[str, Any] = {"case_id": score.case.case_id}
    for name, values in result.values.items():
        counts = result.counts[name]
        row |= {f"{name}_{measure}": _or_none(value) for measure, value in values.items()}
        row[f"{name}_reference_ml"] = counts.reference * result.voxel_ml
        row[f"{name}_prediction_ml"] = counts.prediction * result.voxel_ml
        row[f"{name}_missing"] = int(counts.is_missing)
        row[f"{name}_spurious"] = int(counts.is_spurious)
    for name, found in result.detections.items():
        row |= {f"lesions_{name}_{key}": _or_none(getattr(found, key)) for key in DETECTED}
    if result.detections:
        row["prediction_burden"], row["reference_burden"] = (_or_none(value) for value in result.burden)
    if result.protocol == "seed":
        means = result.slices.mean(axis=0) if len(result.slices) else (None, None)
        row |= {"n_slices": len(result.slices), "slice_pixel_accuracy": means[0], "slice_iou": means[1]}
    for name, calibration in score.calibrations.items():
        row |= {f"{name}_{error}": getattr(calibration, error) for error in CALIBRATION_ERRORS}
    return row | {"pixel_accuracy": pixel_accuracy(result.table), "error": ""}


def lesion_rows(scores: Iterable[Score]) -> list[dict[str, Any]]:
    """The rows of ``lesions.csv``: lesions of the references, and predicted ones that found none."""
    return [
        {"case_id": score.case.case_id, **{name: _or_none(value) for name, value in row.items()}}
        for score in scores
        if score.result is not None
        for row in score.result.lesions
    ]


def summarize(scores: Sequence[Score], *, protocol: str = "lits") -> dict[str, Any]:
    """Means over cases and scores of the pooled voxels, with the counts that a mean hides."""
    results = [score.result for score in scores if score.result is not None]
    summary = summarize_cases(results, protocol=protocol)
    counts = {name: summary.pop(name) for name in ("protocol", "n")}
    if any(score.calibrations for score in scores):
        summary["calibration"] = {name: _calibration_summary(scores, name) for name in STRUCTURES}
    return {**counts, "n_failed": len(scores) - len(results), **summary}


def _calibration_summary(scores: Sequence[Score], name: str) -> dict[str, Any]:
    """Errors by case and of all voxels together, and the bins of the latter: the reliability curve."""
    first, *others = (score.calibrations[name] for score in scores if score.calibrations)
    pooled = sum(others, start=first)
    bins = zip(pooled.voxels.tolist(), pooled.mean_probability.tolist(), pooled.true_share.tolist(), strict=True)
    return {
        **{f"{error}_per_case": float(np.mean([getattr(each, error) for each in (first, *others)]))
           for error in CALIBRATION_ERRORS},
        **{f"{error}_global": getattr(pooled, error) for error in CALIBRATION_ERRORS},
        "bins": [{"voxels": n, "mean_probability": _or_none(said), "true_share": _or_none(true)}
                 for n, said, true in bins],
    }  # fmt: skip


def write_scores(scores: Sequence[Score], out: Path, *, protocol: str = "lits") -> dict[str, Any]:
    """Write ``cases.csv``, ``lesions.csv`` where the protocol knows lesions, and ``summary.json``: the return value."""
    write_rows(out / "cases.csv", [score_row(score) for score in scores])
    summary = summarize(scores, protocol=protocol)
    if "lesion_detection" in summary:
        write_rows(out / "lesions.csv", lesion_rows(scores), columns=LESION_COLUMNS)
    else:
        (out / "lesions.csv").unlink(missing_ok=True)  # of an evaluation by another protocol
    write_json(out / "summary.json", summary)
    return summary


LESION_COLUMNS = ("case_id", "mask", "lesion", "volume_ml", "diameter_mm", "size")
"""There even when no case holds a lesion."""


def _killed(case: Case | Reference, prediction: Path | None, *_: Any) -> Score:
    return Score(case=case, prediction=prediction, error="its process was killed, perhaps for want of memory")


def _try_case(
    case: Case | Reference, prediction: Path | None, protocol: str, tolerance_mm: float, probabilities: Path | None
) -> Score:
    try:
        score, reference = _score_case(case, prediction, protocol, tolerance_mm)
        if probabilities is None:
            return score
        return replace(score, calibrations=_calibrate(probabilities, case.case_id, reference))
    except (InputError, OSError, ValueError, MemoryError) as error:
        return Score(case=case, prediction=prediction, error=one_line(error))


def _score_case(
    case: Case | Reference, prediction: Path | None, protocol: str, tolerance_mm: float
) -> tuple[Score, MetaTensor]:
    """The score, and the reference that was read."""
    if case.label is None:
        raise InputError(f"{case.case_id}: has no reference mask")
    if prediction is None:
        raise InputError(f"{case.label}: no prediction of case '{case.case_id}' was found")
    predicted = read_mask(prediction)
    reference = read_mask(case.label, grid=predicted)
    require_same_grid(predicted, reference)
    affine = np.asarray(reference.affine)
    known_mm = case.spacing_mm if isinstance(case, Case) else None
    result = score_case(
        predicted[0].numpy(),
        reference[0].numpy(),
        spacing_mm=known_mm or np.linalg.norm(affine[:3, :3], axis=0),
        protocol=protocol,
        tolerance_mm=tolerance_mm,
        slice_axis=slice_axis(affine),
    )
    return Score(case=case, prediction=prediction, result=result), reference


def _calibrate(folder: Path, case_id: str, reference: MetaTensor) -> dict[str, Calibration]:
    calibrations = {}
    for name in STRUCTURES:
        probabilities = read_probabilities(probability_file(folder, case_id, name))
        require_same_grid(probabilities, reference)
        truth = np.asarray(reference[0].numpy() >= min(CLASSES[name]))
        calibrations[name] = calibrate(probabilities[0].numpy(), truth)
    return calibrations


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value
