"""Cross-validation: a bundle trained once for each fold, which then is an ensemble.

Each training lies in ``OUT/foldK`` and is a run as any; they share the store ``OUT/store``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from liver_monai.data.preparation import open_dataset, store_folder
from liver_monai.data.splits import find_folds
from liver_monai.engine.handlers import VALIDATION_SCORES
from liver_monai.engine.training import DEFAULT_BUNDLE, train
from liver_monai.errors import InputError
from liver_monai.io.files import write_json
from liver_monai.io.tables import read_table
from liver_monai.model.bundle import find_bundle, find_members, overridden_spec, read_config
from liver_monai.model.trust import require_trusted

SUMMARY = "summary.json"


def train_folds(
    *,
    bundle: str | Path | None,
    data: str | Path | None,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    trust_bundle: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a bundle once for each fold, which is held back from it.

    Args:
        bundle, data, overrides, trust_bundle: as ``train`` takes them.
        out: folder of the runs, new unless ``resume``.
        resume: keep what is finished and go on with the rest; overrides make finished ones go on, too.
        say: takes a line for people.

    Returns:
        What ``OUT/summary.json`` holds: epoch, scores and cases of each fold, and the scores' means.

    Raises:
        InputError: as ``train``, data of one patient, or several processes of torchrun.
        SystemExit: as ``train``.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--fold all trains in one process; under torchrun, give one --fold after the other")
    folder = Path(out).expanduser().resolve()
    runs = _runs_so_far(folder, resume=resume)
    source = runs[0] if resume else find_bundle(bundle or DEFAULT_BUNDLE)
    if not trust_bundle:
        for each in {source, *runs}:
            require_trusted(each)
    settings = {**({} if resume else {"store_dir": str(folder / "store")}), **(overrides or {})}
    dataset = str(Path(data).expanduser().resolve()) if data is not None else _value(source, "dataset_dir")
    open_dataset(dataset)  # before anything is written
    config = {name: settings.get(name, _value(source, name)) for name in ("store_dir", "folds")}
    folds = find_folds(
        dataset,
        spec=overridden_spec(source, settings),
        store=store_folder(dataset, config["store_dir"]),
        folds=config["folds"],
    )
    for fold in folds:
        say(f"fold {fold} of {', '.join(map(str, folds))}")
        _train_fold(folder / f"fold{fold}", fold, source=source, data=dataset, settings=settings, resume=resume)
    return _write_summary(folder, folds, say=say)


def _runs_so_far(folder: Path, *, resume: bool) -> list[Path]:
    """The folds that were begun: some to resume, none to begin."""
    runs = [Path(each) for each in find_members(folder) if Path(each) != folder]
    if (folder / "configs").exists() or (runs and not resume):
        raise InputError(f"{folder}: holds a run already; go on with --resume or choose another -o")
    if resume and not runs:
        raise InputError(f"{folder}: holds no folds to resume; train them without --resume")
    return runs


def _train_fold(run: Path, fold: int, *, source: Path, data: str, settings: Mapping[str, Any], resume: bool) -> None:
    """Train one fold, or go on with it; one that is finished stays as it is unless something is to change.

    Whether the bundle is trusted has been asked.
    """
    if not (run / "configs").exists():
        train(bundle=source, data=data, out=run, overrides={**settings, "fold": fold}, trust_bundle=True)
    elif settings or not (run / "record.json").is_file():
        train(bundle=None, data=data, out=run, overrides=settings, resume=resume, trust_bundle=True)


def _value(bundle: Path, config_id: str) -> Any:
    return read_config(bundle / "configs" / "train.json").get(config_id)


def _write_summary(folder: Path, folds: list[int], *, say: Callable[[str], None]) -> dict[str, Any]:
    rows = [_describe(folder / f"fold{fold}", fold) for fold in folds]
    means = {name: mean(row[name] for row in rows) for name in VALIDATION_SCORES}
    content = {"folds": rows, "mean": means}
    write_json(folder / SUMMARY, content)
    for row in rows:
        say(f"fold {row['fold']}: epoch {row['epoch']}, {_scores(row)}")
    say(f"mean: {_scores(means)}")
    return content


def _describe(run: Path, fold: int) -> dict[str, Any]:
    """The weights that were kept, and how they scored on what was held back."""
    epoch = read_config(run / "models" / "model.json")["epoch"]
    record = read_config(run / "record.json")
    rows = read_table(run / "models" / "history.csv", columns=("epoch", "minutes", *VALIDATION_SCORES))
    (best,) = [row for row in rows if int(row["epoch"]) == epoch]
    return {
        "fold": fold,
        "run": run.name,
        "epoch": epoch,
        "minutes": float(rows[-1]["minutes"]),
        **{name: float(best[name]) for name in VALIDATION_SCORES},
        "validation": record["validation"],
        "n_train": len(record["train"]),
    }


def _scores(row: Mapping[str, Any]) -> str:
    return f"liver Dice {row['val_liver_dice']:.3f}, tumour Dice {row['val_tumor_dice']:.3f}"
