"""Disks that are full, folders that may not be written to, two at the same results, clocks that jump."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_export import export
from test_cohort_faults import SCRIPT, bound_by_permissions, hidden_in, masks_in
from test_training_faults import no_file_larger_than

import liver_monai
from liver_monai.data.preparation import prepare
from liver_monai.io.conversion import convert
from liver_monai.io.tables import read_table
from liver_monai.processes import ALONE
from liver_monai.spec import ModelSpec

DONE, FAILED, SOME_FAILED = 0, 1, 3
COARSE = ModelSpec(encoder="stand-in", slab_size=1, spacing_mm=(5.0, 5.0, 10.0), roi_size=(16, 16))


@pytest.fixture
def cts(phantom_dataset):
    return sorted((phantom_dataset / "imagesTr").iterdir())[:2]


@pytest.fixture(scope="module")
def masks(cli, phantom_dataset, trained_run, tmp_path_factory):
    """The bytes of the masks that come of an undisturbed prediction."""
    out = tmp_path_factory.mktemp("masks")
    done = cli("predict", phantom_dataset, "--bundle", trained_run, "-o", out, "--device", "cpu")
    assert done.exit_code == DONE, done.output
    return masks_in(out)


def error_line(done):
    """The one line that a command ended with."""
    assert done.exit_code == FAILED, done.output
    return next(line for line in done.stderr.splitlines() if line.startswith("Error: "))


# Full disks


def test_a_mask_that_does_not_fit_fails_by_name_and_is_made_when_resumed(cli, cts, masks, trained_run, tmp_path):
    out = tmp_path / "out"
    command = ("predict", *cts, "--bundle", trained_run, "-o", out, "--device", "cpu", "--json")
    with no_file_larger_than(min(len(content) for content in masks.values()) - 1):
        full = cli(*command)
    assert [row["status"] for row in json.loads(full.stdout)] == ["failed", "failed"]
    assert all(f"File too large: '{out}/{ct.name}'" in full.stderr for ct in cts)
    assert not masks_in(out)
    assert not hidden_in(out)

    resumed = cli(*command, "--resume")

    assert resumed.exit_code == DONE, resumed.output
    assert masks_in(out) == {name: masks[name] for name in (ct.name for ct in cts)}


def test_a_table_that_does_not_fit_is_told_and_the_masks_stay(cli, cts, masks, trained_run, tmp_path):
    out = tmp_path / "out"
    assert cli("predict", *cts, "--bundle", trained_run, "-o", out, "--device", "cpu").exit_code == DONE
    for name in ("cases.csv", "record.json"):
        (out / name).unlink()

    with no_file_larger_than(10):
        line = error_line(cli("predict", *cts, "--bundle", trained_run, "-o", out, "--device", "cpu", "--resume"))

    assert "File too large" in line
    assert str(out) in line
    assert "make room there" in line
    assert masks_in(out).items() <= masks.items()
    assert len(masks_in(out)) == len(cts)
    assert not hidden_in(out)


@pytest.fixture(scope="module")
def store(phantom_dataset, tmp_path_factory):
    """What comes of a data set where there is room."""
    folder = tmp_path_factory.mktemp("store")
    assert not prepared(phantom_dataset, folder)["failed"]
    return folder


def prepared(data, folder):
    return prepare(data, spec=COARSE, out=folder, pool=ALONE, say=lambda _: None)


def arrays_in(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.b2nd")}


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_a_store_on_a_full_disk_holds_whole_cases_only(phantom_dataset, store, tmp_path, share):
    largest = max(len(content) for content in arrays_in(store).values())
    with no_file_larger_than(round(share * largest)):
        failed = prepared_on_a_full_disk(phantom_dataset, tmp_path)
    assert failed
    assert all("cannot be written" in error or "File too large" in error for error in failed.values())
    assert not hidden_in(tmp_path)
    assert arrays_in(tmp_path).items() <= arrays_in(store).items()

    assert not prepared(phantom_dataset, tmp_path)["failed"]
    assert arrays_in(tmp_path) == arrays_in(store)


def prepared_on_a_full_disk(data, folder):
    try:
        return prepared(data, folder)["failed"]
    except OSError as error:  # the index itself
        return {"store.json": str(error)}


def test_a_copy_in_another_format_that_does_not_fit_is_none(cli, cts, tmp_path):
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        with no_file_larger_than(3000):
            line = error_line(cli("convert", cts[0], tmp_path / f"ct{suffix}"))

        assert f"{tmp_path}/ct{suffix}" in line
        assert "make room" in line
        assert not [*tmp_path.iterdir()]


# Folders that may not be written to


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_to_is_told(cts, trained_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o555)

    command = [*bound_by_permissions(), sys.executable, "-c", SCRIPT, "predict", cts[0], "--bundle", trained_run]
    done = subprocess.run([*command, "-o", out], capture_output=True, text=True, check=False)

    assert done.returncode == FAILED, done.stderr
    assert "Traceback" not in done.stderr
    assert f"Permission denied: '{out}" in done.stderr


# Two at once


@pytest.mark.slow
def test_two_that_write_the_same_results_leave_them_whole(phantom_dataset, masks, trained_run, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, "predict", phantom_dataset, "--bundle", trained_run, "-o", out, "--resume"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == DONE, said

    assert masks_in(out) == masks
    assert len(read_table(out / "cases.csv", columns=("case_id", "status"))) == len(masks)
    assert json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert not hidden_in(out)


# Clocks


def test_nothing_is_decided_by_a_clock_that_may_be_set():
    """Times of day are written into records and DICOM objects; what lasts is measured by the monotonic clock."""
    package = Path(liver_monai.__file__).parent
    asked = {
        (file.relative_to(package).as_posix(), node.attr)
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("time", "time_ns", "now", "utcnow", "today")
    }

    assert asked == {("io/record.py", "now"), ("io/dicom/contours.py", "now")}


# Disks that fail


@pytest.fixture(scope="module")
def failing_reads(tmp_path_factory):
    """The library that makes reads fail, for Linux's ``LD_PRELOAD``; no package of Python's brings a compiler along."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and Linux")
    library = tmp_path_factory.mktemp("lib") / "failing_reads.so"
    source = Path(__file__).with_name("failing_reads.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.slow
def test_a_disk_that_fails_fails_its_cts_alone_and_by_name(cts, masks, trained_run, failing_reads, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    names = [f"broken{number}.eio{suffix}" for number, suffix in enumerate((".nii.gz", ".nii", ".nrrd", ".mha"))]
    for name in names:
        convert(cts[0], data / name)
    volume = nib.as_closest_canonical(nib.load(cts[0]))
    export(data / "series.eio", np.asarray(volume.dataobj).astype(np.int16), volume.affine)
    shutil.make_archive(str(data / "zipped.eio"), "zip", data / "series.eio")
    shutil.copy(cts[1], data)
    inputs = [str(data / name) for name in (*names, "series.eio", "zipped.eio.zip", cts[1].name)]
    command = [sys.executable, "-c", SCRIPT, "predict", *inputs, "--bundle", str(trained_run), "-o", str(out), "--json"]

    done = subprocess.run(
        [*command, "--device", "cpu"],
        env={**os.environ, "LD_PRELOAD": str(failing_reads)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == SOME_FAILED, done.stderr
    rows = {row["case_id"]: row for row in json.loads(done.stdout)}
    failed = {case_id: row["error"] for case_id, row in rows.items() if row["status"] == "failed"}
    assert failed.keys() == {*(name.split(".eio")[0] + ".eio" for name in names), "series.eio", "zipped.eio"}
    assert all(case_id in error for case_id, error in failed.items())
    assert "Traceback" not in done.stderr
    assert "HDF5" not in done.stderr
    assert masks_in(out) == {cts[1].name: masks[cts[1].name]}
    assert not hidden_in(out)
