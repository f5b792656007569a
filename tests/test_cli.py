"""The command line as people and scripts meet it: exit codes, one clear line, and nothing lost."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_export import ct_slices, localizer, write

from liver_monai._version import __version__

DONE, FAILED, USAGE, SOME_FAILED = 0, 1, 2, 3

SCRIPT = "from liver_monai.cli import main; main()"


def only_line(result, *, code=FAILED):
    """What a command that refused said: one line, on standard error, and no traceback."""
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def write_nifti(path, voxels):
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 4.0, 1.0])), path)
    return path


def text(path):
    path.write_text("this is no CT")


def empty_file(path):
    path.touch()


def four_dimensional(path):
    write_nifti(path, np.zeros((8, 8, 8, 2), np.int16))


def with_nan(path):
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[0, 0, 0] = np.nan
    write_nifti(path, voxels)


def truncated(path):
    write_nifti(path, np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:5000])


BAD_CTS = [(text, "NIfTI"), (empty_file, "NIfTI"), (four_dimensional, "three dimensions"), (with_nan, "NaN")]
BAD_CTS += [(truncated, "damaged")]


@pytest.fixture
def cts(tmp_path, phantom_dataset):
    """A folder with two CTs that may be changed."""
    folder = tmp_path / "cts"
    folder.mkdir()
    for name in ("liver_000", "liver_001"):
        shutil.copy(phantom_dataset / "imagesTr" / f"{name}.nii.gz", folder)
    return folder


@pytest.fixture(scope="module")
def predicted(cli, phantom_dataset, trained_run, tmp_path_factory):
    """What ``predict --report --json`` printed and left; for reading only."""
    out = tmp_path_factory.mktemp("predicted")
    result = cli("predict", phantom_dataset, "--bundle", trained_run, "-o", out, "--report", "--json")
    assert result.exit_code == DONE, result.output
    return out, result


@pytest.fixture(scope="module")
def evaluated(cli, phantom_dataset, predicted, tmp_path_factory):
    """What ``evaluate --json`` printed and left of those masks; for reading only."""
    out = tmp_path_factory.mktemp("evaluated")
    result = cli("evaluate", predicted[0], phantom_dataset, "-o", out, "--json")
    assert result.exit_code == DONE, result.output
    return out, result


# predict


def test_masks_have_the_shape_and_affine_of_their_cts(predicted, phantom_dataset):
    for ct in (phantom_dataset / "imagesTr").iterdir():
        source, mask = nib.load(ct), nib.load(predicted[0] / ct.name)
        assert mask.shape == source.shape
        np.testing.assert_array_equal(mask.affine, source.affine)
        assert mask.get_data_dtype() == np.uint8
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2}


def test_some_mask_holds_a_liver(predicted, phantom_dataset):
    """Otherwise the tests of this file would compare empty masks."""
    masks = [nib.load(predicted[0] / ct.name) for ct in (phantom_dataset / "imagesTr").iterdir()]

    assert max(np.mean(np.asarray(mask.dataobj) > 0) for mask in masks) > 0.01


def test_json_is_all_that_is_on_standard_output(predicted, phantom_dataset):
    out, result = predicted

    rows = json.loads(result.stdout)

    assert [row["case_id"] for row in rows] == [f"liver_{number:03d}" for number in range(4)]
    assert all(row["status"] == "done" and Path(row["mask"]).is_file() and row["error"] == "" for row in rows)
    assert result.stderr.count(" mL") == 8  # a line a case, for people
    assert str(out / "report.html") in result.stderr


def test_volumes_in_json_are_those_of_the_masks(predicted):
    for row in json.loads(predicted[1].stdout):
        mask = nib.load(row["mask"])
        voxel_ml = np.prod(mask.header.get_zooms()) / 1000
        assert row["liver_ml"] == pytest.approx(np.sum(np.asarray(mask.dataobj) > 0) * voxel_ml, rel=1e-5)
        assert row["tumor_ml"] == pytest.approx(np.sum(np.asarray(mask.dataobj) == 2) * voxel_ml, rel=1e-5)


def test_a_prediction_leaves_its_record(predicted, trained_run, phantom_dataset):
    out = predicted[0]
    record = json.loads((out / "record.json").read_text())

    assert record["environment"]["liver-monai"] == __version__
    assert {"model.pt", "liver_003.nii.gz"} <= record["inputs_sha256"].keys()
    assert str(phantom_dataset) not in json.dumps(record["command"])
    assert {file.name for file in out.iterdir()} == {
        *(f"liver_{number:03d}.nii.gz" for number in range(4)),
        "cases.csv",
        "findings",
        "record.json",
        "report.html",
    }


@pytest.mark.parametrize("kind", ["predicted", "evaluated"])
def test_a_report_is_a_single_file(kind, request):
    page = (request.getfixturevalue(kind)[0] / "report.html").read_text(encoding="utf-8")

    assert "liver_000" in page
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']|url\(([^)]*)\)""", page)
    assert sources
    assert all(re.match(r"['\"]?(data:|#|findings/)", attribute or style) for attribute, style in sources)
    assert "@import" not in page


