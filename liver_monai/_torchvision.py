"""Let ``import torchvision`` succeed beside a torch build that torchvision's compiled operators do not fit.

A CPU build of torch beside a CUDA build of torchvision is a common pair: torchvision then silently skips its compiled
library and fails a few lines later, when it registers shape rules for operators which nobody defined. The networks
(segmentation-models-pytorch, timm) need torchvision's Python files only, so it is enough to *declare* those operators.
They stay without an implementation, and calling one still raises torchvision's own explanation.

This module imports neither torch nor torchvision before somebody else asks for torchvision.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

OPERATOR_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""The operators that torchvision's ``_meta_registrations.py`` names without asking whether they exist."""

_MISSING_OPERATOR = re.compile(r"operator torchvision::(\w+) does not exist")

_libraries: list[Any] = []  # torch forgets a library's operators as soon as the Library object is collected


def install() -> None:
    """Guard the next ``import torchvision``; does nothing where it is already imported or guarded."""
    is_guarded = any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path)
    if "torchvision" not in sys.modules and not is_guarded:
        sys.meta_path.insert(0, _TorchvisionFinder())


class _TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where the other finders find it, and has its loader guarded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = self._find_elsewhere(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _GuardedLoader(spec.loader, self)
        return spec

    def _find_elsewhere(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        return next((spec for spec in specs if spec is not None), None)


class _GuardedLoader(Loader):
    """Runs the real loader, and once more with the missing operators declared if it failed for want of them."""

    def __init__(self, loader: Loader, finder: _TorchvisionFinder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._step_aside(module)
        namespace = dict(vars(module))
        try:
            self._loader.exec_module(module)
        except RuntimeError as error:
            if not _declare_operators(error):
                raise
            _forget_attempt(module, namespace)
            self._loader.exec_module(module)
        if self._finder in sys.meta_path:  # kept after a failure, so that another attempt is guarded too
            sys.meta_path.remove(self._finder)

    def _step_aside(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader


def _declare_operators(error: RuntimeError) -> bool:
    """Declare the operators that torchvision lacks, if that is what ``error`` is about and has not been done yet.

    All at once rather than the one that ``error`` names: each attempt registers shape rules anew, and one is enough.
    """
    missing = _MISSING_OPERATOR.search(str(error))
    if missing is None or missing[1] not in OPERATOR_SCHEMAS or _libraries:
        return False

    import torch  # torchvision has imported it already
    from torch import library

    declared: Any = library.Library("torchvision", "FRAGMENT")
    _libraries.append(declared)
    for name, schema in OPERATOR_SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            declared.define(schema)
    return True


def _forget_attempt(module: ModuleType, namespace: dict[str, Any]) -> None:
    """Bring back the package's ``namespace`` and drop the submodules that a failed attempt left behind."""
    vars(module).clear()
    vars(module).update(namespace)
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
