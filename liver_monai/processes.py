"""Work shared among processes, which never outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_processes(
    call: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    n_processes: int,
    killed: Callable[..., Result],
) -> Iterator[Result]:
    """Call a function with the arguments of each task, several at a time; results come in the order of the tasks.

    A process that is killed, for its memory say, ends the whole pool: whoever has no result yet is then called alone.

    Args:
        call: of a module, so that another process finds it by its name.
        n_processes: how many tasks at a time, each in a process of its own; 1 stays in this one.
        killed: gives the result of a task, from the same arguments, whose process was killed when it was alone, too.
    """
    if min(n_processes, len(tasks)) < 2:
        yield from (call(*task) for task in tasks)
        return
    with open_pool(min(n_processes, len(tasks))) as pool:
        futures = [pool.submit(call, *task) for task in tasks]
        try:
            for future, task in zip(futures, tasks, strict=True):
                yield _result_of(future, call, task, killed)
        finally:
            pool.shutdown(cancel_futures=True)


def open_pool(n_processes: int) -> ProcessPoolExecutor:
    """Fresh processes of one thread each: forking one that holds torch's threads may hang."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_processes, mp_context=context, initializer=_begin_worker)


def _result_of(
    future: Future[Result], call: Callable[..., Result], task: tuple[Any, ...], killed: Callable[..., Result]
) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        pass
    try:
        with open_pool(1) as pool:
            return pool.submit(call, *task).result()
    except BrokenProcessPool:
        return killed(*task)


def _begin_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores already; torch reads it when it is loaded
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the first process's to answer; the others just end
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would finish its task and then wait for another for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
