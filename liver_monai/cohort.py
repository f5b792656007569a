"""Whole commands on many cases: run the engine, tell how it goes, leave results, records and reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.data.cases import find_images, find_masks
from liver_monai.data.layouts import find_references
from liver_monai.engine.comparison import compare, read_evaluations, write_comparison
from liver_monai.engine.evaluation import Score, evaluate, lesion_rows, score_row, write_csv, write_scores
from liver_monai.engine.inference import Prediction, predict
from liver_monai.errors import InputError
from liver_monai.io.files import whole_file
from liver_monai.io.record import write_record
from liver_monai.model.bundle import find_bundle
from liver_monai.report.cohort import MAX_PANELS, CasePicture, write_evaluation_report, write_prediction_report
from liver_monai.report.comparison import title_of, write_comparison_report
from liver_monai.report.pictures import ForestRow, draw_forest_plot
from liver_monai.scoring.measures import TOLERANCE_MM

Say = Callable[[str], None]

CASES_A_PROCESS = 4
"""A process needs seconds to start, as long as a few cases take."""
MAX_PROCESSES = 8
"""Each holds two masks; reading them from one disk is what more would wait for."""


def predict_cohort(
    paths: Sequence[Path],
    *,
    bundle: str | Path,
    out: Path,
    device: str = "auto",
    report: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[dict[str, Any]]:
    """Predict the CTs of files and folders; a row a case, failed ones included, goes to ``cases.csv`` too."""
    cases = find_images(paths)
    results: list[Prediction] = []
    stream = predict(cases, bundle=bundle, out=out, device=device, resume=resume, overwrite=overwrite)
    for result in tqdm(stream, total=len(cases), desc="predicting", unit="case", disable=None):
        results.append(result)
        say(_describe_prediction(result))
    rows = [_prediction_row(result) for result in results]
    write_csv(out / "cases.csv", rows)
    record = write_record(
        out / "record.json",
        inputs=[find_bundle(bundle) / "models" / "model.pt", *(r.case.image for r in results if not r.error)],
        cases=rows,
    )
    if report:
        pictures = [_prediction_picture(result) for result in results if result.mask is not None]
        write_prediction_report(out / "report.html", rows=rows, pictures=pictures, provenance=_provenance(record))
        say(f"report: {out / 'report.html'}")
    return rows


def evaluate_cohort(
    prediction: Path,
    reference: Path,
    *,
    out: Path,
    protocol: str = "lits",
    tolerance_mm: float = TOLERANCE_MM,
    jobs: int | None = None,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Evaluate masks against references by a protocol, ``jobs`` cases at a time; returns the summary.

    Without ``jobs`` there are as many as there are cores, but each has ``CASES_A_PROCESS`` cases to do.
    """
    if (out / "summary.json").exists() and not overwrite:
        raise InputError(f"{out}: holds an evaluation already; give --overwrite or another -o")
    predictions, references = find_masks(prediction), find_references(reference)
    scores: list[Score] = []
    jobs = jobs or max(1, min(MAX_PROCESSES, os.cpu_count() or 1, len(references) // CASES_A_PROCESS))
    stream = evaluate(predictions, references, protocol=protocol, tolerance_mm=tolerance_mm, jobs=jobs)
    for score in tqdm(stream, total=len(references), desc="scoring", unit="case", disable=None):
        scores.append(score)
        say(_describe_score(score))
    summary = write_scores(scores, out, protocol=protocol)
    record = write_record(out / "record.json", inputs=[file for score in scores for file in _scored_files(score)])
    write_evaluation_report(
        out / "report.html",
        rows=[score_row(score) for score in scores],
        lesions=lesion_rows(scores),
        summary=summary,
        pictures=[_score_picture(score) for score in _worst_first(scores)],
        provenance=_provenance(record),
    )
    say(f"report: {out / 'report.html'}")
    return summary


def compare_cohorts(
    evaluations: Sequence[Path], *, out: Path, seed: int = 0, overwrite: bool = False, say: Say = print
) -> dict[str, Any]:
    """Compare evaluations of the same cases with the first of them; returns what ``comparison.json`` holds."""
    if (out / "comparison.json").exists() and not overwrite:
        raise InputError(f"{out}: holds a comparison already; give --overwrite or another -o")
    found = read_evaluations(evaluations)
    comparison = write_comparison(compare(found, seed=seed), found, out)
    picture = draw_forest_plot([_forest_row(row) for row in comparison["rows"]])
    with whole_file(out / "forest.png") as temporary:
        temporary.write_bytes(picture)
    record = write_record(out / "record.json", inputs=[each.folder / "cases.csv" for each in found])
    write_comparison_report(
        out / "report.html", comparison=comparison, forest_png=picture, provenance=_provenance(record)
    )
    say(f"report: {out / 'report.html'}")
    return comparison


def _forest_row(row: dict[str, Any]) -> ForestRow:
    return ForestRow(
        label=f"{row['second']}: {title_of(row['measure'])}",
        unit="mm" if row["measure"].endswith("_mm") else "",
        difference=row["difference"],
        low=row["low"],
        high=row["high"],
        is_larger_better=row["best"] == 1,
    )


def _describe_prediction(result: Prediction) -> str:
    if result.error:
        return f"{result.case.case_id}: failed: {result.error}"
    if result.status == "kept":
        return f"{result.case.case_id}: kept {result.mask}"
    volumes = f"liver {result.liver_ml:.0f} mL, tumour {result.tumor_ml:.1f} mL"
    return f"{result.case.case_id}: {volumes}, {result.seconds:.1f} s"


def _prediction_row(result: Prediction) -> dict[str, Any]:
    return {
        "case_id": result.case.case_id,
        "status": result.status,
        "mask": str(result.mask or ""),
        "liver_ml": result.liver_ml,
        "tumor_ml": result.tumor_ml,
        "seconds": round(result.seconds, 3),
        "error": result.error,
    }


def _prediction_picture(result: Prediction) -> CasePicture:
    if result.mask is None:
        raise ValueError(f"case {result.case.case_id} has no mask to draw")
    facts = {"status": result.status}
    if result.liver_ml is not None and result.tumor_ml is not None:
        facts = {"liver": f"{result.liver_ml:.0f} mL", "tumour": f"{result.tumor_ml:.1f} mL"}
    return CasePicture(
        case_id=result.case.case_id, image=result.case.image, masks={"prediction": result.mask}, facts=facts
    )


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

    return sorted(drawable, key=quality)[:MAX_PANELS]


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


def _scored_files(score: Score) -> list[Path]:
    files = [score.prediction, score.case.label]
    return [file for file in files if file is not None and not score.error]


def _provenance(record: dict[str, Any]) -> dict[str, str]:
    facts = {"command": " ".join(record["command"]), "finished": record["finished"], **record["environment"]}
    hashes = {f"SHA-256 of {Path(file).name}": digest for file, digest in record["inputs_sha256"].items()}
    return {**facts, **hashes}
