"""What there is to check: the cases of a data set, the CTs of a folder, or one scan; and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liver_monai.data.cases import Case, find_images, patient_of
from liver_monai.data.curation import EXCLUDES, SPACING_OVERRIDES, CuratedCases, beside, curate
from liver_monai.data.folds import FoldRow, read_fold_rows
from liver_monai.data.layouts import LISTING, labelled_cases, licence_note
from liver_monai.data.preparation import FOLDS, is_store, open_dataset
from liver_monai.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Scans:
    """What there is to check.

    Args:
        cases: with the spacing that is known to be true.
        excluded: reasons of the cases that are left out, by case_id.
        folds: what each file of folds says, by case_id.
        licences: what is known of the licence of each data set.
    """

    cases: list[Case]
    excluded: Mapping[str, str]
    folds: Mapping[Path, Mapping[str, FoldRow]]
    licences: Mapping[Path, str]


def find_scans(
    paths: Sequence[Path],
    *,
    excludes: Path | None = None,
    spacing_overrides: Path | None = None,
    folds: Path | None = None,
) -> Scans:
    """The cases to check, files that are missing included, and the tables that lie beside them.

    Cases of two data sets are told apart by the name of their folder, as in ``lits/7``; so they are in tables that are
    given. Those that lie beside the data know their own data set alone.

    Args:
        paths: data sets, stores, folders of CTs, or single scans.
        excludes: CSV with the columns case_id and reason; by default ``excludes.csv`` beside each data set, if there.
        spacing_overrides: CSV with case_id, x, y and z in mm along the file's axes; likewise.
        folds: CSV with case_id, fold and perhaps patient_id; by default ``folds.csv`` beside the data, or in a store.

    Raises:
        InputError: no such path, or a listing or table that cannot be read.
    """
    given = [Path(path).expanduser() for path in paths]
    cases: list[Case] = []
    excluded: dict[str, str] = {}
    tables = {folds: read_fold_rows(folds)} if folds else {}
    for path, prefix in zip(given, _prefixes(given), strict=True):
        own = _scans_of(path, has_excludes=excludes is not None, has_spacings=spacing_overrides is not None)
        cases += [_renamed(case, prefix) for case in own.cases]
        excluded |= {prefix + case_id: reason for case_id, reason in own.excluded.items()}
        table = None if folds else _beside(path, FOLDS)
        if table is not None:
            tables[table] = {prefix + case_id: row for case_id, row in read_fold_rows(table).items()}
    data = curate(cases, excludes=excludes, spacing_overrides=spacing_overrides)
    return Scans(
        cases=data.cases,
        excluded=excluded | data.excluded,
        folds=tables,
        licences={path: licence_note(path) for path in given if _is_data_set(path)},
    )


def _prefixes(paths: Sequence[Path]) -> list[str]:
    if len(paths) < 2:
        return [""] * len(paths)
    names = [path.resolve().name for path in paths]
    names = names if len(set(names)) == len(names) else [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"{paths[0]} was given twice; give two data sets to compare, or one to check")
    return [f"{name}/" for name in names]


def _renamed(case: Case, prefix: str) -> Case:
    """A patient who is known by a file's name is another one in another data set."""
    is_by_name = case.patient_id == patient_of(case.case_id)
    patient_id = prefix + case.patient_id if is_by_name else case.patient_id
    return replace(case, case_id=prefix + case.case_id, patient_id=patient_id)


def _scans_of(path: Path, *, has_excludes: bool, has_spacings: bool) -> CuratedCases:
    """The cases of one path, with the tables beside it but for those that are given."""
    if is_store(path):
        return open_dataset(path)
    return curate(
        labelled_cases(path) or _images_of(path),
        excludes=None if has_excludes else _beside(path, EXCLUDES),
        spacing_overrides=None if has_spacings else _beside(path, SPACING_OVERRIDES),
    )


def _images_of(path: Path) -> list[Case]:
    try:
        return find_images([path])
    except InputError:
        if not path.exists():
            raise
        return [Case(case_id=path.resolve().name, image=path)]  # why it cannot be read becomes its finding


def _beside(path: Path, name: str) -> Path | None:
    """A table in a folder or beside a list; those beside a single scan are of other scans, too."""
    return beside(path, name) if path.is_dir() or _is_data_set(path) else None


def _is_data_set(path: Path) -> bool:
    return not is_store(path) and ((path / LISTING).is_file() or bool(labelled_cases(path)))
