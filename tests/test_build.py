"""The package as it is released: the archive of the sources builds, and the wheel works away from the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from functools import partial
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
    assert {"liver_monai/report/page.html.j2", "liver_monai/model/recipe.schema.json", "liver_monai/py.typed"} <= names
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


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel; offline, so what it depends on is lent by the one that runs the tests.

    A path in a .pth lends packages, but not what their own .pth would add: no editable install of the checkout.
    """
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index", "--ignore-installed"]
    run(folder / "bin" / "python", *pip, wheel, cwd=folder)
    return folder


def run_fresh(program: str, *arguments: str, fresh: Path, cwd: Path) -> str:
    """A program of the fresh environment, which sees nothing of the checkout."""
    return run(fresh / "bin" / program, *arguments, cwd=cwd, PYTHONPATH="")


@pytest.mark.slow
def test_a_fresh_environment_trains_and_predicts_with_what_the_wheel_brought(fresh: Path, tmp_path: Path) -> None:
    """``resnet50`` on phantoms: two epochs of two steps, on a coarse grid."""
    command = partial(run_fresh, "liver-monai", fresh=fresh, cwd=tmp_path)
    where = run_fresh("python", "-c", "import liver_monai; print(liver_monai.__file__)", fresh=fresh, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(fresh)
    listed = command("bundle", "list")
    assert {line.split()[0] for line in listed.splitlines()} == {name.split("/")[1] for name in BUNDLE_FILES}

    coarse = {"spec#spacing_mm": [6, 6, 10], "spec#roi_size": [48, 48], "slabs_per_epoch": 4, "batch_size": 2}
    settings = [text for name, value in coarse.items() for text in ("--set", f"{name}={value}")]
    command("synth", "phantoms", "--cases", "3", "--shape", "64,64,16")
    command("train", "--bundle", "resnet50", "--data", "phantoms", "-o", "run", "--epochs", "2", *settings)
    command("predict", "phantoms", "--bundle", "run", "-o", "masks")
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 3
    assert (tmp_path / "run" / "models" / "model.pt").stat().st_size > 50e6


@pytest.mark.slow
def test_the_demo_of_a_fresh_environment_learns_livers_and_tumours_that_it_never_saw(
    fresh: Path, tmp_path: Path
) -> None:
    said = run_fresh("liver-monai", "demo", "-o", "demo", "--json", fresh=fresh, cwd=tmp_path)

    out = tmp_path / "demo"
    summary = json.loads((out / "demo.json").read_text())
    assert json.loads(said) == summary
    assert (summary["n"], summary["n_failed"]) == (8, 0)
    assert summary["liver"]["dice_per_case"] >= 0.92
    assert summary["tumor"]["dice_per_case"] >= 0.65
    assert (out / "evaluation" / "report.html").is_file()
    trained = {file.read_bytes() for file in (out / "train" / "imagesTr").iterdir()}
    assert not trained & {file.read_bytes() for file in (out / "test" / "imagesTr").iterdir()}


# The container


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, lines joined and comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines) if name]


def stages(instructions: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, with those of the stage it is made from before them."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions:
        if name == "FROM":
            source, _, stage = rest.partition(" AS ")
            found[stage] = list(found.get(source, []))
        found[stage].append((name, rest))
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_container_runs_as_nobody_and_tries_itself_when_it_is_built(
    instructions: list[tuple[str, str]], target: str
) -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} <= known
    stage = stages(instructions)[target]
    users = [rest for name, rest in stage if name == "USER"]
    assert users[-1].isdecimal()  # by which Kubernetes knows that it is not root
    assert int(users[-1]) > 0
    assert ("ENTRYPOINT", '["liver-monai"]') in stage
    assert stage[-1] == ("RUN", '["liver-monai", "doctor"]')
    assert stage.index(("USER", users[-1])) < len(stage) - 1
    installs = [rest for name, rest in stage if name == "RUN" and "pip install" in rest]
    assert all("--constraint /opt/constraints.txt" in rest for rest in installs)


def test_a_container_is_built_from_nothing_but_what_it_needs() -> None:
    """All is left out, then what the wheel is built from is let in: no data set or run beside the code gets in."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == {"LICENSE", "README.md", "pyproject.toml", "constraints.txt", "bundles", "liver_monai"}
    assert all((ROOT / name).exists() for name in let_in)
