"""Can this installation work?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from liver_monai.engine.device import find_device, keep_freed_memory
from liver_monai.io.files import write_json
from liver_monai.io.record import environment
from liver_monai.model.bundle import list_bundles
from liver_monai.model.network import build_network
from liver_monai.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    is_ok: bool
    found: str


def examine() -> list[Finding]:
    """Look at everything the other commands need; a failure never hides the rest."""
    versions = [Finding(name=name, is_ok=True, found=found) for name, found in environment().items()]
    return [*versions, *(_check(name, look) for name, look in CHECKS.items())]


def _check(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, is_ok=True, found=look())
    except Exception as error:  # whatever is broken is what we are here to tell
        return Finding(name=name, is_ok=False, found=f"{type(error).__name__}: {error}")


def _device() -> str:
    device = find_device()
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads"


def _bundles() -> str:
    names = list_bundles()
    if not names:
        raise FileNotFoundError("no bundle is installed with the package; install it anew")
    return ", ".join(names)


def _forward_pass() -> str:
    """The networks' package imports, and a slab goes through one of them."""
    spec = ModelSpec(encoder="mobilenet_v2")
    network = build_network(spec).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(1, spec.slab_size, 64, 64))
    return f"mobilenet_v2 {tuple(logits.shape)}"


def _temporary_files() -> str:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "file.json", {})
    return tempfile.gettempdir()


CHECKS: dict[str, Callable[[], str]] = {
    "device": _device,
    "bundles": _bundles,
    "forward pass": _forward_pass,
    "allocator": lambda: "keeps freed memory" if keep_freed_memory() else "the system's own",
    "temporary files": _temporary_files,
}
