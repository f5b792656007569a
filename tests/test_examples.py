"""The examples run as their first lines say, each in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("0[1-5]_*.py"))
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def run_example(number: int, *arguments: object, folder: Path) -> str:
    (script,) = (ROOT / "examples").glob(f"{number:02}_*.py")
    command = [sys.executable, "-W", "error::UserWarning:liver_monai", script, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_ct_becomes_a_mask_on_its_grid(trained_run, phantom_dataset, tmp_path):
    ct = phantom_dataset / "imagesTr" / "liver_001.nii.gz"

    said = run_example(1, ct, trained_run, folder=tmp_path)

    assert float(re.search(r"liver (\d+) mL", said)[1]) > 500
    assert nib.load(tmp_path / "mask.nii.gz").shape == nib.load(ct).shape


@pytest.mark.slow
def test_a_list_of_files_trains_a_network(tmp_path):
    said = run_example(2, tmp_path / "out", folder=tmp_path)

    assert re.fullmatch(r"epoch \d, mean Dice of patients held back 0\.\d\d", said.splitlines()[-1])
    record = json.loads((tmp_path / "out" / "run" / "record.json").read_text())
    assert record["command"]
    assert (tmp_path / "out" / "run" / "models" / "model.pt").is_file()


def test_protocols_disagree(tmp_path):
    said = run_example(3, folder=tmp_path)

    lits, faulty, msd = (dict(re.findall(r"(liver|tumor) (\d\.\d+)", line)) for line in said.splitlines()[:3])
    assert lits == faulty
    assert lits["liver"] > msd["liver"] > msd["tumor"] > "0"
    assert re.search(r"lesions found \d of \d, false positives [1-9]", said)


@pytest.mark.slow
def test_every_lesion_is_measured(tmp_path):
    said = run_example(4, tmp_path / "out", folder=tmp_path)

    n_lesions = int(re.search(r"^(\d+) lesions", said, flags=re.MULTILINE)[1])
    assert n_lesions == len(re.findall(r"^lesion \d+: ", said, flags=re.MULTILINE)) > 0
    written = json.loads((tmp_path / "out" / "findings" / "findings.json").read_text())
    assert len(written["lesions"]) == n_lesions


@pytest.mark.slow
def test_an_encoder_and_a_measure_are_added(tmp_path):
    said = run_example(5, tmp_path / "out", folder=tmp_path)

    assert "'vs': 0.8" in said  # 1 - 2 / 10
    assert "forward pass: ok" in said
    assert (tmp_path / "out" / "mine" / "configs" / "train.json").is_file()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_short(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_hold_no_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"]]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    """Each holds what it claims in asserts."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    content = nbformat.read(notebook, as_version=4)
    NotebookClient(content, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
