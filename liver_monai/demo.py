"""The whole path on synthetic CTs: train, predict, score, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from liver_monai.cohort import evaluate_cohort, predict_cohort
from liver_monai.data.cases import find_images
from liver_monai.data.phantom import write_phantoms
from liver_monai.engine.training import train
from liver_monai.errors import InputError
from liver_monai.io.files import write_json

SHAPE = (160, 160, 48)
N_TRAIN, N_TEST = 28, 8
SETTINGS = {
    "max_epochs": 8,
    "slabs_per_epoch": 480,
    "fold": None,  # all cases train: what is held out is the test set
    "spec#spacing_mm": [2.5, 2.5, 5.0],
    "spec#roi_size": [128, 128],
}
"""A coarse grid: enough for phantoms, and a training step takes a tenth of the time it takes on a patient's CT."""


def run_demo(out: Path, *, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every step into ``out`` and return the scores on phantoms that the training never saw.

    Raises:
        InputError: ``out`` holds something already.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another -o")
    started_s = time.monotonic()
    say(f"1/4  {N_TRAIN + N_TEST} synthetic CTs")
    write_phantoms(out / "train", n_cases=N_TRAIN, shape=SHAPE, seed=seed)
    write_phantoms(out / "test", n_cases=N_TEST, shape=SHAPE, seed=seed + N_TRAIN)
    say("2/4  training bundle mobilenet")
    run = train(bundle="mobilenet", data=out / "train", out=out / "run", overrides={**SETTINGS, "seed": seed})
    say("3/4  predicting CTs that the training never saw")
    predict_cohort(find_images([out / "test"]), bundle=run, out=out / "masks", say=say)
    say("4/4  scoring")
    summary = evaluate_cohort(out / "masks", out / "test", out=out / "evaluation", say=say)
    summary["minutes"] = round((time.monotonic() - started_s) / 60, 2)
    write_json(out / "demo.json", summary)
    say(f"done in {summary['minutes']} minutes; open {out / 'evaluation' / 'report.html'}")
    return summary
