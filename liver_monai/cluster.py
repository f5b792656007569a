"""A pool of many machines: a Dask scheduler hands each case to a worker, and to another where that one dies."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import platform
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from liver_monai._version import __version__
from liver_monai.errors import InputError
from liver_monai.processes import Result

LOCAL, TCP = "local:", "tcp://"
FORMS = f"{TCP}HOST:PORT of a Dask scheduler, or {LOCAL}N for N processes of this machine"

MAX_KILLED = 3
"""Workers that a case may take with it before it is the case that fails. A scheduler of your own has its own limit."""
CONNECT_S = 20
"""What a scheduler that is there needs is far below a second."""
HERE_ONLY = "127.0.0.1"

QUIET = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "logging.distributed": "critical",
}
"""Nothing to look at by browser, and who dies is told by what becomes of the cases."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Workers of a Dask scheduler, on machines that see the same folders under the same names.

    No more cases are handed out at a time than there are workers: one that dies takes one case with it.
    """

    client: Any
    address: str

    def results(
        self, call: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], *, killed: Callable[..., Result]
    ) -> Iterator[Result]:
        """See ``processes.Pool``.

        Raises:
            InputError: the scheduler is gone, or a worker that cannot do the work.
        """
        waiting = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        finished: SimpleQueue[Any] = SimpleQueue()
        done: dict[int, Result] = {}
        for number in range(len(tasks)):
            while number not in done:
                while len(running) < self._n_workers() and (task := next(waiting, None)) is not None:
                    future = self._submit(call, task[1])
                    running[future] = task[0]
                    future.add_done_callback(finished.put)
                future = finished.get()
                which = running.pop(future)
                done[which] = self._result_of(future, tasks[which], killed)
            yield done.pop(number)

    def _n_workers(self) -> int:
        with self._telling_if_gone(OSError):
            return max(1, len(self.client.nthreads()))

    def _submit(self, call: Callable[..., Result], task: tuple[Any, ...]) -> Any:
        """As bytes, into which Dask does not look."""
        with self._telling_if_gone(OSError):
            return self.client.submit(
                _run, pickle.dumps((call, task)), version=__version__, folder=str(Path.cwd()), pure=False
            )

    def _result_of(self, future: Any, task: tuple[Any, ...], killed: Callable[..., Result]) -> Result:
        from distributed import KilledWorker

        try:
            with self._telling_if_gone():
                result: Result = future.result()
        except KilledWorker:
            return killed(*task)
        except ModuleNotFoundError as error:
            raise InputError(f"{self.address}: a worker lacks {error.name}; install there what is here") from error
        return result

    @contextmanager
    def _telling_if_gone(self, *signs: type[Exception]) -> Iterator[None]:
        """``signs``: what else tells that, where no task can have raised it."""
        from distributed.comm import CommClosedError

        try:
            yield
        except (CancelledError, CommClosedError, TimeoutError, *signs) as error:
            raise InputError(
                f"{self.address}: the scheduler is gone or out of reach; what is finished is kept. Start it again with "
                "its workers, and this command with --resume where it has that"
            ) from error


@contextmanager
def open_cluster(
    scheduler: str,
    *,
    gpus: Sequence[str] | None = None,
    connect_s: float = CONNECT_S,
    say: Callable[[str], None] = print,
) -> Iterator[Cluster]:
    """A cluster that is there, or processes of this machine that end with this one.

    Args:
        scheduler: ``tcp://HOST:PORT`` or ``local:N``.
        gpus: of local processes, each of which sees one of them; by default all that this process may use.
        connect_s: how long to wait for a scheduler to answer.
        say: takes a line for people.

    Raises:
        InputError: another form, nothing there, or no Dask here.
    """
    try:
        import dask
        from distributed import Client
    except ImportError as error:
        raise InputError("--scheduler needs Dask; pip install 'liver-monai[cluster]'") from error
    gpus = visible_gpus() if gpus is None else gpus
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(QUIET))
        for name in ("distributed", "distributed.client"):  # the second has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if scheduler.startswith(LOCAL):
            scheduler = stack.enter_context(_local_cluster(_count(scheduler), gpus)).scheduler_address
        elif not scheduler.startswith(TCP):
            raise InputError(f"--scheduler {scheduler}: is no address; give {FORMS}")
        try:
            client = stack.enter_context(Client(scheduler, timeout=connect_s, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there; give {FORMS}") from error
        if not client.nthreads():
            say(f"{scheduler}: has no worker yet; waiting for the first")
        yield Cluster(client, scheduler)


def _count(scheduler: str) -> int:
    text = scheduler.removeprefix(LOCAL)
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--scheduler {scheduler}: N must be 1 or more; give {FORMS}")
    return int(text)


@contextmanager
def _local_cluster(n: int, gpus: Sequence[str]) -> Iterator[Any]:
    """A scheduler in this process and ``n`` others of one thread each, to be reached from this machine only."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    here = {"host": HERE_ONLY, "dashboard": False, "dashboard_address": f"{HERE_ONLY}:0"}
    options = {
        **here,
        "nthreads": 1,
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "preload": [__name__],
    }
    workers = {number: {"cls": Nanny, "options": {**options, "env": gpu_of(number, gpus)}} for number in range(n)}
    scheduler = {"cls": Scheduler, "options": {**here, "port": 0, "allowed_failures": MAX_KILLED - 1}}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        dask.config.set({"temporary-directory": folder}),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL) as cluster,
    ):
        try:
            yield cluster
        finally:
            for nanny in cluster.workers.values():  # which would wait for the case at hand, though nobody does
                nanny.close_gracefully()
                with suppress(ProcessLookupError, TypeError):  # it has ended, or is not there yet
                    os.kill(nanny.pid, signal.SIGKILL)


def dask_setup(_: Any) -> None:
    """Dask calls this in a process that begins to work: Ctrl-C is the first process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; none of them is initialized."""
    import torch

    n = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return (named.split(",") if named else [str(number) for number in range(n)])[:n]


def gpu_of(number: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of a worker, in which it sees one GPU; where there are fewer than workers, they share them."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def _run(task: bytes, *, version: str, folder: str) -> Any:
    """A task, on a worker, in the folder in which the command was given."""
    from distributed import get_worker

    n_threads = get_worker().state.nthreads
    here = f"worker {get_worker().address} on {platform.node()}"
    if version != __version__:
        raise InputError(f"{here}: has liver-monai {__version__}, the command {version}; install the same everywhere")
    if n_threads > 1:
        raise InputError(f"{here}: does {n_threads} tasks at a time; start it with --nthreads 1")
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(f"{here}: has no folder {folder}; all machines must see the same folders") from error
    call, arguments = pickle.loads(task)
    return call(*arguments)
