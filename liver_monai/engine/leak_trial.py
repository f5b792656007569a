"""What a split by slice hides: the same bundle under the same budget, trained on other slices of the tested patients.

Both networks are scored on the same slices, on which neither was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.data.leak import LeakySplit, held_out_slices, split_by_slice
from liver_monai.data.transforms import with_spacing
from liver_monai.engine.trial import PARTS, Trial, predict_masks, train_trial
from liver_monai.io.files import write_json
from liver_monai.io.volumes import read_mask
from liver_monai.model.bundle import read_config
from liver_monai.scoring.overlap import count_table
from liver_monai.scoring.slices import slice_scores
from liver_monai.spec import ModelSpec

SPLITS = ("by_patient", "by_slice")


def run_leak(trial: Trial, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, predict and score after ``run_trial``, unless ``leak.json`` says that all is done.

    Returns:
        What ``leak.json`` holds: a row for each tested case and split.
    """
    done = trial.folder / "leak.json"
    if done.is_file():
        say(f"{trial}: kept (split by slice)")
        return read_config(done)
    say(f"{trial}: training on a split by slice, which leaks, to show by how much")
    arguments = _arguments(trial)
    split = split_by_slice(trial.plan.data, spec=trial.spec, store=trial.store, **arguments)
    run = train_trial(trial, trial.folder / "leak" / "run", _overrides(trial, arguments))
    tested = trial.partition().test
    masks = {"by_patient": predict_masks(tested, run=trial.folder / "run", out=trial.folder / "masks")[0]}
    masks["by_slice"] = predict_masks(tested, run=run, out=trial.folder / "leak" / "masks")[0]
    scored = [case for case in tested if all(case.case_id in each for each in masks.values())]
    rows = [
        {
            "case_id": case.case_id,
            "split": name,
            **score_held_out(case, masks[name][case.case_id], spec=trial.spec, split=split),
        }
        for case in scored
        for name in SPLITS
    ]
    n_slices = sum(len(slices) for slices in split.centres.values())
    content = {"bundle": trial.name, "fold": trial.fold, "n_train_slices": n_slices, "rows": rows}
    write_json(done, content)
    return content


def _arguments(trial: Trial) -> dict[str, Any]:
    partition = trial.partition()
    case_ids = {part: [case.case_id for case in getattr(partition, part)] for part in PARTS}
    return {**case_ids, "seed": trial.plan.seed}


def _overrides(trial: Trial, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Components of ``train.json`` that no option of the command line reaches."""
    target = "liver_monai.data.leak.split_by_slice"
    fixed = {"_target_": target, "dataset_dir": "@dataset_dir", "spec": "@spec", "store": "@store"}
    dataset = read_config(trial.bundle / "configs" / "train.json")["train"]["dataset"]
    return {"split": {**fixed, **arguments}, "train#dataset": {**dataset, "centres": "$@split.centres"}}


def score_held_out(case: Case, mask: Path, *, spec: ModelSpec, split: LeakySplit) -> dict[str, Any]:
    """Sums over the case's held-out slices, so that cases and folds can be pooled."""
    reference, prediction = read_mask(str(case.label)), read_mask(mask)
    if case.spacing_mm:  # slices were counted on the true spacing
        reference = with_spacing(reference, case.spacing_mm)
    slices, axis = held_out_slices(
        tuple(reference.shape[1:]),
        np.asarray(reference.affine),
        spacing_mm=spec.spacing_mm,
        n_slices=split.n_slices[case.case_id],
        centres=split.centres[case.case_id],
    )
    predicted, referred = (np.take(each[0].numpy(), slices, axis=axis) for each in (prediction, reference))
    accuracy, iou = slice_scores(predicted, referred, axis=axis).T
    table = count_table(predicted, referred)
    return {
        "n_slices": len(iou),
        "pixel_accuracy_sum": float(accuracy.sum()),
        "iou_sum": float(iou.sum()),
        "tumor_shared": int(table[2, 2]),
        "tumor_predicted": int(table[:, 2].sum()),
        "tumor_reference": int(table[2].sum()),
    }
