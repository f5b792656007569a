"""SIGTERM, by which Slurm and others end a job: a training stops after its step, with a checkpoint to go on from."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any, NoReturn

from ignite import distributed as idist
from ignite.engine import Engine, Events

logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM
"""143, as shells tell of a process that the signal ended: neither done (0) nor failed (1)."""


class Interruption:
    """Notes a SIGTERM while an engine runs; a second one ends the process at once, as without this."""

    def __init__(self) -> None:
        self.is_noted = False
        self.before: Any = signal.SIG_DFL

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, lambda _: self._listen())
        engine.add_event_handler(Events.COMPLETED, lambda _: self._stop_listening())

    def is_asked_for(self) -> bool:
        """Whether to stop; processes that train together stop after the same step, whichever of them is asked."""
        if idist.get_world_size() == 1:
            return self.is_noted
        return bool(idist.all_reduce(float(self.is_noted), op="MAX"))

    def stop(self, engine: Engine, *, saved: str) -> NoReturn:
        """End the process with ``EXIT_CODE``.

        Raises:
            SystemExit: always.
        """
        if idist.get_rank() == 0:
            logger.warning(f"\nSIGTERM: the training stopped {saved}; go on with --resume")
        engine.logger.setLevel(logging.CRITICAL)  # it would call the exit an exception
        raise SystemExit(EXIT_CODE)

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may
            self.before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self.is_noted = True
        self._stop_listening()

    def _stop_listening(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)
