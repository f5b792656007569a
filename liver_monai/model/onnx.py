"""Networks as ONNX graphs: the same logits at up to three times the speed on a CPU."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from liver_monai.errors import InputError, one_line
from liver_monai.io.files import whole_file
from liver_monai.model.extras import import_extra
from liver_monai.model.network import Logits
from liver_monai.model.recipe import RECIPE_KEY
from liver_monai.spec import OUTPUT_STRIDE

WEIGHTS_KEY = "weights_sha256"
"""Entry of a graph's metadata: the file of weights it was made of."""

MAX_LOGIT_DIFFERENCE = 1e-4
"""Of a graph against its network, as a share of the logits' span: both add the same numbers in another order."""

CHECKED_SIZES = ((2, 96, 128), (1, 160, 80))
"""Batch, height and width; neither is what the graph was exported with."""


class OnnxNetwork:
    """A graph in the place of its network, run by ONNX Runtime on a CPU with as many threads as torch has.

    Raises:
        InputError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = import_extra("onnxruntime", extra="onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # a dozen types, none with a common base
            raise InputError(
                f"{path}: is no graph that ONNX Runtime can read ({one_line(error)[:200]}); remove it or export anew"
            ) from error

    @property
    def weights_sha256(self) -> str:
        """Of the weights that the graph was made of."""
        return self._metadata(WEIGHTS_KEY)

    @property
    def recipe(self) -> str:
        """As ``write_onnx`` was given it; empty where there is none."""
        return self._metadata(RECIPE_KEY)

    def _metadata(self, key: str) -> str:
        return str(self._session.get_modelmeta().custom_metadata_map.get(key, ""))

    def __call__(self, slabs: torch.Tensor) -> torch.Tensor:
        """Logits of slabs."""
        return torch.from_numpy(self._session.run(["pred"], {"image": slabs.cpu().numpy()})[0]).to(slabs.device)


def export_onnx(network: torch.nn.Module, path: Path, *, slab_size: int, weights_sha256: str) -> float:
    """Write a network as ONNX of any batch, height and width, and hold it against the network before it is kept.

    Args:
        network: in eval mode, on the CPU.
        path: the graph; appears whole or not at all.
        slab_size: channels of the network.
        weights_sha256: kept in the graph.

    Returns:
        Largest difference of a logit, as a share of the logits' span.

    Raises:
        InputError: ONNX is not installed, or the graph gives other logits.
    """
    with whole_file(path) as temporary:
        write_onnx(network, temporary, slab_size=slab_size, metadata={WEIGHTS_KEY: weights_sha256})
        return require_same_logits(OnnxNetwork(temporary), network, slab_size=slab_size, path=path)


def write_onnx(network: torch.nn.Module, path: Path, *, slab_size: int, metadata: Mapping[str, str]) -> None:
    """Write a network as ONNX, with entries for its metadata."""
    program = _traced(network, slab_size)
    program.model.metadata_props.update(metadata)
    program.save(path)


def require_same_logits(graph: Logits, network: Logits, *, slab_size: int, path: Path) -> float:
    """``logit_difference``, which must be at most ``MAX_LOGIT_DIFFERENCE``.

    Raises:
        InputError: it is more; names ``path``.
    """
    difference = logit_difference(graph, network, slab_size=slab_size)
    if difference > MAX_LOGIT_DIFFERENCE:
        raise InputError(
            f"{path}: the graph's logits differ from the network's by {difference:.2g} of their span, more than "
            f"{MAX_LOGIT_DIFFERENCE:g}; it is not kept, use the run itself with --runtime torch"
        )
    return difference


def logit_difference(graph: Logits, network: Logits, *, slab_size: int) -> float:
    """Largest difference between the logits of two networks, as a share of their span."""
    differences = []
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in CHECKED_SIZES:
        slabs = torch.rand(batch, slab_size, height, width, generator=generator)
        with torch.inference_mode():
            expected, found = network(slabs), graph(slabs)
        span = (expected.max() - expected.min()).clamp(min=torch.finfo(expected.dtype).tiny)
        differences.append(float((found - expected).abs().max() / span))
    return max(differences)


def _traced(network: torch.nn.Module, slab_size: int) -> Any:
    """torch's exporter at work, without its dozens of notes for its own developers."""
    for name in ("onnx", "onnxscript"):
        import_extra(name, extra="onnx")
    batch, height, width = (torch.export.Dim(name, min=least) for name, least in (("b", 1), ("h", 2), ("w", 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        return torch.onnx.export(
            network,
            (torch.rand(2, slab_size, 4 * OUTPUT_STRIDE, 6 * OUTPUT_STRIDE),),
            dynamo=True,
            input_names=["image"],
            output_names=["pred"],
            dynamic_shapes=({0: batch, 2: OUTPUT_STRIDE * height, 3: OUTPUT_STRIDE * width},),
            verbose=False,
        )
