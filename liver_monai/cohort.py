"""Whole commands on many cases: run the engine, tell how it goes, leave results, records and reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.data.anonymity import Key
from liver_monai.data.cases import Case, find_masks
from liver_monai.data.checks.dataset import DataSet
from liver_monai.data.checks.findings import SEVERITIES, CaseReport, Finding
from liver_monai.data.checks.results import read_case, summarize, write_case
from liver_monai.data.checks.run import examine
from liver_monai.data.checks.sources import find_scans
from liver_monai.data.checks.table import check_dataset
from liver_monai.data.layouts import find_references
from liver_monai.engine.comparison import compare, read_evaluations, write_comparison
from liver_monai.engine.evaluation import Score, evaluate, lesion_rows, score_row, write_scores
from liver_monai.engine.inference import AS_BUNDLED, Bundles, Choices, Prediction, bundles_of, predict
from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom import DicomVolume
from liver_monai.io.files import Pace, whole_file, write_json
from liver_monai.io.probabilities import STRUCTURES, probability_file
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import read_table, write_rows
from liver_monai.io.volumes import strip_suffix
from liver_monai.model.bundle import weights_of
from liver_monai.processes import Pool, processes_for
from liver_monai.report.check import write_check_report
from liver_monai.report.cohort import MAX_STAMPS, CasePicture, write_evaluation_report, write_prediction_report
from liver_monai.report.comparison import title_of, write_comparison_report
from liver_monai.report.dicom_objects import object_paths, require_formats, write_objects
from liver_monai.report.intervals import ForestRow, draw_forest_plot
from liver_monai.report.scan import read_scan
from liver_monai.scoring.measures import TOLERANCE_MM

Say = Callable[[str], None]

OF_PREDICTIONS = {"case_id", "status", "mask"}
"""Columns that a ``cases.csv`` of predictions has, and that of an evaluation has not."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a prediction leaves beside its masks.

    Attributes:
        report: ``report.html``, and the findings of each case.
        to: formats of ``report.dicom_objects``, for CTs that are DICOM; ``dicom_error`` of a case's row tells why that
            could not be done.
        with_patient: whether the case's page of the report shows the patient's name and ID.
        anonymous: a ``Key``'s file; results then go by its names, wherever they are written or told.
    """

    report: bool = False
    to: Sequence[str] = ()
    with_patient: bool = False
    anonymous: Path | None = None


MASKS_ALONE = Extras()
ERROR_IN_KEY = "why is told in the key, as errors name files"


def check_cohort(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    excludes: Path | None = None,
    spacing_overrides: Path | None = None,
    folds: Path | None = None,
    pool: Pool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Check a scan, a data set, or two data sets against each other; returns what ``check --json`` prints.

    Args:
        paths, excludes, spacing_overrides, folds: as ``find_scans`` takes them.
        out: gets that as ``check.json``, beside ``findings.csv`` and ``report.html``, and in ``cases/`` each case as
            soon as it is checked.
        pool: who checks the cases; by default processes by cores and cases.
        resume: take cases from there whose files have not changed.
        overwrite: replace a check that is there.
        say: takes a line for people.

    Raises:
        InputError: as ``find_scans``, or ``out`` holds a check and neither ``resume`` nor ``overwrite`` is given.
    """
    if out is not None and (out / "check.json").exists() and not (resume or overwrite):
        raise InputError(f"{out}: holds a check already; give --resume, --overwrite or another -o")
    scans = find_scans(paths, excludes=excludes, spacing_overrides=spacing_overrides, folds=folds)
    data = DataSet(
        folders=paths,
        reports=_check_cases(scans.cases, out=out, pool=pool, resume=resume, say=say),
        excluded=scans.excluded,
        folds=scans.folds,
        licences=scans.licences,
    )
    of_all = list(check_dataset(data))
    findings = [*of_all, *(finding for report in data.reports for finding in report.findings)]
    summary = summarize(data, findings)
    for finding in of_all:
        say(_describe_finding(finding))
    n_cases = len(scans.cases)
    say(f"{n_cases} case{'' if n_cases == 1 else 's'}: {_count_findings(findings)}")
    if out is not None:
        _write_check(out, data, findings, summary=summary)
        say(f"report: {out / 'report.html'}")
    return summary


