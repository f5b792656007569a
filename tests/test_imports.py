"""Imports run one way, names say what a module is for, and what is heavy is loaded only when it is used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import liver_monai

PACKAGE = Path(liver_monai.__file__).parent

GROUND = {"_version", "errors", "processes", "spec"}
EVERYTHING = GROUND | {"_torchvision", "io", "data", "model", "engine", "scoring", "report"}
MAY_IMPORT = {
    "_version": set(),
    "_torchvision": set(),
    "errors": set(),
    "processes": set(),
    "spec": {"errors"},
    "io": GROUND,
    "data": GROUND | {"io"},
    "model": GROUND | {"io", "data"},
    "scoring": GROUND,
    "engine": GROUND | {"io", "data", "model", "scoring"},
    "report": GROUND | {"io", "scoring"},
    "cluster": GROUND,
    "cohort": EVERYTHING,
    "benchmark": EVERYTHING,
    "doctor": EVERYTHING,
    "demo": EVERYTHING | {"cohort"},
    "cli": EVERYTHING | {"cluster", "cohort", "benchmark", "doctor", "demo"},
    "liver_monai": EVERYTHING,
}
"""What each module or folder of the package may import, besides itself; the last two are imported by nothing."""

SCORING_NEEDS = {"numpy", "scipy", "torch"}
WORDS_WITHOUT_MEANING = {"utils", "util", "helpers", "helper", "misc", "common", "manager"}
HEAVY = ["torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "matplotlib"]
PUBLIC = {"ModelSpec", "__version__", "findings", "score", "segment"}


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    files = sorted(PACKAGE.rglob("*.py"))
    parts = {file: file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files}
    return {".".join(part for part in names if part != "__init__"): file for file, names in parts.items()}


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: ``liver_monai.io.volumes`` -> ``io``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else names[0]


def imported_by(module: str) -> Iterator[str]:
    """Dotted names that a module imports anywhere, also inside of functions and for type checkers only."""
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: a relative import; write the whole name"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules() else node.module


@cache
def own_imports(module: str) -> frozenset[str]:
    return frozenset(name for name in imported_by(module) if name.split(".")[0] == "liver_monai" and name != module)


@cache
def foreign_imports(module: str) -> frozenset[str]:
    tops = {name.split(".")[0] for name in imported_by(module)}
    return frozenset(tops - sys.stdlib_module_names - {"liver_monai", "__future__"})


def run_python(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_are_found() -> None:
    assert {"liver_monai", "liver_monai.spec", "liver_monai.io.volumes", "liver_monai.cli"} <= modules().keys()
    assert own_imports("liver_monai.io.files") <= {"liver_monai.errors"}
    assert "liver_monai.io.volumes" in own_imports("liver_monai.data.transforms")


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module: str) -> None:
    part = part_of(module)
    assert part in MAY_IMPORT, f"{module} has no place in the order of imports; give {part} one in MAY_IMPORT"
    wrong = {name for name in own_imports(module) if part_of(name) not in MAY_IMPORT[part] | {part}}
    assert not wrong, f"{module} imports {sorted(wrong)}, but {part} may import {sorted(MAY_IMPORT[part])} only"


def test_no_module_imports_itself_by_way_of_others() -> None:
    list(TopologicalSorter({module: own_imports(module) for module in modules()}).static_order())  # raises CycleError


def test_scoring_needs_arrays_only() -> None:
    needed = {name for module in modules() if part_of(module) == "scoring" for name in foreign_imports(module)}
    assert "numpy" in needed
    assert needed <= SCORING_NEEDS


@pytest.mark.parametrize("module", modules())
def test_names_say_what_a_module_is_for(module: str) -> None:
    words = {word for name in module.split(".") for word in name.lower().split("_")}
    assert not words & WORDS_WITHOUT_MEANING


def test_architecture_shows_every_module() -> None:
    """Each line of the picture is a folder or a file; ``*`` stands for any end of a name."""
    picture = (
        (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1].partition("\nbundles/")[0]
    )
    folders: list[str] = []
    shown: list[str] = []
    for indent, name, end in re.findall(r"^( *)([\w*]+)(/|\.py)", picture, flags=re.MULTILINE):
        folders[len(indent) // 2 :] = [name]
        if end == ".py":
            shown.append("/".join(folders) + end)
    found = {file.relative_to(PACKAGE.parent).as_posix() for file in modules().values()}
    found = {file for file in found if not Path(file).name.startswith("_")}
    assert not [file for file in found if not any(fnmatch(file, line) for line in shown)], "ARCHITECTURE.md lacks them"
    assert not [line for line in shown if not any(fnmatch(file, line) for file in found)], "there are no such files"


def test_what_is_imported_is_declared() -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in requires("liver-monai") or []}
    distributions = packages_distributions()
    imported = {name for module in modules() for name in foreign_imports(module)}
    assert "torch" in imported
    undeclared = {
        name for name in imported if not {canonicalize_name(each) for each in distributions.get(name, [])} & declared
    }
    assert not undeclared, f"imported, but no dependency in pyproject.toml: {sorted(undeclared)}"


@pytest.mark.parametrize("statement", ["import liver_monai", "import liver_monai.cli"])
def test_import_is_light(statement: str) -> None:
    script = f"import sys; {statement}; print([name for name in sys.argv[1:] if name in sys.modules])"
    assert run_python(script, *HEAVY).strip() == "[]"


def test_prediction_of_nifti_needs_nothing_that_only_pydicom_3_has() -> None:
    """MONAI Label runs bundles, and is bound to pydicom 2."""
    script = "import sys, liver_monai.engine.inference; print([name for name in sys.argv[1:] if name in sys.modules])"
    assert run_python(script, "highdicom", "liver_monai.io.dicom.voxels").strip() == "[]"


def test_help_is_light() -> None:
    script = (
        "import sys; from liver_monai.cli import main; heavy, sys.argv[1:] = sys.argv[1:], ['--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])"
    )
    said = run_python(script, *HEAVY)
    assert "predict" in said
    assert said.endswith("loaded: []\n")


def test_public_names_are_pinned() -> None:
    assert set(liver_monai.__all__) == PUBLIC
    namespace: dict[str, object] = {}
    exec("from liver_monai import *", namespace)
    assert set(namespace) - {"__builtins__"} == PUBLIC


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = liver_monai.no_such_name
