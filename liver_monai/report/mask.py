"""Findings from files to files: any 0/1/2 mask, with or without its CT and its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError
from liver_monai.io.dicom.patient import Patient
from liver_monai.io.files import whole_file, write_json
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import write_table
from liver_monai.io.volumes import Source
from liver_monai.report.dicom_objects import require_formats, write_objects
from liver_monai.report.findings import LESION_COLUMNS, Findings
from liver_monai.report.mask_page import write_mask_page
from liver_monai.report.scan import MaskedScan, read_scan


def findings(
    mask: str | Path, *, image: Source | None = None, probabilities: Path | None = None, series: str | None = None
) -> Findings:
    """What a mask says: volumes, and of every lesion diameters, place, brightness and confidence.

    Args:
        mask: anything that ``read_mask`` takes, of 0 background, 1 liver, 2 tumour.
        image: its CT.
        probabilities: folder with the case's tumour map, see ``io.probabilities``.
        series: which DICOM series of ``image``, where there are several.

    Raises:
        InputError: a file that cannot be read, or that does not lie on the mask's grid.
    """
    return read_scan(mask, image=image, probabilities=probabilities, series=series).findings()


def report_mask(
    mask: str | Path,
    *,
    out: Path,
    image: Source | None = None,
    probabilities: Path | None = None,
    series: str | None = None,
    to: Sequence[str] = (),
    with_patient: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the findings of a mask and a page with pictures to a folder; returns what ``findings.json`` holds.

    Args:
        mask, image, probabilities, series: as ``findings`` takes them.
        out: gets ``findings.json``, ``findings.csv``, ``findings.txt`` and ``report.html``.
        to: formats of ``report.dicom_objects`` to write, too; its CT must be DICOM.
        with_patient: show the patient's name and ID on the page; its CT must be DICOM.
        overwrite: replace findings that are there.
        say: takes a line for people.

    Raises:
        InputError: as ``findings``, the folder holds findings already, or a CT that no DICOM can refer to.
    """
    require_formats(to)
    if (out / "findings.json").exists() and not overwrite:
        raise InputError(f"{out}: holds findings already; give --overwrite or another -o")
    scan = read_scan(mask, image=image, probabilities=probabilities, series=series)
    patient = _patient_of(scan) if with_patient else None
    inputs = [Path(each) if isinstance(each, str) else each for each in scan.files]
    found = scan.findings()
    if to:
        write_objects(scan, found, out, to)
    record = write_record(out / "record.json", inputs=inputs)
    write_scan(scan, found, out, provenance=provenance(record), patient=patient)
    say(f"{found.to_text()}\nreport: {out / 'report.html'}")
    return _content(found, scan.case_id)


def write_scan(
    scan: MaskedScan, found: Findings, out: Path, *, provenance: Mapping[str, str], patient: Patient | None = None
) -> None:
    """Write ``report.html``, ``findings.csv``, ``findings.txt`` and, last, ``findings.json``.

    ``patient`` is shown on the page, and nowhere else.
    """
    write_mask_page(
        out / "report.html",
        case_id=scan.case_id,
        found=found,
        mask=scan.mask,
        affine=scan.affine,
        image=scan.image,
        patient=patient,
        provenance=provenance,
    )
    rows = [[value(lesion) for value in LESION_COLUMNS.values()] for lesion in found.lesions]
    write_table(out / "findings.csv", rows, columns=list(LESION_COLUMNS))
    with whole_file(out / "findings.txt") as temporary:
        temporary.write_text(f"{found.to_text()}\n", encoding="utf-8")
    write_json(out / "findings.json", _content(found, scan.case_id))


def _content(found: Findings, case_id: str) -> dict[str, Any]:
    return {"case_id": case_id, **found.to_json()}


def _patient_of(scan: MaskedScan) -> Patient:
    patient = scan.patient()
    if patient is None:
        raise InputError(
            f"--with-patient: only headers of DICOM name the patient, and --image is {scan.ct}; give that series"
        )
    return patient
