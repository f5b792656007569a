"""Networks as OpenVINO's files: graph and recipe in an ``.xml``, weights in a ``.bin`` beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from liver_monai.errors import InputError, one_line
from liver_monai.model.extras import import_extra
from liver_monai.model.recipe import RECIPE_KEY

REPORTER = "openvino_telemetry"
AS_TRAINED = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO computes in bfloat16 by itself where the CPU can."""


def import_openvino() -> Any:
    """OpenVINO, kept from reporting its use: it does so when it is imported, if the module that sends reports is there.

    Raises:
        InputError: it is not installed.
    """
    loaded: dict[str, Any] = sys.modules
    loaded.setdefault(REPORTER, None)  # which import takes for "not to be found" (Python's reference, 5.3.1)
    return import_extra("openvino", extra="openvino")


class OpenvinoNetwork:
    """A graph in the place of its network, on a CPU with as many threads as torch has.

    Raises:
        InputError: OpenVINO is not installed, or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        core = import_openvino().Core()
        options = {**AS_TRAINED, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        try:
            self._graph: Any = core.compile_model(core.read_model(path), "CPU", options)
        except RuntimeError as error:
            raise InputError(
                f"{path}: is no graph that OpenVINO can read, or its .bin is not beside it ({one_line(error)[:200]})"
            ) from error

    def __call__(self, slabs: torch.Tensor) -> torch.Tensor:
        """Logits of slabs."""
        logits = self._graph({"image": slabs.cpu().numpy()})["pred"].copy()  # the next call overwrites it
        return torch.from_numpy(logits).to(slabs.device)


def write_openvino(graph: Path, path: Path, *, recipe: str) -> None:
    """Write an ONNX file as ``path``, an .xml, and the .bin of the same name, weights as they are.

    Raises:
        InputError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(graph)
    model.set_rt_info(recipe, RECIPE_KEY)
    openvino.save_model(model, path, compress_to_fp16=False)


def openvino_recipe(path: Path) -> str:
    """The recipe in an .xml; empty without one.

    Raises:
        InputError: no XML.
    """
    try:
        entry = ElementTree.parse(path).getroot().find(f"rt_info/{RECIPE_KEY}")
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no OpenVINO graph ({one_line(error)[:200]}); export it anew") from error
    return "" if entry is None else entry.get("value", "")
