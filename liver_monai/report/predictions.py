"""The page of a prediction: volumes and findings of each case, and what was remarked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.report.cases import MAX_STAMPS, STAMP_NOTE, CasePicture, table_of
from liver_monai.report.findings import Findings
from liver_monai.report.mask import write_scan
from liver_monai.report.overlays import draw_stamp
from liver_monai.report.page import write_page
from liver_monai.report.scan import read_scan


def write_prediction_report(
    path: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[CasePicture],
    provenance: Mapping[str, str],
    with_patient: bool = False,
) -> None:
    """Volumes of every case with a small picture and a link to its findings, which are written beside.

    Args:
        rows: those of ``cases.csv``.
        pictures: of every case that has a mask, named ``"prediction"``; more of each goes to ``findings/<case_id>/``.
        with_patient: whether a case's own page shows the name and ID that its DICOM headers have.
    """
    found = [
        _write_case(path.parent, picture, provenance=_own(provenance, picture, pictures), with_patient=with_patient)
        for picture in tqdm(pictures, desc="drawing", unit="case", disable=None)
    ]
    figures_of = {each.case_id: each.figures for each in found}
    done = [row for row in rows if row["status"] != "failed"]
    pages = {each.case_id: each.page for each in found}
    cases = table_of(
        "Cases",
        [{**row, **figures_of.get(row["case_id"], {}), "n_remarks": len(_remarks(row)) or None} for row in rows],
        PREDICTION_COLUMNS,
        note=f"The liver includes its tumours. The name of a case leads to its findings. {STAMP_NOTE}",
        links=pages,
        pictures={each.case_id: each.stamp for each in found[:MAX_STAMPS]},
    )
    remarks = [{"case_id": row["case_id"], "remark": remark} for row in rows for remark in _remarks(row)]
    write_page(
        path,
        title="Predicted masks",
        summary=[("cases", str(len(rows))), ("masks", str(len(done))), ("failed", str(len(rows) - len(done)))],
        tables=[cases, *([table_of("Remarks", remarks, REMARK_COLUMNS, links=pages)] if remarks else [])],
        provenance=provenance,
    )


PREDICTION_COLUMNS = {
    "case": "case_id",
    "status": "status",
    "liver (mL)": "liver_ml",
    "tumour (mL)": "tumor_ml",
    "burden (%)": "burden",
    "lesions": "n_lesions",
    "longest (mm)": "longest_mm",
    "time (s)": "seconds",
    "remarks": "n_remarks",
}
REMARK_COLUMNS = {"case": "case_id", "remark": "remark"}


def _remarks(row: Mapping[str, Any]) -> list[str]:
    """What is said of a case in words: too long for a column among figures."""
    failed = [f"failed: {row['error']}"] if row["error"] else []
    objects = [f"no DICOM objects: {row['dicom_error']}"] if row.get("dicom_error") else []
    warnings = row.get("warnings") or ""
    return [*failed, *objects, *(warnings.split(" | ") if warnings else [])]


@dataclass(frozen=True, kw_only=True)
class _CaseFound:
    """What the page of a cohort says of one case: where its own page is, figures of its findings, a small picture."""

    case_id: str
    page: str
    figures: Mapping[str, Any]
    stamp: bytes


def _write_case(folder: Path, picture: CasePicture, *, provenance: Mapping[str, str], with_patient: bool) -> _CaseFound:
    """Write the findings of a case and its page; its CT is in memory only here."""
    scan = read_scan(picture.masks["prediction"], image=picture.image)
    if scan.image is None:
        raise ValueError(f"case {picture.case_id} has no CT to draw")
    found = scan.findings()
    own = Path("findings") / picture.case_id
    patient = scan.patient() if with_patient else None
    write_scan(scan, found, folder / own, provenance=provenance, patient=patient)
    return _CaseFound(
        case_id=picture.case_id,
        page=(own / "report.html").as_posix(),
        figures=_figures(found),
        stamp=draw_stamp(scan.image, {"prediction": scan.mask}, affine=scan.affine),
    )


def _own(provenance: Mapping[str, str], picture: CasePicture, pictures: Sequence[CasePicture]) -> dict[str, str]:
    """Without the hashes of other cases, which would make the pages of a large cohort larger with each case."""
    others = {f"SHA-256 of {other.input_name}" for other in pictures} - {f"SHA-256 of {picture.input_name}"}
    return {label: text for label, text in provenance.items() if label not in others}


def _figures(found: Findings) -> dict[str, Any]:
    longest_mm = max((lesion.longest.length_mm for lesion in found.lesions), default=None)
    burden = None if found.burden is None else 100 * found.burden
    return {"burden": burden, "n_lesions": len(found.lesions), "longest_mm": longest_mm}
