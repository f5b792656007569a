"""The command line: one short function a command. Everything heavy is imported inside, so that --help is instant."""

from __future__ import annotations

import click

from liver_monai._version import __version__
from liver_monai.cli.bundles import bundle, export
from liver_monai.cli.data import check, convert, prepare, synth
from liver_monai.cli.first_steps import demo, doctor
from liver_monai.cli.masks import predict, report
from liver_monai.cli.scores import compare, evaluate
from liver_monai.cli.terminal import Commands
from liver_monai.cli.training import benchmark, train

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="liver-monai")
def main() -> None:
    """Segment the liver and its tumours in CT. Research use only."""


for command in (
    *(demo, doctor, synth, check, prepare, train, predict, report),
    *(evaluate, compare, benchmark, convert, export, bundle),
):
    main.add_command(command)
