"""Folds: which cases are held back together, and the file that says so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.errors import InputError
from liver_monai.io.tables import read_table, write_table

N_FOLDS = 5
"""As nnU-Net has, so that its tables and ours are of equal parts."""
MOST_DIGITS = 4
"""Of a fold: as many are dealt out as the highest number says."""
COLUMNS = ("case_id", "patient_id", "fold", "burden")


class FoldRow(NamedTuple):
    """What a file of folds says of a case; ``patient_id`` is empty where it says none."""

    fold: int
    patient_id: str


def assign_folds(
    cases: Sequence[Case],
    *,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    burden: Mapping[str, float] | None = None,
    kept: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The fold of every case: all scans of a patient in one, and every fold with as many tumours, of all sizes.

    Patients are ordered by their burden and dealt out, ``n_folds`` at a time, in random order. Nothing but ids,
    burdens and the seed matters.

    Args:
        cases: of distinct ids.
        n_folds: no more are made than there are patients.
        seed: another one deals otherwise.
        burden: the tumours' share of the liver, by case_id; 0 means no tumour.
        kept: folds by patient_id that stay as they are.
    """
    scans: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        scans[case.patient_id].append(case.case_id)
    folds = {patient: fold for patient, fold in (kept or {}).items() if patient in scans}
    n_folds = max([min(n_folds, len(scans)), *(fold + 1 for fold in folds.values())])
    n_cases = Counter({folds[patient]: 0 for patient in folds})
    for patient, fold in folds.items():
        n_cases[fold] += len(scans[patient])
    rng = np.random.default_rng(seed)
    new = [patient for patient in sorted(scans) if patient not in folds]
    new = [new[index] for index in rng.permutation(len(new))]
    new.sort(key=lambda patient: -max((burden or {}).get(case_id, 0.0) for case_id in scans[patient]))
    for start in range(0, len(new), n_folds):
        dealt = sorted(new[start : start + n_folds], key=lambda patient: -len(scans[patient]))
        emptiest = sorted(rng.permutation(n_folds).tolist(), key=lambda fold: n_cases[fold])
        for patient, fold in zip(dealt, emptiest, strict=False):
            folds[patient] = fold
            n_cases[fold] += len(scans[patient])
    return {case_id: folds[patient] for patient, case_ids in scans.items() for case_id in case_ids}


def join_patients(cases: Sequence[Case], *, content: Mapping[str, str]) -> list[Case]:
    """The cases, those of equal images with one patient_id: what shows one patient is of one patient.

    Patients who share a case by its image become one with all of their scans, called by the first name of all.

    Args:
        content: hashes of images by case_id; an empty one equals none.
    """
    names = {case.patient_id: case.patient_id for case in cases}

    def first_name(name: str) -> str:
        while names[name] != name:
            name = names[name]
        return name

    seen: dict[str, str] = {}
    for case in cases:
        if content.get(case.case_id):
            other = seen.setdefault(content[case.case_id], case.patient_id)
            one, another = sorted((first_name(other), first_name(case.patient_id)))
            names[another] = one
    return [replace(case, patient_id=first_name(case.patient_id)) for case in cases]


def write_folds(
    path: Path, cases: Iterable[Case], folds: Mapping[str, int], *, burden: Mapping[str, float] | None = None
) -> None:
    """Write the fold of every case as CSV: case_id, patient_id, fold, burden."""
    rows = [(case, folds[case.case_id], (burden or {}).get(case.case_id)) for case in cases]
    write_table(
        path,
        [(case.case_id, case.patient_id, fold, "" if share is None else round(share, 6)) for case, fold, share in rows],
        columns=COLUMNS,
    )


def read_folds(path: Path, cases: Sequence[Case], *, content: Mapping[str, str] | None = None) -> dict[str, int]:
    """The fold of every case that the file knows; it may know cases that are not asked for.

    Args:
        content: hashes of images by case_id, see ``join_patients``.

    Raises:
        InputError: no such file, a fold that is no number from 0 on, or a patient of these cases, or one image, in two
            folds.
    """
    known = read_fold_rows(path)
    folds = {case.case_id: known[case.case_id].fold for case in cases if case.case_id in known}
    require_together(path, cases, {name: f"fold {fold}" for name, fold in folds.items()}, content=content or {})
    return folds


def require_folds(where: str | Path, cases: Sequence[Case], folds: Mapping[str, int]) -> None:
    """Refuse a file of folds, ``where``, that gives a case none.

    Raises:
        InputError: names the first.
    """
    lacking = [case.case_id for case in cases if case.case_id not in folds]
    if lacking:
        raise InputError(
            f"{where}: gives the case '{lacking[0]}' no fold ({len(lacking)} lack one); add them or exclude them"
        )


def read_fold_rows(path: Path) -> dict[str, FoldRow]:
    """What the file says, by case_id, be it right or not.

    Raises:
        InputError: no such file, or a fold that is no number from 0 on.
    """
    rows = {}
    for row in read_table(path, columns=("case_id", "fold")):
        if not (row["fold"].isdecimal() and len(row["fold"]) <= MOST_DIGITS):
            raise InputError(
                f"{path}: the fold of '{row['case_id']}' is '{row['fold'][:80]}'; folds are numbers from 0 on, "
                f"of up to {MOST_DIGITS} digits"
            )
        rows[row["case_id"]] = FoldRow(int(row["fold"]), row.get("patient_id", ""))
    return rows


def require_together(
    where: str | Path, cases: Sequence[Case], places: Mapping[str, str], *, content: Mapping[str, str]
) -> None:
    """Refuse to separate cases of equal images, or scans of one patient.

    Args:
        where: what separates them, for the error.
        places: in words, by case_id; a case without one is passed over.
        content: hashes of images by case_id; an empty one equals none.

    Raises:
        InputError: names two cases that are apart and what they share.
    """
    patients = {case.case_id: case.patient_id for case in cases}
    for shared, what in ((content, "show the same image"), (patients, "are scans of one patient")):
        first: dict[str, str] = {}
        for name in (case.case_id for case in cases if case.case_id in places and shared.get(case.case_id)):
            other = first.setdefault(shared[name], name)
            if places[other] != places[name]:
                raise InputError(
                    f"{where}: '{other}' and '{name}' {what}, but are in {places[other]} and {places[name]}; scores "
                    "would be those of a patient the network has seen. Put them together, or leave one out with a line "
                    "in excludes.csv beside the data"
                )
