"""What a check knows beside the scans: tables, folds, patients, licence, files that are missing; and what kills it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from dicom_export import ct_slices, write
from test_checks import FAILED, PHANTOM, above_note, checked, of_check, patient, write_lits, write_nifti

from liver_monai.data.cases import Case, find_images
from liver_monai.data.checks.run import examine_case
from liver_monai.data.folds import assign_folds
from liver_monai.data.layouts import find_cases
from liver_monai.data.phantom import write_phantoms
from liver_monai.io.dicom.patient import patient_pseudonym

TRUE_MM = np.linalg.norm(PHANTOM.affine[:3, :3], axis=0)


@pytest.fixture
def lits(tmp_path):
    return write_lits(tmp_path / "lits", [patient(seed) for seed in (3, 1)])


def names(summary, severity):
    return {
        (finding["case_id"], finding["check"]) for finding in summary["findings"] if finding["severity"] == severity
    }


# Tables


def lie_about_spacing(folder, number):
    """As 15 of MSD's volumes: nothing but ones in the header."""
    write_nifti(folder / f"volume-{number}.nii", PHANTOM.image[::-1, ::-1], np.eye(4))
    write_nifti(folder / f"segmentation-{number}.nii", PHANTOM.label[::-1, ::-1], np.eye(4))
    return f"case_id,x,y,z\n{number},{','.join(map(str, TRUE_MM))}\n"


@pytest.mark.parametrize("place", ["beside the data", "given"])
def test_an_overridden_spacing_is_the_one_that_is_measured_with(cli, lits, tmp_path, place):
    shutil.rmtree(lits)
    table = lie_about_spacing(lits, 7)
    warned = checked(cli, lits)
    file = (lits if place == "beside the data" else tmp_path) / "spacing_overrides.csv"
    file.write_text(table, encoding="utf-8")

    summary = checked(cli, lits, *([] if place == "beside the data" else ["--spacing-overrides", file]))

    assert ("7", "unknown-spacing") in names(warned, "warning")
    assert names(summary, "warning") == names(summary, "error") == set()
    (note,) = of_check(summary, "overridden-spacing")
    assert note["figures"] == {"spacing_mm": pytest.approx(TRUE_MM.tolist(), abs=1e-4), "header_mm": [1, 1, 1]}
    (case,) = summary["cases"]
    assert case["figures"]["liver_ml"] == pytest.approx(PHANTOM.truth["liver_ml"], rel=1e-3)
    assert case["figures"]["slice_mm"] == pytest.approx(TRUE_MM[2])


def test_an_override_that_came_after_an_interruption_is_not_missed(cli, lits, tmp_path):
    table = lie_about_spacing(lits, 0)
    checked(cli, lits, "-o", tmp_path / "out")
    (lits / "spacing_overrides.csv").write_text(table, encoding="utf-8")

    summary = checked(cli, lits, "-o", tmp_path / "out", "--resume")

    assert [finding["case_id"] for finding in of_check(summary, "overridden-spacing")] == ["0"]


def test_cases_that_are_excluded_beside_the_data_are_left_out_and_told(cli, lits):
    (lits / "volume-1.nii").write_bytes(b"no CT")
    (lits / "excludes.csv").write_text("case_id,reason\n1,was never whole\n", encoding="utf-8")

    summary = checked(cli, lits)

    assert [case["case_id"] for case in summary["cases"]] == ["0"]
    assert of_check(summary, "excluded")[0]["figures"] == {"reason": "was never whole"}


def test_a_table_of_a_data_set_does_not_concern_a_single_scan_in_it(cli, lits):
    (lits / "excludes.csv").write_text("case_id,reason\n1,was never whole\n", encoding="utf-8")

    assert checked(cli, lits / "volume-0.nii")["n_excluded"] == 0


