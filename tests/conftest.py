"""What the tests share: a quiet environment, a small phantom dataset and, where there are any, real scans."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

# Read once, when torch, matplotlib and huggingface_hub are first imported: so before any test module, and inherited by
# the interpreters that tests start.
os.environ["MPLBACKEND"] = "Agg"  # no display
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks for weights from the network fails at once
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))  # workers share the cores

# A law holds or fails the same way every time, and how long a busy machine takes says nothing about it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

REAL_DATA_VARIABLE = "LIVER_MONAI_REAL_DATA"


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in MSD layout with four small CTs and their references; for reading only."""
    from liver_monai.data.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, n_cases=4, shape=(96, 96, 24), seed=0)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans, for reading only."""
    folder = os.environ.get(REAL_DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{REAL_DATA_VARIABLE} names no folder of real scans")
    path = Path(folder).resolve()
    assert path.is_dir(), f"{REAL_DATA_VARIABLE} is {folder}, which is no folder"
    return path
