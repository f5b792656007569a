"""MONAI's own entrance and ours lead to the same results."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch

from liver_monai.errors import InputError, root_cause

# MONAI reminds everyone who runs a bundle that configs are code; these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def run_bundle(config, *, bundle_root, **ids):
    """``python -m monai.bundle run`` in a process of its own, away from the checkout."""
    options = [text for name, value in ids.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, "--bundle_root", bundle_root]
    return subprocess.run(
        [*command, *options], cwd=bundle_root.parent, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def moved_run(trained_run, tmp_path):
    """The run elsewhere, without what only training needs: a bundle is a folder that can be copied."""
    run = tmp_path / "moved"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("store", "checkpoint.pth"))
    return run


def test_monai_predicts_the_same_masks(cli, moved_run, phantom_dataset, tmp_path):
    ours = cli("predict", phantom_dataset, "--bundle", moved_run, "-o", tmp_path / "ours")
    assert ours.exit_code == 0, ours.output

    monais = run_bundle(
        moved_run / "configs" / "inference.json",
        bundle_root=moved_run,
        dataset_dir=phantom_dataset / "imagesTr",
        output_dir=tmp_path / "monais",
    )

    assert monais.returncode == 0, monais.stderr
    names = sorted(file.name for file in (tmp_path / "ours").glob("*.nii.gz"))
    assert sorted(file.name for file in (tmp_path / "monais").iterdir()) == names
    masks = [[nib.load(tmp_path / side / name) for side in ("ours", "monais")] for name in names]
    for our_mask, monai_mask in masks:
        np.testing.assert_array_equal(np.asarray(monai_mask.dataobj), np.asarray(our_mask.dataobj))
        assert monai_mask.header == our_mask.header
    assert any(np.any(mask.dataobj) for mask, _ in masks)


def test_the_python_door_gives_the_same_mask(cli, trained_run, phantom_dataset, tmp_path):
    from liver_monai import segment

    ct = phantom_dataset / "imagesTr" / "liver_001.nii.gz"
    assert cli("predict", ct, "--bundle", trained_run, "-o", tmp_path / "out").exit_code == 0

    mask = segment(ct, bundle=trained_run)

    written = nib.load(tmp_path / "out" / "liver_001.nii.gz")
    np.testing.assert_array_equal(mask[0].numpy(), np.asarray(written.dataobj))
    np.testing.assert_array_equal(mask.affine, written.affine)


@pytest.mark.slow
def test_monai_trains_the_same_weights(cli, phantom_dataset, trained_run, tmp_path):
    """From one and the same set of configs."""
    settings = {"max_epochs": 1, "slabs_per_epoch": 4, "seed": 3}
    ours, monais = tmp_path / "ours", tmp_path / "monais"
    shutil.copytree(trained_run / "configs", monais / "configs")
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]

    our_run = cli("train", "--bundle", trained_run, "--data", phantom_dataset, "-o", ours, *options)
    monai_run = run_bundle(
        monais / "configs" / "train.json", bundle_root=monais, dataset_dir=phantom_dataset, **settings
    )

    assert our_run.exit_code == 0, our_run.output
    assert monai_run.returncode == 0, monai_run.stderr
    our_weights, monai_weights = (torch.load(run / "models" / "model.pt", weights_only=True) for run in (ours, monais))
    assert our_weights.keys() == monai_weights.keys()
    assert all(torch.equal(our_weights[name], monai_weights[name]) for name in our_weights)
    facts = [json.loads((run / "models" / "model.json").read_text()) for run in (ours, monais)]
    assert facts[0]["spec"] == facts[1]["spec"]


def test_without_data_monais_entrance_fails_and_says_why(moved_run, tmp_path):
    (tmp_path / "empty").mkdir()

    done = run_bundle(moved_run / "configs" / "train.json", bundle_root=moved_run, dataset_dir=tmp_path / "empty")

    assert done.returncode != 0
    assert f"{tmp_path / 'empty'}: holds no " in done.stderr


@pytest.mark.parametrize("dataset_dir", ["", "empty"])
def test_without_cts_monais_entrance_fails_and_says_why(moved_run, tmp_path, monkeypatch, dataset_dir):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # "" is here
    config = str(moved_run / "configs" / "inference.json")

    with pytest.raises(RuntimeError) as failure:
        monai.bundle.run(
            config_file=config,
            bundle_root=str(moved_run),
            dataset_dir=dataset_dir and str(tmp_path / dataset_dir),
            logging_file=False,
        )

    assert isinstance(root_cause(failure.value), InputError)
    assert "CT" in str(root_cause(failure.value))


def test_monai_evaluates_what_training_measured(trained_run, phantom_dataset, tmp_path):
    """``evaluate.json`` on top of ``train.json`` scores the best weights on the same fold."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    configs = [str(run / "configs" / f"{kind}.json") for kind in ("train", "evaluate")]

    monai.bundle.run(config_file=configs, bundle_root=str(run), dataset_dir=str(phantom_dataset), logging_file=False)

    lines = (run / "evaluation" / "metrics.csv").read_text().split()
    measured = dict(re.split(r"[,\t]", line) for line in lines)
    best = json.loads((run / "models" / "model.json").read_text())["val_mean_dice"]
    assert float(measured["val_mean_dice"]) == pytest.approx(best, abs=1e-4)
