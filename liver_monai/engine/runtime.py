"""What runs the network: PyTorch, or on a CPU the graph that was exported beside the weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from liver_monai.errors import InputError
from liver_monai.io.files import file_hash
from liver_monai.model.network import Logits
from liver_monai.model.onnx import OnnxNetwork, export_onnx


class OnGpu:
    """A network on a GPU, in the order of memory and the precision that are fastest there; logits are float32."""

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        placed: Any = network.to(device)  # no overload of Module.to has memory_format, which torch documents
        self.network = placed.to(memory_format=torch.channels_last)
        self.device = device

    def __call__(self, slabs: torch.Tensor) -> torch.Tensor:
        """Logits of slabs."""
        with torch.autocast(self.device.type):
            logits: torch.Tensor = self.network(slabs.to(memory_format=torch.channels_last))
        return logits.float()


def choose_runtime(
    network: torch.nn.Module, *, weights: Path, slab_size: int, device: torch.device, runtime: str = "auto"
) -> Logits:
    """The network on its device, or its graph.

    A graph counts only if it was made of these very weights, and it is held against the network before it is kept.

    Args:
        network: with its weights, in eval mode, on the CPU.
        weights: their file; the graph lies beside it with the suffix ``.onnx``.
        slab_size: channels of the network.
        device: where to run.
        runtime: ``"torch"``; ``"onnx"``, which exports the graph where there is none yet; ``"auto"``, which takes a
            graph that is there, so that what a CT's mask is made by does not depend on how many CTs are asked for.

    Raises:
        InputError: ONNX on a GPU, not installed, or a graph that cannot be written or is not equal.
    """
    if runtime == "onnx" and device.type != "cpu":
        raise InputError(f"--runtime onnx runs on the CPU, not on {device}; give --device cpu or --runtime torch")
    if device.type == "cuda":
        return OnGpu(network, device)
    if runtime == "torch" or device.type != "cpu" or (runtime == "auto" and find_spec("onnxruntime") is None):
        return network.to(device)
    path = weights.with_suffix(".onnx")
    key = file_hash(weights)
    if path.is_file() and (graph := OnnxNetwork(path)).weights_sha256 == key:
        return graph
    if runtime == "auto":
        return network.to(device)
    try:
        export_onnx(network, path, slab_size=slab_size, weights_sha256=key)
    except OSError as error:
        raise InputError(f"{path}: the graph cannot be kept there ({error}); use --runtime torch") from error
    return OnnxNetwork(path)
