"""The command line: one short function a command. Everything heavy is imported inside, so that --help is instant."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liver_monai._version import __version__
from liver_monai.errors import InputError, one_line, root_cause

if TYPE_CHECKING:
    from liver_monai.processes import Pool

DONE, FAILED, SOME_FAILED = 0, 1, 3
"""Exit codes; click itself ends with 2 when the command line is wrong."""

FROM_0, FROM_1, ABOVE_0 = click.IntRange(min=0), click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
FOLDER = click.Path(file_okay=False, path_type=Path)
OUT = click.option("-o", "--out", type=FOLDER, required=True, help="Folder for the results.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
SERIES = click.option("--series", metavar="UID|N", help="Of DICOM: UID of a series, its beginning, or its number.")
OBJECTS = ("dicom-seg", "sr", "rtstruct")


def _split_formats(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """``"dicom-seg,sr"`` -> both."""
    known = click.Choice(OBJECTS)
    return tuple(known.convert(name.strip(), parameter, context) for name in text.split(",")) if text else ()


TO = click.option(
    "--to",
    metavar="FORMAT,...",
    callback=_split_formats,
    help="Of CTs in DICOM, write objects, too: dicom-seg, rtstruct and sr, which needs dicom-seg.",
)
WITH_PATIENT = click.option("--with-patient", is_flag=True, help="Show the patient's name and ID on the case's page.")
EXCLUDES = click.option(
    "--excludes",
    type=click.Path(path_type=Path),
    help="CSV: case_id, reason.  [default: excludes.csv beside the data]",
)
SPACING_OVERRIDES = click.option(
    "--spacing-overrides",
    type=click.Path(path_type=Path),
    help="CSV: case_id, x, y, z in mm, where headers lie.  [default: spacing_overrides.csv beside the data]",
)
TRUST_BUNDLE = click.option(
    "--trust-bundle", is_flag=True, help="Run whatever a bundle names; it is code, and may do what you may do."
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
JOBS = click.option("--jobs", type=FROM_1, help="Cases at a time.  [default: by cores and cases]")
SCHEDULER = click.option(
    "--scheduler", metavar="tcp://HOST:PORT|local:N", help="Of Dask, whose workers do the cases; docs/cluster.md."
)

BUNDLE_HELP = "A shipped bundle's name, or a folder; ./NAME is a folder that is named like a shipped bundle."


class _Commands(click.Group):
    """Turns errors that a user can mend into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            go_on = "run it again" if ctx.invoked_subcommand == "prepare" else "go on with --resume"
            raise click.ClickException(f"interrupted; what is finished is kept, {go_on}") from None
        except Exception as error:
            if isinstance(root_cause(error), InputError):  # MONAI wraps what a transform or a config raises
                raise click.ClickException(one_line(error)) from error
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="liver-monai")
def main() -> None:
    """Segment the liver and its tumours in CT. Research use only."""


