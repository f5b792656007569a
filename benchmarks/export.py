"""Do exported networks give the masks of their runs, and how fast are they on a CPU?

Each bundle is trained for a few minutes on phantoms, on a coarse grid, so that its masks hold a liver and tumours; then
it is exported to each format that is installed here, and both look at the same slabs of a CT in turns, a thread each.
A speed is the run's time over that of the file, the median over batches of four slabs: seconds differ between machines
and from minute to minute, ratios hardly do.

    python benchmarks/export.py -o RUNS               # trains what RUNS lacks; prints a table
    python benchmarks/export.py -o RUNS --ct CT.nii.gz --bundle mobilenet
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch

from liver_monai.data.phantom import write_phantoms
from liver_monai.engine.export import export
from liver_monai.engine.training import train
from liver_monai.model.bundle import list_bundles
from liver_monai.model.formats import FORMATS

COARSE = {
    "spec#spacing_mm": [3, 3, 6],
    "spec#roi_size": [96, 96],
    "batch_size": 6,
    "slabs_per_epoch": 96,
    "fold": None,
    "max_epochs": 1_000_000,
}
NEEDS = {"torchscript": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Runs, kept for the next time.")
@click.option("--ct", type=click.Path(exists=True, path_type=Path), help="To compare on.  [default: a phantom]")
@click.option("--bundle", "bundles", multiple=True, help="Repeatable.  [default: all that ship]")
@click.option("--to", "wanted", type=click.Choice(list(FORMATS)), multiple=True, help="[default: what is installed]")
@click.option("--minutes", default=4.0, show_default=True, help="Of each training.")
def main(out: Path, ct: Path | None, bundles: Sequence[str], wanted: Sequence[str], minutes: float) -> None:
    """Print parity, speed and size of each bundle in each format, as a table in Markdown."""
    torch.set_num_threads(1)
    formats = wanted or [name for name in FORMATS if find_spec(NEEDS[name])]
    print("| bundle | format | MB | Dice liver, tumour | voxels that differ | largest difference of a logit | speed |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for bundle in bundles or list_bundles():
        run = trained(bundle, out, minutes)
        for name in formats:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"{bundle}{FORMATS[name].suffix}"
                print(row(bundle, export(run, out=file, ct=ct, say=lambda _: None)), flush=True)


def trained(bundle: str, out: Path, minutes: float) -> Path:
    """The run in ``out``, made if it is not there."""
    run, data = out / bundle, out / "phantoms"
    if not (run / "models" / "model.pt").is_file():
        if not data.is_dir():
            write_phantoms(data, n_cases=12, shape=(128, 128, 40))
        overrides = {**COARSE, "minutes": minutes, "store_dir": str((out / "store").resolve())}
        train(bundle=bundle, data=data, out=run, overrides=overrides)
    return run


def row(bundle: str, report: dict[str, Any]) -> str:
    """A line of the table."""
    parity = report["parity"]
    dice = ", ".join(f"{parity['dice'][name]:.5f}" for name in ("liver", "tumor"))
    differ = f"{parity['voxels_that_differ']} of {parity['voxels']['liver']}"
    logits = f"{parity['max_logit_difference']:.1e} of {parity['logit_span']:.0f}"
    size_mb = report["size_bytes"] / 1e6
    return f"| `{bundle}` | {report['format']} | {size_mb:.0f} | {dice} | {differ} | {logits} | {parity['speed']:.2f} |"


if __name__ == "__main__":
    main()
