"""Benchmark: several bundles trained on the same cases under the same budget, and the tables of their scores."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

from liver_monai.data.preparation import open_dataset
from liver_monai.engine.leak_trial import SPLITS
from liver_monai.engine.trial import PARTS, Plan, Trial
from liver_monai.errors import InputError, one_line
from liver_monai.io.files import write_json
from liver_monai.io.tables import read_table
from liver_monai.model.bundle import find_bundle, overridden_spec, read_config
from liver_monai.model.trust import require_trusted
from liver_monai.scoring.overlap import CLASSES
from liver_monai.scoring.pooled import pooled

MAX_SHOWN = 120
"""Characters of a value in an error's line."""

Row = dict[str, Any]


def plan_trials(plan: Plan, bundles: Sequence[str], folds: Sequence[int], *, trust_bundle: bool = False) -> list[Trial]:
    """The trials of a benchmark, fold by fold, before anything is written; their bundles are trusted from then on.

    Raises:
        InputError: unusable data, no such fold or bundle, two bundles of one name, one that names what is not
            known, or an override that one lacks.
    """
    folders = [find_bundle(bundle) for bundle in bundles]
    for folder in () if trust_bundle else folders:
        require_trusted(folder)
    names = [folder.name for folder in folders]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"--bundle {twice[0]}: two have this name, by which results are kept; give one of them")
    specs = [overridden_spec(folder, plan.overrides) for folder in folders]
    trials = [
        Trial(plan=plan, name=folder.name, bundle=folder, spec=spec, fold=fold)
        for fold in dict.fromkeys(folds)
        for folder, spec in zip(folders, specs, strict=True)
    ]
    for trial in trials:
        trial.partition()
    return trials


def keep_plan(plan: Plan, *, resume: bool) -> None:
    """Write ``plan.json``, or hold a benchmark that goes on to the one that is there.

    Raises:
        InputError: a benchmark is there and ``resume`` is not given, or it was begun another way.
    """
    path = plan.out / "plan.json"
    facts = {name: value for name, value in asdict(plan).items() if name != "out"}
    facts |= {"data": str(plan.data), "cases": [case.case_id for case in open_dataset(plan.data).cases]}
    if not path.is_file():
        write_json(path, facts)
        return
    if not resume:
        raise InputError(f"{plan.out}: holds a benchmark already; go on with --resume or choose another -o")
    begun = read_config(path)
    for name, value in json.loads(json.dumps(facts)).items():
        if begun.get(name) != value:
            raise InputError(
                f"{path}: the benchmark was begun with {name} {_short(begun.get(name))}, not {_short(value)}; "
                "give the same options and data again, or choose another -o"
            )


def try_trial(run: Callable[..., Row], trial: Trial, *, say: Callable[[str], None]) -> Row:
    """What ``run`` returns or, where it fails for whatever reason, the bundle, the fold and the ``error``.

    The whole traceback goes to ``error.txt`` in the trial's folder.
    """
    details = trial.folder / "error.txt"
    try:
        result = run(trial, say=say)
    except Exception as error:  # the other bundles have nothing to do with it
        say(f"{trial}: failed: {one_line(error)}")
        trial.folder.mkdir(parents=True, exist_ok=True)
        details.write_text(traceback.format_exc(), encoding="utf-8")
        return {"bundle": trial.name, "fold": trial.fold, "error": one_line(error)}
    details.unlink(missing_ok=True)  # of an earlier attempt
    return result


def slice_table(results: Sequence[Row]) -> list[Row]:
    """A row a bundle, as 2D notebooks report it: minutes a training, and each part's means over slices.

    Args:
        results: what ``run_trial`` returned.
    """
    rows = []
    for bundle, trials in _by_bundle(results).items():
        row: Row = {"bundle": bundle, "minutes": sum(each["minutes"] for each in trials) / len(trials)}
        for part in PARTS:
            parts = [each["parts"][part] for each in trials]
            row |= {f"{part}_{name}": _mean_over_slices(parts, name) for name in ("loss", "pixel_accuracy", "iou")}
            row[f"{part}_n_slices"] = sum(each["n_slices"] for each in parts)
        rows.append(row)
    return rows


def patient_table(results: Sequence[Row], *, out: Path, seed: int = 0) -> list[Row]:
    """A row a bundle: scores of the patients that its networks never saw, by protocol ``lits``, with intervals.

    Every figure ``F`` has its 95 % interval beside it, ``F_low`` to ``F_high``: a bootstrap over cases.

    Args:
        results: what ``run_trial`` returned.
        out: folder of the benchmark.
        seed: of the bootstrap.
    """
    rows = []
    for bundle, trials in _by_bundle(results).items():
        folders = [out / bundle / f"fold{each['fold']}" / "evaluation" / "test" / "lits" for each in trials]
        cases = [row for folder in folders for row in _scored_cases(folder / "cases.csv")]
        row: Row = {"bundle": bundle, "n": len(cases)}
        row["n_failed"] = sum(len(each["parts"]["test"]["failed"]) for each in trials)
        for name in CLASSES:
            row |= {
                f"{name}_n_{key}": sum(int(case[f"{name}_{key}"]) for case in cases) for key in ("missing", "spurious")
            }
        for name, ratio in _patient_figures(cases).items():
            row |= _with_interval(name, ratio, seed=seed)
        rows.append(row)
    return rows