@main.command()
@click.option("-o", "--out", type=FOLDER, default=Path("demo-run"), show_default=True)
@click.option("--seed", type=FROM_0, default=0, show_default=True, help="Decides on the patients and the training.")
@JSON
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Run the whole path on synthetic CTs: train, predict, score, report. Minutes on two cores, no download."""
    from liver_monai.demo import run_demo

    summary = run_demo(out, seed=seed, say=_say)
    _print_summary(summary, as_json=as_json)


@main.command()
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
    _say(f"{cases} synthetic CTs in {out}")


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH [PATH2]", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=FOLDER, help="Folder for report.html, findings.csv and check.json.")
@EXCLUDES
@SPACING_OVERRIDES
@click.option("--folds", type=click.Path(path_type=Path), help="CSV: case_id, fold.  [default: folds.csv in PATH]")
@JOBS
@SCHEDULER
@click.option("--resume", is_flag=True, help="Keep what -o holds of cases whose files have not changed.")
@click.option("--overwrite", is_flag=True, help="Replace a check that is there.")
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
        pool=_pool(jobs=jobs, scheduler=scheduler),
        resume=resume,
        overwrite=overwrite,
        say=_say,
    )
    if as_json:
        _print_json(summary)
    if summary["worst"] == "error":
        sys.exit(FAILED)


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
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
        pool=_pool(jobs=jobs, scheduler=scheduler),
        seed=seed,
        say=_say,
    )
    if as_json:
        _print_json(done)
    _say(f"{done['n']} cases in {out}, {len(done['excluded'])} excluded, {done['n_failed']} failed")
    _exit_for(done["n"] + done["n_failed"], done["n_failed"])


@main.command()
@click.option("--bundle", help=f"{BUNDLE_HELP}  [default: mobilenet]")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Data set with reference masks in any layout, or a store."
)
@OUT
@click.option("--store", type=FOLDER, help="Where prepared cases are kept, to share them.  [default: in -o]")
@click.option(
    "--fold", metavar="N|all", help="Which fifth of the patients is held back; all: each in turn.  [default: 0]"
)
@click.option("--folds", type=click.Path(path_type=Path), help="CSV with case_id and fold.  [default: the store's]")
@click.option("--init", type=click.Path(path_type=Path), help="Weights to begin from: a run's folder or a state_dict.")
@click.option("--epochs", type=FROM_1, help="Length of the training in epochs.")
@click.option("--minutes", type=ABOVE_0, help="Length of the training in minutes; the schedule fits itself to it.")
@click.option("--resume", is_flag=True, help="Go on with the training in -o.")
@TRUST_BUNDLE
@click.option(
    "--set", "settings", multiple=True, metavar="ID=VALUE", help="Override a value of the bundle; repeatable."
)
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
    settings: Sequence[str],
) -> None:
    """Train a bundle. The finished run is a bundle, too: predict, MONAI and others take it as it is.

    On SIGTERM a checkpoint is saved and the exit code is 143; --resume goes on from there. Under torchrun several
    processes train as one.
    """
    from liver_monai.engine.cross_validation import train_folds
    from liver_monai.engine.together import is_first
    from liver_monai.engine.training import train as train_bundle
    from liver_monai.model.bundle import parse_override

    if data is None and not resume:
        raise click.UsageError("--data is missing; give the folder of a data set")
    overrides = dict(parse_override(text) for text in settings)
    paths = {"store_dir": store, "folds": folds, "init": init}
    chosen = {"fold": _fold(fold), "max_epochs": epochs, "minutes": minutes}
    overrides |= {name: value for name, value in chosen.items() if value is not None}
    overrides |= {name: str(path.expanduser().resolve()) for name, path in paths.items() if path is not None}
    if minutes is not None and epochs is None:
        overrides["max_epochs"] = 1_000_000  # minutes alone end the training
    train_one_or_all = partial(train_folds, say=_say) if fold == "all" else train_bundle
    train_one_or_all(bundle=bundle, data=data, out=out, overrides=overrides, resume=resume, trust_bundle=trust_bundle)
    if is_first():
        _say(f"trained: {out}")


@main.command()
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
@click.option(
    "--set", "settings", multiple=True, metavar="ID=VALUE", help="Override a value of inference.json; repeatable."
)
@TRUST_BUNDLE
@SERIES
@click.option("--report", is_flag=True, help="Write report.html, and the findings of each case.")
@TO
@WITH_PATIENT
@SCHEDULER
@click.option("--resume", is_flag=True, help="Keep the masks that are there and go on with the others.")
@click.option("--overwrite", is_flag=True, help="Replace the masks that are there.")
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
    settings: Sequence[str],
    trust_bundle: bool,
    series: str | None,
    report: bool,
    to: Sequence[str],
    with_patient: bool,
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
    from liver_monai.model.bundle import parse_override

    if with_patient and not report:
        raise click.UsageError("--with-patient shows the patient on the pages of the report; give --report, too")
    choices = Choices(
        device=device,
        runtime=runtime,
        search=search,
        maps=(*(STRUCTURES if probabilities else ()), *((ENTROPY,) if entropy else ())),
        max_memory_gb=max_memory,
        overrides=dict(parse_override(text) for text in settings),
        trust_bundle=trust_bundle,
    )
    rows = predict_cohort(
        find_images(cts, series=series),
        bundle=bundles,
        out=out,
        choices=choices,
        extras=Extras(report=report, to=to, with_patient=with_patient),
        pool=_pool(scheduler=scheduler),
        resume=resume,
        overwrite=overwrite,
        say=_say,
    )
    if as_json:
        _print_json(rows)
    _exit_for(len(rows), sum(row["status"] == "failed" for row in rows))
    if any(row["dicom_error"] for row in rows):
        sys.exit(SOME_FAILED)


@main.command()
@click.argument("prediction", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@OUT
@click.option(
    "--protocol",
    type=click.Choice(["lits", "lits-2017", "msd", "seed"]),
    default="lits",
    show_default=True,
    help="lits-2017: with the faults of the public scorer, for old tables. seed: a slice at a time.",
)
@click.option("--tolerance-mm", default=2.0, show_default=True, help="Of the surface Dice (NSD).")
@click.option("--probabilities", type=click.Path(path_type=Path), help="Folder of <case_id>_liver|tumor.nii.gz.")
@JOBS
@SCHEDULER
@click.option("--overwrite", is_flag=True, help="Replace an evaluation that is there.")
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
        pool=_pool(jobs=jobs, scheduler=scheduler),
        overwrite=overwrite,
        say=_say,
    )
    _print_summary(summary, as_json=as_json)
    _exit_for(summary["n"] + summary["n_failed"], summary["n_failed"])


@main.command()
@click.argument("mask", type=click.Path(path_type=Path))
@OUT
@click.option("--image", type=click.Path(path_type=Path), help="The mask's CT, in any format.")
@click.option("--probabilities", type=click.Path(path_type=Path), help="Folder of <case_id>_tumor.nii.gz.")
@SERIES
@TO
@WITH_PATIENT
@click.option("--overwrite", is_flag=True, help="Replace findings that are there.")
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
        say=_say,
    )
    if as_json:
        _print_json(found)


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@SERIES
@click.option("--ct", type=click.Path(path_type=Path), help="Of a mask: its CT, whose grid it is checked against.")
@click.option("--to", type=click.Choice(["nnunet"]), help="nnunet: IN is a data set or store, OUT a DatasetNNN_Name.")
@click.option("--folds", type=click.Path(path_type=Path), help="Of a data set: CSV with case_id and fold.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
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
    _say(f"{out}: {size} voxels of {spacing} mm, {header.axis_codes}")


def _convert_dataset(source: Path, out: Path, *, folds: Path | None, overwrite: bool) -> None:
    from liver_monai.data.nnunet import write_nnunet

    done = write_nnunet(source, out, folds=folds, overwrite=overwrite, say=_say)
    splits = f"{done['n_folds']} folds in splits_final.json" if done["n_folds"] else "no folds, nnU-Net deals its own"
    _say(f"{out}: {done['n']} cases, {len(done['excluded'])} excluded, {done['n_failed']} failed; {splits}")
    _exit_for(done["n"] + done["n_failed"], done["n_failed"])


@main.command()
@click.argument("evaluations", nargs=-1, required=True, metavar="EVALUATION...", type=click.Path(path_type=Path))
@OUT
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--overwrite", is_flag=True, help="Replace a comparison that is there.")
@JSON
def compare(evaluations: Sequence[Path], out: Path, seed: int, overwrite: bool, as_json: bool) -> None:
    """Compare evaluations of the same cases with the first: intervals, tests and a forest plot."""
    from liver_monai.cohort import compare_cohorts

    comparison = compare_cohorts(evaluations, out=out, seed=seed, overwrite=overwrite, say=_say)
    if as_json:
        _print_json(comparison)


@main.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data set with reference masks.")
@OUT
@click.option("--bundle", "bundles", multiple=True, help="A bundle to train; repeatable.  [default: all that ship]")
@click.option("--epochs", type=FROM_1, help="Length of every training in epochs.")
@click.option("--minutes", type=ABOVE_0, help="Length of every training in minutes.")
@click.option(
    "--folds", "n_folds", type=click.IntRange(min=3), default=5, show_default=True, help="Parts of the cases."
)
@click.option("--fold", "folds", type=FROM_0, multiple=True, help="Which part tests; repeatable.  [default: 0]")
@click.option(
    "--set", "settings", multiple=True, metavar="ID=VALUE", help="Override a value of every bundle; repeatable."
)
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
    settings: Sequence[str],
    show_leak: bool,
    resume: bool,
    trust_bundle: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Train bundles on the same patients under the same budget; score them by slice and by patient."""
    from liver_monai.benchmark import run_benchmark
    from liver_monai.engine.benchmark import budget
    from liver_monai.engine.trial import Plan
    from liver_monai.model.bundle import parse_override

    overrides = dict(parse_override(text) for text in settings) | budget(epochs=epochs, minutes=minutes)
    plan = Plan(data=data.expanduser().resolve(), out=out, n_folds=n_folds, seed=seed, overrides=overrides)
    content = run_benchmark(
        plan,
        bundles=bundles,
        folds=folds or (0,),
        show_leak=show_leak,
        resume=resume,
        trust_bundle=trust_bundle,
        say=_say,
    )
    if as_json:
        _print_json(content)
    _exit_for(len(content["slices"]) + len(content["failed"]), len(content["failed"]))