def test_a_report_of_a_prediction_leads_to_the_findings_of_each_case(predicted):
    out, result = predicted
    page = (out / "report.html").read_text(encoding="utf-8")
    for row in json.loads(result.stdout):
        (link,) = set(re.findall(rf'<a href="([^"]+)">{row["case_id"]}</a>', page))
        found = json.loads((out / link).with_name("findings.json").read_text(encoding="utf-8"))
        assert (out / link).is_file()
        assert found["case_id"] == row["case_id"]
        assert [found["liver_ml"], found["tumor_ml"]] == pytest.approx([row["liver_ml"], row["tumor_ml"]])


@pytest.mark.parametrize(("spoil", "rule"), BAD_CTS)
def test_one_bad_ct_does_not_stop_the_others(cli, cts, trained_run, tmp_path, spoil, rule):
    spoil(cts / "bad.nii.gz")

    result = cli("predict", cts, "--bundle", trained_run, "-o", tmp_path / "out")

    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == SOME_FAILED, result.output
    lines = [line for line in result.stderr.splitlines() if ": warning: " not in line]
    assert len(lines) == 3
    (failed,) = (line for line in lines if "failed" in line)
    assert failed.startswith("bad: failed: ")
    assert rule in failed
    assert "Traceback" not in result.stderr
    rows = {row["case_id"]: row for row in rows_of(tmp_path / "out" / "cases.csv")}
    assert {name: row["status"] for name, row in rows.items()} == {
        "bad": "failed",
        "liver_000": "done",
        "liver_001": "done",
    }
    assert rule in rows["bad"]["error"]
    assert rows["bad"]["mask"] == ""
    assert sorted(file.name for file in (tmp_path / "out").glob("*.nii.gz")) == ["liver_000.nii.gz", "liver_001.nii.gz"]


def test_a_report_beside_a_bad_ct(cli, cts, trained_run, tmp_path):
    text(cts / "bad.nii.gz")

    result = cli("predict", cts, "--bundle", trained_run, "-o", tmp_path / "out", "--report")

    assert result.exit_code == SOME_FAILED, result.output
    assert "cannot be read as NIfTI" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_when_every_ct_is_bad_the_command_has_failed(cli, trained_run, tmp_path):
    for number, (spoil, _) in enumerate(BAD_CTS):
        spoil(tmp_path / f"bad_{number}.nii.gz")

    result = cli("predict", tmp_path, "--bundle", trained_run, "-o", tmp_path / "out", "--json")

    assert result.exit_code == FAILED, result.output
    assert len(json.loads(result.stdout)) == len(BAD_CTS) == len(result.stderr.splitlines())
    assert {row["status"] for row in rows_of(tmp_path / "out" / "cases.csv")} == {"failed"}


