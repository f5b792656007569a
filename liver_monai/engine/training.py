"""Training: a bundle is copied to a run's folder and trained there, so that the finished run is a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from liver_monai.data.cases import find_cases
from liver_monai.engine.device import keep_freed_memory
from liver_monai.errors import InputError
from liver_monai.model.bundle import copy_bundle, find_bundle, override_bundle


def train(
    *,
    bundle: str | Path,
    data: str | Path | None,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Path:
    """Train a bundle; MONAI's engines run what its ``train.json`` says.

    Args:
        bundle: name of a shipped bundle, or a folder; with ``resume`` the run itself is taken.
        data: data set with reference masks; with ``resume``, ``None`` means the one the run began with.
        out: the run's folder, new unless ``resume``.
        overrides: config ids and their values, written into the run's configs.
        resume: go on from the last checkpoint.

    Returns:
        The run's folder.

    Raises:
        InputError: unusable data, an unknown override, an existing run, or no run to resume.
    """
    run = Path(out).expanduser().resolve()
    values = dict(overrides or {})
    if data is not None:
        find_cases(data)  # before anything is written
        values["dataset_dir"] = str(Path(data).expanduser().resolve())
    if resume:
        _require_checkpoint(run)
        override_bundle(run, values)
    else:
        _require_new(run)
        copy_bundle(find_bundle(bundle), run, values)
    keep_freed_memory()
    _run_workflow(run, resume=resume)
    return run


def _run_workflow(run: Path, *, resume: bool) -> None:
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / "train.json"),
        workflow_type="train",
        bundle_root=str(run),
        resume=resume,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def _require_new(run: Path) -> None:
    if (run / "configs").exists():
        raise InputError(f"{run}: holds a run already; go on with --resume or choose another -o")


def _require_checkpoint(run: Path) -> None:
    if not (run / "models" / "checkpoint.pt").is_file():
        raise InputError(f"{run}: holds no checkpoint to resume from; train it without --resume")
