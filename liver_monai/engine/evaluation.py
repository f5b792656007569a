"""Evaluation: predicted masks against reference masks, a case at a time and pooled."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.errors import InputError, one_line
from liver_monai.io.files import whole_file, write_json
from liver_monai.io.volumes import read_mask, require_same_grid
from liver_monai.scoring.overlap import (
    CLASSES,
    count_table,
    dice,
    iou,
    is_missing,
    is_spurious,
    pixel_accuracy,
    score_table,
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One scored case: its count table and voxel volume, or the error why it has none."""

    case: Case
    prediction: Path | None
    table: np.ndarray | None = None
    voxel_ml: float = float("nan")
    error: str = ""


def evaluate(predictions: dict[str, Path], references: Sequence[Case]) -> Iterator[Score]:
    """Score every reference against the prediction of its case, yielding each as it is there.

    Args:
        predictions: mask files by case_id.
        references: cases with a label.
    """
    for case in references:
        prediction = predictions.get(case.case_id)
        try:
            yield _score_case(case, prediction)
        except (InputError, OSError) as error:
            yield Score(case=case, prediction=prediction, error=one_line(error))


def score_row(score: Score) -> dict[str, Any]:
    """The row of a scored case in ``cases.csv``; volumes in millilitres, scores in [0, 1]."""
    if score.table is None:
        return {"case_id": score.case.case_id, "error": score.error}
    return {"case_id": score.case.case_id, **score_table(score.table, voxel_ml=score.voxel_ml), "error": ""}


def summarize(scores: Sequence[Score]) -> dict[str, Any]:
    """Means over cases and scores of the pooled voxels, with the counts that a mean hides."""
    tables = [score.table for score in scores if score.table is not None]
    summary: dict[str, Any] = {"protocol": "lits", "n": len(tables), "n_failed": len(scores) - len(tables)}
    if not tables:
        return summary
    pooled = np.sum(tables, axis=0)
    for name in CLASSES:
        summary[name] = {
            "dice_per_case": float(np.mean([dice(table, name) for table in tables])),
            "dice_global": dice(pooled, name),
            "iou_per_case": float(np.mean([iou(table, name) for table in tables])),
            "iou_global": iou(pooled, name),
            "n_missing": sum(is_missing(table, name) for table in tables),
            "n_spurious": sum(is_spurious(table, name) for table in tables),
        }
    summary["pixel_accuracy"] = {
        "per_case": float(np.mean([pixel_accuracy(table) for table in tables])),
        "global": pixel_accuracy(pooled),
    }
    return summary


def write_scores(scores: Sequence[Score], out: Path) -> dict[str, Any]:
    """Write ``cases.csv`` and ``summary.json`` and return the summary."""
    write_csv(out / "cases.csv", [score_row(score) for score in scores])
    summary = summarize(scores)
    write_json(out / "summary.json", summary)
    return summary


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; a column that a row lacks stays empty."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def _score_case(case: Case, prediction: Path | None) -> Score:
    if case.label is None:
        raise InputError(f"{case.case_id}: has no reference mask")
    if prediction is None:
        raise InputError(f"{case.label}: no prediction of case '{case.case_id}' was found")
    reference, predicted = read_mask(case.label), read_mask(prediction)
    require_same_grid(predicted, reference)
    voxel_ml = abs(np.linalg.det(np.asarray(reference.affine)[:3, :3])) / 1000
    table = count_table(predicted[0].numpy(), reference[0].numpy())
    return Score(case=case, prediction=prediction, table=table, voxel_ml=voxel_ml)