@pytest.mark.parametrize(("spoil", "rule"), BAD_CTS)
def test_a_single_bad_ct_is_told_in_one_line(cli, trained_run, tmp_path, spoil, rule):
    path = tmp_path / "ct.nii.gz"
    spoil(path)

    line = only_line(cli("predict", path, "--bundle", trained_run, "-o", tmp_path / "out"))

    assert str(path) in line
    assert rule in line


def test_masks_that_are_there_are_not_overwritten(cli, cts, trained_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "liver_001.nii.gz").write_text("years of work")
    before = contents(tmp_path)

    line = only_line(cli("predict", cts, "--bundle", trained_run, "-o", out))

    assert str(out / "liver_001.nii.gz") in line
    assert "--overwrite" in line
    assert contents(tmp_path) == before


def test_a_value_that_no_component_takes_is_told_by_prediction_too(cli, cts, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    config = run / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"sw_batch_size"', '"sw_batch"'))

    line = only_line(cli("predict", cts, "--bundle", run, "-o", tmp_path / "out"))

    assert str(config) in line
    assert "SlabInferer" in line
    assert "sw_batch" in line


def test_resume_keeps_what_is_there_and_overwrite_replaces_it(cli, cts, trained_run, tmp_path):
    """The volumes of a kept mask are those of its own voxels."""
    out = tmp_path / "out"
    out.mkdir()
    kept = np.zeros((5, 5, 5), np.uint8)
    kept[:2], kept[0, 0, :3] = 1, 2
    write_nifti(out / "liver_001.nii.gz", kept)  # voxels of 16 mm3
    before = (out / "liver_001.nii.gz").read_bytes()

    resumed = cli("predict", cts, "--bundle", trained_run, "-o", out, "--resume", "--json")

    assert resumed.exit_code == DONE, resumed.output
    rows = {row["case_id"]: row for row in json.loads(resumed.stdout)}
    assert {case_id: row["status"] for case_id, row in rows.items()} == {"liver_000": "done", "liver_001": "kept"}
    assert rows["liver_001"]["liver_ml"] == pytest.approx(50 * 0.016)
    assert rows["liver_001"]["tumor_ml"] == pytest.approx(3 * 0.016)
    told = {**rows["liver_001"], "mask": "liver_001.nii.gz"}  # which has no folder in files
    assert {name: str(value) for name, value in told.items()} == rows_of(out / "cases.csv")[1]
    assert (out / "liver_001.nii.gz").read_bytes() == before

    replaced = cli("predict", cts, "--bundle", trained_run, "-o", out, "--overwrite", "--json")

    assert {row["status"] for row in json.loads(replaced.stdout)} == {"done"}
    assert nib.load(out / "liver_001.nii.gz").shape == (96, 96, 24)


def test_a_kept_mask_that_cannot_be_read_has_failed(cli, cts, trained_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "liver_001.nii.gz").write_text("no mask")

    resumed = cli("predict", cts, "--bundle", trained_run, "-o", out, "--resume")

    assert resumed.exit_code == SOME_FAILED, resumed.output
    error = rows_of(out / "cases.csv")[1]["error"]
    assert str(out / "liver_001.nii.gz") in error
    assert "--overwrite" in error
    assert (out / "liver_001.nii.gz").read_text() == "no mask"


def test_rows_of_other_cases_stay(cli, cts, trained_run, tmp_path):
    out = tmp_path / "out"
    first = cli("predict", cts / "liver_001.nii.gz", "--bundle", trained_run, "-o", out)
    assert first.exit_code == DONE, first.output
    (row,) = rows_of(out / "cases.csv")

    second = cli("predict", cts / "liver_000.nii.gz", "--bundle", trained_run, "-o", out, "--json")

    assert [each["case_id"] for each in json.loads(second.stdout)] == ["liver_000"]
    assert rows_of(out / "cases.csv")[0] == row
    assert [each["case_id"] for each in rows_of(out / "cases.csv")] == ["liver_001", "liver_000"]


def test_rows_of_an_earlier_version_stay(cli, cts, trained_run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cases.csv").write_text("case_id,status,mask\nearlier,done,earlier.nii.gz\n")

    cli("predict", cts / "liver_000.nii.gz", "--bundle", trained_run, "-o", tmp_path / "out")

    earlier, row = rows_of(tmp_path / "out" / "cases.csv")
    assert (earlier["case_id"], earlier["mask"], earlier["liver_ml"]) == ("earlier", "earlier.nii.gz", "")
    assert (row["case_id"], row["status"]) == ("liver_000", "done")


@pytest.mark.parametrize("option", ["--overwrite", "--resume", None])
def test_a_mask_never_takes_the_place_of_its_ct(cli, cts, trained_run, option):
    before = contents(cts)

    line = only_line(cli("predict", cts, "--bundle", trained_run, "-o", cts, *filter(None, [option])))

    assert str(cts) in line
    assert contents(cts) == before


def test_files_and_folders_of_every_layout_may_be_given_together(cli, cts, phantom_dataset, trained_run, tmp_path):
    lits = tmp_path / "lits"
    lits.mkdir()
    shutil.copy(phantom_dataset / "imagesTr" / "liver_002.nii.gz", lits / "volume-5.nii.gz")
    shutil.copy(phantom_dataset / "labelsTr" / "liver_002.nii.gz", lits / "segmentation-5.nii.gz")
    single = shutil.copy(phantom_dataset / "imagesTr" / "liver_003.nii.gz", tmp_path / "ct_0000.nii.gz")

    result = cli("predict", cts, lits, single, "--bundle", trained_run, "-o", tmp_path / "out", "--json")

    assert [row["case_id"] for row in json.loads(result.stdout)] == ["liver_000", "liver_001", "5", "ct"]


def as_dicom(ct, folder, **options):
    image = nib.load(ct)
    return write(folder, ct_slices(np.asarray(image.dataobj), image.affine, **options), seed=0)


@pytest.mark.parametrize("packing", ["folder", "zip"])
def test_a_dicom_series_gets_the_mask_of_its_nifti(cli, predicted, phantom_dataset, trained_run, tmp_path, packing):
    ct = phantom_dataset / "imagesTr" / "liver_001.nii.gz"
    source = as_dicom(ct, tmp_path / "liver_001")
    if packing == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "liver_001"), "zip", source))

    result = cli("predict", source, "--bundle", trained_run, "-o", tmp_path / "out", "--report", "--json")

    assert result.exit_code == DONE, result.output
    (row,) = json.loads(result.stdout)
    assert (row["case_id"], row["mask"]) == ("liver_001", str(tmp_path / "out" / "liver_001.nii.gz"))
    masks = (nib.load(folder / ct.name) for folder in (tmp_path / "out", predicted[0]))
    mask, expected = (nib.as_closest_canonical(mask) for mask in masks)
    np.testing.assert_array_equal(mask.dataobj, expected.dataobj)
    np.testing.assert_allclose(mask.affine, expected.affine, atol=1e-3)
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert len(record["inputs_sha256"][source.name]) == 64
    assert not any(b"ecret" in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


def test_a_folder_of_series_gives_a_mask_each_and_localizers_none(cli, cts, trained_run, tmp_path):
    study = tmp_path / "study"
    slices = [as_dicom(cts / f"liver_00{number}.nii.gz", study / name) for number, name in enumerate(["art", "pv"])]
    (slices[1] / "IM0007").unlink()
    write(study, [localizer("1.2.3")])
    write(study / "again", [localizer("1.2.3")])

    result = cli("predict", study, "--bundle", trained_run, "-o", tmp_path / "out", "--json")
    chosen = cli("predict", study, "--series", 1, "--bundle", trained_run, "-o", tmp_path / "chosen", "--json")
    unknown = cli("predict", study, "--series", "9.9", "--bundle", trained_run, "-o", tmp_path / "none")

    assert result.exit_code == SOME_FAILED, result.output
    assert [(row["case_id"], row["status"]) for row in json.loads(result.stdout)] == [("art", "done"), ("pv", "failed")]
    assert re.search(r"pv: failed: .*study.pv: slices are missing at z = -?[\d.]+ mm", result.stderr)
    assert [row["case_id"] for row in json.loads(chosen.stdout)] == ["art"]
    assert "--series 9.9: fits no series" in only_line(unknown)


def test_two_cts_of_one_name_are_refused(cli, cts, phantom_dataset, trained_run, tmp_path):
    line = only_line(cli("predict", cts, phantom_dataset / "imagesTr", "--bundle", trained_run, "-o", tmp_path / "out"))

    assert "liver_000" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{missing}", "--bundle", "{run}"], ["{missing}", "no such file"]),
        (["{empty}", "--bundle", "{run}"], ["{empty}", "holds no CT"]),
        (["{cts}", "--bundle", "mobilnet"], ["mobilnet", "did you mean 'mobilenet'?"]),
        (["{cts}", "--bundle", "mobilenet"], ["no weights", "liver-monai train"]),
        (["{cts}", "--bundle", "{empty}"], ["{empty}", "is no bundle"]),
        (["{cts}", "--bundle", "{run}", "--device", "toaster"], ["--device toaster", "auto or cpu"]),
        (["{cts}", "--bundle", "{run}", "--device", "cuda:77"], ["--device cuda:77", "auto or cpu"]),
    ],
)
def test_what_prediction_cannot_use_is_told_in_one_line(cli, cts, trained_run, tmp_path, arguments, words):
    names = {"cts": cts, "run": trained_run, "missing": tmp_path / "missing.nii.gz", "empty": tmp_path / "empty"}
    names["empty"].mkdir()

    line = only_line(cli("predict", *(each.format(**names) for each in arguments), "-o", tmp_path / "out"))

    assert all(word.format(**names) in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_weights_of_another_spec_are_refused_with_what_differs(cli, cts, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    config = run / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"slab_size": 3', '"slab_size": 5'))

    line = only_line(cli("predict", cts, "--bundle", run, "-o", tmp_path / "out"))

    assert "slab_size 3 -> 5" in line


DAMAGE = [(name, "{") for name in ("configs/inference.json", "models/model.pt", "models/model.json")]
DAMAGE += [("configs/inference.json", content) for content in ("{}", "[]", "no JSON", '{"spec": 3}')]


@pytest.mark.parametrize(("name", "content"), DAMAGE)
def test_a_damaged_run_is_told_in_one_line(cli, cts, trained_run, tmp_path, name, content):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    (run / name).write_text(content)

    assert str(run / name) in only_line(cli("predict", cts, "--bundle", run, "-o", tmp_path / "out"))


# evaluate


def test_an_evaluation_scores_every_case(evaluated):
    out, result = evaluated
    summary = json.loads(result.stdout)
    rows = rows_of(out / "cases.csv")

    assert [row["case_id"] for row in rows] == [f"liver_{number:03d}" for number in range(4)]
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["n"], summary["n_failed"]) == (4, 0)
    mean = np.mean([float(row["liver_dice"]) for row in rows])
    assert summary["liver"]["dice_per_case"] == pytest.approx(mean, abs=1e-5)
    assert mean > 0.1
    files = {"cases.csv", "lesions.csv", "summary.json", "record.json", "report.html"}
    assert {file.name for file in out.iterdir()} == files


def test_references_score_perfectly_against_themselves(cli, phantom_dataset, tmp_path):
    result = cli("evaluate", phantom_dataset / "labelsTr", phantom_dataset, "-o", tmp_path / "out", "--json")

    summary = json.loads(result.stdout)
    assert {summary[name][score] for name in ("liver", "tumor") for score in ("dice_per_case", "dice_global")} == {1.0}
    assert summary["pixel_accuracy"] == {"per_case": 1.0, "global": 1.0}


def test_an_evaluation_is_not_overwritten(cli, phantom_dataset, evaluated):
    before = contents(evaluated[0])

    line = only_line(cli("evaluate", phantom_dataset / "labelsTr", phantom_dataset, "-o", evaluated[0]))

    assert "--overwrite" in line
    assert contents(evaluated[0]) == before


def test_a_missing_prediction_is_a_case_that_failed(cli, phantom_dataset, tmp_path):
    masks = tmp_path / "masks"
    shutil.copytree(phantom_dataset / "labelsTr", masks)
    (masks / "liver_002.nii.gz").unlink()
    text(masks / "liver_003.nii.gz")

    result = cli("evaluate", masks, phantom_dataset, "-o", tmp_path / "out", "--json")

    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == SOME_FAILED
    summary = json.loads(result.stdout)
    assert (summary["n"], summary["n_failed"]) == (2, 2)
    errors = {row["case_id"]: row["error"] for row in rows_of(tmp_path / "out" / "cases.csv")}
    assert "no prediction" in errors["liver_002"]
    assert "NIfTI" in errors["liver_003"]
    assert errors["liver_000"] == errors["liver_001"] == ""


@pytest.mark.parametrize("side", ["prediction", "reference"])
def test_what_holds_no_mask_is_refused(cli, phantom_dataset, tmp_path, side):
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "empty", phantom_dataset] if side == "prediction" else [phantom_dataset / "labelsTr"]
    paths += [tmp_path / "empty"] if side == "reference" else []

    assert "holds no mask" in only_line(cli("evaluate", *paths, "-o", tmp_path / "out"))
    assert "no such file" in only_line(cli("evaluate", tmp_path / "nowhere", phantom_dataset, "-o", tmp_path / "out"))