@main.command()
@click.argument("run", metavar="RUN")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file: .ts, .onnx or .xml.")
@click.option("--to", type=click.Choice(["torchscript", "onnx", "openvino"]), help="[default: as -o ends]")
@click.option("--ct", type=click.Path(path_type=Path), help="To compare masks on.  [default: a phantom]")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@JSON
def export(run: str, out: Path, to: str | None, ct: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write a trained run as one file that predict, and programs without this package, segment CTs with.

    It holds what is to be done before and after the network, and is kept only if it gives the run's mask.
    """
    from liver_monai.engine.export import export as export_run

    report = export_run(run, out=out, to=to, ct=ct, overwrite=overwrite, say=_say)
    if as_json:
        _print_json(report)


@main.group()
def bundle() -> None:
    """List, make, check and pack bundles."""


@bundle.command("list")
@JSON
def bundle_list(as_json: bool) -> None:
    """Name the bundles that ship."""
    from liver_monai.model.bundle import describe_bundles

    bundles = describe_bundles()
    if as_json:
        _print_json(bundles)
        return
    for name, description in bundles.items():
        click.echo(f"{name:16} {description}")


@bundle.command("new")
@click.argument("name")
@click.option("--encoder", required=True, help="Of segmentation-models-pytorch, or tu- and a timm name.")
@click.option("-o", "--out", type=FOLDER, default=Path(), help="Folder to make it in.  [default: here]")
def bundle_new(name: str, encoder: str, out: Path) -> None:
    """Make an untrained bundle for another encoder."""
    from liver_monai.model.authoring import new_bundle

    _say(f"made {new_bundle(name, encoder=encoder, folder=out)}")


@bundle.command("verify")
@click.argument("path", metavar="BUNDLE")
@TRUST_BUNDLE
@JSON
def bundle_verify(path: str, trust_bundle: bool, as_json: bool) -> None:
    """Check a bundle's files, metadata, spec, network and weights."""
    from liver_monai.model.authoring import verify_bundle
    from liver_monai.model.bundle import find_bundle

    checks = verify_bundle(find_bundle(path), trust_bundle=trust_bundle)
    if as_json:
        _print_json([{"name": check.name, "ok": not check.error, "error": check.error} for check in checks])
    else:
        for check in checks:
            click.echo(f"{'FAIL' if check.error else 'ok  '}  {check.name:14} {check.error}".rstrip())
    if any(check.error for check in checks):
        sys.exit(FAILED)


@bundle.command("pack")
@click.argument("path", metavar="BUNDLE")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The zip file to write.")
@click.option("--torchscript", is_flag=True, help="Add models/model.ts, for MONAI Deploy.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@TRUST_BUNDLE
def bundle_pack(path: str, out: Path, torchscript: bool, overwrite: bool, trust_bundle: bool) -> None:
    """Put a bundle into one zip file, to share it."""
    from liver_monai.model.authoring import pack_bundle
    from liver_monai.model.bundle import find_bundle

    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give --overwrite or another -o")
    packed = pack_bundle(find_bundle(path), out, torchscript=torchscript, trust_bundle=trust_bundle)
    _say(f"packed {packed}")


@main.command()
@JSON
def doctor(as_json: bool) -> None:
    """Check that this installation can work: versions, device, bundles, one forward pass."""
    from liver_monai.doctor import examine

    findings = examine()
    if as_json:
        _print_json([{"name": f.name, "ok": f.is_ok, "found": f.found} for f in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.is_ok else 'FAIL'}  {finding.name:22} {finding.found}")
    if not all(finding.is_ok for finding in findings):
        sys.exit(FAILED)


def _say(text: str) -> None:
    """Text for people goes to standard error; a progress bar that is on the screen stays whole."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def _pool(*, jobs: int | None = None, scheduler: str | None) -> Pool | None:
    """Who does the cases, if that was chosen; a cluster is left when the command ends."""
    from liver_monai.cluster import open_cluster
    from liver_monai.processes import Processes

    if scheduler is None:
        return Processes(jobs) if jobs else None
    if jobs is not None:
        raise click.UsageError("--jobs is for this machine and --scheduler for others; give one of them")
    return click.get_current_context().with_resource(open_cluster(scheduler, say=_say))


def _fold(text: str | None) -> int | None:
    """The number of ``--fold``, if it is one."""
    if text is None or text == "all":
        return None
    if not text.isdecimal():
        raise click.UsageError(f"--fold {text}: expected a number such as 0, or all")
    return int(text)


def _shape(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--shape {text}: expected three whole numbers such as 192,192,64") from error
    return x, y, z


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))


def _print_summary(summary: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(summary)
        return
    for name in ("liver", "tumor"):
        if name in summary:
            scores = {
                title: summary[name][key] for title, key in (("per case", "dice_per_case"), ("global", "dice_global"))
            }
            click.echo(
                f"{name:6} Dice {'  '.join(f'{title} {_number(value)}' for title, value in scores.items())}", err=True
            )
    if "lesion_detection" in summary:
        found = summary["lesion_detection"]["iou_50"]
        click.echo(f"lesions found {found['tp']} of {found['n_references']}, false positives {found['fp']}", err=True)
    if "slices" in summary:
        scores = summary["slices"]
        click.echo(f"slices {scores['n_slices']}  IoU {_number(scores['iou'])}", err=True)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _exit_for(n_cases: int, n_failed: int) -> None:
    if n_failed:
        sys.exit(FAILED if n_failed == n_cases else SOME_FAILED)
