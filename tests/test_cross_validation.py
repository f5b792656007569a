"""Each fold held back in turn: runs as any others, a summary, and an ensemble."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from test_training import lits_pairs

FEW = {"slabs_per_epoch": 4}


@pytest.fixture(scope="module")
def data(phantom_dataset, tmp_path_factory):
    """Two patients, thus two folds."""
    return lits_pairs(phantom_dataset, tmp_path_factory.mktemp("two") / "lits", n_cases=2)


@pytest.fixture(scope="module")
def folds(data, train_quickly, tmp_path_factory):
    """For reading only."""
    folder = tmp_path_factory.mktemp("folds") / "runs"
    done = train_quickly(folder, "--fold", "all", "--epochs", 1, data=data, **FEW)
    assert done.exit_code == 0, done.output
    return folder


def model(run):
    return torch.load(run / "models" / "model.pt", weights_only=True)


def test_each_case_is_held_back_once_and_the_summary_is_that_of_the_runs(folds):
    summary = json.loads((folds / "summary.json").read_text())

    assert [row["run"] for row in summary["folds"]] == ["fold0", "fold1"]
    assert sorted(case for row in summary["folds"] for case in row["validation"]) == ["0", "1"]
    for row in summary["folds"]:
        facts = json.loads((folds / row["run"] / "models" / "model.json").read_text())
        assert row["val_mean_dice"] == pytest.approx(facts["val_mean_dice"], abs=1e-5)
        assert row["n_train"] == 1
    means = [np.mean([row[name] for row in summary["folds"]]) for name in summary["mean"]]
    assert list(summary["mean"].values()) == pytest.approx(means)


def test_the_folds_share_a_store(folds):
    assert not list(folds.glob("fold*/store"))
    assert (folds / "store" / "folds.csv").is_file()


def test_a_fold_is_the_run_that_it_would_be_alone(folds, data, train_quickly, tmp_path):
    done = train_quickly(tmp_path / "alone", "--fold", 1, "--epochs", 1, data=data, **FEW)

    assert done.exit_code == 0, done.output
    alone, fold = model(tmp_path / "alone"), model(folds / "fold1")
    assert all(torch.equal(alone[name], fold[name]) for name in alone)


def test_the_folder_predicts_as_all_of_its_folds(folds, data, cli, tmp_path):
    given = {"folder": [folds], "each": [folds / "fold0", folds / "fold1"]}
    for name, bundles in given.items():
        options = [text for bundle in bundles for text in ("--bundle", bundle)]
        done = cli("predict", data / "volume-0.nii.gz", "-o", tmp_path / name, *options)
        assert done.exit_code == 0, done.output

    masks = [(tmp_path / name / "volume-0.nii.gz").read_bytes() for name in given]
    records = [json.loads((tmp_path / name / "record.json").read_text())["inputs_sha256"] for name in given]
    assert masks[0] == masks[1]
    assert records[0] == records[1]


def test_what_is_finished_is_kept_and_the_rest_done_as_it_would_have_been(folds, cli, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(folds, copy)
    shutil.rmtree(copy / "fold1")
    before = {file: file.stat().st_mtime_ns for file in (copy / "fold0").rglob("*")}

    done = cli("train", "-o", copy, "--fold", "all", "--resume")

    assert done.exit_code == 0, done.output
    assert {file: file.stat().st_mtime_ns for file in (copy / "fold0").rglob("*")} == before
    was, now = model(folds / "fold1"), model(copy / "fold1")
    assert all(torch.equal(was[name], now[name]) for name in was)


def test_a_longer_training_makes_every_fold_go_on(folds, cli, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(folds, copy)

    done = cli("train", "-o", copy, "--fold", "all", "--resume", "--epochs", 2)

    assert done.exit_code == 0, done.output
    for fold in ("fold0", "fold1"):
        checkpoint = torch.load(copy / fold / "models" / "checkpoint.pth", weights_only=True)
        assert checkpoint["trainer"]["epoch"] == 2


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--fold", "all"], "holds a run already"),
        (["--fold", "some"], "expected a number such as 0, or all"),
    ],
)
def test_what_cannot_be_is_refused(folds, data, train_quickly, arguments, rule):
    done = train_quickly(folds, *arguments, "--epochs", 1, data=data, **FEW)

    assert done.exit_code in (1, 2)
    assert rule in done.stderr


def test_one_patient_makes_no_folds(phantom_dataset, train_quickly, tmp_path):
    data = lits_pairs(phantom_dataset, tmp_path / "lits", n_cases=1)

    done = train_quickly(tmp_path / "runs", "--fold", "all", "--epochs", 1, data=data, **FEW)

    assert done.exit_code == 1
    assert "needs two patients or more" in done.stderr
    assert not list((tmp_path / "runs").glob("fold*"))


def test_without_folds_there_is_nothing_to_resume(cli, tmp_path):
    done = cli("train", "-o", tmp_path / "runs", "--fold", "all", "--resume")

    assert "holds no folds to resume" in done.stderr
