"""Commands that train: ``train`` and ``benchmark``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from liver_monai.cli.options import (
    BUNDLE_HELP,
    EPOCHS,
    FOLDER,
    FROM_0,
    JSON,
    MINUTES,
    OUT,
    PATH,
    SETTINGS,
    TRUST_BUNDLE,
)
from liver_monai.cli.terminal import exit_for, print_json, say


@click.command()
@click.option("--bundle", help=f"{BUNDLE_HELP}  [default: mobilenet]")
@click.option("--data", type=PATH, help="Data set with reference masks in any layout, or a store.")
@OUT
@click.option("--store", type=FOLDER, help="Where prepared cases are kept, to share them.  [default: in -o]")
@click.option(
    "--fold", metavar="N|all", help="Which fifth of the patients is held back; all: each in turn.  [default: 0]"
)
@click.option("--folds", type=PATH, help="CSV with case_id and fold.  [default: the store's]")
@click.option("--init", type=PATH, help="Weights to begin from: a run's folder or a state_dict.")
@EPOCHS
@MINUTES
@click.option("--resume", is_flag=True, help="Go on with the training in -o.")
@TRUST_BUNDLE
@SETTINGS
def train(
    bundle: str | None,
    data: Path | None,
    out: Path,
    store: Path | None,
    fold: str | None,
    folds: Path | None,
    init: Path | None,
    epochs: int | None,
    minutes: float | None,
    resume: bool,
    trust_bundle: bool,
    settings: dict[str, Any],
) -> None:
    """Train a bundle. The finished run is a bundle, too: predict, MONAI and others take it as it is.

    On SIGTERM a checkpoint is saved and the exit code is 143; --resume goes on from there. Under torchrun several
    processes train as one.
    """
    from liver_monai.engine.cross_validation import train_folds
    from liver_monai.engine.together import is_first
    from liver_monai.engine.training import budget
    from liver_monai.engine.training import train as train_bundle

    if data is None and not resume:
        raise click.UsageError("--data is missing; give the folder of a data set")
    paths = {"store_dir": store, "folds": folds, "init": init}
    overrides = settings | budget(epochs=epochs, minutes=minutes) | _fold(fold)
    overrides |= {name: str(path.expanduser().resolve()) for name, path in paths.items() if path is not None}
    train_one_or_all = partial(train_folds, say=say) if fold == "all" else train_bundle
    train_one_or_all(bundle=bundle, data=data, out=out, overrides=overrides, resume=resume, trust_bundle=trust_bundle)
    if is_first():
        say(f"trained: {out}")


@click.command(short_help="Train bundles alike, and score them.")
@click.option("--data", type=PATH, required=True, help="Data set with reference masks.")
@OUT
@click.option("--bundle", "bundles", multiple=True, help="A bundle to train; repeatable.  [default: all that ship]")
@EPOCHS
@MINUTES
@click.option(
    "--folds", "n_folds", type=click.IntRange(min=3), default=5, show_default=True, help="Parts of the cases."
)
@click.option("--fold", "folds", type=FROM_0, multiple=True, help="Which part tests; repeatable.  [default: 0]")
@SETTINGS
@click.option("--show-leak", is_flag=True, help="Train once more on a split by slice, to show what that hides.")
@click.option("--resume", is_flag=True, help="Keep what is finished in -o and go on.")
@TRUST_BUNDLE
@click.option("--seed", type=FROM_0, default=0, show_default=True, help="Of folds, trainings and intervals.")
@JSON
def benchmark(
    data: Path,
    out: Path,
    bundles: Sequence[str],
    epochs: int | None,
    minutes: float | None,
    n_folds: int,
    folds: Sequence[int],
    settings: dict[str, Any],
    show_leak: bool,
    resume: bool,
    trust_bundle: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Train bundles on the same patients under the same budget; score them by slice and by patient."""
    from liver_monai.benchmark import run_benchmark
    from liver_monai.engine.training import budget
    from liver_monai.engine.trial import Plan

    overrides = settings | budget(epochs=epochs, minutes=minutes)
    plan = Plan(data=data.expanduser().resolve(), out=out, n_folds=n_folds, seed=seed, overrides=overrides)
    content = run_benchmark(
        plan,
        bundles=bundles,
        folds=folds or (0,),
        show_leak=show_leak,
        resume=resume,
        trust_bundle=trust_bundle,
        say=say,
    )
    if as_json:
        print_json(content)
    exit_for(len(content["slices"]) + len(content["failed"]), len(content["failed"]))


def _fold(text: str | None) -> dict[str, int]:
    """The override that ``--fold`` stands for."""
    if text is None or text == "all":
        return {}
    if not text.isdecimal():
        raise click.UsageError(f"--fold {text}: expected a number such as 0, or all")
    return {"fold": int(text)}
