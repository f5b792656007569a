"""Training: a bundle is copied to a run's folder and trained there, so that the finished run is a bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from liver_monai.data.preparation import open_dataset
from liver_monai.data.splits import Split
from liver_monai.data.store import process_rank
from liver_monai.engine.device import keep_freed_memory
from liver_monai.engine.together import first_does, is_first, is_restarted, join, note_beginning, note_end
from liver_monai.errors import OF_DISKS, InputError, one_line, root_cause
from liver_monai.io.record import write_record
from liver_monai.io.volumes import Source
from liver_monai.model.bundle import (
    ID_SEPARATOR,
    copy_bundle,
    find_bundle,
    override_bundle,
    read_config,
    read_spec,
    refusing_values,
    set_training_data,
    values_by_id,
)
from liver_monai.model.trust import require_trusted
from liver_monai.model.weights import check_weights

DEFAULT_BUNDLE = "mobilenet"
"""Small enough to train on a CPU."""
WITHOUT_END = 1_000_000
"""Epochs of a training that minutes alone end."""

OF_THE_CHECKPOINT = "the checkpoint's state of optimizer, schedule and average goes on"
OF_THE_COMMAND = "the command line decides on it"
UNCHANGEABLE = {
    "spec": "the weights were trained under it",
    "spec#encoder_weights": "the training has begun",
    "network_def": "the weights were trained under it",
    "fold": "cases that trained would validate",
    "folds": "cases that trained would validate",
    "learning_rate": OF_THE_CHECKPOINT,
    "optimizer": OF_THE_CHECKPOINT,
    "lr_scheduler": OF_THE_CHECKPOINT,
    "ema_decay": OF_THE_CHECKPOINT,
    "averaged": OF_THE_CHECKPOINT,
    "init": "the training has begun",
    "checkpoint": "the checkpoint lies there",
    "ckpt_dir": "the checkpoint lies there",
    "resume": OF_THE_COMMAND,
    "bundle_root": OF_THE_COMMAND,
}
"""Ids, with all below them, that no longer take effect in a resumed training or would make its weights wrong."""


def train(
    *,
    bundle: str | Path | None,
    data: str | Path | None,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    trust_bundle: bool = False,
) -> Path:
    """Train a bundle; MONAI's engines run what its ``train.json`` says.

    Processes that torchrun starts train together. Where it starts them again, they go on from the last checkpoint.

    Args:
        bundle: name of a shipped bundle, or a folder; ``None`` is ``DEFAULT_BUNDLE`` or, with ``resume``, the run
            itself, which no other bundle can take the place of.
        data: data set with reference masks, or a store; with ``resume``, ``None`` means the one the run began with.
        out: the run's folder, new unless ``resume``.
        overrides: config ids and their values, written into the run's configs. A training that has begun can be made
            longer or shorter and see its data otherwise, but keeps what ``UNCHANGEABLE`` names.
        resume: go on from the last checkpoint, or from the beginning where there is none yet.
        trust_bundle: run whatever it names, see ``require_trusted``; ``overrides`` are the caller's and always are.

    Returns:
        The run's folder.

    Raises:
        InputError: unusable data, a bundle that names what is not known, an unknown override or one that comes too
            late, an existing run, no run to resume, or a folder that is full or may not be written to; the last
            checkpoint is kept then.
        SystemExit: 143, after a SIGTERM; a checkpoint has been written.
    """
    run = Path(out).expanduser().resolve()
    if not trust_bundle:
        require_trusted(run if resume else find_bundle(bundle or DEFAULT_BUNDLE))
    with _telling_of_disks(run):
        join()
        first_does(lambda: _make_ready(run, bundle=bundle, data=data, overrides=overrides or {}, resume=resume))
        keep_freed_memory()
        split = _run_workflow(run, resume=_checkpoint(run).is_file())
        if is_first():
            _write_training_record(run, split)
            note_end(run)
    return run


def budget(*, epochs: int | None, minutes: float | None) -> dict[str, Any]:
    """The overrides that end a training; minutes alone are not cut short by the bundle's epochs."""
    if minutes is None:
        return {} if epochs is None else {"max_epochs": epochs}
    return {"max_epochs": WITHOUT_END if epochs is None else epochs, "minutes": minutes}


