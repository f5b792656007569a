"""To nnU-Net and back: the same voxels in the same place, patients together, and its predictions evaluated."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from liver_monai.data.cases import find_masks
from liver_monai.data.layouts import find_cases, recognize
from liver_monai.io.nifti import build_nifti
from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.model.bundle import SHIPPED, copy_bundle

NAME = "Dataset007_Liver"


@pytest.fixture(scope="module")
def converted(cli, phantom_dataset, tmp_path_factory):
    """The phantoms, by way of a store, whose folds they keep."""
    folder = tmp_path_factory.mktemp("nnunet")
    copy_bundle(SHIPPED / "mobilenet", folder / "bundle", {"spec#spacing_mm": [8, 8, 10]})
    prepared = cli("prepare", phantom_dataset, "-o", folder / "store", "--bundle", folder / "bundle", "--jobs", 1)
    assert prepared.exit_code == 0, prepared.output
    done = cli("convert", folder / "store", folder / NAME, "--to", "nnunet")
    assert done.exit_code == 0, done.output
    assert "4 cases, 0 excluded, 0 failed; 4 folds" in done.stderr
    return folder


def test_cases_come_back_with_the_same_voxels_and_place(converted, phantom_dataset):
    layout, cases = recognize(converted / NAME)
    assert layout.name == "nnU-Net"
    originals = find_cases(phantom_dataset)
    assert [case.case_id for case in cases] == [case.case_id for case in originals]
    for case, original in zip(cases, originals, strict=True):
        assert case.image.name == f"{case.case_id}_0000.nii.gz"
        for read, one, other in (
            (read_volume, case.image, original.image),
            (read_mask, case.label, original.label),
        ):
            np.testing.assert_array_equal(read(one), read(other))
            np.testing.assert_allclose(read(one).affine, read(other).affine, atol=1e-4)


def test_folds_hold_the_same_cases(converted):
    rows = (converted / "store" / "folds.csv").read_text().splitlines()[1:]
    folds = {row.split(",")[0]: int(row.split(",")[2]) for row in rows}
    splits = json.loads((converted / NAME / "splits_final.json").read_text())
    assert [set(split["val"]) for split in splits] == [
        {name for name, number in folds.items() if number == fold} for fold in sorted(set(folds.values()))
    ]
    assert all(sorted(split["train"] + split["val"]) == sorted(folds) for split in splits)


def test_the_listing_says_what_nnunet_asks_for(converted):
    listing = json.loads((converted / NAME / "dataset.json").read_text())
    assert listing["labels"] == {"background": 0, "liver": 1, "tumor": 2}
    assert (listing["channel_names"], listing["file_ending"], listing["numTraining"]) == ({"0": "CT"}, ".nii.gz", 4)
    assert "CC0" in listing["licence"]
    assert "overwrite_image_reader_writer" not in listing


@pytest.mark.parametrize("place", ["", "fold_0/validation", "fold_0/validation and fold_1/validation"])
def test_its_predictions_are_evaluated_against_its_data(cli, converted, tmp_path, place):
    """Beside the masks lie nnU-Net's own files; of a training, each fold has those that it held back."""
    labels = sorted((converted / NAME / "labelsTr").iterdir())
    folders = [tmp_path / "results" / each for each in place.split(" and ")]
    for number, label in enumerate(labels):
        folder = folders[number % len(folders)]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(label, folder)
        (folder / "summary.json").write_text("{}")
        (folder / label.name.replace(".nii.gz", ".npz")).touch()
    done = cli("evaluate", tmp_path / "results", converted / NAME, "-o", tmp_path / "out", "--jobs", 1, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["n"], summary["liver"]["dice_per_case"], summary["tumor"]["dice_per_case"]) == (4, 1, 1)


def test_two_folds_that_predict_one_case_are_refused(converted, tmp_path):
    label = next((converted / NAME / "labelsTr").iterdir())
    for fold in (0, 1):
        folder = tmp_path / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        shutil.copy(label, folder)
    with pytest.raises(ValueError, match="are both case"):
        find_masks(tmp_path)


def pairs(folder, affines):
    """A data set of small cases with these affines."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
        for number, affine in enumerate(affines):
            voxels = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 3
            dtype = np.int16 if kind == "images" else np.uint8
            nib.save(build_nifti(voxels.astype(dtype), affine), folder / kind / f"case{number}.nii.gz")
    return folder


def test_tilted_slices_are_read_with_what_can_hold_them(cli, tmp_path):
    tilted = np.diag([1.0, 1.0, 3.0, 1.0])
    tilted[1, 2] = 0.8
    data = pairs(tmp_path / "data", [np.eye(4), tilted])
    (data / "folds.csv").write_text("case_id,fold\ncase0,0\ncase1,1\n")
    done = cli("convert", data, tmp_path / NAME, "--to", "nnunet")
    assert done.exit_code == 0, done.output
    listing = json.loads((tmp_path / NAME / "dataset.json").read_text())
    assert listing["overwrite_image_reader_writer"] == "NibabelIO"
    np.testing.assert_allclose(nib.load(tmp_path / NAME / "imagesTr" / "case1_0000.nii.gz").affine, tilted)
    splits = json.loads((tmp_path / NAME / "splits_final.json").read_text())
    assert splits == [{"train": ["case1"], "val": ["case0"]}, {"train": ["case0"], "val": ["case1"]}]


def test_a_damaged_case_is_left_out_and_told(cli, tmp_path):
    data = pairs(tmp_path / "data", [np.eye(4), np.eye(4)])
    (data / "images" / "case1.nii.gz").write_bytes(b"no NIfTI")
    done = cli("convert", data, tmp_path / NAME, "--to", "nnunet")
    assert done.exit_code == 3
    assert "case1: failed:" in done.stderr
    assert "1 cases, 0 excluded, 1 failed; no folds" in done.stderr
    assert json.loads((tmp_path / NAME / "dataset.json").read_text())["numTraining"] == 1


@pytest.mark.parametrize(
    ("name", "options", "code", "says"),
    [
        ("liver", ("--to", "nnunet"), 1, "Dataset007_Liver"),
        (NAME, ("--to", "nnunet", "--folds", "FOLDS"), 1, "gives the case 'case1' no fold"),
        (NAME, ("--to", "nnunet", "--series", "1"), 2, "leave them out"),
        (NAME, ("--folds", "FOLDS"), 2, "give --to nnunet"),
    ],
)
def test_what_does_not_fit_is_refused(cli, tmp_path, name, options, code, says):
    data = pairs(tmp_path / "data", [np.eye(4), np.eye(4)])
    folds = tmp_path / "folds.csv"
    folds.write_text("case_id,fold\ncase0,0\n")
    done = cli("convert", data, tmp_path / name, *[folds if each == "FOLDS" else each for each in options])
    assert done.exit_code == code
    assert says in done.stderr
    assert not (tmp_path / name).exists()


def test_a_data_set_that_is_there_is_kept(cli, tmp_path):
    data = pairs(tmp_path / "data", [np.eye(4)])
    assert cli("convert", data, tmp_path / NAME, "--to", "nnunet").exit_code == 0
    refused = cli("convert", data, tmp_path / NAME, "--to", "nnunet")
    assert refused.exit_code == 1
    assert "--overwrite" in refused.stderr
    assert cli("convert", data, tmp_path / NAME, "--to", "nnunet", "--overwrite").exit_code == 0