def leak_table(results: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """A row a bundle: what a split by slice says of the slices on which a split by patient is scored, too.

    Args:
        results: what ``run_leak`` returned.
        seed: of the bootstrap.
    """
    rows = []
    for bundle, trials in _by_bundle(results).items():
        cases = {split: [row for each in trials for row in each["rows"] if row["split"] == split] for split in SPLITS}
        n_slices = [case["n_slices"] for case in cases["by_patient"]]
        row: Row = {"bundle": bundle, "n": len(n_slices), "n_slices": sum(n_slices)}
        for name in ("pixel_accuracy", "iou"):
            sums = {split: [case[f"{name}_sum"] for case in cases[split]] for split in SPLITS}
            for split in SPLITS:
                row |= _with_interval(f"{split}_{name}", (sums[split], n_slices), seed=seed)
            gains = [leaky - honest for leaky, honest in zip(sums["by_slice"], sums["by_patient"], strict=True)]
            row |= _with_interval(f"{name}_difference", (gains, n_slices), seed=seed)
        for split in SPLITS:
            shared = [2.0 * case["tumor_shared"] for case in cases[split]]
            sizes = [case["tumor_predicted"] + case["tumor_reference"] for case in cases[split]]
            row |= _with_interval(f"{split}_tumor_dice", (shared, sizes), seed=seed)
        rows.append(row)
    return rows


def failures(results: Sequence[Row]) -> list[Row]:
    """Bundles and cases that failed, with the reason; ``case_id`` is empty where the whole trial failed."""
    rows = []
    for each in results:
        place = {"bundle": each["bundle"], "fold": each["fold"]}
        if "error" in each:
            rows.append({**place, "case_id": "", "error": each["error"]})
        for part in each.get("parts", {}).values():
            rows += [{**place, "case_id": case_id, "error": error} for case_id, error in part["failed"].items()]
    return rows


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."


def _by_bundle(results: Iterable[Row]) -> dict[str, list[Row]]:
    """Results that are there, in the order of the bundles."""
    found: dict[str, list[Row]] = {}
    for each in results:
        if "error" not in each:
            found.setdefault(each["bundle"], []).append(each)
    return found


def _mean_over_slices(parts: Sequence[Row], name: str) -> float | None:
    """Every slice counts alike, whichever fold it is of."""
    scored = [part for part in parts if part[name] is not None]
    n_slices = sum(part["n_slices"] for part in scored)
    return sum(part[name] * part["n_slices"] for part in scored) / n_slices if n_slices else None


def _scored_cases(path: Path) -> list[dict[str, str]]:
    return [row for row in read_table(path, columns=("error",)) if not row["error"]]


def _patient_figures(cases: Sequence[Mapping[str, str]]) -> dict[str, tuple[list[float], list[float]]]:
    """Numerators and denominators a case of every figure."""
    ones = [1.0] * len(cases)
    figures = {}
    for name in CLASSES:
        dice = [float(case[f"{name}_dice"]) for case in cases]
        sizes = [float(case[f"{name}_reference_ml"]) + float(case[f"{name}_prediction_ml"]) for case in cases]
        figures[f"{name}_dice_per_case"] = (dice, ones)
        figures[f"{name}_dice_global"] = ([d * size for d, size in zip(dice, sizes, strict=True)], sizes)
    for criterion in ("iou_50", "overlap"):
        tp, fp, fn = ([float(case[f"lesions_{criterion}_{key}"]) for case in cases] for key in ("tp", "fp", "fn"))
        figures[f"lesion_recall_{criterion}"] = (tp, [a + b for a, b in zip(tp, fn, strict=True)])
        figures[f"lesion_precision_{criterion}"] = (tp, [a + b for a, b in zip(tp, fp, strict=True)])
    measured = [float(case["liver_assd_mm"]) for case in cases if case["liver_assd_mm"]]
    figures["liver_assd_mm"] = (measured, [1.0] * len(measured))
    return figures


def _with_interval(name: str, ratio: tuple[Sequence[float], Sequence[float]], *, seed: int) -> Row:
    values = asdict(pooled(*ratio, seed=seed))
    values = {key: None if isnan(value) else value for key, value in values.items()}
    return {name: values["value"], f"{name}_low": values["low"], f"{name}_high": values["high"]}
