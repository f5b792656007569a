"""Bundles, the only form in which a model exists: find one, copy it with overrides, open its configs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from liver_monai.errors import InputError, nearest, one_line, root_cause
from liver_monai.io.files import read_json, write_json
from liver_monai.spec import LABELS, ModelSpec, offsets

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = next((folder for folder in (_PACKAGE / "bundles", _PACKAGE.parent / "bundles") if folder.is_dir()), _PACKAGE)
"""Beside the modules in an installed wheel, beside the package in a checkout."""

ID_SEPARATOR = "#"
CONFIG_IDS_OF_VALUES = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
"""MONAI's keywords inside of a component: part of its structure, not values to set."""

LEAST = dict.fromkeys(("max_epochs", "val_interval", "patience", "slabs_per_epoch", "batch_size"), 1)
LEAST |= dict.fromkeys(("seed", "fold", "num_workers"), 0)
"""The least that a count can be; ``null`` is left to the component that takes it."""


def list_bundles() -> list[str]:
    """Names of the bundles that ship."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / "configs").is_dir())


def describe_bundles() -> dict[str, str]:
    """The first sentence of each shipped bundle's description."""
    listings = {name: read_config(SHIPPED / name / "configs" / "metadata.json") for name in list_bundles()}
    return {name: listing["description"].split(". ")[0] for name, listing in listings.items()}


def find_bundle(bundle: str | Path) -> Path:
    """The folder of a shipped bundle or of a run.

    Args:
        bundle: a shipped name, which goes before a folder of that name here; or a folder: any other text, such as
            ``"./resnet50"``, and every ``Path``.

    Raises:
        InputError: neither a shipped name nor a folder that holds ``configs/inference.json``.
    """
    names = list_bundles()
    if isinstance(bundle, str) and bundle in names:
        return SHIPPED / bundle
    folder = Path(bundle).expanduser().resolve()
    if (folder / "configs" / "inference.json").is_file():
        return folder
    known = f"the shipped bundles are {', '.join(names)}{nearest(str(bundle), names)}"
    if folder.is_dir():
        raise InputError(f"{bundle}: is no bundle, it holds no configs/inference.json; {known}")
    if folder.is_file():
        raise InputError(f"{bundle}: is a file; a bundle is a folder, and predict also takes what export made; {known}")
    raise InputError(f"{bundle}: no such bundle or folder; {known}")


def weights_of(bundle: str | Path) -> Path:
    """The file that a trained bundle's weights are in; of a file, which holds its network, itself.

    Raises:
        InputError: as ``find_bundle``.
    """
    path = Path(bundle).expanduser()
    return path if path.is_file() else find_bundle(bundle) / "models" / "model.pt"


def find_members(bundle: str | Path) -> list[str | Path]:
    """The trained folds in a folder that ``train --fold all`` left, in order; else the bundle itself."""
    folder = Path(bundle).expanduser()
    if bundle in list_bundles() or (folder / "configs").exists() or not folder.is_dir():
        return [bundle]
    folds = [each for each in folder.iterdir() if re.fullmatch(r"fold\d+", each.name) and (each / "configs").is_dir()]
    return [*sorted(folds, key=lambda each: int(each.name.removeprefix("fold")))] or [bundle]


def copy_bundle(bundle: Path, run: Path, overrides: Mapping[str, Any]) -> None:
    """Copy a bundle to a run's folder, without weights, and write the overrides into its configs.

    Raises:
        InputError: an override that no config knows; nothing is copied then.
    """
    configs = _overridden(bundle, overrides)
    unwanted = shutil.ignore_patterns("configs", "models", "store", "__pycache__")
    shutil.copytree(bundle, run, dirs_exist_ok=True, ignore=unwanted)
    with _whole_folder(run / "configs") as temporary:  # a run that was interrupted here must not go on without them
        shutil.copytree(bundle / "configs", temporary)
        _write_configs(temporary, configs)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Give a path beside ``folder`` that takes its place when the block succeeds."""
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    try:
        yield temporary
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def override_bundle(run: Path, overrides: Mapping[str, Any]) -> None:
    """Write overrides into the configs of a run."""
    _write_configs(run / "configs", _overridden(run, overrides))


def set_training_data(run: Path, dataset_dir: str) -> None:
    """Write the data set into ``train.json`` alone: what a run predicts later has another ``dataset_dir``."""
    path = run / "configs" / "train.json"
    write_json(path, {**read_config(path), "dataset_dir": dataset_dir})


def _write_configs(folder: Path, configs: Mapping[str, Any]) -> None:
    for name, config in configs.items():
        write_json(folder / name, config)


def parse_override(text: str) -> tuple[str, Any]:
    """``"spec#slab_size=3"`` -> ``("spec#slab_size", 3)``; the value is JSON, or text where it is not.

    Raises:
        InputError: there is no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--set {text}: expected id=value, such as --set learning_rate=0.0005")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):  # ValueError: also a number of too many digits
        return name, value


