"""Recipes of docs/cluster.md, as far as one machine can tell: they parse, and every option in them exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker
from torch.distributed.run import get_args_parser

from liver_monai.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL)


def blocks_of(language):
    found = [text for name, text in BLOCKS if name == language]
    assert found
    return found


def options_of(command):
    """Of click's commands."""
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def of_torchrun():
    return {option for action in get_args_parser()._actions for option in action.option_strings}


KNOWN = {
    ("dask", "scheduler"): options_of(dask_scheduler.main),
    ("dask", "worker"): options_of(dask_worker.main),
    **{("liver-monai", name): options_of(command) for name, command in main.commands.items()},
}
"""Options by the first two words of a command."""


def words_of_lines():
    """Every command line of shell blocks, as words; lines that go on are joined."""
    for text in blocks_of("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if not line.startswith("#") and line.count("'") % 2 == 0 and line.count('"') % 2 == 0:
                yield shlex.split(line, comments=True)


def words_of_containers():
    for text in blocks_of("yaml"):
        for thing in yaml.safe_load_all(text):
            for container in thing["spec"].get("template", {}).get("spec", {}).get("containers", []):
                yield [*container["command"], *container.get("args", [])]


def commands():
    """What is run, apart from what it is run by."""
    for words in (*words_of_lines(), *words_of_containers()):
        starts = [n for n in range(len(words) - 1) if tuple(words[n : n + 2]) in KNOWN]
        yield from (words[n:] for n in starts)


def test_there_are_commands_of_every_kind():
    found = {tuple(words[:2]) for words in commands()}

    assert {("dask", "scheduler"), ("dask", "worker"), ("liver-monai", "predict"), ("liver-monai", "train")} <= found


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_options_exist(words):
    given = {word.split("=")[0] for word in words if word.startswith("-")}

    assert given <= KNOWN[tuple(words[:2])]
    if words[0] == "liver-monai":
        click.Context(main.commands[words[1]])
        main.commands[words[1]].make_parser(click.Context(main)).parse_args([w for w in words[2:] if w != "&"])


def test_options_of_torchrun_exist():
    lines = [words for words in words_of_lines() if "torchrun" in words]
    assert len(lines) >= 3
    for words in lines:
        given = words[words.index("torchrun") + 1 : words.index("liver-monai")]
        assert {word.split("=")[0] for word in given} <= of_torchrun()


@pytest.mark.parametrize("script", blocks_of("sh"))
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_python_parses():
    for text in blocks_of("py"):
        ast.parse(text)


def test_what_kubernetes_is_given_fits_together():
    (text,) = blocks_of("yaml")
    things = {(thing["kind"], thing["metadata"]["name"]): thing for thing in yaml.safe_load_all(text)}
    assert {kind for kind, _ in things} == {"Service", "Deployment", "Job"}
    service = things["Service", "liver-scheduler"]
    for thing in things.values():
        assert {"apiVersion", "kind", "metadata", "spec"} == thing.keys()
        if thing["kind"] == "Deployment":
            assert thing["spec"]["selector"]["matchLabels"] == thing["spec"]["template"]["metadata"]["labels"]
    scheduler = things["Deployment", "liver-scheduler"]["spec"]["template"]
    assert scheduler["metadata"]["labels"] == service["spec"]["selector"]
    assert str(service["spec"]["ports"][0]["port"]) in scheduler["spec"]["containers"][0]["command"]
    for words in words_of_containers():
        addresses = [word for word in words if word.startswith("tcp://")]
        assert all(word == "tcp://liver-scheduler:8786" for word in addresses)