# train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "learnig_rate=0.1"], ["learnig_rate", "did you mean 'learning_rate'?"]),
        (["--set", "spec#slab_sise=3"], ["slab_sise", "did you mean 'spec#slab_size'?"]),
        (["--set", "learning_rate"], ["learning_rate", "id=value"]),
        (["--set", "learning_rate=fast"], ["learning_rate=fast", "number"]),
        (["--set", "spec#slab_size=4"], ["slab_size is 4", "odd"]),
        (["--set", "spec#roi_size=[100,100]"], ["roi_size", "16"]),
        (["--set", "spec#encoder=mobilenet_v22"], ["mobilenet_v22", "did you mean 'mobilenet_v2'?"]),
        (["--set", "batch_size=1", "--set", "slabs_per_epoch=8"], ["batch_size is 1", "2 or more"]),
        (["--set", "batch_size=16", "--set", "slabs_per_epoch=8"], ["batch_size is 16", "no more than the 8"]),
        (["--set", "learning_rate=null"], ["AdamW", "train.json"]),
        (["--set", "val_interval=0"], ["val_interval=0", "at least 1"]),
        (["--set", "max_epochs=1.5"], ["max_epochs=1.5", "a whole number"]),
        (["--set", "seed=-1"], ["seed=-1", "at least 0"]),
        (["--set", "spec=3"], ["spec=3", "spec#encoder="]),
        (["--fold", "9"], ["fold is 9", "0 to 3"]),
        (["--bundle", "resnet43"], ["resnet43", "did you mean 'resnet34'?"]),
        (["--data", "{missing}"], ["{missing}", "no such folder"]),
        (["--data", "{empty}"], ["{empty}", "no labelled case"]),
    ],
)
def test_what_training_cannot_use_is_told_in_one_line(cli, phantom_dataset, tmp_path, arguments, words):
    names = {"missing": tmp_path / "missing", "empty": tmp_path / "empty"}
    names["empty"].mkdir()
    arguments = [each.format(**names) for each in arguments]
    data = [] if "--data" in arguments else ["--data", phantom_dataset]
    coarse = [] if "spec=3" in arguments else ["--set", "spec#spacing_mm=[5,5,10]"]

    line = only_line(cli("train", *data, "-o", tmp_path / "run", *coarse, *arguments))

    assert all(word.format(**names) in line for word in words), line
    assert not (tmp_path / "run" / "models" / "model.pt").exists()


