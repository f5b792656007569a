"""One bundle in one fold of a benchmark: trained, then scored on the cases that trained, validated and tested.

Everything about it lies in ``OUT/BUNDLE/foldK``; what is finished there is kept when the benchmark goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.data.partition import Partition, partition_cases, require_apart
from liver_monai.data.preparation import known_burden, open_dataset, store_folder
from liver_monai.data.store import build_store, open_case, store_cases
from liver_monai.engine.evaluation import evaluate, write_scores
from liver_monai.engine.inference import Choices, load_model, predict
from liver_monai.engine.slice_loss import slice_losses
from liver_monai.engine.training import train
from liver_monai.io.files import write_json
from liver_monai.io.tables import read_table
from liver_monai.model.bundle import read_config
from liver_monai.spec import ModelSpec

PARTS = ("train", "validation", "test")

TRUSTED = Choices(trust_bundle=True)
"""Whether a bundle is trusted is asked before its first trial."""
PROTOCOLS = ("seed", "lits")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every bundle of a benchmark gets alike.

    Args:
        data: folder of the data set.
        out: folder of the benchmark.
        n_folds: parts that the cases are cut into; one tests, one validates, the others train.
        seed: of folds and training.
        overrides: ids of the bundles and their values, the budget among them.
    """

    data: Path
    out: Path
    n_folds: int
    seed: int
    overrides: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One bundle in one fold."""

    plan: Plan
    name: str
    bundle: Path
    spec: ModelSpec
    fold: int

    def __str__(self) -> str:
        return f"{self.name}, fold {self.fold}"

    @property
    def folder(self) -> Path:
        """Where everything about it lies."""
        return self.plan.out / self.name / f"fold{self.fold}"

    @property
    def store(self) -> Path:
        """Bundles of one grid share what was brought to it."""
        return Path(store_folder(self.plan.data, self.plan.out / "store")).resolve()

    def partition(self) -> Partition:
        """Its cases, the same for every bundle; of a store they are stratified by the tumours' burden."""
        plan = self.plan
        cases, burden = open_dataset(plan.data).cases, known_burden(plan.data)
        return partition_cases(cases, fold=self.fold, n_folds=plan.n_folds, seed=plan.seed, burden=burden)


def run_trial(trial: Trial, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Train, predict and score, unless ``trial.json`` says that all is done.

    Returns:
        What ``trial.json`` holds: case ids, minutes and, of each part, the scores of protocol ``seed`` and the cases
        that could not be scored. The scores of each case lie in ``evaluation/PART/PROTOCOL``.
    """
    done = trial.folder / "trial.json"
    if done.is_file():
        say(f"{trial}: kept")
        return read_config(done)
    partition = trial.partition()
    cases = {part: getattr(partition, part) for part in PARTS}
    _require_apart(trial, cases)
    say(f"{trial}: training")
    run = train_trial(trial, trial.folder / "run", {"split": _split_of(partition)})
    say(f"{trial}: predicting and scoring")
    everything = [case for part in PARTS for case in cases[part]]
    masks, errors = predict_masks(everything, run=run, out=trial.folder / "masks")
    content = {
        "bundle": trial.name,
        "fold": trial.fold,
        "cases": {part: [case.case_id for case in cases[part]] for part in PARTS},
        **_time_spent(run),
        "parts": {part: _score_part(trial, part, cases[part], masks, errors) for part in PARTS},
    }
    for part, loss in _losses(trial, run, cases, content["parts"]).items():
        content["parts"][part]["loss"] = loss
    write_json(done, content)
    return content


def _require_apart(trial: Trial, cases: Mapping[str, Sequence[Case]]) -> None:
    """Refuse to test on an image that trains under another name; a case that cannot be prepared fails later."""
    everything = [case for part in PARTS for case in cases[part]]
    done = list(store_cases(everything, spec=trial.spec, folder=trial.store))
    stored = [open_case(each.case, spec=trial.spec, folder=trial.store) for each in done if not each.error]
    require_apart(cases, stored, dataset_dir=trial.plan.data)


def train_trial(trial: Trial, run: Path, overrides: Mapping[str, Any]) -> Path:
    """Train, or go on from the checkpoint of an interrupted training; one that is finished stays as it is."""
    plan = trial.plan
    if (run / "models" / "checkpoint.pth").is_file():
        return train(bundle=trial.bundle, data=plan.data, out=run, resume=True, trust_bundle=True)
    if run.exists():
        shutil.rmtree(run)  # interrupted before its first epoch was done, perhaps before its configs were complete
    shared = {**plan.overrides, "seed": plan.seed, "store_dir": str(trial.store)}
    return train(bundle=trial.bundle, data=plan.data, out=run, overrides={**shared, **overrides}, trust_bundle=True)


def predict_masks(cases: Sequence[Case], *, run: Path, out: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Masks by case_id, those that are there are kept; and why the other cases have none."""
    results = list(predict(cases, bundle=run, out=out, choices=TRUSTED, resume=True))
    masks = {result.case.case_id: result.mask for result in results if result.mask is not None}
    return masks, {result.case.case_id: result.error for result in results if result.error}


def _split_of(partition: Partition) -> dict[str, Any]:
    """The component of ``train.json`` that names training and validation cases; the test cases do not occur in it."""
    return {
        "_target_": "liver_monai.data.partition.split_named",
        "dataset_dir": "@dataset_dir",
        "spec": "@spec",
        "store": "@store",
        "train": [case.case_id for case in partition.train],
        "validation": [case.case_id for case in partition.validation],
    }


def _time_spent(run: Path) -> dict[str, Any]:
    """Minutes of training with its validations, interruptions left out; and epochs."""
    last = read_table(run / "models" / "history.csv", columns=("epoch", "minutes"))[-1]
    return {"minutes": float(last["minutes"]), "epochs": int(last["epoch"])}


def _score_part(
    trial: Trial, part: str, cases: Sequence[Case], masks: dict[str, Path], errors: Mapping[str, str]
) -> dict[str, Any]:
    """Score by both protocols; the means of protocol ``seed``, ``None`` where no case could be scored."""
    summaries: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for protocol in PROTOCOLS:
        scores = list(evaluate(masks, cases, protocol=protocol))
        summaries[protocol] = write_scores(scores, trial.folder / "evaluation" / part / protocol, protocol=protocol)
        failed |= {each.case.case_id: errors.get(each.case.case_id, each.error) for each in scores if each.error}
    nothing = {"n_slices": 0, "pixel_accuracy": None, "iou": None}
    return {"n": summaries["seed"]["n"], "failed": failed, **(summaries["seed"].get("slices") or nothing)}


def _losses(
    trial: Trial, run: Path, cases: Mapping[str, Sequence[Case]], parts: Mapping[str, Any]
) -> dict[str, float | None]:
    """Mean cross-entropy a slice of each part's scored cases; ``None`` where there is none, or it is not finite."""
    model = load_model(run, choices=TRUSTED)

    def of(case: Case) -> Iterable[float]:
        (stored,) = build_store([case], spec=trial.spec, folder=trial.store)
        return slice_losses(model.network, stored, spec=trial.spec, device=model.device)

    by_part = {
        part: [loss for case in cases[part] if case.case_id not in parts[part]["failed"] for loss in of(case)]
        for part in PARTS
    }
    means = {part: float(np.mean(losses)) if losses else nan for part, losses in by_part.items()}
    return {part: mean if isfinite(mean) else None for part, mean in means.items()}
