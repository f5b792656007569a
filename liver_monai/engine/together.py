"""Processes that train together: how they join, what one of them does for all, how torchrun's restarts go on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore  # torch.distributed has them, unknown to mypy

from liver_monai.data.store import process_rank
from liver_monai.errors import InputError
from liver_monai.io.files import whole_file

BEGUN_BY = ".torchrun"
"""In a run's folder, until it is finished: by which job it was begun."""


def is_first() -> bool:
    """Whether this process is the one that speaks and writes for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def join() -> None:
    """Make the processes of torchrun one group, on GPUs if there are any; without torchrun, do nothing.

    Raises:
        InputError: processes of several machines that could not find each other after a restart.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if n_processes == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    store = _store_of_attempt()
    if store is None:
        distributed.init_process_group(backend)
    else:
        distributed.init_process_group(backend, store=store, rank=int(os.environ["RANK"]), world_size=n_processes)


def _store_of_attempt() -> Store | None:
    """Where the processes of this attempt find each other; ``None`` is where torch looks by itself.

    torchrun keeps one place for all attempts, in which the addresses of processes that are no more would be found, and
    waited for (https://github.com/pytorch/pytorch/issues/135712). On one machine its count of restarts tells attempts
    apart; each machine has a count of its own.
    """
    may_restart = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if not may_restart or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--max-restarts: processes of several machines would wait for those of the first attempt; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun on each"
        )
    shared = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", shared)


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
