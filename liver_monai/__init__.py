"""Segment the liver and its tumours in CT: 2.5D DeepLabV3+ networks as MONAI bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liver_monai import _torchvision
from liver_monai._version import __version__
from liver_monai.spec import ModelSpec

if TYPE_CHECKING:
    from liver_monai.engine.inference import segment
    from liver_monai.report.mask import findings
    from liver_monai.scoring.overlap import score

__all__ = ["ModelSpec", "__version__", "findings", "score", "segment"]

_torchvision.install()

_LAZY = {
    "findings": "liver_monai.report.mask",
    "score": "liver_monai.scoring.overlap",
    "segment": "liver_monai.engine.inference",
}
"""Public names whose modules import NumPy or torch; imported when they are asked for, so that --help stays instant."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
