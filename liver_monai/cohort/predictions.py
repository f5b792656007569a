"""Whole predictions: segment every CT, tell how it goes, leave masks, tables, record and report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.data.anonymity import Key
from liver_monai.data.cases import Case
from liver_monai.engine.inference import AS_BUNDLED, Bundles, Choices, Prediction, bundles_of, predict
from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom import DicomVolume
from liver_monai.io.files import Pace
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import read_table, write_rows
from liver_monai.io.volumes import strip_suffix
from liver_monai.model.bundle import weights_of
from liver_monai.processes import Pool
from liver_monai.report.cases import CasePicture
from liver_monai.report.dicom_objects import object_paths, require_formats, write_objects
from liver_monai.report.predictions import write_prediction_report
from liver_monai.report.scan import read_scan


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

OF_PREDICTIONS = {"case_id", "status", "mask"}
"""Columns that a ``cases.csv`` of predictions has, and that of an evaluation has not."""


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
    say: Callable[[str], None] = print,
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
    record = _write_prediction_record(out, rows, results, bundle=bundle, choices=choices)
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


def _open_key(extras: Extras, out: Path) -> Key | None:
    path = extras.anonymous
    if path is None:
        return None
    if extras.to or extras.with_patient:
        raise InputError("--anonymous: --to and --with-patient name the patient; give it without them")
    if path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{path}: the key lies in {out}, and would go where the results go; give another place")
    return Key(path)


def _write_prediction_record(
    out: Path, rows: Sequence[dict[str, Any]], results: Sequence[Prediction], *, bundle: Bundles, choices: Choices
) -> dict[str, Any]:
    """``record.json``: the weights and CTs that were read, each by its hash, and what became of the cases."""
    weights = [weights_of(each) for each in bundles_of(bundle)]
    inputs = [*weights, *(result.case.image for result in results if not result.error)]
    names = {result.case.image: result.case.result_name for result in results if result.case.result_name}
    return write_record(out / "record.json", inputs=inputs, names=names, settings=asdict(choices), cases=_stored(rows))


def _keep_error(result: Prediction, key: Key) -> Prediction:
    """The result with its error in the key instead."""
    key.note_error(result.case.case_id, result.error)
    return replace(result, error=ERROR_IN_KEY) if result.error else result


def _describe_prediction(result: Prediction, *, to: Sequence[str], dicom_error: str) -> str:
    """A line; one more for each warning, and where objects were asked for and are not there."""
    case_id = result.case.case_id
    if result.error:
        return f"{case_id}: failed: {result.error}"
    volumes = f"liver {result.liver_ml:.0f} mL, tumour {result.tumor_ml:.1f} mL"
    how = f"kept {result.mask}" if result.is_kept else f"{result.searched}, {result.seconds:.1f} s"
    lines = [f"{case_id}: {volumes}, {how}", *(f"{case_id}: warning: {text}" for text in result.warnings)]
    if dicom_error:
        lines.append(f"{case_id}: keeps its mask, but lacks {', '.join(to)}: {dicom_error}")
    elif to and not isinstance(result.case.image, DicomVolume):
        lines.append(f"{case_id}: its CT is no DICOM, so there is no {', '.join(to)}")
    return "\n".join(lines)


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