def predict_cohort(
    cases: Sequence[Case],
    *,
    bundle: Bundles,
    out: Path,
    choices: Choices = AS_BUNDLED,
    extras: Extras = MASKS_ALONE,
    pool: Pool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> list[dict[str, Any]]:
    """Predict CTs; a row a case, failed ones included.

    Rows go to ``cases.csv`` as they are there, beside those of cases that earlier commands put into the folder: after
    each case, unless they are so many that this would take a tenth of the time. There, masks have no folder.

    Args:
        cases, bundle, out, choices, pool, resume, overwrite: as ``inference.predict`` takes them.
        extras: what else to write, and for whose eyes.
        say: takes a line for people.

    Returns:
        The rows, of JSON types, volumes in mL.

    Raises:
        InputError: as ``inference.predict``, formats that there are not, a key that is none or lies in ``out``, or what
            cannot be had without a patient's name.
    """
    require_formats(extras.to)
    key = _open_key(extras, out)
    cases = key.anonymize(cases) if key else cases
    results: list[Prediction] = []
    rows: list[dict[str, Any]] = []
    stream = predict(cases, bundle=bundle, out=out, choices=choices, pool=pool, resume=resume, overwrite=overwrite)
    pace = Pace(rest=10)
    try:
        for predicted in tqdm(stream, total=len(cases), desc="predicting", unit="case", disable=None):
            result = _keep_error(predicted, key) if key else predicted
            results.append(result)
            rows.append({**_prediction_row(result), "dicom_error": _write_case_objects(result, out, to=extras.to)})
            if pace.is_due():
                with pace.taken():
                    _add_predictions(out / "cases.csv", rows)
            say(_describe_prediction(result, to=extras.to, dicom_error=rows[-1]["dicom_error"]))
    finally:  # however it ends
        if rows:
            _add_predictions(out / "cases.csv", rows)
    weights = [weights_of(each) for each in bundles_of(bundle)]
    inputs = [*weights, *(result.case.image for result in results if not result.error)]
    names = {case.image: case.result_name for case in cases if case.result_name}
    record = write_record(
        out / "record.json", inputs=inputs, names=names, settings=asdict(choices), cases=_stored(rows)
    )
    if extras.report:
        write_prediction_report(
            out / "report.html",
            rows=rows,
            pictures=[_prediction_picture(result) for result in results if result.mask is not None],
            provenance=provenance(record),
            with_patient=extras.with_patient,
        )
        say(f"report: {out / 'report.html'}")
    return rows


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
    say: Say = print,
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


def compare_cohorts(
    evaluations: Sequence[Path], *, out: Path, seed: int = 0, overwrite: bool = False, say: Say = print
) -> dict[str, Any]:
    """Compare evaluations of the same cases with the first of them; returns what ``comparison.json`` holds.

    Args:
        evaluations: folders that ``evaluate_cohort`` wrote, two or more.
        out: gets ``comparison.csv``, ``comparison.json``, ``forest.png`` and ``report.html``.
        seed: of the bootstrap.
        overwrite: replace a comparison that is there.
        say: takes a line for people.

    Raises:
        InputError: as ``read_evaluations``, or a comparison that is there.
    """
    if (out / "comparison.json").exists() and not overwrite:
        raise InputError(f"{out}: holds a comparison already; give --overwrite or another -o")
    found = read_evaluations(evaluations)
    comparison = write_comparison(compare(found, seed=seed), found, out)
    picture = draw_forest_plot([_forest_row(row) for row in comparison["rows"]])
    with whole_file(out / "forest.png") as temporary:
        temporary.write_bytes(picture)
    record = write_record(out / "record.json", inputs=[each.folder / "cases.csv" for each in found])
    write_comparison_report(
        out / "report.html", comparison=comparison, forest_png=picture, provenance=provenance(record)
    )
    say(f"report: {out / 'report.html'}")
    return comparison


def _check_cases(
    cases: Sequence[Case], *, out: Path | None, pool: Pool | None, resume: bool, say: Say
) -> list[CaseReport]:
    """Reports in the order of the cases; those that are kept are not told again."""
    kept = {case.case_id: read_case(out / "cases", case) for case in cases} if out and resume else {}
    made: dict[str, CaseReport] = {case_id: report for case_id, report in kept.items() if report is not None}
    missing = {case.case_id: case for case in cases if case.case_id not in made}
    stream = examine(list(missing.values()), pool=pool or processes_for(len(missing), cases_a_process=2))
    for report in tqdm(stream, total=len(missing), desc="checking", unit="case", disable=None):
        made[report.case_id] = report
        if out is not None:
            write_case(out / "cases", missing[report.case_id], report)
        say(_describe_check(report, in_full=len(cases) == 1))
    return [made[case.case_id] for case in cases]


def _write_check(out: Path, data: DataSet, findings: Sequence[Finding], *, summary: dict[str, Any]) -> None:
    """``check.json`` comes last: where it is, the rest is there, too."""
    columns = ("case_id", "check", "severity", "message")
    write_rows(
        out / "findings.csv",
        [{name: getattr(finding, name) for name in columns} for finding in findings],
        columns=columns,
    )
    record = write_record(out / "record.json", inputs=[])
    stamps = {report.case_id: report.thumbnail for report in data.reports}
    write_check_report(
        out / "report.html",
        summary=summary,
        thumbnails={case_id: (stamp.gray, stamp.labels) for case_id, stamp in stamps.items() if stamp is not None},
        provenance=provenance(record),
    )
    write_json(out / "check.json", summary)


def _describe_check(report: CaseReport, *, in_full: bool) -> str:
    """A line, and one more for each finding that is no mere note; of a single scan everything."""
    lines = [f"{report.case_id}: {_count_findings(report.findings)}"]
    if in_full:
        lines += [f"  {name} {value}" for name, value in report.figures.items()]
    told = [finding for finding in report.findings if in_full or finding.severity != "note"]
    return "\n".join([*lines, *(f"  {finding.severity} {finding.check}: {finding.message}" for finding in told)])


def _describe_finding(finding: Finding) -> str:
    return f"{finding.severity} {finding.check}: {finding.case_id}{': ' if finding.case_id else ''}{finding.message}"


def _count_findings(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in reversed(SEVERITIES)}
    said = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(said) or "nothing found"


def _forest_row(row: dict[str, Any]) -> ForestRow:
    return ForestRow(
        label=f"{row['second']}: {title_of(row['measure'])}",
        unit="mm" if row["measure"].endswith("_mm") else "",
        difference=row["difference"],
        low=row["low"],
        high=row["high"],
        is_larger_better=row["best"] == 1,
    )


def _describe_prediction(result: Prediction, *, to: Sequence[str], dicom_error: str) -> str:
    """A line; one more where objects were asked for and are not there."""
    case_id = result.case.case_id
    if result.error:
        return f"{case_id}: failed: {result.error}"
    volumes = f"liver {result.liver_ml:.0f} mL, tumour {result.tumor_ml:.1f} mL"
    how = f"kept {result.mask}" if result.is_kept else f"{result.searched}, {result.seconds:.1f} s"
    line = f"{case_id}: {volumes}, {how}"
    if result.warnings:
        line = f"{line}\n{case_id}: warning: {' | '.join(result.warnings)}"
    if dicom_error:
        return f"{line}\n{case_id}: keeps its mask, but lacks {', '.join(to)}: {dicom_error}"
    if to and not isinstance(result.case.image, DicomVolume):
        return f"{line}\n{case_id}: its CT is no DICOM, so there is no {', '.join(to)}"
    return line


def _write_case_objects(result: Prediction, out: Path, *, to: Sequence[str]) -> str:
    """Objects beside the mask of a case, or why there are none; CTs that are no DICOM have none to refer to."""
    if not to or result.mask is None or not isinstance(result.case.image, DicomVolume):
        return ""
    paths = object_paths(out, strip_suffix(result.mask.name), to)
    if result.is_kept and all(path.exists() for path in paths.values()):
        return ""
    try:
        scan = read_scan(result.mask, image=result.case.image)
        write_objects(scan, scan.findings(), out, to)
    except (InputError, OSError, MemoryError) as error:
        return one_line(error)
    return ""


def _open_key(extras: Extras, out: Path) -> Key | None:
    path = extras.anonymous
    if path is None:
        return None
    if extras.to or extras.with_patient:
        raise InputError("--anonymous: DICOM objects and --with-patient name the patient; leave one of them out")
    if path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{path}: the key lies in {out}, and would go where the results go; give another place")
    return Key(path)


def _keep_error(result: Prediction, key: Key) -> Prediction:
    """The result with its error in the key instead."""
    key.note_error(result.case.case_id, result.error)
    return replace(result, error=ERROR_IN_KEY) if result.error else result


def _prediction_row(result: Prediction) -> dict[str, Any]:
    return {
        "case_id": result.case.case_id,
        "status": result.status,
        "mask": str(result.mask or ""),
        "liver_ml": result.liver_ml,
        "tumor_ml": result.tumor_ml,
        "searched": result.searched,
        "seconds": round(result.seconds, 3),
        "error": _without_folder(result),
        "warnings": " | ".join(result.warnings),
    }


def _without_folder(result: Prediction) -> str:
    """What went wrong, for files that others see: folders are often named after patients."""
    folder = Path(str(result.case.image)).expanduser().parent
    return result.error.replace(f"{folder.resolve()}{os.sep}", "").replace(f"{folder}{os.sep}", "")


def _add_predictions(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_rows(path, [*_rows_of_others(path, rows), *_stored(rows)])


def _stored(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are kept beside the masks: those by their names, wherever the folder goes."""
    return [{**row, "mask": Path(row["mask"]).name} for row in rows]


def _rows_of_others(path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that a ``cases.csv`` of predictions holds of other cases; an earlier version's may lack a column."""
    if not path.is_file():
        return []
    own = {row["case_id"] for row in rows}
    found = read_table(path, columns=())
    others = [row for row in found if row.keys() >= OF_PREDICTIONS and row["case_id"] not in own]
    return [{name: row.get(name, "") for name in rows[0]} for row in others]


def _prediction_picture(result: Prediction) -> CasePicture:
    if result.mask is None:
        raise ValueError(f"case {result.case.case_id} has no mask to draw")
    facts = {"status": result.status}
    if result.liver_ml is not None and result.tumor_ml is not None:
        facts = {"liver": f"{result.liver_ml:.0f} mL", "tumour": f"{result.tumor_ml:.1f} mL"}
    return CasePicture(
        case_id=result.case.case_id,
        image=result.case.image,
        masks={"prediction": result.mask},
        facts=facts,
        input_name=result.case.result_name or Path(str(result.case.image)).name,
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
