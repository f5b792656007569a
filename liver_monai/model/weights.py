"""Weights on disk: a bare state_dict as MONAI bundles have it, and beside it the spec it was trained under."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from liver_monai.errors import InputError, one_line, some
from liver_monai.io.files import file_hash, read_json, whole_file, write_json
from liver_monai.spec import ModelSpec

logger = logging.getLogger(__name__)

MOST_NAMED = 5
"""Layers of a kind that an error names; the others are counted."""


def save_weights(network: torch.nn.Module, path: str | Path, *, spec: ModelSpec, **facts: Any) -> None:
    """Write ``path`` (a bare state_dict) and then ``path`` with the suffix ``.json`` (spec, sha256 and ``facts``)."""
    path = Path(path)
    # both are ready before the first takes its place: an interruption in between would look like damage
    with whole_file(path.with_suffix(".json")) as record, whole_file(path) as temporary:
        content = io.BytesIO()  # torch does not say why a file cannot be written
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, content)
        temporary.write_bytes(content.getbuffer())
        write_json(record, {"spec": spec.to_json(), "sha256": file_hash(temporary), **facts})


def load_weights(network: torch.nn.Module, path: str | Path, *, spec: ModelSpec) -> None:
    """Load weights that were trained under the same spec.

    Raises:
        InputError: no weights, damaged, not a state_dict, another spec, or layers that do not fit.
    """
    path = Path(path)
    check_weights(path, spec=spec)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises a dozen types for a file that is not its own
        first_lines = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: does not fit the network of encoder '{spec.encoder}': {first_lines}") from error


def load_initial_weights(network: torch.nn.Module, source: str | Path, *, spec: ModelSpec) -> dict[str, Any]:
    """Load weights to begin a training from, every layer of them.

    They may have seen other slabs, of which a log line warns; the training changes them.

    Args:
        network: what they are loaded into.
        source: a run's folder, or a file with a state_dict.
        spec: of the network.

    Returns:
        JSON types: path, SHA-256, and what is known of them, such as spec and epoch.

    Raises:
        InputError: no weights, damaged, not a state_dict, or layers that are missing, unexpected or of another shape.
    """
    path = Path(source).expanduser()
    path = path / "models" / "model.pt" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no weights to begin from; give a trained run's folder, or a state_dict")
    trained = _trained_under(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(value.shape) for name, value in state.items()}
    except Exception as error:  # torch raises a dozen types for a file that is not its own
        raise InputError(f"{path}: is no state_dict ({one_line(error)[:200]})") from error
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    _require_same_layers(path, shapes, own, encoder=spec.encoder)
    network.load_state_dict(state)
    if trained is not None and trained != spec:
        seen = "; ".join(f"{name} {was} -> {now}" for name, (now, was) in spec.differences(trained).items())
        logger.warning(f"warning: {path} was trained under another spec ({seen}); the network must learn that anew")
    record = path.with_suffix(".json")
    facts = read_json(record) if record.is_file() else {}
    return {**facts, "path": str(path.resolve()), "sha256": file_hash(path)}


def _require_same_layers(
    path: Path, given: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]], *, encoder: str
) -> None:
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    other = [f"{name} {given[name]}, not {own[name]}" for name in own if name in given and given[name] != own[name]]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    faults = [f"{len(names)} {kind}: {some(names, most=MOST_NAMED)}" for kind, names in kinds.items() if names]
    if faults:
        raise InputError(
            f"{path}: does not fit the network of encoder '{encoder}', layers are {'; '.join(faults)}. Begin from "
            "weights of the same encoder, slab_size and classes, or set these as the weights have them"
        )


def check_weights(path: str | Path, *, spec: ModelSpec) -> None:
    """Refuse weights that are not there, are not the file that was saved, or were trained under another spec.

    Raises:
        InputError: names the file and, of another spec, the fields that differ.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no weights; train the bundle first: liver-monai train --bundle ... -o RUN")
    trained = _trained_under(path)
    if trained is None:
        return  # weights from elsewhere; the network's layers are the only check there is
    differences = [f"{name} {was} -> {now}" for name, (now, was) in spec.differences(trained).items()]
    if differences:
        raise InputError(
            f"{path}: was trained under another spec ({'; '.join(differences)}); "
            "put the old values back into the bundle's configs or train anew"
        )


def _trained_under(path: Path) -> ModelSpec | None:
    """The spec that weights were trained under, ``None`` where nothing is known; damaged ones are refused."""
    record = path.with_suffix(".json")
    if not record.is_file():
        return None
    trained, sha256 = _read_record(record)
    if sha256 not in (None, file_hash(path)):
        raise InputError(
            f"{path}: is damaged or was replaced, its SHA-256 is not that of {record.name}; bring it back from where "
            f"it is from, or remove {record} if you know that the weights fit"
        )
    return trained


def _read_record(record: Path) -> tuple[ModelSpec, str | None]:
    """The spec that weights were trained under, and the SHA-256 of their file."""
    try:
        facts = read_json(record)
        return ModelSpec(**facts["spec"]), facts.get("sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record}: holds no spec that can be read ({one_line(error)}); bring it back from where the weights are "
            "from, or remove it if you know that they fit"
        ) from error
