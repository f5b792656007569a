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
    with whole_file(path) as temporary:
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, temporary)
    write_json(path.with_suffix(".json"), {"spec": spec.to_json(), "sha256": file_hash(path), **facts})


def load_weights(network: torch.nn.Module, path: str | Path, *, spec: ModelSpec) -> None:
    """Load weights that were trained under the same spec.

    Raises:
        InputError: no weights, not a state_dict, another spec, or layers that do not fit.
    """
    path = Path(path)
    check_weights(path, spec=spec)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises a dozen types for a file that is not its own
        first_lines = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: does not fit the network of encoder '{spec.encoder}': {first_lines}") from error


def check_weights(path: str | Path, *, spec: ModelSpec) -> None:
    """Refuse weights that are not there or were trained under another spec, naming the fields that differ."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no weights; train the bundle first: liver-monai train --bundle ... -o RUN")
    record = path.with_suffix(".json")
    if not record.is_file():
        return  # weights from elsewhere; the network's layers are the only check there is
    trained = _read_spec(record)
    differences = [f"{name} {was} -> {now}" for name, (now, was) in spec.differences(trained).items()]
    if differences:
        raise InputError(
            f"{path}: was trained under another spec ({'; '.join(differences)}); "
            "put the old values back into the bundle's configs or train anew"
        )


def _read_spec(record: Path) -> ModelSpec:
    try:
        return ModelSpec(**json.loads(record.read_text(encoding="utf-8"))["spec"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{record}: holds no spec that can be read ({one_line(error)}); bring it back from where the weights are "
            "from, or remove it if you know that they fit"
        ) from error
