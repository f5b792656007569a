"""Laws of the three parts, and of the split by slice that shows what they prevent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.cases import Case
from liver_monai.data.layouts import find_cases
from liver_monai.data.leak import LeakySplit, draw_slices, held_out_slices, split_by_slice
from liver_monai.data.partition import partition_cases, split_named
from liver_monai.data.store import build_store, open_case
from liver_monai.engine.leak_trial import score_held_out
from liver_monai.errors import InputError
from liver_monai.spec import ModelSpec

SPEC = ModelSpec(encoder="resnet34", slab_size=1, spacing_mm=(8, 8, 6), roi_size=(32, 32))


def cases_of(n):
    return [Case(case_id=f"liver_{number}", image=Path(f"{number}.nii")) for number in range(n)]


def ids(cases):
    return {case.case_id for case in cases}


@given(n=st.integers(3, 30), n_folds=st.integers(3, 7), seed=st.integers(0, 2**31))
def test_every_case_is_in_one_part_and_tests_in_one_fold(n, n_folds, seed):
    cases = cases_of(n)
    folds = [partition_cases(cases, fold=fold, n_folds=n_folds, seed=seed) for fold in range(min(n_folds, n))]

    for each in folds:
        assert sorted(case.case_id for part in (each.train, each.validation, each.test) for case in part) == sorted(
            ids(cases)
        )
        assert each.train
        assert each.validation
        assert each.test
    assert sorted(case.case_id for each in folds for case in each.test) == sorted(ids(cases))


def test_the_fold_after_the_tested_one_validates():
    cases = cases_of(10)
    folds = [partition_cases(cases, fold=fold) for fold in range(5)]

    for fold, each in enumerate(folds):
        assert ids(each.validation) == ids(folds[(fold + 1) % 5].test)


@pytest.mark.parametrize(("n", "n_folds"), [(2, 5), (10, 2)])
def test_three_parts_take_three_folds(n, n_folds):
    with pytest.raises(InputError, match=f"{n} patients in {n_folds} folds"):
        partition_cases(cases_of(n), fold=0, n_folds=n_folds)


def test_scans_of_one_patient_stay_together():
    cases = [replace(case, patient_id=str(number // 2)) for number, case in enumerate(cases_of(12))]
    for fold in range(3):
        each = partition_cases(cases, fold=fold, n_folds=3)
        patients = [{case.patient_id for case in part} for part in (each.train, each.validation, each.test)]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 6


def test_a_named_split_holds_what_is_named_and_refuses_what_is_not_there(phantom_dataset, tmp_path):
    place = {"spec": SPEC, "store": tmp_path}
    split = split_named(phantom_dataset, **place, train=["liver_002", "liver_000"], validation=["liver_003"])

    assert [case.case_id for case in split.train] == ["liver_002", "liver_000"]
    assert ids(split.validation) == {"liver_003"}
    assert open_case(split.validation[0], spec=SPEC, folder=tmp_path).case_id == "liver_003"
    with pytest.raises(InputError, match="no labelled case 'liver_9'"):
        split_named(phantom_dataset, **place, train=["liver_9"], validation=[])


# The split by slice


@given(
    n_slices=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 9), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_as_many_slices_are_drawn_as_asked_for_each_once(n_slices, share, seed):
    n_drawn = round(share * sum(n_slices.values()))
    centres = draw_slices(n_slices, n_drawn=n_drawn, seed=seed)

    assert centres.keys() == n_slices.keys()
    assert sum(map(len, centres.values())) == n_drawn
    for case_id, slices in centres.items():
        assert sorted(set(slices)) == slices
        assert set(slices) <= set(range(n_slices[case_id]))


def test_slices_are_drawn_from_every_case_alike():
    n_slices = {"long": 300, "short": 100}
    shares = [
        len(draw_slices(n_slices, n_drawn=200, seed=seed)["long"]) / 200 for seed in range(40)
    ]  # 150 each, hypergeometric: standard deviation of one draw 4.3 / 200

    assert np.mean(shares) == pytest.approx(0.75, abs=4 * 0.022 / 40**0.5)


def test_patients_train_and_test_at_once_and_that_is_the_leak(phantom_dataset, tmp_path):
    names = {"train": ["liver_000", "liver_001"], "validation": ["liver_002"], "test": ["liver_003"]}
    stored = build_store(find_cases(phantom_dataset), spec=SPEC, folder=tmp_path)
    depths = {case.case_id: case.shape[0] for case in stored}

    split = split_by_slice(phantom_dataset, spec=SPEC, store=tmp_path, **names, seed=1)

    assert ids(split.train) == ids(find_cases(phantom_dataset))
    assert ids(split.validation) == {"liver_002"}
    assert split.n_slices == depths
    assert sum(map(len, split.centres.values())) == depths["liver_000"] + depths["liver_001"]
    assert 0 < len(split.centres["liver_003"]) < depths["liver_003"]


def test_held_out_slices_by_hand():
    """Six slices of 2 mm are three of 4 mm: 0 and 1, 2 and 3, 4 and 5 from the feet."""
    grid = {"spacing_mm": (1, 1, 4), "n_slices": 3, "centres": [1]}
    ras = np.diag([1.0, 1.0, 2.0, 1.0])
    slices, axis = held_out_slices((4, 4, 6), ras, **grid)
    assert (slices.tolist(), axis) == ([0, 1, 4, 5], 2)

    from_head = np.diag([1.0, 1.0, -2.0, 1.0])
    slices, _ = held_out_slices((4, 4, 6), from_head, **{**grid, "centres": [0]})
    assert slices.tolist() == [0, 1, 2, 3]  # the feet are last

    slices_first = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    slices, axis = held_out_slices((6, 4, 4), slices_first, **grid)
    assert (slices.tolist(), axis) == ([0, 1, 4, 5], 0)


@pytest.mark.parametrize("centres", [[], [0, 1, 2]])
def test_all_slices_or_none_may_be_held_out(centres):
    slices, _ = held_out_slices((2, 2, 6), np.diag([1, 1, 2, 1]), spacing_mm=(1, 1, 4), n_slices=3, centres=centres)
    assert len(slices) == (0 if centres else 6)


@pytest.mark.parametrize("flip", [1, -1])
def test_a_held_out_slice_is_one_that_the_store_did_not_centre_on(tmp_path, flip):
    """Each slice carries its number; on a grid of the same spacing the store's slices tell which were held out."""
    shape = (20, 20, 9)
    affine = np.diag([2.0, 2.0, 3.0 * flip, 1.0])
    numbers = np.broadcast_to(np.arange(9) * 10, shape).astype(np.int16)
    for name, voxels in (("ct", numbers), ("mask", np.ones(shape, np.uint8))):
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii")
    spec = ModelSpec(encoder="resnet34", spacing_mm=(2, 2, 3), roi_size=(16, 16))
    case = Case(case_id="ct", image=tmp_path / "ct.nii", label=tmp_path / "mask.nii")
    (stored,) = build_store([case], spec=spec, folder=tmp_path / "store")
    centres = [0, 1, 5]

    slices, _ = held_out_slices(shape, affine, spacing_mm=spec.spacing_mm, n_slices=9, centres=centres)

    trained = {int(stored.image(z, z + 1)[0, 0, 0]) // 10 for z in centres}
    assert set(slices) == set(range(9)) - trained


def test_nearest_slices_of_another_spacing(phantom_dataset, tmp_path):
    """Whatever the spacings, every slice is held out or not by one slice of the model grid, in order."""
    case = find_cases(phantom_dataset)[0]
    (stored,) = build_store([case], spec=SPEC, folder=tmp_path)
    image = nib.load(case.label)
    n_slices = stored.shape[0]

    held = [
        held_out_slices(image.shape, image.affine, spacing_mm=SPEC.spacing_mm, n_slices=n_slices, centres=[z])[0]
        for z in range(n_slices)
    ]

    trained = [sorted(set(range(image.shape[2])) - set(slices)) for slices in held]
    assert sorted(z for slices in trained for z in slices) == list(range(image.shape[2]))


def test_slices_are_held_out_by_the_true_spacing_where_a_header_lies(tmp_path):
    """A header says 1 mm, an override 6 mm, as on the model grid: each slice of the file is one of the grid."""
    shape = (20, 20, 9)
    numbers = np.broadcast_to(np.arange(9) * 10, shape).astype(np.int16)
    half = (np.arange(20) < 10).astype(np.uint8)[:, None, None]
    for name, voxels in (("ct", numbers), ("mask", np.broadcast_to(half, shape))):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
    case = Case(case_id="ct", image=tmp_path / "ct.nii", label=tmp_path / "mask.nii", spacing_mm=(2, 2, 6))
    spec = ModelSpec(encoder="resnet34", spacing_mm=(2, 2, 6), roi_size=(16, 16))
    (stored,) = build_store([case], spec=spec, folder=tmp_path / "store")
    assert stored.shape[0] == 9
    split = LeakySplit(train=[], validation=[], centres={"ct": [0, 1, 5]}, n_slices={"ct": 9})

    row = score_held_out(case, tmp_path / "mask.nii", spec=spec, split=split)

    assert row["n_slices"] == 6


def test_tumours_of_all_sizes_are_in_every_part_where_the_burden_is_known():
    cases = cases_of(20)
    burden = {case.case_id: 0.0 if number < 5 else number / 50 for number, case in enumerate(cases)}

    for fold in range(5):
        each = partition_cases(cases, fold=fold, burden=burden)
        for part, n in ((each.test, 4), (each.validation, 4)):
            shares = sorted(burden[case.case_id] for case in part)
            assert len(part) == n
            assert shares[0] == 0 < shares[1] <= 9 / 50 < shares[2] <= 14 / 50 < shares[3]
