"""What a bundle may name: its configs are code, and a stranger's are run only as far as they name what is known."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import torch
from monai.bundle import ComponentLocator
from monai.bundle.reference_resolver import ReferenceResolver
from monai.inferers import Inferer

from liver_monai.errors import InputError
from liver_monai.model.bundle import SHIPPED, list_bundles, read_config

OF_PREDICTION = ("inference.json",)
OF_TRAINING = ("train.json", "inference.json", "metadata.json", "logging.conf")
"""Files of ``configs`` that are parsed there; a training copies ``inference.json`` for the predictions to come."""

OWN_TARGETS = frozenset(("liver_monai.data.partition.split_named", "liver_monai.data.leak.split_by_slice"))
OWN_EXPRESSIONS = frozenset(("$@split.centres",))
"""What ``benchmark`` writes into its runs beside what the shipped bundles hold."""

KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("torch.nn.", torch.nn.Module),
    ("torch.optim.", (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)),
    ("monai.losses.", torch.nn.Module),
    ("monai.networks.", torch.nn.Module),
    ("monai.optimizers.", torch.optim.Optimizer),
    ("monai.inferers.", Inferer),
    ("segmentation_models_pytorch.losses.", torch.nn.Module),
)
"""Where a class may be at home, and what it must be; no function is among them, and nothing that reads or writes."""

FETCHING = re.compile(
    r"monai\.(losses\.perceptual|networks\.(blocks\.(encoder|fcn|text_embedding)|nets\.(ahnet|cell_sam_wrapper|densenet|"
    r"efficientnet|flexible_unet|hovernet|milmodel|netadapter|resnet|senet|swin_unetr|torchvision_fc|transchex)))$"
)
"""Modules of MONAI 1.6 whose classes download or unpickle."""

REFERENCES = "__local_refs"
NAMES = frozenset(
    f"{REFERENCES} abs all any bool dict float int len list max min round set sorted str sum tuple torch.device "
    "torch.bfloat16 torch.cuda.is_available torch.float16 torch.float32 monai.handlers.from_engine "
    "monai.utils.set_determinism".split()
)
ATTRIBUTES = frozenset(
    ["centres", "learning_rate_factor", "module", "parameters", "run", "to", "train", "type", "validation"]
)
NODES = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Load, ast.keyword),
    *(ast.Subscript, ast.Slice, ast.IfExp, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)
"""The grammar of expressions that no shipped bundle has: arithmetic, comparisons, choices, and calls of ``NAMES``."""


def require_trusted(bundle: Path, files: tuple[str, ...] = OF_TRAINING) -> None:
    """Refuse a bundle whose configs could do anything else than build, train and run a network.

    What a shipped bundle names is trusted word by word, and so are classes of ``KINDS`` and expressions of a small
    grammar. Nothing of the bundle is run to find that out.

    Raises:
        InputError: names file, id and value.
    """
    for name in files:
        path = bundle / "configs" / name
        if not path.is_file():
            continue
        if path.suffix != ".json":
            _require_shipped_content(path)
            continue
        for config_id, value, reason in _distrusted(read_config(path)):
            _refuse(path, f"{config_id} is {value[:200]!r}, {reason}")


def _refuse(path: Path, what: str) -> None:
    raise InputError(
        f"{path}: {what}. A bundle is code. Read it, and if you trust who made it, give --trust-bundle; "
        "or take another bundle"
    )


def _require_shipped_content(path: Path) -> None:
    """``logging.conf`` names classes and expressions of its own."""
    shipped = {(SHIPPED / name / "configs" / path.name).read_text(encoding="utf-8") for name in list_bundles()}
    if path.read_text(encoding="utf-8", errors="replace") not in shipped:
        _refuse(path, "is not the file of any shipped bundle")


def _distrusted(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Ids, values and what is wrong with them."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        config_id = f"{prefix}#{key}" if prefix else str(key)
        keyword = re.split("#|::", str(key))[-1].lstrip("+")  # MONAI takes "a#b" for "b" inside of "a"
        reason = _why_distrusted(keyword, value)
        if reason:
            yield config_id, str(value), reason
        yield from _distrusted(value, config_id)


def _why_distrusted(keyword: str, value: Any) -> str:
    if keyword == "_target_":
        return "" if isinstance(value, str) and _is_trusted_target(value) else "which is not on the list of targets"
    if keyword == "_mode_":
        return "" if value in ("default", "callable") else "which is no mode of building"
    if not isinstance(value, str):
        return ""
    if value.startswith("%"):
        return "which brings in another file"
    if value.startswith("$") and not _is_trusted_expression(value):
        return "an expression that no shipped bundle has and that is no mere arithmetic of known names"
    return ""


@cache
def _shipped() -> tuple[frozenset[str], frozenset[str]]:
    """Targets and expressions of the bundles that ship."""
    names = (*OF_TRAINING, "evaluate.json")  # those for several GPUs import what no command of ours needs
    paths = [
        SHIPPED / bundle / "configs" / name for bundle in list_bundles() for name in names if name.endswith(".json")
    ]
    texts = [text for path in paths for text in _texts(read_config(path))]
    targets = {value for key, value in texts if key == "_target_"}
    return frozenset(targets), frozenset(value for _, value in texts if value.startswith("$"))


def _texts(config: Any) -> Iterator[tuple[str, str]]:
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        if isinstance(value, str):
            yield str(key), value
        yield from _texts(value)


def _is_trusted_target(target: str) -> bool:
    return target in OWN_TARGETS or target in _shipped()[0] or _is_of_a_kind(target)


def _is_of_a_kind(target: str) -> bool:
    """Whether it is a class of a package that is trusted with it, wherever else its name leads."""
    if "." not in target:
        module = _locator().get_component_module_name(target)
        target = f"{module[0] if isinstance(module, list) else module}.{target}"
    if not _kind_of(target) or not re.fullmatch(r"\w+(\.\w+)*", target):
        return False
    try:
        found = locate(target)
    except ErrorDuringImport:
        return False
    if not inspect.isclass(found) or FETCHING.match(found.__module__):
        return False
    kind = _kind_of(f"{found.__module__}.")  # a path may lead from one module into any that it imports
    return kind is not None and issubclass(found, kind)


def _kind_of(target: str) -> type | tuple[type, ...] | None:
    return next((kind for home, kind in KINDS if target.startswith(home)), None)


@cache
def _locator() -> Any:
    return ComponentLocator()


def _is_trusted_expression(text: str) -> bool:
    if text in OWN_EXPRESSIONS or text in _shipped()[1]:
        return True
    refs: Mapping[str, Any] = ReferenceResolver.match_refs_pattern(text)
    resolved = ReferenceResolver.update_refs_pattern(text, dict(refs))  # what MONAI evaluates, to the letter
    if any(not name or name.startswith("::") for name in refs):  # relative ids are put in before that
        return False
    try:
        return _is_allowed(ast.parse(resolved[1:], mode="eval"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_allowed(node: ast.AST) -> bool:
    dotted = _dotted(node)
    if dotted:
        return dotted in NAMES
    if isinstance(node, ast.Attribute) and node.attr not in ATTRIBUTES:
        return False
    if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
        return False
    is_known = isinstance(node, (*NODES, ast.Attribute, ast.Call))
    return is_known and all(_is_allowed(child) for child in ast.iter_child_nodes(node))


def _dotted(node: ast.AST) -> str:
    """``torch.cuda.is_available``, or nothing where it is more than names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (first := _dotted(node.value)):
        return f"{first}.{node.attr}"
    return ""
