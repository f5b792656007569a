"""Which cases train and which validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path

from liver_monai.data.cases import Case
from liver_monai.data.folds import N_FOLDS, assign_folds, read_folds, require_folds
from liver_monai.data.preparation import PreparedData, prepare_for_training
from liver_monai.data.store import process_rank
from liver_monai.errors import InputError
from liver_monai.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Split:
    """Two disjoint lists of cases; ``validation`` is empty when nothing is held back or there is only one patient.

    ``excluded`` says why a case of the data set is in neither.
    """

    train: list[Case]
    validation: list[Case]
    excluded: dict[str, str] = field(default_factory=dict)


def split_cases(
    cases: Sequence[Case],
    *,
    fold: int | None = 0,
    n_folds: int = N_FOLDS,
    seed: int = 0,
    burden: Mapping[str, float] | None = None,
) -> Split:
    """Hold one fold of whole patients back, or none; the folds depend on ids, burdens and the seed alone.

    Args:
        burden: the tumours' share of the liver by case_id, to give every fold its part of tumours of all sizes.

    Raises:
        InputError: there is no such fold.
    """
    return _hold_back(cases, assign_folds(cases, n_folds=n_folds, seed=seed, burden=burden), fold=fold)


def split_dataset(
    dataset_dir: str | Path,
    *,
    spec: ModelSpec,
    store: str | Path,
    fold: int | None = 0,
    folds: str | Path | None = None,
) -> Split:
    """Prepare a data set, and split its cases by the store's ``folds.csv``.

    Args:
        dataset_dir: a data set in any layout, or a store.
        spec: its grid counts.
        store: where the cases are kept on that grid.
        fold: what is held back; ``None`` trains on everything.
        folds: another file of folds.

    Raises:
        InputError: no data set, a case that cannot be prepared, no such fold, a case without one, or folds
            that separate scans of one patient or equal images.
    """
    data = prepare_for_training(dataset_dir, spec=spec, store=store)
    numbers = _fold_numbers(data, folds)
    if folds and fold is not None:
        require_folds(folds, data.cases, numbers)
    return replace(_hold_back(data.cases, numbers, fold=fold), excluded=data.excluded)


def find_folds(
    dataset_dir: str | Path, *, spec: ModelSpec, store: str | Path, folds: str | Path | None = None
) -> list[int]:
    """The folds that ``split_dataset`` can hold back, each in turn; the arguments are its own.

    Raises:
        InputError: as there, or too few patients for more than one fold.
    """
    numbers = _fold_numbers(prepare_for_training(dataset_dir, spec=spec, store=store), folds)
    found = sorted(set(numbers.values()))
    if len(found) < 2:
        raise InputError(f"{dataset_dir}: its patients make one fold; --fold all needs two patients or more")
    return found


def _fold_numbers(data: PreparedData, folds: str | Path | None) -> dict[str, int]:
    """By case_id: those of a file of folds, else the store's."""
    if not folds:
        return data.folds
    return read_folds(Path(folds).expanduser(), data.cases, content=data.content)


def _hold_back(cases: Sequence[Case], folds: Mapping[str, int], *, fold: int | None) -> Split:
    n_folds = max(folds.values(), default=0) + 1
    if fold is not None and fold not in folds.values():
        n_patients = len({case.patient_id for case in cases})
        raise InputError(f"fold is {fold}; {n_patients} patients make the folds 0 to {n_folds - 1}")
    if fold is None or n_folds == 1:
        return Split(train=list(cases), validation=[])
    return Split(
        train=[case for case in cases if folds[case.case_id] != fold],
        validation=[case for case in cases if folds[case.case_id] == fold],
    )


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
