"""The reference of the command line, made from click's commands when the site is built (a hook of MkDocs)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page before it becomes HTML."""
    if MARK not in markdown:
        return markdown
    from liver_monai.cli import main

    return markdown.replace(MARK, describe_commands(main, name="liver-monai"))


def describe_commands(command: click.Command, *, name: str) -> str:
    """Markdown: a section a command, groups before what is in them."""
    return "\n".join(_sections(command, click.Context(command, info_name=name)))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield from _section(command, context)
        return
    for name in command.list_commands(context):
        member = command.commands[name]
        yield from _sections(member, click.Context(member, info_name=name, parent=context))


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from (f"## {context.command_path.partition(' ')[2]}", "", _escaped(command.help or ""), "")
    yield from ("```text", usage, "```", "")
    options = [record for each in command.params if (record := each.get_help_record(context)) is not None]
    if options:
        yield from ("| option | |", "|---|---|")
        yield from (f"| `{names.replace('|', chr(92) + '|')}` | {_escaped(text)} |" for names, text in options)
        yield ""


def _escaped(text: str) -> str:
    for sign in "|<>*_":
        text = text.replace(sign, f"\\{sign}")
    return text
