"""Commands for data: ``synth``, ``check``, ``prepare`` and ``convert``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from liver_monai.cli.options import (
    EXCLUDES,
    FOLDER,
    FROM_0,
    FROM_1,
    JOBS,
    JSON,
    OVERWRITE,
    PATH,
    SCHEDULER,
    SERIES,
    SPACING_OVERRIDES,
    open_pool,
)
from liver_monai.cli.terminal import FAILED, exit_for, print_json, say
from liver_monai.errors import InputError


@click.command(short_help="Write synthetic CTs with liver and tumours.")
@click.argument("out", type=FOLDER)
@click.option("--cases", type=FROM_1, default=20, show_default=True, help="How many CTs.")
@click.option("--shape", default="192,192,64", show_default=True, metavar="X,Y,Z", help="Voxels of each.")
@click.option("--seed", type=FROM_0, default=0, show_default=True, help="Of the first case; the next ones count up.")
def synth(out: Path, cases: int, shape: str, seed: int) -> None:
    """Write a data set of synthetic CTs with liver and tumours, in MSD layout."""
    from liver_monai.data.phantom import write_phantoms

    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; choose another folder")
    try:
        write_phantoms(out, n_cases=cases, shape=_shape(shape), seed=seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    say(f"{cases} synthetic CTs in {out}")


@click.command(short_help="Check a data set for known traps.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH [PATH2]", type=PATH)
@click.option("-o", "--out", type=FOLDER, help="Folder for report.html, findings.csv and check.json.")
@EXCLUDES
@SPACING_OVERRIDES
@click.option("--folds", type=PATH, help="CSV: case_id, fold.  [default: folds.csv in PATH]")
@JOBS
@SCHEDULER
@click.option("--resume", is_flag=True, help="Keep what -o holds of cases whose files have not changed.")
@OVERWRITE
@JSON
def check(
    paths: Sequence[Path],
    out: Path | None,
    excludes: Path | None,
    spacing_overrides: Path | None,
    folds: Path | None,
    jobs: int | None,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Check a scan or a data set for known traps, and two data sets for cases that they share.

    Ends with 1 if there is an error among the findings, with 0 if there are warnings and notes only.
    """
    from liver_monai.cohort import check_cohort

    if len(paths) > 2:
        raise click.UsageError(f"{len(paths)} paths were given; give one, or two to compare")
    summary = check_cohort(
        paths,
        out=out,
        excludes=excludes,
        spacing_overrides=spacing_overrides,
        folds=folds,
        pool=open_pool(jobs=jobs, scheduler=scheduler),
        resume=resume,
        overwrite=overwrite,
        say=say,
    )
    if as_json:
        print_json(summary)
    if summary["worst"] == "error":
        sys.exit(FAILED)


@click.command(short_help="Bring a data set to a bundle's grid, once.")
@click.argument("data", type=PATH)
@click.option("-o", "--out", type=FOLDER, required=True, help="Folder of the store.")
@click.option("--bundle", default="mobilenet", show_default=True, help="Whose grid; bundles of one grid share a store.")
@EXCLUDES
@SPACING_OVERRIDES
@JOBS
@SCHEDULER
@click.option("--seed", type=FROM_0, default=0, show_default=True, help="Of the folds.")
@JSON
def prepare(
    data: Path,
    out: Path,
    bundle: str,
    excludes: Path | None,
    spacing_overrides: Path | None,
    jobs: int | None,
    scheduler: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Bring a data set to a bundle's grid once, for training; run again, it goes on where it stopped."""
    from liver_monai.data.preparation import prepare as prepare_data
    from liver_monai.model.bundle import find_bundle, read_spec

    done = prepare_data(
        data,
        spec=read_spec(find_bundle(bundle)),
        out=out,
        excludes=excludes,
        spacing_overrides=spacing_overrides,
        pool=open_pool(jobs=jobs, scheduler=scheduler),
        seed=seed,
        say=say,
    )
    if as_json:
        print_json(done)
    say(f"{done['n']} cases in {out}, {len(done['excluded'])} excluded, {done['n_failed']} failed")
    exit_for(done["n"] + done["n_failed"], done["n_failed"])


@click.command(short_help="Convert a CT, a mask or a data set.")
@click.argument("source", metavar="IN", type=PATH)
@click.argument("out", metavar="OUT", type=PATH)
@SERIES
@click.option("--ct", type=PATH, help="Of a mask: its CT, whose grid it is checked against.")
@click.option("--to", type=click.Choice(["nnunet"]), help="nnunet: IN is a data set or store, OUT a DatasetNNN_Name.")
@click.option("--folds", type=PATH, help="Of a data set: CSV with case_id and fold.")
@OVERWRITE
def convert(
    source: Path, out: Path, series: str | None, ct: Path | None, to: str | None, folds: Path | None, overwrite: bool
) -> None:
    """Convert a CT or a mask: NIfTI, NRRD, MetaImage or DICOM in; .nii, .nii.gz, .nrrd or .mha out, and checked.

    With --to nnunet convert a data set, in any layout, to nnU-Net's.
    """
    if to == "nnunet":
        if series or ct:
            raise click.UsageError("--series and --ct are for single volumes; leave them out with --to nnunet")
        _convert_dataset(source, out, folds=folds, overwrite=overwrite)
        return
    if folds:
        raise click.UsageError("--folds is for data sets; give --to nnunet, too")
    from liver_monai.io.conversion import convert as convert_volume

    header = convert_volume(source, out, series=series, ct=ct, overwrite=overwrite)
    size = " x ".join(map(str, header.shape))
    spacing = " x ".join(f"{mm:.4g}" for mm in header.spacing_mm)
    say(f"{out}: {size} voxels of {spacing} mm, {header.axis_codes}")


def _convert_dataset(source: Path, out: Path, *, folds: Path | None, overwrite: bool) -> None:
    from liver_monai.data.nnunet import write_nnunet

    done = write_nnunet(source, out, folds=folds, overwrite=overwrite, say=say)
    splits = f"{done['n_folds']} folds in splits_final.json" if done["n_folds"] else "no folds, nnU-Net deals its own"
    say(f"{out}: {done['n']} cases, {len(done['excluded'])} excluded, {done['n_failed']} failed; {splits}")
    exit_for(done["n"] + done["n_failed"], done["n_failed"])


def _shape(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--shape {text}: expected three whole numbers such as 192,192,64") from error
    return x, y, z
