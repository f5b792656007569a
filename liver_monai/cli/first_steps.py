"""Commands for the first minutes: ``demo`` and ``doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from liver_monai.cli.options import FOLDER, FROM_0, JSON
from liver_monai.cli.terminal import FAILED, print_json, print_summary, say


@click.command(short_help="The whole path on synthetic CTs, in minutes.")
@click.option("-o", "--out", type=FOLDER, default=Path("demo-run"), show_default=True)
@click.option("--seed", type=FROM_0, default=0, show_default=True, help="Decides on the patients and the training.")
@JSON
def demo(out: Path, seed: int, as_json: bool) -> None:
    """Run the whole path on synthetic CTs: train, predict, score, report. Minutes on two cores, no download."""
    from liver_monai.demo import run_demo

    summary = run_demo(out, seed=seed, say=say)
    print_summary(summary, as_json=as_json)


@click.command(short_help="Check that this installation can work.")
@JSON
def doctor(as_json: bool) -> None:
    """Check that this installation can work: versions, device, bundles, one forward pass."""
    from liver_monai.doctor import examine

    findings = examine()
    if as_json:
        print_json([{"name": f.name, "ok": f.is_ok, "found": f.found} for f in findings])
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.is_ok else 'FAIL'}  {finding.name:22} {finding.found}")
    if not all(finding.is_ok for finding in findings):
        sys.exit(FAILED)
