"""Whole checks: examine every case and the data set, tell how it goes, leave findings, record and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from liver_monai.data.cases import Case
from liver_monai.data.checks.dataset import DataSet
from liver_monai.data.checks.findings import SEVERITIES, CaseReport, Finding
from liver_monai.data.checks.results import read_case, summarize, write_case
from liver_monai.data.checks.run import examine
from liver_monai.data.checks.sources import find_scans
from liver_monai.data.checks.table import check_dataset
from liver_monai.errors import InputError
from liver_monai.io.files import write_json
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import write_rows
from liver_monai.processes import Pool, processes_for
from liver_monai.report.check import write_check_report


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
    say: Callable[[str], None] = print,
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


def _check_cases(
    cases: Sequence[Case], *, out: Path | None, pool: Pool | None, resume: bool, say: Callable[[str], None]
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
