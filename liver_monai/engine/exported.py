"""A file that ``export`` made, ready to segment: its recipe says everything that a bundle's configs would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from liver_monai.data.transforms import preprocessing
from liver_monai.engine.device import find_device
from liver_monai.engine.inferer import SlabInferer
from liver_monai.engine.postprocess import postprocessing
from liver_monai.engine.runtime import OnGpu
from liver_monai.errors import InputError, one_line
from liver_monai.model.bundle import override_config
from liver_monai.model.formats import FORMATS, format_of, read_exported
from liver_monai.model.torchscript import TorchScriptNetwork

RUNTIMES = {"torchscript": "torch"}
"""Names of ``--runtime`` that are not the format's own."""


def exported_parts(
    path: Path,
    *,
    device_name: str,
    runtime: str,
    inferer: Mapping[str, Any],
    overrides: Mapping[str, Any],
    output_dir: Path | None,
) -> dict[str, Any]:
    """What ``inference.Model`` is made of.

    Args:
        path: what ``export`` made.
        device_name: ``"auto"``, or torch's name of a device.
        runtime: ``"auto"``, or the one that the file is made for.
        inferer: chosen for ``SlabInferer``.
        overrides: other values, by the ids ``inferer#...`` and ``postprocessing#...`` that they have in a bundle.
        output_dir: where masks go; ``None`` writes none.

    Raises:
        InputError: a file that ``export`` did not make, a device or runtime that it does not run on, or a value that
            cannot be there.
    """
    device = _device(path, name=device_name, runtime=runtime)
    network, recipe = read_exported(path, device=device)
    config = {"inferer": dict(recipe.inferer), "postprocessing": dict(recipe.cleaning)}
    override_config(config, overrides)
    try:
        built = SlabInferer(recipe.spec, **{**config["inferer"], **inferer})
    except ValueError as error:
        raise InputError(f"{path}: its inferer cannot be built from these values ({one_line(error)})") from error
    if device.type == "cuda" and isinstance(network, TorchScriptNetwork):
        network = OnGpu(network.module, device)
    return {
        "spec": recipe.spec,
        "network": network,
        "preprocessing": preprocessing(recipe.spec, by_slice=True),
        "inferer": built,
        "postprocessing": postprocessing(output_dir=output_dir, **config["postprocessing"]),
        "device": device,
    }


def _device(path: Path, *, name: str, runtime: str) -> torch.device:
    """``"auto"`` is the first GPU only for what runs on one."""
    file_format = str(format_of(path))
    own = RUNTIMES.get(file_format, file_format)
    if runtime not in ("auto", own):
        raise InputError(f"--runtime {runtime}: {path} runs with {own}; leave --runtime out")
    runs_on_gpu = FORMATS[file_format].runs_on_gpu
    device = find_device("cpu" if name == "auto" and not runs_on_gpu else name)
    if device.type != "cpu" and not runs_on_gpu:
        raise InputError(f"--device {name}: {path} runs on the CPU only; export the run to torchscript for a GPU")
    return device
