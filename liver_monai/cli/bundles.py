"""Commands for networks as others take them: ``bundle`` and ``export``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from liver_monai.cli.options import FOLDER, JSON, OVERWRITE, PATH, TRUST_BUNDLE
from liver_monai.cli.terminal import FAILED, print_json, say
from liver_monai.errors import InputError


@click.group()
def bundle() -> None:
    """List, make, check and pack bundles."""


@bundle.command("list")
@JSON
def bundle_list(as_json: bool) -> None:
    """Name the bundles that ship."""
    from liver_monai.model.bundle import describe_bundles

    bundles = describe_bundles()
    if as_json:
        print_json(bundles)
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

    say(f"made {new_bundle(name, encoder=encoder, folder=out)}")


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
        print_json([{"name": check.name, "ok": not check.error, "error": check.error} for check in checks])
    else:
        for check in checks:
            click.echo(f"{'FAIL' if check.error else 'ok  '}  {check.name:14} {check.error}".rstrip())
    if any(check.error for check in checks):
        sys.exit(FAILED)


@bundle.command("pack")
@click.argument("path", metavar="BUNDLE")
@click.option("-o", "--out", type=PATH, required=True, help="The zip file to write.")
@click.option("--torchscript", is_flag=True, help="Add models/model.ts, for MONAI Deploy.")
@OVERWRITE
@TRUST_BUNDLE
def bundle_pack(path: str, out: Path, torchscript: bool, overwrite: bool, trust_bundle: bool) -> None:
    """Put a bundle into one zip file, to share it."""
    from liver_monai.model.authoring import pack_bundle
    from liver_monai.model.bundle import find_bundle

    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give --overwrite or another -o")
    packed = pack_bundle(find_bundle(path), out, torchscript=torchscript, trust_bundle=trust_bundle)
    say(f"packed {packed}")


@click.command(short_help="Write a trained run as one file.")
@click.argument("run", metavar="RUN")
@click.option("-o", "--out", type=PATH, required=True, help="The file: .ts, .onnx or .xml.")
@click.option("--to", type=click.Choice(["torchscript", "onnx", "openvino"]), help="[default: as -o ends]")
@click.option("--ct", type=PATH, help="To compare masks on.  [default: a phantom]")
@OVERWRITE
@JSON
def export(run: str, out: Path, to: str | None, ct: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write a trained run as one file that predict, and programs without this package, segment CTs with.

    It holds what is to be done before and after the network, and is kept only if it gives the run's mask.
    """
    from liver_monai.engine.export import export as export_run

    report = export_run(run, out=out, to=to, ct=ct, overwrite=overwrite, say=say)
    if as_json:
        print_json(report)
