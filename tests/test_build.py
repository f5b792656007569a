"""The package as it is released: the archive of the sources builds, and the wheel works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUNDLE_FILES = {file.relative_to(ROOT).as_posix() for file in (ROOT / "bundles").glob("*/*/*.*")}


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, _, pinned in pins}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the archive of the sources, as installers do: what the archive lacks, the wheel lacks."""
    folder = tmp_path_factory.mktemp("build")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(folder, filter="data")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=folder / archive.name[:-7])
    (built,) = folder.glob("*.whl")
    return built


def test_every_dependency_is_pinned_within_its_range() -> None:
    wanted = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
    pins = constraints()
    assert {canonicalize_name(each.name) for each in wanted} <= pins.keys()
    for each in wanted:
        assert pins[canonicalize_name(each.name)] in each.specifier, each


@pytest.mark.slow
def test_wheel_holds_more_than_modules(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    assert "bundles/mobilenet/configs/train.json" in BUNDLE_FILES
    assert {f"liver_monai/{file}" for file in BUNDLE_FILES} <= names
    assert {"liver_monai/report/page.html.j2", "liver_monai/py.typed"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_wheel_holds_no_test_and_no_machine(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"liver_monai", f"liver_monai-{version('liver-monai')}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".nii.gz"))]


@pytest.mark.slow
def test_installed_wheel_finds_its_bundles(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    run(*pip, "--target", installed, wheel, cwd=elsewhere)

    script = (
        "import liver_monai; from liver_monai.model.bundle import list_bundles; "
        "print(liver_monai.__file__, *list_bundles())"
    )
    file, *bundles = run(sys.executable, "-c", script, cwd=elsewhere, PYTHONPATH=str(installed)).split()
    assert Path(file).is_relative_to(installed)
    assert bundles == sorted({name.split("/")[1] for name in BUNDLE_FILES})

    command = installed / "bin" / "liver-monai"
    assert version("liver-monai") in run(command, "--version", cwd=elsewhere, PYTHONPATH=str(installed))
