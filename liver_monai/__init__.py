"""Segment the liver and its tumours in CT: 2.5D DeepLabV3+ networks as MONAI bundles."""

from __future__ import annotations

from typing import Any

from liver_monai import _torchvision
from liver_monai._version import __version__

__all__ = ["ModelSpec", "__version__", "findings", "score", "segment"]

_torchvision.install()

_LAZY = {
    "ModelSpec": "liver_monai.spec",
    "findings": "liver_monai.report.mask",
    "score": "liver_monai.scoring.overlap",
    "segment": "liver_monai.engine.inference",
}
"""Public names whose modules import torch; they are imported when asked for, so that --help stays instant."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