def _make_ready(
    run: Path,
    *,
    bundle: str | Path | None,
    data: str | Path | None,
    overrides: Mapping[str, Any],
    resume: bool,
) -> None:
    """The run's folder, with what the training is to do written into its configs."""
    if data is not None:
        open_dataset(data)  # before anything is written
    if resume or is_restarted(run):
        _require_run(run)
        _require_same_bundle(run, bundle)
        if _checkpoint(run).is_file():
            _refuse_late_overrides(run, overrides)
        override_bundle(run, overrides)
    else:
        _require_new(run)
        note_beginning(run)
        copy_bundle(find_bundle(bundle or DEFAULT_BUNDLE), run, overrides)
    if data is not None:
        set_training_data(run, str(Path(data).expanduser().resolve()))


@contextmanager
def _telling_of_disks(run: Path) -> Iterator[None]:
    """What may not be written, or not whole, for the one who can make room; what it would have replaced is kept."""
    try:
        yield
    except Exception as error:  # MONAI wraps what a handler raises
        cause = root_cause(error)
        if not isinstance(cause, OSError) or cause.errno not in OF_DISKS:
            raise
        last = "the last checkpoint is kept" if (run / "models" / "checkpoint.pth").is_file() else "nothing is kept"
        raise InputError(
            f"{cause.filename or run}: {one_line(cause)}; {last}. Make room there or let it be written to, and go on "
            "with --resume"
        ) from error


def _run_workflow(run: Path, *, resume: bool) -> Split:
    """Run what ``train.json`` says; returns which cases it trained and validated on."""
    logging.getLogger(ConfigWorkflow.__module__).setLevel(logging.WARNING)  # it talks on standard output
    configs = ["train.json"] if process_rank() == (0, 1) else ["train.json", "multi_gpu_train.json"]
    workflow = ConfigWorkflow(
        config_file=[str(run / "configs" / name) for name in configs],
        workflow_type="train",
        bundle_root=str(run),
        resume=resume,
    )
    workflow.initialize()
    logging.getLogger("ignite.engine.engine").setLevel(logging.CRITICAL)  # it tells twice what it raises anyway
    with refusing_values(run / "configs" / "train.json"):
        workflow.run()
    split: Split = workflow.parser.get_parsed_content("split")
    workflow.finalize()
    return split


def _write_training_record(run: Path, split: Split) -> None:
    cases = [*split.train, *split.validation]
    init = run / "models" / "init.json"
    write_record(
        run / "record.json",
        inputs=[source for case in cases for source in (case.image, case.label) if source and _is_there(source)],
        train=[case.case_id for case in split.train],
        validation=[case.case_id for case in split.validation],
        excluded=split.excluded,
        init=read_config(init) if init.is_file() else None,
    )


def _is_there(source: Source) -> bool:
    """Prepared cases may outlive the files that they were made from."""
    return not isinstance(source, Path) or source.exists()


def _require_new(run: Path) -> None:
    if (run / "configs").exists():
        raise InputError(f"{run}: holds a run already; go on with --resume or choose another -o")


def _require_run(run: Path) -> None:
    if not (run / "configs" / "train.json").is_file():
        raise InputError(f"{run}: holds no run to resume; train it without --resume")


def _checkpoint(run: Path) -> Path:
    """Where ``train.json`` has the training keep its state."""
    parser = ConfigParser(read_config(run / "configs" / "train.json"))
    parser["bundle_root"] = str(run)
    return Path(parser.get_parsed_content("checkpoint"))


def _require_same_bundle(run: Path, bundle: str | Path | None) -> None:
    if bundle is None:
        return
    names = [read_config(folder / "configs" / "metadata.json").get("name") for folder in (run, find_bundle(bundle))]
    if names[0] != names[1]:
        raise InputError(f"{run}: is a training of '{names[0]}' and cannot go on as '{names[1]}'; leave --bundle out")


def _refuse_late_overrides(run: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse what a training that has begun would ignore, or what would make its weights wrong."""
    values = values_by_id(read_config(run / "configs" / "train.json"))
    for config_id, value in overrides.items():
        reason = _why_unchangeable(config_id)
        if reason and config_id in values and values[config_id] != value:
            raise InputError(
                f"{config_id} is {json.dumps(values[config_id])} in {run} and cannot become {json.dumps(value)}: "
                f"{reason}; leave it out, or begin anew with another -o"
            )
    weights = run / "models" / "model.pt"
    if weights.is_file():
        check_weights(weights, spec=read_spec(run))  # whoever edits the configs by hand is told, too


def _why_unchangeable(config_id: str) -> str | None:
    """The reason that stands nearest above an id."""
    while config_id not in UNCHANGEABLE and ID_SEPARATOR in config_id:
        config_id = config_id.rpartition(ID_SEPARATOR)[0]
    return UNCHANGEABLE.get(config_id)
