"""nnU-Net v2's part of ``accuracy_contenders.py``, run by the interpreter of its own environment.

python benchmarks/accuracy_nnunet.py JOB    # JSON with data, folder, masks, minutes, seed; the last line is figures

Its network, plans, loss, sampling, augmentation and schedule are its own. Only how long it trains is ours: by processor
time, with batches made in the same process, without validation.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

DATASET = "Dataset001_Phantoms"
MOST_SLICES = 12
"""A batch; the plan has more for small slices, which would leave a training of minutes few steps."""


def main(job: dict[str, Any]) -> None:
    """Plan, train, predict."""
    folder = Path(job["folder"])
    set_environment(folder)
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # what batchgenerators draws from
    shutil.copytree(Path(job["data"]) / "train", folder / "raw" / DATASET)
    plan()
    trainer = prepare(folder)
    n_steps = train(trainer, minutes=job["minutes"])
    predict(trainer, Path(job["data"]) / "test" / "imagesTr", Path(job["masks"]))
    print(json.dumps({"steps": n_steps, "batch": trainer.batch_size}))


def set_environment(folder: Path) -> None:
    """What nnU-Net asks for before it is imported."""
    os.environ |= {
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "preprocessed"),
        "nnUNet_results": str(folder / "results"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_compile": "false",
    }


def plan() -> None:
    """Its fingerprint, plans and preprocessing, in this process where it lets us."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    preprocess([1], configurations=("2d",), num_processes=(1,))


def prepare(folder: Path) -> Any:
    """Its trainer, on all cases."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    planned = folder / "preprocessed" / DATASET
    plans = json.loads((planned / "nnUNetPlans.json").read_text(encoding="utf-8"))
    configuration = plans["configurations"]["2d"]
    configuration["batch_size"] = min(MOST_SLICES, configuration["batch_size"])
    plans["continue_training"] = False  # as its command adds
    listing = json.loads((planned / "dataset.json").read_text(encoding="utf-8"))
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # the time of other processes would not be counted; its planner wants 1
    trainer = nnUNetTrainer(plans, "2d", "all", listing, device=torch.device("cpu"))
    trainer.on_train_start()
    return trainer


def train(trainer: Any, *, minutes: float) -> int:
    """Its steps with its poly schedule over the time; returns how many."""
    trainer.network.train()
    started_s, n_steps = time.process_time(), 0
    while (progress := (time.process_time() - started_s) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - progress) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        n_steps += 1
    return n_steps


def predict(trainer: Any, images: Path, masks: Path) -> None:
    """As its command predicts, mirroring included."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(use_mirroring=True, device=trainer.device, allow_tqdm=False)
    axes = trainer.inference_allowed_mirroring_axes
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        axes,
    )
    masks.mkdir()
    cts = sorted(images.glob("*_0000.nii.gz"))
    outputs = [str(masks / ct.name.removesuffix("_0000.nii.gz")) for ct in cts]
    predictor.predict_from_files_sequential([[str(ct)] for ct in cts], outputs)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
