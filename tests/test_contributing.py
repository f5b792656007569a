"""What CONTRIBUTING shows can be done: its changes apply, and what they add works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from code_blocks import ROOT, blocks_of

CHANGES = [block for block in blocks_of(ROOT / "CONTRIBUTING.md") if block.language == "diff"]

USE_THEM = """
from pathlib import Path
import numpy as np, torch
from liver_monai.data.layouts import find_cases
from liver_monai.model.network import build_network
from liver_monai.report.findings import Findings, lesion_markdown
from liver_monai.scoring.measures import MaskPair, measure
from liver_monai.spec import ModelSpec

prediction, reference = (np.arange(10).reshape(1, 1, 10) < n for n in (6, 4))
pair = MaskPair(prediction=prediction, reference=reference, spacing_mm=(1, 1, 1))
assert measure(pair, ["vs"]) == {"vs": 1 - 2 / 10}

logits = build_network(ModelSpec(encoder="resnet10")).eval()(torch.zeros(1, 5, 32, 32))
assert logits.shape == (1, 3, 32, 32)

Path("data/case7").mkdir(parents=True)
for name in ("ct", "seg"):
    Path(f"data/case7/{name}.nii.gz").touch()
assert [case.case_id for case in find_cases("data")] == ["case7"]

table = lesion_markdown(Findings(liver_ml=1500, tumor_ml=0, burden=0, lesions=[]))
assert table.startswith("| lesion_id | volume_ml |")
"""


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_changes_are_small(change):
    assert len([line for line in change.text.splitlines() if line.startswith(("+", "-"))]) <= 24


def test_changes_apply_and_work(tmp_path):
    """Together, on a copy of the package."""
    shutil.copytree(ROOT / "liver_monai", tmp_path / "liver_monai", ignore=shutil.ignore_patterns("__pycache__"))
    assert len(CHANGES) == 4
    for change in CHANGES:
        applied = subprocess.run(
            ["git", "apply", "-"], cwd=tmp_path, input=change.text, capture_output=True, text=True, check=False
        )
        assert applied.returncode == 0, f"{change}: {applied.stderr}"

    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", USE_THEM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_github_runs_what_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    targets = re.search(r"target: \[(.*)\]", workflow)[1].split(", ")

    assert targets == re.findall(
        r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
