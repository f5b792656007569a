"""Which files belong together; no file is opened for that, so empty ones stand in for CTs and masks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_export import ct_slices, write
from empty_files import ids, msd, touch
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.cases import Case, case_id_of, find_images, find_masks, natural, patient_of
from liver_monai.data.layouts import find_cases, find_references
from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume


@pytest.mark.parametrize(
    ("name", "case_id"),
    [
        ("volume-7.nii", "7"),
        ("segmentation-7.nii", "7"),
        ("liver_7.nii.gz", "liver_7"),
        ("liver_007_0000.nii.gz", "liver_007"),
        ("CT.NII.GZ", "CT"),
        ("a.b.nii", "a.b"),
    ],
)
def test_case_ids_by_hand(name, case_id):
    assert case_id_of(Path("folder") / name) == case_id


@given(
    name=st.from_regex(r"[0-9]{1,3}|[a-z]{1,5}_[0-9]{1,3}", fullmatch=True), suffix=st.sampled_from([".nii", ".nii.gz"])
)
def test_ct_mask_and_nnunet_file_of_a_case_have_one_id(name, suffix):
    files = [Path(f"{stem}{suffix}") for stem in (name, f"volume-{name}", f"segmentation-{name}", f"{name}_0000")]

    assert {case_id_of(file) for file in files} == {name}


def test_hidden_and_resource_fork_files_are_no_cases(tmp_path):
    lits = touch(tmp_path / "lits", "volume-1.nii", "segmentation-1.nii", "._volume-1.nii", "._segmentation-1.nii")
    touch(lits, "__MACOSX/._segmentation-2.nii", ".segmentation-3.nii", "readme.txt")
    decathlon = touch(msd(tmp_path / "msd", "liver_1"), "imagesTr/._liver_1.nii.gz", "imagesTr/.hidden.nii.gz")

    assert ids(find_cases(lits)) == ["1"]
    assert ids(find_images([lits])) == ["1"]
    assert ids(find_images([decathlon])) == ["liver_1"]
    assert find_masks(touch(tmp_path / "masks", "a.nii", "._a.nii")).keys() == {"a"}


@given(
    names=st.lists(st.from_regex(r"[a-z]{1,3}[0-9²٣]{0,3}[a-z]?[0-9]{0,3}", fullmatch=True), min_size=1, unique=True)
)
def test_any_name_has_its_place_in_the_order(tmp_path_factory, names):
    folder = touch(tmp_path_factory.mktemp("cts"), *[f"{name}.nii" for name in names])

    assert sorted(ids(find_images([folder]))) == sorted(names)


def test_numbers_count_as_numbers(tmp_path):
    touch(tmp_path, "a10.nii", "a9.nii", "b1.nii", "a9b.nii", "a09c2.nii")

    assert ids(find_images([tmp_path])) == ["a9", "a9b", "a09c2", "a10", "b1"]


def test_numbers_may_have_more_digits_than_python_reads():
    names = ["9" * 5000, "1" + "0" * 5000, "8", "0" * 6000 + "10"]

    assert sorted(names, key=natural) == ["8", names[3], names[0], names[1]]


@pytest.mark.parametrize(
    "name", [b"volume-.nii", b"a\nb.nii", b"\x1b[2J.nii", b"\xff.nii", b"x" * 200 + b".nii"], ids=ascii
)
def test_a_name_that_results_cannot_go_by_is_refused(tmp_path, name):
    touch(tmp_path, os.fsdecode(name), "a.nii")

    with pytest.raises(InputError, match="cannot name a file; take 1 to 180 bytes") as refusal:
        find_images([tmp_path])

    assert "\n" not in str(refusal.value).removeprefix(str(tmp_path / os.fsdecode(name)))


def test_cts_of_files_and_folders(tmp_path):
    touch(tmp_path, "a/ct_10.nii.gz", "a/ct_9.nii.gz", "a/notes.txt", "b.nii")

    cases = find_images([tmp_path / "a", str(tmp_path / "b.nii")])

    assert ids(cases) == ["ct_9", "ct_10", "b"]
    assert [case.label for case in cases] == [None] * 3


def test_dicom_of_folders_and_zips_is_found_where_there_are_no_files_of_volumes(tmp_path):
    volume = np.zeros((4, 5, 3), np.int16)
    for name in ("one/art", "one/pv", "two"):
        write(tmp_path / "pacs" / name, ct_slices(volume, np.eye(4)))
    shutil.make_archive(str(tmp_path / "pacs" / "three"), "zip", tmp_path / "pacs" / "two")

    cases = find_images([tmp_path / "pacs"])

    assert ids(cases) == ["one_art", "one_pv", "two", "three"]
    assert all(isinstance(case.image, DicomVolume) and case.image.n_slices == 3 for case in cases)
    assert cases[0].to_item() == {"case_id": "one_art", "image": cases[0].image}
    assert ids(find_images([tmp_path / "pacs" / "one"], series="2")) == ["pv"]
    touch(tmp_path / "pacs", "ct.nrrd")
    assert ids(find_images([tmp_path / "pacs"])) == ["ct"]
    with pytest.raises(InputError, match=r"--series 2: is for DICOM, and .*ct.nrrd is not"):
        find_images([tmp_path / "pacs"], series="2")


def test_cts_of_data_sets_are_their_images_alone(tmp_path):
    decathlon = msd(tmp_path / "msd", "liver_1", "liver_2")
    lits = touch(tmp_path / "lits", "volume-1.nii", "segmentation-1.nii", "volume-2.nii")

    assert [case.image.parent.name for case in find_images([decathlon])] == ["imagesTr"] * 2
    assert [case.image.name for case in find_images([lits])] == ["volume-1.nii", "volume-2.nii"]


def test_cts_that_cannot_be_told_apart_are_refused(tmp_path):
    touch(tmp_path, "a/ct.nii", "b/ct.nii.gz")

    with pytest.raises(InputError, match=r"b.ct.nii.gz and .*a.ct.nii are both case 'ct'"):
        find_images([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("find", [lambda path: find_images([path]), find_masks, find_references])
def test_a_path_without_a_volume_is_refused(tmp_path, find):
    touch(tmp_path, "readme.txt")

    with pytest.raises(InputError, match=r"holds no (CT|mask); expected files that end in .nii"):
        find(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        find(tmp_path / "nowhere")


def test_masks_by_case_whatever_their_names_are_made_of(tmp_path):
    touch(tmp_path, "volume-7.nii.gz", "segmentation-8.nii", "liver_1.nii.gz")

    assert find_masks(tmp_path) == {
        "7": tmp_path / "volume-7.nii.gz",
        "8": tmp_path / "segmentation-8.nii",
        "liver_1": tmp_path / "liver_1.nii.gz",
    }
    assert find_masks(tmp_path / "volume-7.nii.gz") == {"7": tmp_path / "volume-7.nii.gz"}


def test_two_masks_of_one_case_are_refused(tmp_path):
    with pytest.raises(InputError, match="both case '7'"):
        find_masks(touch(tmp_path, "volume-7.nii.gz", "segmentation-7.nii"))


@pytest.mark.parametrize(
    ("case_id", "patient_id"),
    [
        ("sub-07_ses-1_ct", "sub-07"),
        ("sub-07", "sub-07"),
        ("patient7_portal", "patient7"),
        ("Patient7", "Patient7"),
        ("pat-012-b", "pat-012"),
        ("patient_3", "patient_3"),
        ("liver_7", "liver_7"),
        ("patience", "patience"),
        ("7", "7"),
    ],
)
def test_whose_scan_a_name_says_it_is(case_id, patient_id):
    assert patient_of(case_id) == Case(case_id=case_id, image=Path("ct.nii")).patient_id == patient_id


def test_a_known_patient_takes_the_place_of_the_names(tmp_path):
    assert Case(case_id="sub-07_ct", image=Path("ct.nii"), patient_id="p").patient_id == "p"


def test_an_item_has_a_label_only_where_the_case_has_one():
    assert Case(case_id="7", image=Path("a.nii")).to_item() == {"case_id": "7", "image": "a.nii"}
    assert Case(case_id="7", image=Path("a.nii"), label=Path("b.nii")).to_item()["label"] == "b.nii"
