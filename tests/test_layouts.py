"""Which files of a data set belong together; no file is opened for that, so empty ones stand in for CTs and masks."""

from __future__ import annotations

import json

import pytest
from empty_files import ids, msd, touch

from liver_monai.data.cases import Case, Reference
from liver_monai.data.layouts import find_cases, find_references, licence_note, recognize
from liver_monai.errors import InputError


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


def test_lits_cts_without_a_mask_are_no_labelled_cases(tmp_path):
    folder = touch(tmp_path, "volume-1.nii", "segmentation-1.nii", "volume-2.nii", "test-volume-3.nii")

    assert ids(find_cases(folder)) == ["1"]


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
        (empty_folder, r"holds no labelled case; expected an MSD folder .*, LiTS pairs .*; found 1 x .txt, 1 x .nii$"),
        (no_folder, r"nowhere: no such folder"),
        (a_file, r"volume-1.nii: no such folder"),
        (the_empty_string, r"dataset_dir is empty"),
        (lonely_segmentation, r"case '2' lacks its CT, there is no .*volume-2.nii; complete the download or exclude"),
        (twice_the_same_ct, r"part\d.volume-1.nii and .*part\d.volume-1.nii are both case '1'"),
        (twice_the_same_mask, r"segmentation-1.nii.* and .*segmentation-1.nii.* are both case '1'"),
        (listed_twice, r"are both case 'liver_1'"),
        (listed_file_missing, r"case 'liver_2' lacks its mask, there is no .*labelsTr.liver_2.nii.gz"),
        (listing(b"{"), r"dataset.json: is not JSON"),
        (listing(b"\xff\xfe\x00"), r"dataset.json: is not JSON"),
        (listing(b"[1]"), r"dataset.json: is not MSD's .* object with the list 'training'"),
        (listing(b'{"training": null}'), r"dataset.json: is not MSD's .* object with the list 'training'"),
        (listing(b'{"training": []}'), r"holds no labelled case"),
        (listing(b"{}"), r"holds no labelled case"),
        (listing(b'{"training": [{"image": "a.nii"}, "b.nii"]}'), r"2 entries of 'training' lack 'image' or 'label'"),
        (listing(b'{"training": [{"image": "a.nii", "label": 3}]}'), r"1 entries of 'training' lack"),
        (listing(b'{"training": [], "labels": [0, 1]}'), r"its 'labels' are no object of names and values"),
        (
            listing(b'{"file_ending": ".nii", "dataset": {"a": {"images": []}}}'),
            r"case 'a' of 'dataset' lacks 'images'",
        ),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, make, rule):
    with pytest.raises(InputError, match=rule) as refusal:
        find_cases(make(tmp_path))

    assert "\n" not in str(refusal.value)


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
    assert case == Reference(case_id="1", label=tmp_path / names[0])
    assert case.image is None


