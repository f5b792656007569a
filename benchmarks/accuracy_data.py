"""Phantoms for ``accuracy.py``, hard enough that differences can show, and how masks of them are scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from liver_monai.data.layouts import find_cases
from liver_monai.data.phantom import make_phantom
from liver_monai.engine.evaluation import evaluate, summarize
from liver_monai.io.files import write_json
from liver_monai.processes import Processes
from liver_monai.spec import LABELS, LIVER

SHAPE = (128, 128, 40)
"""About 3 x 3 x 5.5 mm: seconds to draw and to predict."""
NOISE_HU = 20.0
"""White noise on top of the phantom's own 8 to 14 HU."""
FADED = 0.3
"""Share of a tumour's contrast (28 to 60 HU) that is taken away."""
LEAST_TUMORS, MOST_TUMORS = 2, 5
TRAIN_SEED, TEST_SEED = 1000, 5000

ALL, LIVER_ONLY, TEST = "train", "train-liver", "test"
"""The same CTs with all labels and with those of the liver alone, its tumours included; and the CTs held out."""


def write_data(out: Path, *, n_train: int, n_test: int, jobs: int) -> None:
    """Write the three data sets in nnU-Net's layout, which the contenders read, too; what is there stays."""
    if (out / "data.json").is_file():
        return
    tasks = [(out, ALL, number, TRAIN_SEED) for number in range(n_train)]
    tasks += [(out, TEST, number, TEST_SEED) for number in range(n_test)]
    list(Processes(jobs).results(write_case, tasks, killed=write_case))
    for name, count in ((ALL, n_train), (LIVER_ONLY, n_train), (TEST, n_test)):
        write_json(out / name / "dataset.json", nnunet_dataset(count))
    write_json(out / "data.json", {"n_train": n_train, "n_test": n_test})


def write_case(out: Path, part: str, number: int, first_seed: int) -> None:
    """One CT with its label; a training CT with that of the liver, too."""
    seed = first_seed + number
    with_tumors, without = (
        make_phantom(seed=seed, shape=SHAPE, n_tumors=count)
        for count in (LEAST_TUMORS + seed % (1 + MOST_TUMORS - LEAST_TUMORS), 0)
    )
    rng = np.random.default_rng([seed, len(SHAPE)])
    tumors_hu = with_tumors.image.astype(np.float32) - without.image
    image = without.image + (1 - FADED) * tumors_hu + NOISE_HU * rng.standard_normal(SHAPE)
    image = np.clip(np.rint(image), -1024, None).astype(np.int16)
    labels = {part: with_tumors.label}
    if part == ALL:
        labels[LIVER_ONLY] = np.minimum(with_tumors.label, LIVER)
    for name, label in labels.items():
        for folder, end, voxels in (("imagesTr", "_0000", image), ("labelsTr", "", label)):
            path = out / name / folder / f"liver_{number:03d}{end}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, with_tumors.affine), path)


def nnunet_dataset(n_cases: int) -> dict[str, Any]:
    """What nnU-Net wants to know of a data set."""
    return {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in LABELS.items()},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }


def score_masks(masks: Mapping[str, Path], test: Path) -> dict[str, Any]:
    """Means over the held-out cases by protocol ``lits``, and each case's Dice.

    Raises:
        RuntimeError: a case could not be scored.
    """
    scores = list(evaluate(dict(masks), find_cases(test)))
    failed = [score.error for score in scores if score.result is None]
    if failed:
        raise RuntimeError(failed[0])
    summary = summarize(scores)
    found = summary["lesion_detection"]["overlap"]
    dice = {
        name: [round(score.result.values[name]["dice"], 4) for score in scores if score.result is not None]
        for name in ("liver", "tumor")
    }
    return {
        "liver_dice": round(float(np.mean(dice["liver"])), 4),
        "tumor_dice": round(float(np.mean(dice["tumor"])), 4),
        "lesion_recall": found["recall"],
        "lesion_precision": found["precision"],
        "case_dice": dice,
    }
