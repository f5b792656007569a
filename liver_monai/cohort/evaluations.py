"""Whole evaluations: score every case, tell how it goes, leave tables, record and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.data.cases import find_masks
from liver_monai.data.layouts import find_references
from liver_monai.engine.evaluation import Score, evaluate, lesion_rows, score_row, write_scores
from liver_monai.errors import InputError
from liver_monai.io.probabilities import STRUCTURES, probability_file
from liver_monai.io.record import provenance, write_record
from liver_monai.processes import Pool, processes_for
from liver_monai.report.cases import MAX_STAMPS, CasePicture
from liver_monai.report.evaluations import write_evaluation_report
from liver_monai.scoring.measures import TOLERANCE_MM


def evaluate_cohort(
    prediction: Path,
    reference: Path,
    *,
    out: Path,
    protocol: str = "lits",
    tolerance_mm: float = TOLERANCE_MM,
    probabilities: Path | None = None,
    pool: Pool | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Evaluate masks against references; returns what ``summary.json`` holds.

    Args:
        prediction: a folder of masks, or one.
        reference: a data set, a folder of masks, or one.
        out: gets ``cases.csv``, ``lesions.csv``, ``summary.json`` and ``report.html``.
        protocol: a name in ``scoring.protocols.PROTOCOLS``.
        tolerance_mm: of the normalized surface distance (NSD).
        probabilities: folder of maps, see ``io.probabilities``, whose calibration is scored, too.
        pool: who scores the cases; by default processes by cores and cases.
        overwrite: replace an evaluation that is there.
        say: takes a line for people.

    Raises:
        InputError: no masks, no such folder of maps, or an evaluation that is there; what is wrong with a single case
            is told as its error instead.
    """
    if (out / "summary.json").exists() and not overwrite:
        raise InputError(f"{out}: holds an evaluation already; give --overwrite or another -o")
    predictions, references = find_masks(prediction), find_references(reference)
    _require_maps(probabilities)
    scores: list[Score] = []
    stream = evaluate(
        predictions,
        references,
        protocol=protocol,
        tolerance_mm=tolerance_mm,
        probabilities=probabilities,
        pool=pool or processes_for(len(references), cases_a_process=4),
    )
    for score in tqdm(stream, total=len(references), desc="scoring", unit="case", disable=None):
        scores.append(score)
        say(_describe_score(score))
    summary = write_scores(scores, out, protocol=protocol)
    inputs = [file for score in scores for file in _scored_files(score, probabilities)]
    record = write_record(out / "record.json", inputs=inputs)
    write_evaluation_report(
        out / "report.html",
        rows=[score_row(score) for score in scores],
        lesions=lesion_rows(scores),
        summary=summary,
        pictures=[_score_picture(score) for score in _worst_first(scores)],
        provenance=provenance(record),
    )
    say(f"report: {out / 'report.html'}")
    return summary


def _require_maps(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with <case_id>_liver.nii.gz, <case_id>_tumor.nii.gz")


def _describe_score(score: Score) -> str:
    if score.error:
        return f"{score.case.case_id}: not scored: {score.error}"
    return f"{score.case.case_id}: {', '.join(f'{name} {text}' for name, text in _facts(score).items())}"


def _facts(score: Score) -> dict[str, str]:
    """The figures of a case that stand for the others."""
    row = score_row(score)
    names = {"liver Dice": "liver_dice", "tumour Dice": "tumor_dice", "IoU per slice": "slice_iou"}
    given = {title: row[name] for title, name in names.items() if name in row}
    return {title: "not defined" if value is None else f"{value:.3f}" for title, value in given.items()}


def _worst_first(scores: Sequence[Score]) -> list[Score]:
    """Scored cases whose CT is known, by the sum of their Dice; what is not defined counts as perfect."""
    drawable = [score for score in scores if not score.error and score.case.image is not None]

    def quality(score: Score) -> float:
        row = score_row(score)
        values = [row.get(name) for name in ("liver_dice", "tumor_dice", "slice_iou")]
        return sum(1.0 if value is None else float(value) for value in values)

    return sorted(drawable, key=quality)[:MAX_STAMPS]


def _score_picture(score: Score) -> CasePicture:
    if score.case.image is None:
        raise ValueError(f"case {score.case.case_id} has no CT to draw")
    masks = {"prediction": score.prediction, "reference": score.case.label}
    return CasePicture(
        case_id=score.case.case_id,
        image=score.case.image,
        masks={name: path for name, path in masks.items() if path is not None},
        facts=_facts(score),
    )


def _scored_files(score: Score, probabilities: Path | None) -> list[Path]:
    files = [score.prediction, score.case.label]
    if probabilities is not None:
        files += [probability_file(probabilities, score.case.case_id, name) for name in STRUCTURES]
    return [file for file in files if file is not None and not score.error]
