"""What there is to check: the cases of a data set, the CTs of a folder, or one scan; and those left out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from liver_monai.data.cases import LITS_LABEL, Case, find_images
from liver_monai.data.layouts import find_cases
from liver_monai.errors import InputError, nearest


def find_scans(paths: Sequence[Path], *, excludes: Path | None = None) -> tuple[list[Case], dict[str, str]]:
    """The cases to check, and the reasons of those that are left out, by case_id.

    Cases of two data sets are told apart by the name of their folder, as in ``lits/7``.

    Args:
        paths: data sets, folders of CTs, or single scans.
        excludes: CSV with the columns ``case_id`` and ``reason``.

    Raises:
        InputError: no such path, a data set that is broken as such, or a list that cannot be read.
    """
    found = [_scans_of(Path(path).expanduser()) for path in paths]
    if len(found) > 1:
        names = [path.resolve().name for path in paths]
        names = names if len(set(names)) == len(names) else [str(path) for path in paths]
        if len(set(names)) < len(names):
            raise InputError(f"{paths[0]} was given twice; give two data sets to compare, or one to check")
        found = [
            [replace(case, case_id=f"{name}/{case.case_id}") for case in cases]
            for name, cases in zip(names, found, strict=True)
        ]
    cases = [case for each in found for case in each]
    reasons = {} if excludes is None else _read_reasons(excludes, known=[case.case_id for case in cases])
    return [case for case in cases if case.case_id not in reasons], reasons


def _scans_of(path: Path) -> list[Case]:
    if path.is_dir() and _is_labelled(path):
        return find_cases(path)
    try:
        return find_images([path])
    except InputError:
        if not path.exists():
            raise
        return [Case(case_id=path.resolve().name, image=path)]  # why it cannot be read becomes its finding


def _is_labelled(folder: Path) -> bool:
    """A listing or a mask that has lost its CT must be told, not passed over."""
    return (folder / "dataset.json").is_file() or any(folder.rglob(f"{LITS_LABEL}*.nii*"))


def _read_reasons(path: Path, *, known: Sequence[str]) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as CSV ({error}); give one with the columns case_id and reason"
        ) from error
    reasons = {}
    for number, row in enumerate(rows, start=2):
        case_id, reason = row.get("case_id"), row.get("reason")
        if not case_id or not reason:
            raise InputError(f"{path}: line {number} lacks a case_id or a reason; both columns must be filled")
        if case_id not in known:
            raise InputError(
                f"{path}: line {number} names the case '{case_id}', which is not there{nearest(case_id, known)}"
            )
        reasons[case_id] = reason
    return reasons
