"""Commands that make and read masks: ``predict`` and ``report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from liver_monai.cli.options import (
    ABOVE_0,
    DEVICE,
    JSON,
    OUT,
    OVERWRITE,
    PATH,
    SCHEDULER,
    SERIES,
    SETTINGS,
    TO,
    TRUST_BUNDLE,
    WITH_PATIENT,
    open_pool,
)
from liver_monai.cli.terminal import SOME_FAILED, exit_for, print_json, say


@click.command(short_help="Segment CTs.")
@click.argument("cts", nargs=-1, required=True, metavar="CT...", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--bundle",
    "bundles",
    required=True,
    multiple=True,
    help="A trained run's folder, ./NAME if it is named like a shipped bundle; or a file that export made. Several: "
    "their probabilities' mean.",
)
@OUT
@DEVICE
@click.option(
    "--runtime",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="onnx: about twice as fast on a CPU; made once, beside the weights. auto: onnx where it was made.",
)
@click.option(
    "--search",
    type=click.Choice(["liver", "whole"]),
    help="liver: every few slices first, then those of the liver. whole: all.  [default: the bundle's, liver]",
)
@click.option("--probabilities", is_flag=True, help="Maps of liver and tumour into OUT/probabilities, 255 for 1.")
@click.option("--entropy", is_flag=True, help="A map of how undecided the network is, 255 where it cannot tell.")
@click.option("--max-memory", type=ABOVE_0, metavar="GB", help="Of the process; fewer slabs a pass where it is short.")
@SETTINGS
@TRUST_BUNDLE
@SERIES
@click.option("--report", is_flag=True, help="Write report.html, and the findings of each case.")
@TO
@WITH_PATIENT
@click.option(
    "--anonymous", type=PATH, metavar="KEY.csv", help="Call cases case-0001 and so on; the key says whose they are."
)
@SCHEDULER
@click.option("--resume", is_flag=True, help="Keep the masks that are there and go on with the others.")
@OVERWRITE
@JSON
def predict(
    cts: Sequence[Path],
    bundles: Sequence[str],
    out: Path,
    device: str,
    runtime: str,
    search: str | None,
    probabilities: bool,
    entropy: bool,
    max_memory: float | None,
    settings: dict[str, Any],
    trust_bundle: bool,
    series: str | None,
    report: bool,
    to: Sequence[str],
    with_patient: bool,
    anonymous: Path | None,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Segment CTs: files or folders in, masks out (0 background, 1 liver, 2 tumour) on each CT's own grid."""
    from liver_monai.cohort import Extras, predict_cohort
    from liver_monai.data.cases import find_images
    from liver_monai.engine.inference import Choices
    from liver_monai.io.probabilities import ENTROPY, STRUCTURES

    if with_patient and not report:
        raise click.UsageError("--with-patient shows the patient on the pages of the report; give --report, too")
    choices = Choices(
        device=device,
        runtime=runtime,
        search=search,
        maps=(*(STRUCTURES if probabilities else ()), *((ENTROPY,) if entropy else ())),
        max_memory_gb=max_memory,
        overrides=settings,
        trust_bundle=trust_bundle,
    )
    rows = predict_cohort(
        find_images(cts, series=series),
        bundle=bundles,
        out=out,
        choices=choices,
        extras=Extras(report=report, to=to, with_patient=with_patient, anonymous=anonymous),
        pool=open_pool(scheduler=scheduler),
        resume=resume,
        overwrite=overwrite,
        say=say,
    )
    if as_json:
        print_json(rows)
    exit_for(len(rows), sum(row["status"] == "failed" for row in rows))
    if any(row["dicom_error"] for row in rows):
        sys.exit(SOME_FAILED)


@click.command(short_help="Measure the liver and lesions of a mask.")
@click.argument("mask", type=PATH)
@OUT
@click.option("--image", type=PATH, help="The mask's CT, in any format.")
@click.option("--probabilities", type=PATH, help="Folder of <case_id>_tumor.nii.gz.")
@SERIES
@TO
@WITH_PATIENT
@OVERWRITE
@JSON
def report(
    mask: Path,
    out: Path,
    image: Path | None,
    probabilities: Path | None,
    series: str | None,
    to: Sequence[str],
    with_patient: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Measure the liver and every lesion of a mask, ours or not: volumes, diameters, place, brightness."""
    from liver_monai.report.mask import report_mask

    found = report_mask(
        mask,
        out=out,
        image=image,
        probabilities=probabilities,
        series=series,
        to=to,
        with_patient=with_patient,
        overwrite=overwrite,
        say=say,
    )
    if as_json:
        print_json(found)