def test_a_refused_training_can_be_mended(cli, train_quickly, tmp_path):
    run = tmp_path / "run"
    only_line(train_quickly(run, "--epochs", 1, **{"slabs_per_epoch": 4, "spec#slab_size": 4}))
    assert not run.exists()
    only_line(train_quickly(run, "--epochs", 1, "--fold", 9, slabs_per_epoch=4))

    mended = cli("train", "-o", run, "--resume", "--fold", 0)

    assert mended.exit_code == DONE, mended.output
    assert (run / "models" / "model.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", 1], "has come to epoch 2"),
    ],
)
def test_what_cannot_be_resumed_is_told_in_one_line(cli, trained_run, tmp_path, arguments, words):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    before = contents(run / "models")

    line = only_line(cli("train", "-o", run, "--resume", *arguments))

    assert words in line
    assert contents(run / "models").items() >= before.items()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "spec#slab_size=5"], "spec#slab_size is 3 in {run} and cannot become 5: the weights were trained"),
        (["--set", "spec#spacing_mm=[4,4,8]"], "spec#spacing_mm is [5, 5, 10] in {run} and cannot become [4, 4, 8]"),
        (["--set", "spec#hu_window#0=-150"], "spec#hu_window#0 is -200 in {run} and cannot become -150"),
        (["--set", "spec#encoder=resnet18"], 'spec#encoder is "mobilenet_v2" in {run} and cannot become "resnet18"'),
        (["--set", "spec#encoder_weights=imagenet"], 'cannot become "imagenet": the training has begun'),
        (["--set", "learning_rate=0.1"], "learning_rate is 0.004 in {run} and cannot become 0.1: the checkpoint"),
        (
            ["--set", "optimizer#lr=0.1"],
            "cannot become 0.1: the checkpoint's state of optimizer, schedule and average goes on",
        ),
        (["--fold", "1"], "fold is 0 in {run} and cannot become 1: cases that trained would validate"),
        (["--set", "ckpt_dir=elsewhere"], 'cannot become "elsewhere": the checkpoint lies there'),
        (["--set", "resume=true"], "the command line decides on it"),
        (["--bundle", "resnet50"], "{run}: is a training of 'liver-monai mobilenet' and cannot go on as"),
        (["--set", "learnig_rate=0.1"], "did you mean 'learning_rate'?"),
    ],
)
def test_what_comes_too_late_is_refused_and_nothing_changes(cli, trained_run, tmp_path, arguments, words):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    before = contents(run)

    line = only_line(cli("train", "-o", run, "--resume", "--epochs", 3, *arguments))

    assert words.format(run=run) in line
    assert contents(run) == before


