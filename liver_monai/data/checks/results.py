"""Checked cases on disk: what an interrupted check goes on from, and what others read."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from liver_monai._version import __version__
from liver_monai.data.cases import Case
from liver_monai.data.checks.content import Content
from liver_monai.data.checks.dataset import DataSet
from liver_monai.data.checks.findings import SEVERITIES, CaseReport, Finding, worst_severity
from liver_monai.data.checks.thumbnail import Thumbnail
from liver_monai.io.files import whole_file
from liver_monai.io.volumes import files_of


def write_case(folder: Path, case: Case, report: CaseReport) -> None:
    """Keep the report of a case, with the state of the files that it was made from."""
    content = {"made_from": _state(case), "report": _report_to_json(report)}
    with whole_file(_case_file(folder, case)) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read_case(folder: Path, case: Case) -> CaseReport | None:
    """The report that ``write_case`` left; ``None`` where there is none, or the files have changed since."""
    try:
        content = json.loads(_case_file(folder, case).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _report_from_json(content["report"]) if content.get("made_from") == _state(case) else None


def summarize(data: DataSet, findings: Sequence[Finding]) -> dict[str, Any]:
    """What ``check --json`` prints: counts, all findings, and every case's fingerprint."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "folders": [str(folder) for folder in data.folders],
        "n": len(data.reports),
        "n_excluded": len(data.excluded),
        "worst": worst_severity(findings),
        "n_findings": {severity: counts[severity] for severity in reversed(SEVERITIES)},
        "findings": [asdict(finding) for finding in findings],
        "cases": [_case_row(report) for report in data.reports],
    }


def _case_row(report: CaseReport) -> dict[str, Any]:
    return {**_identity(report), "content": report.content and report.content.digest, "figures": dict(report.figures)}


def _identity(report: CaseReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("case_id", "image", "label", "patient_id")}


def _case_file(folder: Path, case: Case) -> Path:
    return folder / f"{quote(case.case_id, safe='')}.json"


def _state(case: Case) -> dict[str, Any]:
    """Files by name, size and time of change; of a folder, all files in it. And what else the report depends on."""
    sources = [source for source in (case.image, case.label) if source is not None]
    files = [file for source in sources for file in files_of(source)]
    return {
        "version": __version__,
        "patient_id": case.patient_id,
        "spacing_mm": case.spacing_mm and list(case.spacing_mm),
        "files": [[str(file), *_size_and_time(file)] for file in files],
    }


def _size_and_time(file: Path) -> tuple[int, int]:
    """None of a file that is not there."""
    if not file.exists():
        return -1, -1
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _report_to_json(report: CaseReport) -> dict[str, Any]:
    content, thumbnail = report.content, report.thumbnail
    return {
        **_identity(report),
        "findings": [asdict(finding) for finding in report.findings],
        "figures": dict(report.figures),
        "content": content and [_pack(each) for each in (*content.slices, content.profiles)],
        "thumbnail": thumbnail and [_pack(thumbnail.gray), _pack(thumbnail.labels)],
    }


def _report_from_json(content: dict[str, Any]) -> CaseReport:
    packed = {name: [_unpack(each) for each in content.pop(name) or ()] for name in ("content", "thumbnail")}
    findings = tuple(Finding(**finding) for finding in content.pop("findings"))
    measured = thumbnail = None
    if packed["content"]:
        first, second, third, profiles = packed["content"]
        measured = Content(slices=(first, second, third), profiles=profiles)
    if packed["thumbnail"]:
        gray, labels = packed["thumbnail"]
        thumbnail = Thumbnail(gray=gray, labels=labels)
    return CaseReport(**content, findings=findings, content=measured, thumbnail=thumbnail)


def _pack(values: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes())).decode("ascii")
    return {"dtype": values.dtype.str, "shape": list(values.shape), "data": data}


def _unpack(packed: dict[str, Any]) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(data, dtype=packed["dtype"]).reshape(packed["shape"])
