"""Who does the work on many cases: processes of this machine, which never outlive the one that started them.

A cluster (``liver_monai.cluster``) is the other ``Pool``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

MAX_PROCESSES = 8
"""Each holds a case or two; reading them from one disk is what more would wait for."""


class Pool(Protocol):
    """Whoever does tasks."""

    def results(
        self, call: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], *, killed: Callable[..., Result]
    ) -> Iterator[Result]:
        """Call a function with the arguments of each task, several at a time; results come in the order of the tasks.

        Args:
            call: of a module, so that another process finds it by its name. What it raises is the caller's.
            tasks: what another process can be sent.
            killed: gives the result of a task, from the same arguments, that ends whatever process it is given to.
        """


@dataclass(frozen=True)
class Processes:
    """``n`` processes of this machine; 1 stays in this one.

    One that is killed, for its memory say, ends all: whoever has no result yet is then called alone.
    """

    n: int

    def results(
        self, call: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], *, killed: Callable[..., Result]
    ) -> Iterator[Result]:
        """See ``Pool``."""
        n = min(self.n, len(tasks))
        if n < 2:
            yield from (call(*task) for task in tasks)
            return
        with open_pool(n) as pool:
            futures = [pool.submit(call, *task) for task in tasks]
            try:
                for future, task in zip(futures, tasks, strict=True):
                    yield _result_of(future, call, task, killed)
            finally:
                pool.shutdown(cancel_futures=True)


ALONE = Processes(1)


def processes_for(n_cases: int, *, cases_a_process: int) -> Processes:
    """As many as there are cores, but each with ``cases_a_process`` to do: to start, one needs seconds."""
    return Processes(max(1, min(MAX_PROCESSES, os.cpu_count() or 1, n_cases // cases_a_process)))


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
