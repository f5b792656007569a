"""A cohort under fire: cases that fail, processes killed at any moment, and masks that are the same after it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from liver_monai.data.phantom import write_phantoms
from liver_monai.io.files import Pace, whole_file

N_SOUND, N_KILLS = 17, 10
DONE, SOME_FAILED = 0, 3
SCRIPT = "from liver_monai.cli import main; main()"
READ_ANYTHING = "-dac_override,-dac_read_search"
"""What root may do and others may not, in the words of ``setpriv``."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """CTs that nothing is wrong with; for reading only."""
    folder = tmp_path_factory.mktemp("sound")
    write_phantoms(folder, n_cases=N_SOUND, shape=(40, 40, 12), seed=100)
    return sorted((folder / "imagesTr").iterdir())


@pytest.fixture(scope="module")
def masks(cli, sound, trained_run, tmp_path_factory):
    """The bytes of their masks by name, as one process without any interruption makes them."""
    out = tmp_path_factory.mktemp("masks")
    done = cli("predict", *sound, "--bundle", trained_run, "-o", out, "--device", "cpu")
    assert done.exit_code == DONE, done.output
    found = masks_in(out)
    assert len(found) == N_SOUND
    assert len(set(found.values())) == N_SOUND  # none could stand for another
    return found


@pytest.fixture
def cohort(tmp_path, sound):
    """Twenty cases: a file cut off, one with a NaN and a folder that may not be read are among them."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    for ct in sound:
        shutil.copy(ct, folder)
    whole = sound[0].read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[4, 4, 4] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "nan.nii.gz")
    locked = folder / "locked"
    locked.mkdir()
    shutil.copy(sound[0], locked / "slice.dcm")
    locked.chmod(0)
    yield folder
    locked.chmod(0o700)


def masks_in(folder):
    return {file.name: file.read_bytes() for file in folder.glob("[!.]*.nii.gz")}


def hidden_in(folder):
    return [file.name for file in folder.rglob(".*")]


def bound_by_permissions():
    """What a command begins with so that permissions hold for it: root reads anything, unless it gives that up."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not hold for root, and there is no setpriv to give that up")
    return ["setpriv", "--bounding-set", READ_ANYTHING]


def predict(*arguments):
    """``liver-monai predict`` in a process for which permissions hold."""
    command = [*bound_by_permissions(), sys.executable, "-c", SCRIPT, "predict", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("layout", ["given one by one", pytest.param("a folder each", marks=pytest.mark.slow)])
def test_three_bad_cases_of_twenty_are_named_and_the_others_done(cohort, masks, trained_run, tmp_path, layout):
    out = tmp_path / "out"
    cases = sorted(cohort.iterdir())
    if layout == "a folder each":
        for case in cases:
            if case.is_file():
                (cohort / case.name.removesuffix(".nii.gz")).mkdir()
                case.rename(cohort / case.name.removesuffix(".nii.gz") / case.name)
        cases = [cohort]

    done = predict(*cases, "--bundle", trained_run, "-o", out, "--device", "cpu", "--json")

    assert done.returncode == SOME_FAILED, done.stderr
    assert "Traceback" not in done.stderr
    errors = {row["case_id"]: row["error"] for row in json.loads(done.stdout)}
    assert len(errors) == N_SOUND + 3
    failed = {case_id: error for case_id, error in errors.items() if error}
    assert failed.keys() == {"cut", "nan", "locked"}
    assert "damaged" in failed["cut"]
    assert "NaN" in failed["nan"]
    assert "permissions" in failed["locked"]
    assert all(case_id in error for case_id, error in failed.items())  # the path is named
    assert masks_in(out) == masks
    assert not hidden_in(out)


@pytest.mark.slow
def test_a_file_that_may_not_be_read_fails_alone(sound, trained_run, tmp_path):
    locked = tmp_path / "locked.nii.gz"
    shutil.copy(sound[0], locked)
    locked.chmod(0)

    done = predict(locked, sound[1], "--bundle", trained_run, "-o", tmp_path / "out", "--json")

    assert done.returncode == SOME_FAILED, done.stderr
    assert [row["status"] for row in json.loads(done.stdout)] == ["failed", "done"]
    assert locked.name in json.loads(done.stdout)[0]["error"]


# Kills


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_the_masks_are_the_same(cli, sound, masks, trained_run, tmp_path):
    """Every other time it is killed while it writes; a folder that is finished makes room for a new one."""
    generator = random.Random(0)
    folders = (tmp_path / f"out_{number}" for number in itertools.count())
    out = next(folders)
    used = [out]
    for number in range(N_KILLS):
        if masks_in(out).keys() == masks.keys():
            out = next(folders)
            used.append(out)
        command = [sys.executable, "-c", SCRIPT, "predict", *sound, "--bundle", trained_run, "-o", out, "--resume"]
        kill_while_writing = number % 2 == 1
        killed(command, out, delay_s=None if kill_while_writing else generator.uniform(0, 0.3))
        assert masks_in(out).items() <= masks.items()  # none is partial

    for out in used:
        resumed = cli("predict", *sound, "--bundle", trained_run, "-o", out, "--resume", "--device", "cpu", "--json")
        assert resumed.exit_code == DONE, resumed.output
        assert {row["status"] for row in json.loads(resumed.stdout)} <= {"done", "kept"}
        assert masks_in(out) == masks
        assert not hidden_in(out)


def killed(command, out, *, delay_s):
    """Start a prediction and kill it, ``delay_s`` after its first result or, without, when it begins to write one."""
    left = set(hidden_in(out))  # by those killed before
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        line = process.stderr.readline()
        assert b" mL" in line, line + process.stderr.read()
        if delay_s is None:
            wait_for(lambda: process.poll() is not None or set(hidden_in(out)) - left)
        else:
            time.sleep(delay_s)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(is_so, limit_s=60):
    until = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until


def test_what_a_killed_process_left_of_a_file_is_removed_by_the_next_that_writes_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    here = platform.node()
    dead = tmp_path / f".{here}.{ended.pid}.mask.nii.gz"
    others = [f".{here}.{os.getpid()}.other.nii.gz", f".{here}.1.mask.nii.gz", f".elsewhere.{ended.pid}.mask.nii.gz"]
    others += [f".{here}.{ended.pid}.another-mask.nii.gz", f".{here}.notes.mask.nii.gz"]
    for name in [dead.name, *others]:
        (tmp_path / name).write_bytes(b"half")

    with whole_file(tmp_path / "mask.nii.gz") as temporary:
        temporary.write_bytes(b"whole")

    assert (tmp_path / "mask.nii.gz").read_bytes() == b"whole"
    assert sorted(hidden_in(tmp_path)) == sorted(others)


def test_what_takes_long_is_done_less_often():
    pace, n_done, until = Pace(rest=9), 0, time.monotonic() + 0.5
    while time.monotonic() < until:
        if pace.is_due():
            with pace.taken():
                time.sleep(0.02)
            n_done += 1

    assert 1 <= n_done <= 0.5 / (10 * 0.02) + 1
