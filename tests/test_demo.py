"""The whole path as a newcomer takes it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = "from liver_monai.cli import main; main()"


@pytest.mark.slow
def test_the_demo_learns_livers_and_tumours_that_it_never_saw(tmp_path):
    out = tmp_path / "demo"

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "demo", "-o", out, "--json"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "demo.json").read_text())
    assert json.loads(done.stdout) == summary
    assert (summary["n"], summary["n_failed"]) == (8, 0)
    assert summary["liver"]["dice_per_case"] >= 0.90
    assert summary["tumor"]["dice_per_case"] >= 0.60
    assert (out / "evaluation" / "report.html").is_file()
    trained = {file.read_bytes() for file in (out / "train" / "imagesTr").iterdir()}
    assert not trained & {file.read_bytes() for file in (out / "test" / "imagesTr").iterdir()}
