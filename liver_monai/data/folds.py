"""Folds: which cases are held back together, and the file that says so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.errors import InputError
from liver_monai.io.tables import read_table, write_table

N_FOLDS = 5
COLUMNS = ("case_id", "patient_id", "fold", "burden")


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


def read_folds(path: Path, cases: Sequence[Case]) -> dict[str, int]:
    """The fold of every case that the file knows; it may know cases that are not asked for.

    Raises:
        InputError: no such file, a fold that is no number from 0 on, or a patient of these cases in two folds.
    """
    known = {}
    for row in read_table(path, columns=("case_id", "fold")):
        if not row["fold"].isdecimal():
            raise InputError(f"{path}: the fold of '{row['case_id']}' is '{row['fold']}'; folds are numbers from 0 on")
        known[row["case_id"]] = int(row["fold"])
    folds = {case.case_id: known[case.case_id] for case in cases if case.case_id in known}
    _require_whole_patients(path, cases, folds)
    return folds


def _require_whole_patients(path: Path, cases: Sequence[Case], folds: Mapping[str, int]) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for case in cases:
        if case.case_id not in folds:
            continue
        fold = folds[case.case_id]
        other_id, other_fold = seen.setdefault(case.patient_id, (case.case_id, fold))
        if other_fold != fold:
            raise InputError(
                f"{path}: '{other_id}' and '{case.case_id}' are scans of the patient '{case.patient_id}', but in the "
                f"folds {other_fold} and {fold}; scores would be those of a patient the network has seen"
            )
