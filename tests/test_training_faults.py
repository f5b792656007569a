"""What can go wrong while a network trains is told in one line, and what was saved before stays."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from test_cohort_faults import bound_by_permissions

MB = 1_000_000


@contextmanager
def no_file_larger_than(n_bytes):
    """As on a disk that is full: what is written beyond fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a run of two epochs."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    return folder


def saved(run):
    return {name: (run / "models" / name).read_bytes() for name in ("checkpoint.pth", "model.pt", "model.json")}


def only_line(done):
    """The error, one line, that a command ended with."""
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    return next(line for line in done.stderr.splitlines() if line.startswith("Error: "))


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(cli, run):
    before = saved(run)

    with no_file_larger_than(2 * MB):
        done = cli("train", "-o", run, "--resume", "--epochs", 3, "--set", "slabs_per_epoch=4")

    line = only_line(done)
    assert str(run) in line
    assert "File too large" in line
    assert "the last checkpoint is kept" in line
    assert "--resume" in line
    assert saved(run) == before
    assert not list(run.rglob(".*"))
    resumed = cli("train", "-o", run, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert torch.load(run / "models" / "checkpoint.pth", weights_only=True)["trainer"]["epoch"] == 3


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_to_is_told(run):
    before = saved(run)
    for folder in (run, run / "configs", run / "models"):
        folder.chmod(0o555)

    code = "from liver_monai.cli import main; main()"
    command = [
        *bound_by_permissions(),
        sys.executable,
        "-c",
        code,
        "train",
        "-o",
        str(run),
        "--resume",
        "--epochs",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for folder in (run, run / "configs", run / "models"):
        folder.chmod(0o755)

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Permission denied" in done.stderr
    assert str(run) in done.stderr
    assert saved(run) == before


def test_a_loss_that_is_none_ends_the_training_before_anything_is_saved(cli, run):
    path = run / "models" / "checkpoint.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lr_scheduler"]["base_lrs"] = [1e30]
    torch.save(checkpoint, path)
    before = saved(run)

    line = only_line(cli("train", "-o", run, "--resume", "--epochs", 3))

    assert "the loss is nan in epoch 3" in line
    assert "max_grad_norm" in line
    assert saved(run) == before


# Labels


def test_the_first_epoch_is_told_and_labels_without_tumours_are_warned_of(tmp_path, train_quickly, phantom_dataset):
    import nibabel as nib
    import numpy as np

    data = tmp_path / "livers"
    data.mkdir()
    for number in (0, 1):
        shutil.copy(phantom_dataset / "imagesTr" / f"liver_{number:03d}.nii.gz", data / f"volume-{number}.nii.gz")
        mask = nib.load(phantom_dataset / "labelsTr" / f"liver_{number:03d}.nii.gz")
        voxels = np.minimum(np.asarray(mask.dataobj), 1 - number).astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, mask.affine), data / f"segmentation-{number}.nii.gz")

    done = train_quickly(tmp_path / "run", "--epochs", 1, data=data, fold=None, slabs_per_epoch=4)

    assert done.exit_code == 0, done.output
    assert "first epoch: 4 slabs, centred 0 on a tumour (0%)" in done.stderr
    assert "tumours in 0 of 2 cases" in done.stderr
    assert "warning: 1 training cases have no liver in their labels, '1' first" in done.stderr
    assert "warning: no training case has a tumour" in done.stderr


# Where it begins


def weights(run):
    return torch.load(run / "models" / "model.pt", weights_only=True)


def is_learnt(name):
    """Batch statistics change whatever the learning rate."""
    return "running_" not in name and "num_batches" not in name


def test_a_training_begins_from_other_weights_and_says_whose(tmp_path, cli, train_quickly, trained_run):
    import json

    run = tmp_path / "run"
    done = train_quickly(run, "--init", trained_run, "--epochs", 1, learning_rate=0.0, slabs_per_epoch=4)

    assert done.exit_code == 0, done.output
    was, now = weights(trained_run), weights(run)
    assert all(torch.equal(was[name], now[name]) for name in was if is_learnt(name))
    source = json.loads((trained_run / "models" / "model.json").read_text())
    init = json.loads((run / "record.json").read_text())["init"]
    assert init == {**source, "path": str(trained_run / "models" / "model.pt")}
    changed = cli("train", "-o", run, "--resume", "--init", tmp_path, "--epochs", 2)
    assert "the training has begun" in changed.stderr


def test_a_part_that_is_frozen_stays_as_it_was(tmp_path, train_quickly, trained_run):
    run = tmp_path / "run"
    done = train_quickly(
        run, "--init", trained_run / "models" / "model.pt", "--epochs", 1, freeze="encoder", slabs_per_epoch=8
    )

    assert done.exit_code == 0, done.output
    was, now = weights(trained_run), weights(run)
    for name in was:
        assert torch.equal(was[name], now[name]) == name.startswith("encoder.") or not is_learnt(name), name
    assert all(torch.equal(was[name], now[name]) for name in was if name.startswith("encoder."))


@pytest.mark.parametrize(
    ("arguments", "settings", "rule"),
    [
        (["--init", "nowhere"], {}, "no weights to begin from"),
        ([], {"freeze": "encoders"}, "did you mean 'encoder'"),
        ([], {"drop_neighbors": 1.5}, "drop_neighbors is 1.5"),
    ],
)
def test_what_cannot_be_begun_from_is_refused(tmp_path, train_quickly, arguments, settings, rule):
    done = train_quickly(tmp_path / "run", *arguments, "--epochs", 1, **settings)

    assert rule in only_line(done)


def test_weights_of_another_slab_size_are_refused_by_layer(tmp_path, train_quickly, trained_run):
    done = train_quickly(tmp_path / "run", "--init", trained_run, "--epochs", 1, **{"spec#slab_size": 5})

    assert "1 of another shape: encoder.features.0.0.weight (32, 3, 3, 3), not (32, 5, 3, 3)" in only_line(done)
