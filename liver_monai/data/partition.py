"""Whole cases that train, validate and test, so that nothing of a tested patient is seen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from liver_monai.data.cases import Case
from liver_monai.data.folds import N_FOLDS, require_together
from liver_monai.data.preparation import open_dataset
from liver_monai.data.splits import Split, split_cases
from liver_monai.data.store import build_store
from liver_monai.data.stored_case import StoredCase
from liver_monai.errors import InputError
from liver_monai.spec import ModelSpec

MIN_FOLDS = 3
"""One to test, one to validate, one to train on."""


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Three disjoint lists that hold every case."""

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def partition_cases(
    cases: Sequence[Case],
    *,
    fold: int,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    burden: Mapping[str, float] | None = None,
) -> Partition:
    """Test on one fold of ``split_cases``, validate on the next one, train on the others.

    Args:
        burden: the tumours' share of the liver by case_id, as a store knows it (``known_burden``), to give every fold
            its part of tumours of all sizes. Without, patients are dealt out whatever they have.

    Raises:
        InputError: fewer than three folds or patients, or there is no such fold.
    """
    n_patients = len({case.patient_id for case in cases})
    if min(n_folds, n_patients) < MIN_FOLDS:
        raise InputError(
            f"{n_patients} patients in {n_folds} folds; to train, validate and test takes {MIN_FOLDS} of each or more"
        )
    n_folds = min(n_folds, n_patients)
    folds = [
        split_cases(cases, fold=each, n_folds=n_folds, seed=seed, burden=burden)
        for each in (fold, (fold + 1) % n_folds)
    ]
    test, validation = (split.validation for split in folds)
    held_back = {case.case_id for case in (*test, *validation)}
    return Partition(train=[case for case in cases if case.case_id not in held_back], validation=validation, test=test)


def split_named(
    dataset_dir: str | Path, *, spec: ModelSpec, store: str | Path, train: Sequence[str], validation: Sequence[str]
) -> Split:
    """The named cases of a data set, prepared: what ``train.json`` declares when others are to stay unseen.

    Args:
        dataset_dir: the data set, or a store.
        spec: its grid counts.
        store: where the cases are kept on that grid.
        train, validation: their case ids.

    Raises:
        InputError: the data set lacks one, it cannot be prepared, or a patient or an image is in both lists.
    """
    data = open_dataset(dataset_dir)
    parts = [choose_cases(data.cases, case_ids, dataset_dir=dataset_dir) for case_ids in (train, validation)]
    stored = build_store([case for part in parts for case in part], spec=spec, folder=store)
    require_apart({"training": parts[0], "validation": parts[1]}, stored, dataset_dir=dataset_dir)
    return Split(train=parts[0], validation=parts[1], excluded=data.excluded)


def require_apart(
    parts: Mapping[str, Sequence[Case]], stored: Sequence[StoredCase], *, dataset_dir: str | Path
) -> None:
    """Refuse parts of a data set that share a patient or an image.

    Args:
        parts: cases by the name of the part.
        stored: the same cases in the store; of those that are not there, the images are not compared.
        dataset_dir: for the error's message alone.

    Raises:
        InputError: names two cases in two parts and what they share.
    """
    places = {case.case_id: name for name, cases in parts.items() for case in cases}
    content = {case.case_id: case.content_hash for case in stored}
    require_together(dataset_dir, [case for cases in parts.values() for case in cases], places, content=content)


def choose_cases(cases: Sequence[Case], case_ids: Sequence[str], *, dataset_dir: str | Path) -> list[Case]:
    """The cases of these ids, in their order; ``dataset_dir`` is for the error's message alone."""
    found = {case.case_id: case for case in cases}
    missing = [case_id for case_id in case_ids if case_id not in found]
    if missing:
        raise InputError(f"{dataset_dir}: holds no labelled case '{missing[0]}', which the run's split names")
    return [found[case_id] for case_id in case_ids]
