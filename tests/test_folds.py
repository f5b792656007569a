"""Laws of the folds: whole patients, as many tumours in each, the same for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.cases import Case
from liver_monai.data.folds import assign_folds, join_patients, read_folds, write_folds
from liver_monai.errors import InputError


def make_case(case_id, patient_id=""):
    return Case(case_id=case_id, image=Path(f"{case_id}.nii"), patient_id=patient_id)


SCANS = st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1)), min_size=1, max_size=40).map(
    lambda scans: [
        (make_case(f"scan_{number}", f"patient_{patient}"), burden) for number, (patient, burden) in enumerate(scans)
    ]
)


@given(scans=SCANS, n_folds=st.integers(1, 7), seed=st.integers(0, 2**31))
def test_scans_of_a_patient_are_in_one_fold_and_no_fold_is_empty(scans, n_folds, seed):
    cases, burden = [case for case, _ in scans], {case.case_id: share for case, share in scans}

    folds = assign_folds(cases, n_folds=n_folds, seed=seed, burden=burden)

    of_patient = defaultdict(set)
    for case in cases:
        of_patient[case.patient_id].add(folds[case.case_id])
    assert folds.keys() == burden.keys()
    assert all(len(numbers) == 1 for numbers in of_patient.values())
    assert set(folds.values()) == set(range(min(n_folds, len(of_patient))))


@given(
    burdens=st.lists(st.one_of(st.just(0.0), st.floats(1e-4, 0.8)), min_size=10, max_size=60),
    seed=st.integers(0, 2**31),
)
def test_every_fold_has_its_part_of_tumours_of_all_sizes(burdens, seed):
    """However many are chosen from the top, the folds differ by one patient at most: without tumour is the rest."""
    cases = [make_case(str(number)) for number in range(len(burdens))]
    burden = dict(zip((case.case_id for case in cases), burdens, strict=True))

    folds = assign_folds(cases, burden=burden, seed=seed)

    for threshold in (0.0, *np.quantile(burdens, [0.25, 0.5, 0.75])):
        larger = Counter(folds[case_id] for case_id, share in burden.items() if share > threshold)
        assert max(larger.values(), default=0) - min(larger.get(fold, 0) for fold in range(5)) <= 1


def test_lits_has_its_cases_without_tumour_in_every_fold():
    """131 cases, 13 of them without a tumour."""
    cases = [make_case(str(number)) for number in range(131)]
    burden = {case.case_id: 0.0 if number % 10 == 0 else number / 500 for number, case in enumerate(cases[:130])}
    burden["130"] = 0.5

    folds = assign_folds(cases, burden=burden)

    assert sorted(Counter(folds.values()).values()) == [26, 26, 26, 26, 27]
    without = Counter(folds[case.case_id] for case in cases if not burden[case.case_id])
    assert sorted(without.values()) in ([2, 2, 3, 3, 3], [2, 3, 3, 3, 2], [1, 3, 3, 3, 3])


def test_many_scans_of_one_patient_do_not_make_a_fold_larger_than_they_must():
    cases = [make_case(f"long_{number}", "long") for number in range(4)] + [make_case(str(n)) for n in range(16)]

    sizes = Counter(assign_folds(cases).values())

    assert max(sizes.values()) - min(sizes.values()) <= 3


@given(scans=SCANS, data=st.data(), seed=st.integers(0, 9))
def test_the_order_of_the_cases_does_not_matter(scans, data, seed):
    cases, burden = [case for case, _ in scans], {case.case_id: share for case, share in scans}

    again = data.draw(st.permutations(cases))

    assert assign_folds(again, seed=seed, burden=burden) == assign_folds(cases, seed=seed, burden=burden)


@given(scans=SCANS, n_known=st.integers(0, 20), seed=st.integers(0, 9))
def test_new_patients_move_nobody(scans, n_known, seed):
    cases = [case for case, _ in scans]
    before = assign_folds(cases[:n_known], seed=seed) if cases[:n_known] else {}
    kept = {case.patient_id: before[case.case_id] for case in cases[:n_known]}

    after = assign_folds(cases, seed=seed, kept=kept)

    assert before.items() <= after.items()
    assert after.keys() == {case.case_id for case in cases}


def test_a_file_keeps_the_folds(tmp_path):
    cases = [make_case("a", "p"), make_case("b", "p"), make_case("c")]
    folds = {"a": 1, "b": 1, "c": 0}

    write_folds(tmp_path / "folds.csv", cases, folds, burden={"a": 0.25, "c": 0.0})

    assert (tmp_path / "folds.csv").read_text().split() == [
        "case_id,patient_id,fold,burden",
        "a,p,1,0.25",
        "b,p,1,",
        "c,c,0,0.0",
    ]
    assert read_folds(tmp_path / "folds.csv", cases) == folds
    assert read_folds(tmp_path / "folds.csv", [*cases[1:], make_case("new")]) == {"b": 1, "c": 0}


def test_folds_that_take_a_patient_apart_are_refused(tmp_path):
    cases = [make_case("a", "p"), make_case("b", "p")]
    (tmp_path / "folds.csv").write_text("case_id,fold\na,0\nb,1\n")

    with pytest.raises(InputError, match="'a' and 'b' are scans of one patient, but are in fold 0 and fold 1"):
        read_folds(tmp_path / "folds.csv", cases)


def test_folds_that_separate_equal_images_are_refused(tmp_path):
    cases = [make_case("a"), make_case("b"), make_case("c")]
    content = {"a": "1f", "b": "", "c": "1f"}
    (tmp_path / "folds.csv").write_text("case_id,fold\na,0\nb,1\nc,1\n")

    with pytest.raises(InputError, match=r"'a' and 'c' show the same image, but are in fold 0 and fold 1; .*excludes"):
        read_folds(tmp_path / "folds.csv", cases, content=content)
    assert read_folds(tmp_path / "folds.csv", cases, content={"a": "", "b": "", "c": ""}) == {"a": 0, "b": 1, "c": 1}


def test_patients_who_share_an_image_are_one_with_all_of_their_scans():
    cases = [make_case("a", "q"), make_case("b", "q"), make_case("c", "p"), make_case("d", "r"), make_case("e")]
    content = {"a": "", "b": "1f", "c": "1f", "d": "2e", "e": ""}

    joined = join_patients(cases, content=content)

    assert [(case.case_id, case.patient_id) for case in joined] == [
        ("a", "p"), ("b", "p"), ("c", "p"), ("d", "r"), ("e", "e")]  # fmt: skip


@given(
    scans=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["", "1", "2", "3"])), min_size=1, max_size=20),
    seed=st.integers(0, 9),
)
def test_whoever_is_linked_by_patients_and_images_is_in_one_fold(scans, seed):
    cases = [make_case(f"scan_{number}", f"patient_{patient}") for number, (patient, _) in enumerate(scans)]
    content = {case.case_id: image for case, (_, image) in zip(cases, scans, strict=True)}

    folds = assign_folds(join_patients(cases, content=content), seed=seed)

    for one, (patient, image) in zip(cases, scans, strict=True):
        for other, (other_patient, other_image) in zip(cases, scans, strict=True):
            if patient == other_patient or (image and image == other_image):
                assert folds[one.case_id] == folds[other.case_id]
