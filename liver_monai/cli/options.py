"""Options that several commands have: the same name, words and meaning everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from liver_monai.cli.terminal import say

if TYPE_CHECKING:
    from liver_monai.processes import Pool

OBJECTS = ("dicom-seg", "sr", "rtstruct")


def _split_formats(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:
    """``"dicom-seg,sr"`` -> both."""
    known = click.Choice(OBJECTS)
    return tuple(known.convert(name.strip(), parameter, context) for name in text.split(",")) if text else ()


def _parse_settings(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """``("fold=1",)`` -> ``{"fold": 1}``."""
    from liver_monai.model.bundle import parse_override

    return dict(parse_override(text) for text in texts)


FROM_0, FROM_1, ABOVE_0 = click.IntRange(min=0), click.IntRange(min=1), click.FloatRange(min=0, min_open=True)
PATH, FOLDER = click.Path(path_type=Path), click.Path(file_okay=False, path_type=Path)
OUT = click.option("-o", "--out", type=FOLDER, required=True, help="Folder for the results.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
SERIES = click.option("--series", metavar="UID|N", help="Of DICOM: UID of a series, its beginning, or its number.")
TO = click.option(
    "--to",
    metavar="FORMAT,...",
    callback=_split_formats,
    help="Of CTs in DICOM, write objects, too: dicom-seg, rtstruct and sr, which needs dicom-seg.",
)
WITH_PATIENT = click.option("--with-patient", is_flag=True, help="Show the patient's name and ID on the case's page.")
EXCLUDES = click.option("--excludes", type=PATH, help="CSV: case_id, reason.  [default: excludes.csv beside the data]")
SPACING_OVERRIDES = click.option(
    "--spacing-overrides",
    type=PATH,
    help="CSV: case_id, x, y, z in mm, where headers lie.  [default: spacing_overrides.csv beside the data]",
)
TRUST_BUNDLE = click.option(
    "--trust-bundle", is_flag=True, help="Run whatever a bundle names; it is code, and may do what you may do."
)
EPOCHS = click.option("--epochs", type=FROM_1, help="Length of a training in epochs.")
MINUTES = click.option(
    "--minutes", type=ABOVE_0, help="Length of a training in minutes; the schedule fits itself to it."
)
SETTINGS = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="ID=VALUE",
    callback=_parse_settings,
    help="Override a value of the bundle's configs; repeatable.",
)
DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
JOBS = click.option("--jobs", type=FROM_1, help="Cases at a time.  [default: by cores and cases]")
SCHEDULER = click.option(
    "--scheduler", metavar="tcp://HOST:PORT|local:N", help="Of Dask, whose workers do the cases; docs/cluster.md."
)

BUNDLE_HELP = "A shipped bundle's name, or a folder; ./NAME is a folder that is named like a shipped bundle."


def open_pool(*, jobs: int | None = None, scheduler: str | None) -> Pool | None:
    """Who does the cases, if that was chosen; a cluster is left when the command ends."""
    from liver_monai.cluster import open_cluster
    from liver_monai.processes import Processes

    if scheduler is None:
        return Processes(jobs) if jobs else None
    if jobs is not None:
        raise click.UsageError("--jobs is for this machine and --scheduler for others; give one of them")
    return click.get_current_context().with_resource(open_cluster(scheduler, say=say))
