"""Overrides of ``python -m monai.bundle run``, which takes any id without a word, be it misspelt or not."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run, run_workflow
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS
from monai.utils import ensure_tuple

from liver_monai.errors import InputError, nearest
from liver_monai.model.bundle import CONFIG_IDS_OF_VALUES, ID_SEPARATOR, values_by_id

ENTRANCES = (run, run_workflow)
MONAIS_OWN = {
    name
    for taker in (*ENTRANCES, create_workflow, ConfigWorkflow)
    for name, parameter in inspect.signature(taker).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
}
"""Arguments that are no overrides."""

METADATA = ConfigParser.meta_key


def refuse_unknown_overrides() -> None:
    """Refuse ids that no config has; the first thing a config runs.

    MONAI merges the overrides into the config, where nothing tells them apart, so they are read off the stack: from
    the arguments of the ``monai.bundle.run`` that the call came through. Without one, there is nothing to refuse.

    Raises:
        InputError: names the override and the id nearest to it.
    """
    arguments = _arguments_of_entrance()
    if not arguments.get("config_file"):
        return
    known = _known_ids(arguments["config_file"], tracking=arguments.get("tracking"))
    for name in arguments.keys() - MONAIS_OWN:
        if not _is_known(name, known):
            raise InputError(
                f"--{name}: the configs have no such id{nearest(name, known)}; "
                "new ids go into a config file of your own, given after ours"
            )


def _arguments_of_entrance() -> dict[str, Any]:
    """What the entrance was called with, ``args_file`` read as MONAI reads it."""
    codes = [entrance.__code__ for entrance in ENTRANCES]
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    if frame is None:
        return {}
    names, _, keywords, values = inspect.getargvalues(frame)
    given = {name: values[name] for name in names if values[name] is not None} | values[str(keywords)]
    return {**_read(given.get("args_file")), **given}


def _read(settings: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    content: Mapping[str, Any] = (
        ConfigParser.load_config_files(settings) if isinstance(settings, str) else settings or {}
    )
    return content


def _known_ids(config_file: Any, *, tracking: Any) -> set[str]:
    """The ids of the configs and, with experiment tracking, of its settings."""
    settings = _read(DEFAULT_EXP_MGMT_SETTINGS.get(tracking, tracking) if isinstance(tracking, str) else tracking)
    return {*values_by_id(ConfigParser.load_config_files(ensure_tuple(config_file))), *settings.get("configs", ())}


def _is_known(name: str, known: set[str]) -> bool:
    component, _, last = name.rpartition(ID_SEPARATOR)
    is_keyword = last in CONFIG_IDS_OF_VALUES and component in known
    return name in known or is_keyword or name.partition(ID_SEPARATOR)[0] == METADATA