def _overridden(bundle: Path, overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configs by file name, with every override in each config that has its id."""
    configs = {path.name: read_config(path) for path in sorted((bundle / "configs").glob("*.json"))}
    override_config([config for name, config in configs.items() if name != "metadata.json"], overrides)
    _describe_channels(bundle, configs)
    return configs


def override_config(config: dict[str, Any] | list[dict[str, Any]], overrides: Mapping[str, Any]) -> None:
    """Set values in a config, or in each of several that has the id.

    Raises:
        InputError: an id that none has, or a value that cannot be there.
    """
    configs = config if isinstance(config, list) else [config]
    for config_id, value in overrides.items():
        places = [place for each in configs for place in _places(each)]
        known = sorted({place.config_id for place in places})
        if config_id not in known:
            raise InputError(f"--set {config_id}: the bundle has no such id{nearest(config_id, known)}")
        for place in places:
            if place.config_id == config_id:
                _set(place, value)


def read_spec(bundle: Path, *, config: str = "inference.json") -> ModelSpec:
    """The spec that a config of a bundle holds.

    Raises:
        InputError: there is none, or it breaks a rule.
    """
    path = bundle / "configs" / config
    return _spec(read_config(path), path)


def overridden_spec(bundle: Path, overrides: Mapping[str, Any]) -> ModelSpec:
    """The spec that a copy of the bundle with these overrides would have.

    Raises:
        InputError: as ``copy_bundle`` and ``read_spec``.
    """
    return _spec(_overridden(bundle, overrides)["inference.json"], bundle / "configs" / "inference.json")


def _spec(config: Mapping[str, Any], path: Path) -> ModelSpec:
    values = config.get("spec")
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: holds no spec; bring the file back from the bundle it is from, or take another bundle"
        )
    try:
        return ModelSpec(**{name: value for name, value in values.items() if name not in CONFIG_IDS_OF_VALUES})
    except TypeError as error:  # a field too many or too few
        raise InputError(f"{path}: its spec cannot be read ({error})") from error


def _describe_channels(bundle: Path, configs: Mapping[str, Any]) -> None:
    """Have the metadata tell the channels that the spec asks for; MONAI's tools build their test input from them."""
    spec = _spec(configs["inference.json"], bundle / "configs" / "inference.json")
    try:
        formats = configs["metadata.json"]["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{bundle}: configs/metadata.json holds no network_data_format; see bundle verify") from error
    if not (isinstance(image, dict) and isinstance(pred, dict)):
        raise InputError(f"{bundle}: configs/metadata.json holds no network_data_format of channels; see bundle verify")
    shown = [f"slice {z:+d}" for z in offsets(spec.slab_size)]
    of_slices = [""] if spec.output_slices == 1 else [f" of slice {z:+d}" for z in offsets(spec.output_slices)]
    segmented = [f"{name}{of_slice}" for of_slice in of_slices for name in LABELS.values()]
    for channels, names in ((image, shown), (pred, segmented)):
        if channels.get("num_channels") != len(names):
            channels["num_channels"] = len(names)
            channels["channel_def"] = {str(index): name for index, name in enumerate(names)}


def read_config(path: Path) -> dict[str, Any]:
    """The content of one config.

    Raises:
        InputError: it is not JSON, or not an object.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds a {type(config).__name__}; a bundle's config is an object")
    return config


@contextmanager
def refusing_values(config: Path) -> Iterator[None]:
    """Where MONAI cannot build a component of a config from its values, say so in one line."""
    try:
        yield
    except RuntimeError as error:
        _refuse_values(config, error)
        raise


def _refuse_values(config: Path, error: BaseException) -> None:
    cause = root_cause(error)
    wrapped: BaseException | None = error
    while wrapped is not None:
        component = re.match(r"Failed to instantiate component '([\w.]+)'", str(wrapped))
        if component and isinstance(cause, (TypeError, ValueError)) and not isinstance(cause, InputError):
            raise InputError(f"{config}: {component[1]} cannot be built from its values ({one_line(cause)})") from error
        wrapped = wrapped.__cause__


class _Place(NamedTuple):
    """Where a config keeps the value of an id."""

    config_id: str
    container: Any
    key: Any


def values_by_id(config: Any) -> dict[str, Any]:
    """The ids of a config whose values can be set, and their values."""
    return {place.config_id: place.container[place.key] for place in _places(config)}


def _places(config: Any, prefix: str = "") -> Iterator[_Place]:
    """Every id of a config, ``a``, ``a#b``, ``a#b#0``, as MONAI writes them."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        if key in CONFIG_IDS_OF_VALUES:
            continue
        config_id = f"{prefix}{ID_SEPARATOR}{key}" if prefix else str(key)
        yield _Place(config_id, config, key)
        yield from _places(value, config_id)


def _set(place: _Place, value: Any) -> None:
    is_expression = isinstance(value, str) and value.startswith(("$", "@"))
    rule = None if is_expression else _broken_rule(place, value)
    if rule:
        text = value if isinstance(value, str) else json.dumps(value)
        raise InputError(f"--set {place.config_id}={text}: expected {rule}")
    place.container[place.key] = value


def _broken_rule(place: _Place, value: Any) -> str | None:
    """What was expected where a value cannot be."""
    old, least = place.container[place.key], LEAST.get(place.config_id)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if least is not None and value is not None and not (is_whole and value >= least):
        return f"a whole number of at least {least}"
    if isinstance(old, (int, float)) and isinstance(value, str):
        return f"a number such as {old}"
    if isinstance(old, list) and not isinstance(value, list):
        return f"a list such as {json.dumps(old)}"
    if isinstance(old, dict) and not (isinstance(value, dict) and ("_target_" in value) >= ("_target_" in old)):
        key = next((key for key in old if key not in CONFIG_IDS_OF_VALUES), "...")
        what = 'an object with a "_target_"' if "_target_" in old else "an object"
        return f"{what}; one of its values is set as in {place.config_id}{ID_SEPARATOR}{key}=..."
    return None
