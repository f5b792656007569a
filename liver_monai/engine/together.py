"""Processes that train together: how they join, what one of them does for all, how torchrun's restarts go on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from liver_monai.data.store import process_rank
from liver_monai.io.files import whole_file

BEGUN_BY = ".torchrun"
"""In a run's folder, until it is finished: by which job it was begun."""


def is_first() -> bool:
    """Whether this process is the one that speaks and writes for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def join() -> None:
    """Make the processes of torchrun one group, on GPUs if there are any; without torchrun, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def first_does(call: Callable[[], None]) -> None:
    """Have the first process do what only one may do; the others wait for it.

    Raises:
        SystemExit: 1 in the others, where the first one failed; it says why.
    """
    rank, n_processes = process_rank()
    is_done = [False]
    try:
        if rank == 0:
            call()
            is_done = [True]
    finally:
        if n_processes > 1:
            distributed.broadcast_object_list(is_done, src=0)
    if not is_done[0]:
        raise SystemExit(1)


def note_beginning(run: Path) -> None:
    """Leave word which job of torchrun begins a run; without torchrun, nothing."""
    job = _job()
    if job:
        with whole_file(run / BEGUN_BY) as temporary:
            temporary.write_text(job, encoding="utf-8")


def note_end(run: Path) -> None:
    """The run is finished: no restart goes on with it."""
    (run / BEGUN_BY).unlink(missing_ok=True)


def is_restarted(run: Path) -> bool:
    """Whether torchrun has started its processes again and this run is the one that they had begun.

    A run of another job is none: what was refused at first would be gone on with after ``--max-restarts``.
    """
    note = run / BEGUN_BY
    is_again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    has_begun = note.is_file() and (run / "configs" / "train.json").is_file()
    return is_again and has_begun and note.read_text(encoding="utf-8") == _job()


def _job() -> str:
    """What torchrun's restarts have in common: the id it was given or has made up, else the process that watches."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{platform.node()} {os.getppid()}" if run_id == "none" else run_id
