"""Training: a bundle is copied to a run's folder and trained there, so that the finished run is a bundle."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from liver_monai.data.preparation import open_dataset
from liver_monai.data.splits import Split
from liver_monai.engine.device import keep_freed_memory
from liver_monai.errors import InputError, one_line, root_cause
from liver_monai.io.record import write_record
from liver_monai.model.bundle import copy_bundle, find_bundle, override_bundle, set_training_data


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
        data: data set with reference masks, or a store; with ``resume``, ``None`` means the one the run began with.
        out: the run's folder, new unless ``resume``.
        overrides: config ids and their values, written into the run's configs.
        resume: go on from the last checkpoint, or from the beginning where there is none yet.

    Returns:
        The run's folder.

    Raises:
        InputError: unusable data, an unknown override, an existing run, or no run to resume.
    """
    run = Path(out).expanduser().resolve()
    if data is not None:
        open_dataset(data)  # before anything is written
    if resume:
        _require_run(run)
        override_bundle(run, overrides or {})
    else:
        _require_new(run)
        copy_bundle(find_bundle(bundle), run, overrides or {})
    if data is not None:
        set_training_data(run, str(Path(data).expanduser().resolve()))
    keep_freed_memory()
    split = _run_workflow(run, resume=(run / "models" / "checkpoint.pth").is_file())
    _write_training_record(run, split)
    return run


def _run_workflow(run: Path, *, resume: bool) -> Split:
    """Run what ``train.json`` says; returns which cases it trained and validated on."""
    logging.getLogger(ConfigWorkflow.__module__).setLevel(logging.WARNING)  # it talks on standard output
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / "train.json"),
        workflow_type="train",
        bundle_root=str(run),
        resume=resume,
    )
    workflow.initialize()
    try:
        workflow.run()
    except RuntimeError as error:
        _refuse_values(error)
        raise
    split: Split = workflow.parser.get_parsed_content("split")
    workflow.finalize()
    return split


def _refuse_values(error: BaseException) -> None:
    """Where a component of the config could not be built from its values, say so in one line."""
    cause = root_cause(error)
    wrapped: BaseException | None = error
    while wrapped is not None:
        component = re.match(r"Failed to instantiate component '([\w.]+)'", str(wrapped))
        if component and isinstance(cause, (TypeError, ValueError)) and not isinstance(cause, InputError):
            raise InputError(
                f"train.json: {component[1]} cannot be built from its values ({one_line(cause)})"
            ) from error
        wrapped = wrapped.__cause__


def _write_training_record(run: Path, split: Split) -> None:
    cases = [*split.train, *split.validation]
    write_record(
        run / "record.json",
        inputs=[path for case in cases for path in (case.image, case.label) if path is not None and path.is_file()],
        train=[case.case_id for case in split.train],
        validation=[case.case_id for case in split.validation],
        excluded=split.excluded,
    )


def _require_new(run: Path) -> None:
    if (run / "configs").exists():
        raise InputError(f"{run}: holds a run already; go on with --resume or choose another -o")


def _require_run(run: Path) -> None:
    if not (run / "configs" / "train.json").is_file():
        raise InputError(f"{run}: holds no run to resume; train it without --resume")