def test_tables_of_two_data_sets_are_those_of_their_own_cases(cli, lits, tmp_path):
    other = write_lits(tmp_path / "other", [patient(2), patient(3)])
    (other / "excludes.csv").write_text("case_id,reason\n1,the other's 0\n", encoding="utf-8")

    summary = checked(cli, lits, other)

    assert [case["case_id"] for case in summary["cases"]] == ["lits/0", "lits/1", "other/0"]
    assert of_check(summary, "excluded")[0]["case_id"] == "other/1"
    assert of_check(summary, "several-scans") == []


# Missing files


def without_a_label(folder):
    write_phantoms(folder, n_cases=2, shape=(96, 96, 24))
    (folder / "labelsTr" / "liver_001.nii.gz").unlink()
    return folder, ("liver_001", "unreadable-label"), "liver_000"


def without_a_ct(folder):
    write_phantoms(folder, n_cases=2, shape=(96, 96, 24))
    (folder / "imagesTr" / "liver_001.nii.gz").unlink()
    return folder, ("liver_001", "unreadable-image"), "liver_000"


def mask_alone(folder):
    write_lits(folder, [patient(1), patient(2)])
    (folder / "volume-1.nii").unlink()
    return folder, ("1", "unreadable-image"), "0"


def pair_of_folders(folder):
    write_lits(folder, [patient(1)])
    for name, kind in (("images", "volume"), ("labels", "segmentation")):
        (folder / name).mkdir()
        (folder / f"{kind}-0.nii").rename(folder / name / "a.nii")
    shutil.copy(folder / "labels" / "a.nii", folder / "labels" / "b.nii")
    return folder, ("b", "unreadable-image"), "a"


def csv_list(folder):
    write_lits(folder, [patient(1)])
    rows = "case_id,image,label\na,volume-0.nii,segmentation-0.nii\nb,nowhere.nii,segmentation-0.nii\n"
    (folder / "cases.csv").write_text(rows, encoding="utf-8")
    return folder / "cases.csv", ("b", "unreadable-image"), "a"