def test_configs_changed_by_hand_are_noticed_before_a_training_goes_on(cli, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store"))
    for name in ("train.json", "inference.json"):
        config = run / "configs" / name
        config.write_text(config.read_text().replace("-200", "-100"))

    line = only_line(cli("train", "-o", run, "--resume", "--epochs", 3))

    assert "hu_window (-200.0, 250.0) -> (-100.0, 250.0)" in line


def test_a_damaged_checkpoint_is_told_in_one_line(cli, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    (run / "models" / "checkpoint.pth").write_bytes(b"half of it")

    assert str(run / "models" / "checkpoint.pth") in only_line(cli("train", "-o", run, "--resume", "--epochs", 3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "-o", "run"], "--data is missing"),
        (["train", "--data", "data"], "'-o'"),
        (["predict", "-o", "out", "--bundle", "run"], "CT..."),
        (["predict", "ct.nii.gz", "-o", "out"], "'--bundle'"),
        (["synth", "out", "--shape", "64,64"], "--shape 64,64"),
        (["synth", "out", "--shape", "64,64,many"], "three whole numbers"),
        (["synth", "out", "--cases", "0"], "--cases"),
        (["synth", "out", "--seed", "-1"], "--seed"),
        (["segment", "ct.nii.gz"], "segment"),
        (["train", "--data", "data", "-o", "run", "--epochs", "0"], "--epochs"),
        (["train", "--data", "data", "-o", "run", "--minutes", "0"], "--minutes"),
        (["train", "--data", "data", "-o", "run", "--epochs", "some"], "'some'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(cli, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)

    result = cli(*arguments)

    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == USAGE
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert words in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "synth", "demo"])
def test_a_file_is_no_folder_for_results(cli, cts, trained_run, phantom_dataset, tmp_path, command):
    out = tmp_path / "results"
    out.write_text("a file")
    arguments = {
        "train": ["--data", phantom_dataset, "-o", out],
        "predict": [cts, "--bundle", trained_run, "-o", out],
        "evaluate": [phantom_dataset / "labelsTr", phantom_dataset, "-o", out],
        "synth": [out],
        "demo": ["-o", out],
    }

    result = cli(command, *arguments[command])

    assert result.exit_code == USAGE, result.output
    assert str(out) in result.stderr.splitlines()[-1]
    assert out.read_text() == "a file"


# synth, demo, doctor, --version


def test_synth_writes_a_data_set_and_never_into_a_folder_that_holds_something(cli, tmp_path):
    made = cli("synth", tmp_path / "data", "--cases", 1, "--shape", "40,32,12", "--seed", 5)

    assert made.exit_code == DONE, made.output
    assert nib.load(tmp_path / "data" / "imagesTr" / "liver_000.nii.gz").shape == (40, 32, 12)
    before = contents(tmp_path)
    assert "is not empty" in only_line(cli("synth", tmp_path / "data", "--cases", 1))
    assert contents(tmp_path) == before


def test_phantoms_that_cannot_be_are_refused(cli, tmp_path):
    assert "must be" in only_line(cli("synth", tmp_path / "data", "--cases", 1, "--shape", "0,32,12"))
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_the_demo_never_goes_into_a_folder_that_holds_something(cli, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    assert "is not empty" in only_line(cli("demo", "-o", tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_doctor_is_content(cli):
    for_people, for_scripts = cli("doctor"), cli("doctor", "--json")

    assert for_people.exit_code == for_scripts.exit_code == DONE, for_people.output
    findings = {finding["name"]: finding for finding in json.loads(for_scripts.stdout)}
    assert all(finding["ok"] for finding in findings.values())
    assert findings["liver-monai"]["found"] == __version__
    assert "mobilenet" in findings["bundles"]["found"]
    assert len(for_people.stdout.splitlines()) == len(findings)


def test_version(cli):
    assert cli("--version").stdout == f"liver-monai, version {__version__}\n"


# Interruption


def test_an_interrupted_prediction_says_so_in_one_line_and_can_go_on(cli, cts, trained_run, tmp_path):
    for number in range(200):
        (cts / f"copy_{number:03d}.nii.gz").symlink_to(cts / "liver_000.nii.gz")
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, "predict", cts, "--bundle", trained_run, "-o", out]

    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stdout, rest = process.communicate(timeout=60)

    assert first.startswith("copy_000: liver ")
    assert process.returncode == FAILED
    assert stdout == ""
    assert rest.splitlines()[-1] == "Error: interrupted; what is finished is kept, go on with --resume"
    assert all(" mL" in line for line in rest.splitlines()[:-1])
    masks = list(out.glob("*.nii.gz"))
    assert 1 <= len(masks) < 200
    assert all(nib.load(mask).shape == (96, 96, 24) for mask in masks)
    assert not list(out.glob(".*"))
    rows = rows_of(out / "cases.csv")
    assert len(masks) - 1 <= len(rows) <= len(masks)  # a mask may be there before its row
    assert {row["status"] for row in rows} == {"done"}

    before = {mask: mask.stat().st_mtime_ns for mask in masks}
    finished = cli(
        "predict", cts / "copy_000.nii.gz", cts / "liver_001.nii.gz", "--bundle", trained_run, "-o", out, "--resume"
    )
    assert finished.exit_code == DONE, finished.output
    assert (out / "liver_001.nii.gz").is_file()
    assert {row["case_id"] for row in rows_of(out / "cases.csv")} >= {row["case_id"] for row in rows} | {"liver_001"}
    assert {mask: mask.stat().st_mtime_ns for mask in masks} == before
