"""Weights on disk: a bare state_dict as MONAI bundles have it, and beside it the spec it was trained under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from liver_monai.errors import InputError, one_line
from liver_monai.io.files import file_hash, whole_file, write_json
from liver_monai.spec import ModelSpec


def save_weights(network: torch.nn.Module, path: str | Path, *, spec: ModelSpec, **facts: Any) -> None:
    """Write ``path`` (a bare state_dict) and then ``path`` with the suffix ``.json`` (spec, sha256 and ``facts``)."""
    path = Path(path)
    # both are ready before the first takes its place: an interruption in between would look like damage
    with whole_file(path.with_suffix(".json")) as record, whole_file(path) as temporary:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, temporary)
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


def check_weights(path: str | Path, *, spec: ModelSpec) -> None:
    """Refuse weights that are not there, are not the file that was saved, or were trained under another spec.

    Raises:
        InputError: names the file and, of another spec, the fields that differ.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no weights; train the bundle first: liver-monai train --bundle ... -o RUN")
    record = path.with_suffix(".json")
    if not record.is_file():
        return  # weights from elsewhere; the network's layers are the only check there is
    trained, sha256 = _read_record(record)
    if sha256 not in (None, file_hash(path)):
        raise InputError(
            f"{path}: is damaged or was replaced, its SHA-256 is not that of {record.name}; bring it back from where "
            f"it is from, or remove {record} if you know that the weights fit"
        )
    differences = [f"{name} {was} -> {now}" for name, (now, was) in spec.differences(trained).items()]
    if differences:
        raise InputError(
            f"{path}: was trained under another spec ({'; '.join(differences)}); "
            "put the old values back into the bundle's configs or train anew"
        )


def _read_record(record: Path) -> tuple[ModelSpec, str | None]:
    """The spec that weights were trained under, and the SHA-256 of their file."""
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        return ModelSpec(**facts["spec"]), facts.get("sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record}: holds no spec that can be read ({one_line(error)}); bring it back from where the weights are "
            "from, or remove it if you know that they fit"
        ) from error