def dicom(folder, *names):
    """Files that begin as DICOM files do, without a suffix as in 3D-IRCADb."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(128) + b"DICM")
    return folder


def nnunet(folder, *names, labels=(("background", 0), ("liver", 1), ("tumor", 2)), ending=".nii.gz"):
    touch(folder, *[f"imagesTr/{name}_0000{ending}" for name in names], *[f"labelsTr/{name}{ending}" for name in names])
    content = {"channel_names": {"0": "CT"}, "labels": dict(labels), "numTraining": len(names), "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_nnunets_raw_data(tmp_path):
    folder = touch(nnunet(tmp_path, "liver_10", "liver_9"), "imagesTr/liver_9_0001.nii.gz", "labelsTr/._liver_9.nii.gz")

    cases = find_cases(folder)

    assert recognize(folder)[0].name == "nnU-Net"
    assert ids(cases) == ["liver_9", "liver_10"]
    assert cases[0].image == folder / "imagesTr" / "liver_9_0000.nii.gz"
    assert cases[0].label == folder / "labelsTr" / "liver_9.nii.gz"


def test_nnunets_raw_data_that_name_their_files_themselves(tmp_path):
    touch(tmp_path, "elsewhere/ct.nii", "elsewhere/mask.nii")
    entry = {"images": ["elsewhere/ct.nii"], "label": "elsewhere/mask.nii"}
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii", "dataset": {"p1": entry}}))

    (case,) = find_cases(tmp_path)

    assert (case.case_id, case.image, case.label.name) == ("p1", tmp_path / "elsewhere/ct.nii", "mask.nii")


def test_a_listing_of_nnunets_first_version_leaves_the_channel_out(tmp_path):
    folder = msd(tmp_path, "liver_1")
    (folder / "imagesTr" / "liver_1.nii.gz").rename(folder / "imagesTr" / "liver_1_0000.nii.gz")

    (case,) = find_cases(folder)

    assert (case.case_id, case.image.name) == ("liver_1", "liver_1_0000.nii.gz")


@pytest.mark.parametrize(
    "labels", [{"background": 0, "liver": 1, "cancer": 2}, {"background": 0, "liver": [1, 2], "liver tumour": 2}]
)
def test_labels_that_mean_what_ours_mean(tmp_path, labels):
    assert ids(find_cases(nnunet(tmp_path, "a", labels=labels.items()))) == ["a"]


def test_labels_that_mean_something_else_are_refused(tmp_path):
    swapped = nnunet(tmp_path / "nnunet", "a", labels=(("background", 0), ("tumor", 1), ("liver", 2)))
    with pytest.raises(InputError, match=r"dataset.json: says that 'tumor' is 1; here liver is 1 and tumour 2"):
        find_cases(swapped)

    decathlon = msd(tmp_path / "msd", "liver_1")
    listing = json.loads((decathlon / "dataset.json").read_text())
    (decathlon / "dataset.json").write_text(json.dumps({**listing, "labels": {"0": "background", "6": "Liver"}}))
    with pytest.raises(InputError, match=r"says that 'Liver' is 6"):
        find_cases(decathlon)


@pytest.mark.parametrize(("images", "labels"), [("imagesTr", "labelsTr"), ("images", "labels")])
def test_paired_folders(tmp_path, images, labels):
    names = [f"{images}/ct_10.nii", f"{images}/ct_9_0000.nii.gz", f"{labels}/ct_10.nii.gz", f"{labels}/ct_9.nii"]
    folder = touch(tmp_path, *names, f"{images}/unlabelled.nii")

    cases = find_cases(folder)

    assert ids(cases) == ["ct_9", "ct_10"]
    assert [case.image.name for case in cases] == ["ct_9_0000.nii.gz", "ct_10.nii"]
    assert [case.label.name for case in cases] == ["ct_9.nii", "ct_10.nii.gz"]


def test_a_mask_without_its_ct_is_told(tmp_path):
    with pytest.raises(InputError, match=r"case '2' lacks its CT, there is no .*images.2.nii"):
        find_cases(touch(tmp_path, "images/1.nii", "labels/1.nii", "labels/2.nii"))


def test_a_csv_list(tmp_path):
    touch(tmp_path, "a/ct.nii", "a/mask.nii", "b.nii", "b_mask.nii", "c.nii")
    (tmp_path / "cases.csv").write_text(
        "case_id,image,label,patient_id\nx2,a/ct.nii,a/mask.nii,p1\n,b.nii,b_mask.nii,\nx1,c.nii,,\n",
        encoding="utf-8-sig",
    )

    cases = find_cases(tmp_path / "cases.csv")

    assert [(case.case_id, case.patient_id, case.image) for case in cases] == [
        ("b", "b", tmp_path / "b.nii"),
        ("x2", "p1", tmp_path / "a" / "ct.nii"),
    ]
    assert [case.label for case in cases] == [tmp_path / "b_mask.nii", tmp_path / "a" / "mask.nii"]
    assert find_references(tmp_path / "cases.csv") == cases


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"cases": rows}, lambda rows: {"training": rows}])
def test_a_json_list(tmp_path, wrap):
    outside = touch(tmp_path / "data", "ct.nii", "mask.nii")
    rows = [{"case_id": 7, "image": str(outside / "ct.nii"), "label": "../data/mask.nii", "patient_id": 3}]
    (touch(tmp_path / "lists") / "lists").mkdir(parents=True)
    listing = tmp_path / "lists" / "cases.json"
    listing.write_text(json.dumps(wrap(rows)))

    (case,) = find_cases(listing)

    assert (case.case_id, case.patient_id, case.image) == ("7", "3", outside / "ct.nii")
    assert case.label.resolve() == (outside / "mask.nii").resolve()


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.csv", "image\nb.nii\n", r"a.csv: lacks the column label"),
        ("a.csv", "", r"a.csv: lacks the column image"),
        ("a.csv", "image,label\n,m.nii\n", r"a.csv: entry 1 has no image"),
        ("a.csv", "image,label\nb.nii,m.nii\n", r"a.csv: case 'b' lacks its mask, there is no .*m.nii"),
        ("a.csv", "image,label\n", r"a.csv: holds no labelled case"),
        ("a.csv", "case_id,image,label\n../x,c.nii,c.nii\n", r"a.csv: the case_id '../x' cannot name a file"),
        ("a.json", "{}", r"a.json: is no list of cases"),
        ("a.json", "[1]", r"a.json: is no list of cases"),
        ("a.json", "[{}]", r"a.json: entry 1 has no image"),
        ("a.json", "{", r"a.json: is not JSON"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, name, content, rule):
    (touch(tmp_path, "c.nii") / name).write_text(content)

    with pytest.raises(InputError, match=rule):
        find_cases(tmp_path / name)


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("image,label\nTräger.nii,m.nii\n".encode("latin-1"))

    with pytest.raises(InputError, match=r"a.csv: is not CSV in UTF-8"):
        find_cases(tmp_path / "a.csv")


def test_3d_ircadb(tmp_path):
    for number in (10, 9):
        patient = f"3Dircadb1.{number}"
        dicom(tmp_path, f"{patient}/PATIENT_DICOM/image_0", f"{patient}/LABELLED_DICOM/image_0")
        dicom(tmp_path, f"{patient}/MASKS_DICOM/liver/image_0", f"{patient}/MASKS_DICOM/livertumor/image_0")

    cases = find_cases(tmp_path)

    assert ids(cases) == ["3Dircadb1.9", "3Dircadb1.10"]
    assert cases[0].image == tmp_path / "3Dircadb1.9" / "PATIENT_DICOM"
    assert cases[0].label == tmp_path / "3Dircadb1.9" / "MASKS_DICOM"
    assert find_cases(tmp_path / "3Dircadb1.9") == cases[:1]


def test_3d_ircadb_as_it_is_downloaded(tmp_path):
    (case,) = find_cases(touch(tmp_path, "3Dircadb1.1/PATIENT_DICOM.zip", "3Dircadb1.1/MASKS_DICOM.zip"))

    assert (case.image.name, case.label.name) == ("PATIENT_DICOM.zip", "MASKS_DICOM.zip")


def test_dicom_with_a_mask_file_beside_it(tmp_path):
    touch(
        dicom(tmp_path, "p1/series/1.dcm", "p2/ct/IM0001"), "p1/mask.nii.gz", "p2/seg.nii", "p2/notes/a.txt", "p3/m.nii"
    )

    cases = find_cases(tmp_path)

    assert [(case.case_id, case.image.name, case.label.name) for case in cases] == [
        ("p1", "series", "mask.nii.gz"),
        ("p2", "ct", "seg.nii"),
    ]


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("p1/other/1.dcm", "more than one folder of DICOM files .other, series."),
        ("p1/b.nii", "more than one mask .a.nii"),
    ],
)
def test_dicom_that_does_not_say_what_belongs_together_is_refused(tmp_path, more, rule):
    touch(dicom(tmp_path, "p1/series/1.dcm", more), "p1/a.nii")

    with pytest.raises(InputError, match=rf"p1: holds {rule}"):
        find_cases(tmp_path)


def test_a_list_that_is_no_list_by_its_name_is_told(tmp_path):
    with pytest.raises(InputError, match=r"cases.txt: no such folder; expected .* a .csv or .json list of cases"):
        find_cases(touch(tmp_path, "cases.txt") / "cases.txt")


def test_the_licence_is_that_of_the_listing_or_of_the_layout(tmp_path):
    decathlon = msd(tmp_path / "msd", "liver_1")
    listing = json.loads((decathlon / "dataset.json").read_text())
    (decathlon / "dataset.json").write_text(json.dumps({**listing, "name": "Liver", "licence": "CC-BY-SA 4.0"}))

    assert licence_note(decathlon) == "Liver: CC-BY-SA 4.0 (as its dataset.json says)"
    assert "CC BY-NC-ND 4.0" in licence_note(touch(tmp_path / "lits", "volume-1.nii", "segmentation-1.nii"))
    assert "does not say" in licence_note(nnunet(tmp_path / "nnunet", "a"))


def test_a_listing_that_is_wrong_is_told_and_not_taken_for_a_folder_of_masks(tmp_path):
    with pytest.raises(InputError, match="is not JSON"):
        find_references(listing(b"{")(touch(tmp_path, "a.nii")))
