"""Whole cases that train, validate and test, so that nothing of a tested patient is seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liver_monai.data.cases import Case
from liver_monai.data.preparation import open_dataset
from liver_monai.data.splits import Split, split_cases
from liver_monai.data.store import build_store
from liver_monai.errors import InputError
from liver_monai.spec import ModelSpec

MIN_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Three disjoint lists that hold every case."""

    train: list[Case]
    validation: list[Case]
    test: list[Case]


def partition_cases(cases: Sequence[Case], *, fold: int, n_folds: int = 5, seed: int = 0) -> Partition:
    """Test on one fold of ``split_cases``, validate on the next one, train on the others.

    Raises:
        InputError: fewer than three folds or patients, or there is no such fold.
    """
    n_patients = len({case.patient_id for case in cases})
    if min(n_folds, n_patients) < MIN_FOLDS:
        raise InputError(
            f"{n_patients} patients in {n_folds} folds; to train, validate and test takes {MIN_FOLDS} of each or more"
        )
    n_folds = min(n_folds, n_patients)
    folds = [split_cases(cases, fold=each, n_folds=n_folds, seed=seed) for each in (fold, (fold + 1) % n_folds)]
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
        InputError: the data set lacks one, or it cannot be prepared.
    """
    data = open_dataset(dataset_dir)
    parts = [choose_cases(data.cases, case_ids, dataset_dir=dataset_dir) for case_ids in (train, validation)]
    build_store([case for part in parts for case in part], spec=spec, folder=store)
    return Split(train=parts[0], validation=parts[1], excluded=data.excluded)


def choose_cases(cases: Sequence[Case], case_ids: Sequence[str], *, dataset_dir: str | Path) -> list[Case]:
    """The cases of these ids, in their order; ``dataset_dir`` is for the error's message alone."""
    found = {case.case_id: case for case in cases}
    missing = [case_id for case_id in case_ids if case_id not in found]
    if missing:
        raise InputError(f"{dataset_dir}: holds no labelled case '{missing[0]}', which the run's split names")
    return [found[case_id] for case_id in case_ids]
