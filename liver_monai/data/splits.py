"""Which cases train and which validate."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liver_monai.data.cases import Case, find_cases
from liver_monai.data.store import process_rank
from liver_monai.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Split:
    """Two disjoint lists of cases; ``validation`` is empty when nothing is held back or there is only one case."""

    train: list[Case]
    validation: list[Case]


def split_cases(cases: Sequence[Case], *, fold: int | None = 0, n_folds: int = 5, seed: int = 0) -> Split:
    """Hold one fold of whole cases back, or none; the folds depend on the case ids and the seed alone.

    Raises:
        InputError: there is no such fold.
    """
    n_folds = min(n_folds, len(cases))
    if fold is not None and not 0 <= fold < n_folds:
        raise InputError(f"fold is {fold}; {len(cases)} cases make the folds 0 to {n_folds - 1}")
    if fold is None or n_folds == 1:
        return Split(train=list(cases), validation=[])
    ordered = sorted(cases, key=lambda case: case.case_id)
    shuffled = [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]
    held_back = {case.case_id for case in shuffled[fold::n_folds]}
    return Split(
        train=[case for case in cases if case.case_id not in held_back],
        validation=[case for case in cases if case.case_id in held_back],
    )


def split_dataset(dataset_dir: str | Path, *, fold: int | None = 0) -> Split:
    """``split_cases`` of the labelled cases of a data set."""
    return split_cases(find_cases(dataset_dir), fold=fold)


def share_of_process(cases: Sized) -> range:
    """Which of the cases to validate on are this process's, where several train together: a sampler of their numbers.

    None is given out twice, so that the mean of all shares is the mean over cases.

    Raises:
        InputError: fewer cases than processes; one without a case would leave the others waiting for its scores.
    """
    rank, n_processes = process_rank()
    if 0 < len(cases) < n_processes:
        raise InputError(
            f"too few cases to validate on, {len(cases)} for {n_processes} processes; "
            "start fewer processes, or set fold to '$None' and validate on none"
        )
    return range(rank, len(cases), n_processes)
