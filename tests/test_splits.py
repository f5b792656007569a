"""Laws of the folds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.cases import Case
from liver_monai.data.layouts import find_cases
from liver_monai.data.preparation import prepare
from liver_monai.data.splits import split_cases, split_dataset
from liver_monai.errors import InputError
from liver_monai.spec import ModelSpec

CASES = st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True).map(
    lambda numbers: [Case(case_id=f"liver_{number}", image=Path(f"{number}.nii")) for number in numbers]
)
SEEDS = st.integers(0, 2**31)


def ids(cases):
    return {case.case_id for case in cases}


def folds_of(cases, **options):
    n_folds = min(options.get("n_folds", 5), len(cases))
    return [split_cases(cases, fold=fold, **options) for fold in range(n_folds)]


@given(cases=CASES, n_folds=st.integers(1, 8), seed=SEEDS)
def test_no_case_trains_and_validates_and_none_is_lost(cases, n_folds, seed):
    for split in folds_of(cases, n_folds=n_folds, seed=seed):
        assert not ids(split.train) & ids(split.validation)
        assert ids(split.train) | ids(split.validation) == ids(cases)
        assert len(split.train) + len(split.validation) == len(cases)
        assert split.train


@given(cases=CASES.filter(lambda cases: len(cases) > 1), n_folds=st.integers(2, 8), seed=SEEDS)
def test_every_case_validates_in_exactly_one_fold(cases, n_folds, seed):
    validated = [case.case_id for split in folds_of(cases, n_folds=n_folds, seed=seed) for case in split.validation]

    assert sorted(validated) == sorted(ids(cases))


@given(cases=CASES, seed=SEEDS)
def test_folds_differ_in_size_by_one_case_at_most(cases, seed):
    sizes = [len(split.validation) for split in folds_of(cases, seed=seed)]

    assert max(sizes) - min(sizes) <= 1


@given(data=st.data(), cases=CASES, seed=SEEDS)
def test_the_order_in_which_cases_are_found_does_not_matter(data, cases, seed):
    reordered = data.draw(st.permutations(cases))

    for split, other in zip(folds_of(cases, seed=seed), folds_of(reordered, seed=seed), strict=True):
        assert ids(split.validation) == ids(other.validation)


def test_the_seed_matters():
    cases = [Case(case_id=str(number), image=Path(f"{number}.nii")) for number in range(20)]

    held_back = {frozenset(ids(split_cases(cases, seed=seed).validation)) for seed in range(5)}

    assert len(held_back) > 1


@given(cases=CASES, seed=SEEDS)
def test_without_a_fold_everything_trains(cases, seed):
    split = split_cases(cases, fold=None, seed=seed)

    assert split.train == cases
    assert split.validation == []


def test_one_case_trains_and_nothing_validates():
    case = Case(case_id="7", image=Path("7.nii"))

    split = split_cases([case], fold=0)

    assert (split.train, split.validation) == ([case], [])


def test_fewer_cases_than_folds_validate_one_by_one():
    cases = [Case(case_id=str(number), image=Path(f"{number}.nii")) for number in range(3)]

    assert [len(split_cases(cases, fold=fold).validation) for fold in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(("n_cases", "fold"), [(10, 5), (10, -1), (3, 3), (1, 1)])
def test_a_fold_that_is_not_there_is_refused(n_cases, fold):
    cases = [Case(case_id=str(number), image=Path(f"{number}.nii")) for number in range(n_cases)]

    with pytest.raises(
        InputError, match=rf"fold is {fold}; {n_cases} patients make the folds 0 to {min(n_cases, 5) - 1}"
    ):
        split_cases(cases, fold=fold)


COARSE = ModelSpec(encoder="resnet34", spacing_mm=(8, 8, 16))


def test_a_data_set_is_split_by_its_labelled_cases(phantom_dataset, tmp_path):
    split = split_dataset(phantom_dataset, spec=COARSE, store=tmp_path, fold=1)

    assert ids(split.train) | ids(split.validation) == ids(find_cases(phantom_dataset))
    assert len(split.validation) == 1


def test_a_data_set_and_its_store_are_split_alike(phantom_dataset, tmp_path):
    prepare(phantom_dataset, spec=COARSE, out=tmp_path / "store", say=lambda _: None)

    for fold in range(4):
        of_data = split_dataset(phantom_dataset, spec=COARSE, store=tmp_path / "other", fold=fold)
        of_store = split_dataset(tmp_path / "store", spec=COARSE, store=tmp_path / "store", fold=fold)
        assert ids(of_data.validation) == ids(of_store.validation)


def test_folds_of_a_file_are_taken(phantom_dataset, tmp_path):
    folds = tmp_path / "folds.csv"
    folds.write_text("case_id,fold\nliver_000,7\nliver_001,0\nliver_002,7\nliver_003,0\nliver_999,3\n")

    split = split_dataset(phantom_dataset, spec=COARSE, store=tmp_path / "store", fold=7, folds=folds)

    assert ids(split.validation) == {"liver_000", "liver_002"}
    assert ids(split.train) == {"liver_001", "liver_003"}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("case_id,fold\nliver_000,0\nliver_001,1\n", r"gives the case 'liver_002' no fold \(2 lack one\)"),
        ("case_id,fold\nliver_000,-1\n", r"the fold of 'liver_000' is '-1'; folds are numbers from 0 on"),
        ("case_id,fold\nliver_000,\n", r"the fold of 'liver_000' is ''"),
        ("case_id,fold\nliver_000,99999\n", r"the fold of 'liver_000' is '99999'; .* of up to 4 digits"),
        ("case_id,Fold\nliver_000,1\n", r"lacks the column fold"),
    ],
)
def test_folds_that_say_too_little_are_refused(phantom_dataset, tmp_path, content, rule):
    folds = tmp_path / "folds.csv"
    folds.write_text(content)

    with pytest.raises(InputError, match=rule):
        split_dataset(phantom_dataset, spec=COARSE, store=tmp_path / "store", fold=0, folds=folds)
