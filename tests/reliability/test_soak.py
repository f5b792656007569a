"""A process that predicts for long neither grows nor keeps files open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
N = 72
MOST_KB = 300
"""A prediction; the smallest of these CTs alone would be 60 KB as it was read and 150 KB on the way to the network,
and the allocator's own steps are a few hundred KB each."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from /proc")
def test_memory_and_descriptors_stay_flat(tmp_path):
    command = [sys.executable, TESTS / "reliability" / "soak.py", "-n", N, "-o", tmp_path / "soak.csv"]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    course = json.loads(done.stdout)
    assert course["done"] + course["failed"] == course["n"] == N
    assert course["done"] > N / 2
    assert course["failed"] > 0
    assert course["kb_a_prediction"] < MOST_KB
    assert course["most_descriptors"] - course["least_descriptors"] <= 2
