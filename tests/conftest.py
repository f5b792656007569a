"""What the tests share: a quiet environment, a small phantom dataset and, where there are any, real scans."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

# Read once, when torch, matplotlib and huggingface_hub are first imported: so before any test module, and inherited by
# the interpreters that tests start.
os.environ["MPLBACKEND"] = "Agg"  # no display
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks for weights from the network fails at once
os.environ["OMP_NUM_THREADS"] = "1"  # one a worker: threads that outnumber the cores wait for each other for minutes

# A law holds or fails the same way every time, and how long a busy machine takes says nothing about it.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

REAL_DATA_VARIABLE = "LIVER_MONAI_REAL_DATA"


QUICK_TRAINING = (
    ("learning_rate", 0.004),
    ("slabs_per_epoch", 64),
    ("batch_size", 2),
    ("val_interval", 1),
    ("spec#slab_size", 3),
    ("spec#spacing_mm", [5, 5, 10]),
    ("spec#roi_size", [48, 48]),
)
"""Enough in two epochs that the network finds a phantom's liver, on a grid so coarse that it takes seconds."""


def run_command(*arguments: object) -> Result:
    """``liver-monai`` with these arguments, in this process; texts of the two streams come back apart."""
    from liver_monai.cli import main

    handlers = list(logging.root.handlers)
    try:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        logging.root.handlers[:] = handlers  # training sets up logging to a stream that ends with the command


def as_options(settings: dict[str, object]) -> list[str]:
    """``{"fold": None}`` -> ``["--set", "fold=null"]``."""
    return [option for name, value in settings.items() for option in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="session")
def cli() -> Callable[..., Result]:
    """``liver-monai`` with the given arguments."""
    return run_command


@pytest.fixture(scope="session")
def train_quickly(phantom_dataset: Path) -> Callable[..., Result]:
    """``liver-monai train`` in seconds; ``arguments`` and ``settings`` come on top of ``QUICK_TRAINING``."""

    def train(out: Path, *arguments: object, data: Path = phantom_dataset, **settings: object) -> Result:
        options = as_options({**dict(QUICK_TRAINING), **settings})
        return run_command("train", "--data", data, "-o", out, *options, *arguments)

    return train


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in MSD layout with four small CTs and their references; for reading only."""
    from liver_monai.data.phantom import write_phantoms

    def write(folder: Path) -> None:
        write_phantoms(folder, n_cases=4, shape=(96, 96, 24), seed=0)

    return made_once(tmp_path_factory, "phantoms", write)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, train_quickly: Callable[..., Result]) -> Path:
    """Folder that ``liver-monai train`` left, with weights that find a phantom's liver; for reading only."""

    def train(folder: Path) -> None:
        done = train_quickly(folder, "--epochs", 2)
        assert done.exit_code == 0, done.output

    return made_once(tmp_path_factory, "trained-run", train)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one worker makes while the others wait for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tmp_path_factory.getbasetemp() / name
        make(folder)
        return folder
    import fcntl  # only where several workers run, and those run on Linux and macOS

    folder = tmp_path_factory.getbasetemp().parent / name
    is_made = folder.with_suffix(".made")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            make(folder)
            is_made.touch()
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans, for reading only. They are patients', so that the repository cannot hold them: without the
    variable the test is skipped."""
    folder = os.environ.get(REAL_DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{REAL_DATA_VARIABLE} names no folder of real scans")
    path = Path(folder).resolve()
    assert path.is_dir(), f"{REAL_DATA_VARIABLE} is {folder}, which is no folder"
    return path