def json_list(folder):
    write_lits(folder, [patient(1)])
    rows = [{"case_id": case_id, "image": "volume-0.nii", "label": "segmentation-0.nii"} for case_id in "ab"]
    rows[1]["label"] = "nowhere.nii"
    (folder / "cases.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "cases.json", ("b", "unreadable-label"), "a"


@pytest.mark.parametrize("make", [without_a_label, without_a_ct, mask_alone, pair_of_folders, csv_list, json_list])
def test_a_missing_file_is_an_error_of_its_case_and_the_others_are_checked(cli, tmp_path, make):
    data, lacking, whole = make(tmp_path / "data")

    summary = checked(cli, data, "-o", tmp_path / "out", code=FAILED)

    assert {each for each in names(summary, "error") if each[1].startswith("unreadable")} == {lacking}
    (finding,) = of_check(summary, lacking[1])
    assert "no such file" in finding["message"]
    figures = {case["case_id"]: case["figures"] for case in summary["cases"]}
    assert figures[whole]["liver_ml"] > 500
    assert checked(cli, data, "-o", tmp_path / "out", "--resume", code=FAILED) == summary


def test_a_listing_that_cannot_be_read_stops_the_check(cli, lits):
    (lits / "dataset.json").write_text("{", encoding="utf-8")

    refused = cli("check", lits)

    assert refused.exit_code == FAILED
    assert "dataset.json: is not JSON" in refused.stderr


# Folds


@pytest.fixture
def with_a_copy(lits):
    """Case 9 is case 0, mirrored."""
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = PHANTOM.image.shape[0] - 1
    write_nifti(lits / "volume-9.nii", PHANTOM.image[::-1], PHANTOM.affine @ flip)
    write_nifti(lits / "segmentation-9.nii", PHANTOM.label[::-1], PHANTOM.affine @ flip)
    return lits


@pytest.mark.parametrize(("fold", "n_errors"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("place", ["beside the data", "given"])
def test_folds_that_separate_copies_are_refused(cli, with_a_copy, tmp_path, place, fold, n_errors):
    file = (with_a_copy if place == "beside the data" else tmp_path) / "folds.csv"
    file.write_text(f"case_id,patient_id,fold,burden\n0,0,0,\n1,1,1,\n9,9,{fold},\n", encoding="utf-8")

    options = [] if place == "beside the data" else ["--folds", file]
    summary = checked(cli, with_a_copy, *options, code=FAILED)  # a copy is an error in itself

    findings = of_check(summary, "split-duplicate")
    assert [(each["case_id"], each["figures"]["other"], each["figures"]["folds"]) for each in findings] == [
        ("9", "0", [0, 1])
    ][:n_errors]


def test_folds_that_separate_a_patient_are_refused(cli, lits, tmp_path):
    """Whom a scan shows, the file of folds knows and the names do not."""
    (tmp_path / "mine.csv").write_text("case_id,patient_id,fold\n0,p,0\n1,p,1\n", encoding="utf-8")

    summary = checked(cli, lits, "--folds", tmp_path / "mine.csv", code=FAILED)

    (finding,) = of_check(summary, "split-patient")
    assert finding["figures"]["folds"] == {"0": 0, "1": 1}
    assert names(summary, "error") == {("", "split-patient")}


def test_the_folds_that_prepare_makes_are_checked_in_the_store(cli, with_a_copy, tmp_path):
    store = tmp_path / "store"
    assert cli("prepare", with_a_copy, "-o", store, "--jobs", 1).exit_code == 0
    rows = [line.split(",") for line in (store / "folds.csv").read_text(encoding="utf-8").splitlines()]
    apart = [
        [case_id, patient_id, str(number), burden] for number, (case_id, patient_id, _, burden) in enumerate(rows[1:])
    ]
    (store / "folds.csv").write_text("\n".join(",".join(row) for row in [rows[0], *apart]), encoding="utf-8")

    summary = checked(cli, store, code=FAILED)

    (finding,) = of_check(summary, "split-duplicate")
    assert (finding["case_id"], finding["figures"]["other"]) == ("9", "0")
    assert finding["figures"]["file"] == str(store / "folds.csv")


# Licence, and nothing to find


def test_the_licence_is_that_which_prepare_tells(cli, lits, tmp_path):
    write_phantoms(tmp_path / "msd", n_cases=1, shape=(96, 96, 24), seed=8)

    result = cli("check", lits, tmp_path / "msd", "--jobs", 1)

    assert f"note licence: {lits}: LiTS: CC BY-NC-ND 4.0" in result.stderr
    assert f"note licence: {tmp_path / 'msd'}: " in result.stderr
    assert "CC0-1.0 (as its dataset.json says)" in result.stderr


def test_twelve_good_cases_give_nothing_but_telling_notes(cli, tmp_path):
    write_phantoms(tmp_path, n_cases=12, shape=(56, 56, 48), seed=20)

    summary = checked(cli, tmp_path)

    assert summary["n"] == 12
    assert names(summary, "error") == names(summary, "warning") == set(), summary["findings"]
    assert {check for _, check in names(summary, "note")} <= {
        "licence",
        "mixed-spacing",
        "mixed-orientation",
        "no-tumor",
        "odd-contrast",
        "liver-cut",
        "tiny-lesions",
        "padding",
    }


# Patients of DICOM


def dicom_case(folder, seed, patient_id, *, with_mask=True):
    phantom = patient(seed)
    slices = ct_slices(phantom.image, phantom.affine)
    for each in slices:
        each.PatientID = patient_id
    write(folder / "series", slices)
    if with_mask:
        write_nifti(folder / "mask.nii", phantom.label, phantom.affine)


def test_scans_of_one_dicom_patient_share_a_fold_and_a_pseudonym(cli, tmp_path):
    for name, seed, patient_id in (("a", 1, "7654321"), ("b", 2, "7654321 "), ("c", 3, "other"), ("d", 4, "Anonymous")):
        dicom_case(tmp_path / name, seed, patient_id)

    patients = {case.case_id: case.patient_id for case in find_cases(tmp_path)}
    summary = checked(cli, tmp_path)

    assert patients["a"] == patients["b"] == "patient-fe68a21f"  # printf 7654321 | sha256sum
    assert len(set(patients.values())) == 3
    assert patients["d"] == "d"
    folds = assign_folds(find_cases(tmp_path))
    assert folds["a"] == folds["b"]
    (finding,) = of_check(summary, "several-scans")
    assert finding["figures"] == {"patient_id": patients["a"], "case_ids": ["a", "b"]}
    assert "7654321" not in json.dumps(summary)


def test_volumes_of_a_folder_are_of_their_own_patients(tmp_path):
    dicom_case(tmp_path / "a", 1, "x", with_mask=False)
    dicom_case(tmp_path / "b", 2, "y", with_mask=False)

    patients = [case.patient_id for case in find_images([tmp_path])]

    assert patients == [patient_pseudonym(tmp_path / name) for name in "ab"]
    assert len(set(patients)) == 2


def test_a_list_knows_a_patient_better_than_dicom(tmp_path):
    dicom_case(tmp_path / "a", 1, "x")
    rows = "case_id,image,label,patient_id\n1,a/series,a/mask.nii,\n2,a/series,a/mask.nii,p2\n"
    (tmp_path / "cases.csv").write_text(rows, encoding="utf-8")

    first, second = find_cases(tmp_path / "cases.csv")

    assert first.patient_id == patient_pseudonym(tmp_path / "a" / "series")
    assert second.patient_id == "p2"


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(128) + b"DICM" + bytes(range(256))])
def test_what_has_no_header_has_no_pseudonym(tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    assert patient_pseudonym(tmp_path) == patient_pseudonym(tmp_path / "file") == ""


def test_a_case_without_a_spacing_override_is_measured_by_its_header(tmp_path):
    ct = write_nifti(tmp_path / "ct.nii", PHANTOM.image)

    plain, told = (
        examine_case(Case(case_id="1", image=ct, spacing_mm=spacing)) for spacing in (None, tuple(TRUE_MM.tolist()))
    )

    assert plain.figures == told.figures
    assert above_note(plain) == above_note(told) == set()


# Killed


def start_checking(data, out, *options):
    command = [sys.executable, "-c", "from liver_monai.cli import main; main()", "check", data, "-o", out, *options]
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL, start_new_session=True)


def kill_and_resume(data, out, *, n_kills, whole_s, seed):
    """Kill at random moments of a check and go on each time; returns how many cases were kept at each kill.

    However slow the machine becomes meanwhile, one of the kills comes when there is something to keep.
    """
    rng = random.Random(seed)
    kept = []
    while len(kept) < n_kills or max(kept) == 0:
        process = start_checking(data, out, "--resume", "--jobs", rng.choice([1, 2]))
        time.sleep(rng.uniform(0.2, 1) * whole_s)
        was_killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        files = sorted((out / "cases").glob("[!.]*.json"))
        assert all(json.loads(file.read_text(encoding="utf-8")) for file in files)
        if was_killed:
            kept.append(len(files))
        for file in rng.sample(files, rng.randrange(len(files) + 1)):  # so that there is always something left to do
            file.unlink()
    return kept


def check_kills(cli, folder, *, n_kills, n_cases=8, seed=0):
    data, out = folder / "data", folder / "out"
    write_phantoms(data, n_cases=n_cases, shape=(96, 96, 24))
    expected = checked(cli, data)
    begin = time.monotonic()
    start_checking(data, folder / "undisturbed").wait()

    kept = kill_and_resume(data, out, n_kills=n_kills, whole_s=time.monotonic() - begin, seed=seed)

    assert checked(cli, data, "-o", out, "--resume") == expected
    assert json.loads((out / "check.json").read_text(encoding="utf-8")) == expected
    assert (out / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    return kept


@pytest.mark.slow
def test_a_check_that_is_killed_and_resumed_ends_as_one_that_was_not(cli, tmp_path):
    kept = check_kills(cli, tmp_path, n_kills=3)

    assert max(kept) > 0
