"""Which files belong together; no file is opened for that, so empty ones stand in for CTs and masks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_export import ct_slices, write
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.cases import Case, case_id_of, find_cases, find_images, find_masks, find_references
from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def msd(folder, *names):
    """A folder in MSD layout, listed in the order of the names."""
    touch(folder, *[f"{kind}/{name}.nii.gz" for kind in ("imagesTr", "labelsTr") for name in names])
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    return folder


def ids(cases):
    return [case.case_id for case in cases]


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


def test_an_msd_folder(tmp_path):
    folder = msd(tmp_path, "liver_10", "liver_9", "liver_101")

    cases = find_cases(folder)

    assert ids(cases) == ["liver_9", "liver_10", "liver_101"]
    assert cases[0] == Case(
        case_id="liver_9",
        image=folder / "imagesTr" / "liver_9.nii.gz",
        label=folder / "labelsTr" / "liver_9.nii.gz",
    )


@pytest.mark.parametrize("part", [("", ""), ("part1/", "part2/"), ("cts/a/", "masks/")])
def test_lits_pairs_wherever_they_lie(tmp_path, part):
    names = [f"{part[0]}volume-{n}.nii" for n in (2, 10, 1)] + [f"{part[1]}segmentation-{n}.nii" for n in (2, 10, 1)]

    cases = find_cases(touch(tmp_path, *names))

    assert ids(cases) == ["1", "2", "10"]
    assert [case.image for case in cases] == [tmp_path / f"{part[0]}volume-{n}.nii" for n in (1, 2, 10)]
    assert [case.label for case in cases] == [tmp_path / f"{part[1]}segmentation-{n}.nii" for n in (1, 2, 10)]


def test_a_download_that_puts_every_file_into_a_folder_of_its_name(tmp_path):
    touch(tmp_path, "volume-0.nii/volume-0.nii", "segmentation-0.nii/segmentation-0.nii")

    (case,) = find_cases(tmp_path)

    assert case.image == tmp_path / "volume-0.nii" / "volume-0.nii"


def test_hidden_and_resource_fork_files_are_no_cases(tmp_path):
    lits = touch(tmp_path / "lits", "volume-1.nii", "segmentation-1.nii", "._volume-1.nii", "._segmentation-1.nii")
    touch(lits, "__MACOSX/._segmentation-2.nii", ".segmentation-3.nii", "readme.txt")
    decathlon = touch(msd(tmp_path / "msd", "liver_1"), "imagesTr/._liver_1.nii.gz", "imagesTr/.hidden.nii.gz")

    assert ids(find_cases(lits)) == ["1"]
    assert ids(find_images([lits])) == ["1"]
    assert ids(find_images([decathlon])) == ["liver_1"]
    assert find_masks(touch(tmp_path / "masks", "a.nii", "._a.nii")).keys() == {"a"}


def test_lits_cts_without_a_mask_are_no_labelled_cases(tmp_path):
    folder = touch(tmp_path, "volume-1.nii", "segmentation-1.nii", "volume-2.nii", "test-volume-3.nii")

    assert ids(find_cases(folder)) == ["1"]


@given(
    names=st.lists(st.from_regex(r"[a-z]{1,3}[0-9²٣]{0,3}[a-z]?[0-9]{0,3}", fullmatch=True), min_size=1, unique=True)
)
def test_any_name_has_its_place_in_the_order(tmp_path_factory, names):
    folder = touch(tmp_path_factory.mktemp("cts"), *[f"{name}.nii" for name in names])

    assert sorted(ids(find_images([folder]))) == sorted(names)


def test_numbers_count_as_numbers(tmp_path):
    touch(tmp_path, "a10.nii", "a9.nii", "b1.nii", "a9b.nii", "a09c2.nii")

    assert ids(find_images([tmp_path])) == ["a9", "a9b", "a09c2", "a10", "b1"]


def empty_folder(folder):
    return touch(folder, "readme.txt", "volume-1.nii")  # a CT, but no mask


def no_folder(folder):
    return folder / "nowhere"


def a_file(folder):
    return touch(folder, "volume-1.nii") / "volume-1.nii"


def the_empty_string(folder):
    return ""


def lonely_segmentation(folder):
    return touch(folder, "volume-1.nii", "segmentation-1.nii", "segmentation-2.nii")


def twice_the_same_ct(folder):
    return touch(folder, "part1/volume-1.nii", "part2/volume-1.nii", "part1/segmentation-1.nii")


def twice_the_same_mask(folder):
    return touch(folder, "volume-1.nii", "segmentation-1.nii", "segmentation-1.nii.gz")


def listed_twice(folder):
    return msd(folder, "liver_1", "liver_1")


def listed_file_missing(folder):
    (msd(folder, "liver_1", "liver_2") / "labelsTr" / "liver_2.nii.gz").unlink()
    return folder


def listing(content):
    def write(folder):
        (folder / "dataset.json").write_bytes(content)
        return folder

    return write


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (empty_folder, r"holds no labelled case; expected an MSD folder with dataset.json, or LiTS pairs"),
        (no_folder, r"nowhere: no such folder"),
        (a_file, r"volume-1.nii: no such folder"),
        (the_empty_string, r"dataset_dir is empty"),
        (lonely_segmentation, r"segmentation-2.nii: has no volume-2.nii"),
        (twice_the_same_ct, r"part\d.volume-1.nii and .*part\d.volume-1.nii are both case '1'"),
        (twice_the_same_mask, r"segmentation-1.nii.* and .*segmentation-1.nii.* are both case '1'"),
        (listed_twice, r"are both case 'liver_1'"),
        (listed_file_missing, r"dataset.json: lists ./labelsTr/liver_2.nii.gz, which is not there"),
        (listing(b"{"), r"dataset.json: is not JSON"),
        (listing(b"\xff\xfe\x00"), r"dataset.json: is not JSON"),
        (listing(b"[1]"), r"dataset.json: is not MSD's .* object with the list 'training'"),
        (listing(b'{"training": null}'), r"dataset.json: is not MSD's .* object with the list 'training'"),
        (listing(b'{"training": []}'), r"holds no labelled case"),
        (listing(b"{}"), r"holds no labelled case"),
        (listing(b'{"training": [{"image": "a.nii"}, "b.nii"]}'), r"2 entries of 'training' lack 'image' or 'label'"),
        (listing(b'{"training": [{"image": "a.nii", "label": 3}]}'), r"1 entries of 'training' lack"),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, make, rule):
    with pytest.raises(InputError, match=rule) as refusal:
        find_cases(make(tmp_path))

    assert "\n" not in str(refusal.value)


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


def test_references_of_data_sets_come_with_their_cts(tmp_path):
    decathlon = msd(tmp_path / "msd", "liver_1")
    lits = touch(tmp_path / "lits", "cts/volume-1.nii", "masks/segmentation-1.nii")

    assert find_references(decathlon) == find_cases(decathlon)
    assert find_references(lits) == find_cases(lits)
    assert find_references(lits)[0].image.name == "volume-1.nii"


@pytest.mark.parametrize("names", [("segmentation-1.nii", "segmentation-2.nii"), ("volume-1.nii", "2.nii.gz")])
def test_references_of_a_folder_of_masks_or_of_one_mask(tmp_path, names):
    touch(tmp_path, *names)

    cases = find_references(tmp_path)
    (case,) = find_references(tmp_path / names[0])

    assert sorted(ids(cases)) == ["1", "2"]
    assert {case.label for case in cases} == {tmp_path / name for name in names}
    assert case.label == tmp_path / names[0]


def test_an_item_has_a_label_only_where_the_case_has_one():
    assert Case(case_id="7", image=Path("a.nii")).to_item() == {"case_id": "7", "image": "a.nii"}
    assert Case(case_id="7", image=Path("a.nii"), label=Path("b.nii")).to_item()["label"] == "b.nii"
