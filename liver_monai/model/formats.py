"""The formats that a network is exported to; each file holds its recipe. A format is two functions and a row."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from liver_monai.errors import InputError
from liver_monai.model.network import Logits
from liver_monai.model.onnx import OnnxNetwork, write_onnx
from liver_monai.model.openvino import OpenvinoNetwork, openvino_recipe, write_openvino
from liver_monai.model.recipe import RECIPE_KEY, Recipe, read_recipe
from liver_monai.model.torchscript import RECIPE_FILE, TorchScriptNetwork, torchscript, torchscript_recipe


class Exported(NamedTuple):
    """What an exported file holds."""

    network: Logits
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write a network.

    Args:
        suffix: of its file.
        write: a network in eval mode on the CPU, a file, the recipe to put into it.
        read: a file and the device to run it on.
        beside: suffix of a second file that belongs to the first.
        runs_on_gpu: whether it does here.
    """

    suffix: str
    write: Callable[[torch.nn.Module, Path, Recipe], None]
    read: Callable[[Path, torch.device], Exported]
    beside: str = ""
    runs_on_gpu: bool = False


def format_of(path: str | Path) -> str | None:
    """The name of the format that a file's suffix says, if it is one."""
    return next((name for name, each in FORMATS.items() if Path(path).suffix.lower() == each.suffix), None)


def is_exported(bundle: str | Path) -> bool:
    """Whether this is a file of such a format, not a bundle's name or folder."""
    path = Path(bundle).expanduser()
    return format_of(path) is not None and path.is_file()


def read_exported(path: Path, *, device: torch.device) -> Exported:
    """A network and its recipe.

    Raises:
        InputError: a file that cannot be read, or that ``export`` did not make.
    """
    return FORMATS[str(format_of(path))].read(path, device)


def _recipe(text: str, path: Path) -> Recipe:
    if not text:
        raise InputError(
            f"{path}: does not say how CTs are to be prepared for it; make it with liver-monai export RUN -o FILE"
        )
    return read_recipe(text, path)


# Two functions a format


def _write_torchscript(network: torch.nn.Module, path: Path, recipe: Recipe) -> None:
    path.write_bytes(torchscript(network, extra_files={RECIPE_FILE: recipe.dumps()}))


def _read_torchscript(path: Path, device: torch.device) -> Exported:
    recipe = _recipe(torchscript_recipe(path), path)  # first: a foreign file is not loaded at all
    return Exported(TorchScriptNetwork(path, device), recipe)


def _write_onnx(network: torch.nn.Module, path: Path, recipe: Recipe) -> None:
    write_onnx(network, path, slab_size=recipe.spec.slab_size, metadata={RECIPE_KEY: recipe.dumps()})


def _read_onnx(path: Path, _: torch.device) -> Exported:
    graph = OnnxNetwork(path)
    return Exported(graph, _recipe(graph.recipe, path))


def _write_openvino(network: torch.nn.Module, path: Path, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        _write_onnx(network, graph, recipe)
        write_openvino(graph, path, recipe=recipe.dumps())


def _read_openvino(path: Path, _: torch.device) -> Exported:
    recipe = _recipe(openvino_recipe(path), path)
    return Exported(OpenvinoNetwork(path), recipe)


FORMATS = {
    "torchscript": Format(suffix=".ts", write=_write_torchscript, read=_read_torchscript, runs_on_gpu=True),
    "onnx": Format(suffix=".onnx", write=_write_onnx, read=_read_onnx),
    "openvino": Format(suffix=".xml", beside=".bin", write=_write_openvino, read=_read_openvino),
}
