"""What is known against a data set: cases to leave out, with the reason, and the spacing of headers that lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liver_monai.data.cases import Case
from liver_monai.data.layouts import recognize, require_files
from liver_monai.errors import InputError, nearest
from liver_monai.io.tables import read_table

EXCLUDES, SPACING_OVERRIDES = "excludes.csv", "spacing_overrides.csv"
"""Honoured by themselves where they lie beside the data."""


@dataclass(frozen=True, kw_only=True)
class CuratedCases:
    """The cases to work with, and why the others are left out: ``{case_id: reason}``."""

    cases: list[Case]
    excluded: dict[str, str]


def curated_cases(
    dataset_dir: str | Path, *, excludes: Path | None = None, spacing_overrides: Path | None = None
) -> CuratedCases:
    """The labelled cases of a data set without the excluded ones, with the true spacing where it is known.

    Args:
        dataset_dir: a data set in any layout.
        excludes: CSV with the columns case_id and reason; by default ``excludes.csv`` beside the data, if there.
        spacing_overrides: CSV with case_id, x, y and z in mm along the file's axes; likewise.

    Raises:
        InputError: no data set, a table that cannot be read, a case that the data set lacks, or no case left.
    """
    data = curate(
        recognize(dataset_dir)[1],
        excludes=excludes or beside(dataset_dir, EXCLUDES),
        spacing_overrides=spacing_overrides or beside(dataset_dir, SPACING_OVERRIDES),
    )
    require_files(data.cases, dataset_dir)
    return data


def curate(cases: Sequence[Case], *, excludes: Path | None, spacing_overrides: Path | None) -> CuratedCases:
    """What the two tables say, applied to cases; files may be missing.

    Raises:
        InputError: a table that cannot be read, a case that is not among these, or no case left.
    """
    known = {case.case_id for case in cases}
    reasons = read_excludes(excludes, known=known) if excludes else {}
    spacings = read_spacing_overrides(spacing_overrides, known=known) if spacing_overrides else {}
    kept = [_with_spacing(case, spacings) for case in cases if case.case_id not in reasons]
    if reasons and not kept:
        raise InputError(f"{excludes}: all {len(cases)} cases are excluded")
    return CuratedCases(cases=kept, excluded=reasons)


def read_excludes(path: Path, *, known: Iterable[str]) -> dict[str, str]:
    """Reasons by case_id.

    Raises:
        InputError: no such table, a missing column, a case that is not known, or one without a reason.
    """
    reasons: dict[str, str] = {}
    for row in _rows(path, columns=("case_id", "reason"), known=set(known)):
        if not row["reason"].strip():
            raise InputError(f"{path}: case '{row['case_id']}' is excluded without a reason; write one beside it")
        reasons[row["case_id"]] = row["reason"].strip()
    return reasons


def read_spacing_overrides(path: Path, *, known: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """Spacing in mm along the axes of the file, by case_id.

    Raises:
        InputError: no such table, a missing column, a case that is not known, or a spacing that is not positive.
    """
    spacings: dict[str, tuple[float, float, float]] = {}
    for row in _rows(path, columns=("case_id", "x", "y", "z"), known=set(known)):
        try:
            x, y, z = (float(row[axis]) for axis in "xyz")
        except ValueError:
            x = y = z = 0.0
        if not all(0 < mm < MAX_SPACING_MM for mm in (x, y, z)):
            raise InputError(
                f"{path}: case '{row['case_id']}' has the spacing {row['x']}, {row['y']}, {row['z']}; it must be three "
                f"numbers of millimetres above 0 and below {MAX_SPACING_MM}"
            )
        spacings[row["case_id"]] = (x, y, z)
    return spacings


MAX_SPACING_MM = 100
"""No CT has slices so far apart; a number beyond is of another unit."""


def _rows(path: Path, *, columns: Sequence[str], known: set[str]) -> list[dict[str, str]]:
    rows = read_table(path, columns=columns)
    for row in rows:
        if row["case_id"] not in known:
            raise InputError(f"{path}: the data set has no case '{row['case_id']}'{nearest(row['case_id'], known)}")
    return rows


def _with_spacing(case: Case, spacings: dict[str, tuple[float, float, float]]) -> Case:
    return replace(case, spacing_mm=spacings[case.case_id]) if case.case_id in spacings else case


def beside(dataset_dir: str | Path, name: str) -> Path | None:
    """A table in the data set's folder, or in that of its list."""
    path = Path(dataset_dir).expanduser()
    table = (path if path.is_dir() else path.parent) / name
    return table if table.is_file() else None
