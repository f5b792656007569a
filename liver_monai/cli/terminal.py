"""What people and programs see of a command: text on standard error, JSON on standard output, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from traceback import clear_frames
from typing import Any

import click

from liver_monai.errors import OF_DISKS, InputError, one_line, root_cause

FAILED, SOME_FAILED = 1, 3
"""Exit codes beside 0; click itself ends with 2 when the command line is wrong."""


class Commands(click.Group):
    """Commands in the order of their use, whose errors that a user can mend become one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added; click's is that of the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            clear_frames(interrupt.__traceback__)  # whoever holds processes ends them now, not after all of their tasks
            go_on = "run it again" if ctx.invoked_subcommand == "prepare" else "go on with --resume"
            raise click.ClickException(f"interrupted; what is finished is kept, {go_on}") from None
        except Exception as error:
            clear_frames(error.__traceback__)  # as above
            cause = root_cause(error)
            if isinstance(cause, InputError):  # MONAI wraps what a transform or a config raises
                raise click.ClickException(one_line(error)) from error
            if isinstance(cause, OSError) and cause.errno in OF_DISKS:
                raise click.ClickException(
                    f"{one_line(error)}; make room there or let it be read and written, and run the command again; "
                    "what is finished is kept"
                ) from error
            raise


def say(text: str) -> None:
    """Text for people goes to standard error; a progress bar that is on the screen stays whole."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def print_json(content: Any) -> None:
    """Print a result for programs."""
    click.echo(json.dumps(content, indent=2))


def print_summary(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the scores of an evaluation, for programs or for people."""
    if as_json:
        print_json(summary)
        return
    for line in _scores(summary):
        click.echo(line, err=True)


def _scores(summary: Mapping[str, Any]) -> Iterator[str]:
    for name in (name for name in ("liver", "tumor") if name in summary):
        scores = summary[name]
        per_case, overall = _number(scores["dice_per_case"]), _number(scores["dice_global"])
        yield f"{name:6} Dice per case {per_case}  global {overall}"
    if "lesion_detection" in summary:
        found = summary["lesion_detection"]["iou_50"]
        yield f"lesions found {found['tp']} of {found['n_references']}, false positives {found['fp']}"
    if "slices" in summary:
        scores = summary["slices"]
        yield f"slices {scores['n_slices']}  IoU {_number(scores['iou'])}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def exit_for(n_cases: int, n_failed: int) -> None:
    """End with what programs tell from: all cases failed, or some; go on where none did."""
    if n_failed:
        sys.exit(FAILED if n_failed == n_cases else SOME_FAILED)
