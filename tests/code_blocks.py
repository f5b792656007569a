"""Fenced blocks of the documentation, and how each language of them is run."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from conftest import QUICK_TRAINING, as_options, run_command

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
EXECUTED = {"bash", "python"}
"""Run in order, in one folder a page."""
SHOWN = {"text", "json", "diff", "csv", "yaml", "toml"}
PARSED = {"sh", "py"}
"""Need what a test machine lacks; of commands the options are held against the command line, and Python is compiled."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block: where it begins, its language, and what stands in it."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, from its beginning to its end."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page=page, line=text.count("\n", 0, found.start()) + 1, language=found[2].strip(), text=found[3])
        for found in FENCE.finditer(text)
    ]


def commands_of(text: str) -> list[list[str]]:
    """Each command of a shell block as its words, without comments and settings such as ``OMP_NUM_THREADS=4``."""
    lines = text.replace("\\\n", " ").splitlines()
    commands = [shlex.split(_without_comment(line)) for line in lines]
    for words in commands:
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
    return [words for words in commands if words]


def our_commands(text: str) -> list[list[str]]:
    """Of a script, the arguments of each ``liver-monai``, wherever in a line it stands."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|\s)liver-monai(?=\s)([^|;&>]*)", _without_comment(line)) for line in lines]
    # a variable without quotes may be nothing, or several words
    known = [re.sub(r"(?<=\s)\$\w+", "", each[1]) for each in found if each]
    return [shlex.split(each) for each in known if each.strip()]


def _without_comment(line: str) -> str:
    """A shell's comment begins with a word, so that ``spec#slab_size=7`` has none."""
    return re.sub(r"(^|\s)#.*", "", line)


def parse_command(arguments: list[str]) -> None:
    """Ask the command line whether it knows this command and its options; nothing runs.

    Raises:
        click.ClickException: it does not.
    """
    from liver_monai.cli import main

    command: click.Command = main
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context(command.name or "", list(arguments)) as context:
        if isinstance(command, click.Group):
            command.resolve_command(context, arguments)


def run_block(block: Block, names: dict[str, Any], *, is_quick: bool) -> str:
    """Run a block in the current folder; returns what it printed.

    Args:
        names: of Python, kept from block to block.
        is_quick: whether ``train`` gets settings with which it takes seconds.
    """
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), names)
        return ""
    return "".join(_run_words(words, where=str(block), is_quick=is_quick) for words in commands_of(block.text))


def _run_words(words: list[str], *, where: str, is_quick: bool) -> str:
    if words[0] != "liver-monai":
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: {shlex.join(words)}\n{done.stderr}"
        return done.stdout
    arguments = words[1:]
    if is_quick and arguments[0] == "train":
        length = [] if "--epochs" in arguments else ["--epochs", "1"]
        arguments = ["train", *as_options(dict(QUICK_TRAINING)), *length, *arguments[1:]]
    result = run_command(*arguments)
    assert result.exit_code == 0, f"{where}: {shlex.join(words)}\n{result.output}{result.exception!r}"
    return result.output
