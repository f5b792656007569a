"""Commands that score: ``evaluate`` and ``compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from liver_monai.cli.options import JOBS, JSON, OUT, OVERWRITE, PATH, SCHEDULER, open_pool
from liver_monai.cli.terminal import exit_for, print_json, print_summary, say


@click.command(short_help="Score masks against reference masks.")
@click.argument("prediction", type=PATH)
@click.argument("reference", type=PATH)
@OUT
@click.option(
    "--protocol",
    type=click.Choice(["lits", "lits-2017", "msd", "seed"]),
    default="lits",
    show_default=True,
    help="lits-2017: with the faults of the public scorer, for old tables. seed: a slice at a time.",
)
@click.option("--tolerance-mm", default=2.0, show_default=True, help="Of the surface Dice (NSD).")
@click.option("--probabilities", type=PATH, help="Folder of <case_id>_liver|tumor.nii.gz.")
@JOBS
@SCHEDULER
@OVERWRITE
@JSON
def evaluate(
    prediction: Path,
    reference: Path,
    out: Path,
    protocol: str,
    tolerance_mm: float,
    probabilities: Path | None,
    jobs: int | None,
    scheduler: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score masks against reference masks: cases.csv, lesions.csv, summary.json and report.html."""
    from liver_monai.cohort import evaluate_cohort

    summary = evaluate_cohort(
        prediction,
        reference,
        out=out,
        protocol=protocol,
        tolerance_mm=tolerance_mm,
        probabilities=probabilities,
        pool=open_pool(jobs=jobs, scheduler=scheduler),
        overwrite=overwrite,
        say=say,
    )
    print_summary(summary, as_json=as_json)
    exit_for(summary["n"] + summary["n_failed"], summary["n_failed"])


@click.command(short_help="Compare evaluations of the same cases.")
@click.argument("evaluations", nargs=-1, required=True, metavar="EVALUATION...", type=PATH)
@OUT
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@OVERWRITE
@JSON
def compare(evaluations: Sequence[Path], out: Path, seed: int, overwrite: bool, as_json: bool) -> None:
    """Compare evaluations of the same cases with the first: intervals, tests and a forest plot."""
    from liver_monai.cohort import compare_cohorts

    comparison = compare_cohorts(evaluations, out=out, seed=seed, overwrite=overwrite, say=say)
    if as_json:
        print_json(comparison)
