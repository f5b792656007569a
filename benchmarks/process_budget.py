"""A training's budget in minutes of the processor: what else runs on the machine does not count."""

from __future__ import annotations

import time
from typing import Any

from liver_monai.engine.handlers import Budget

OF_THE_PROCESS = {
    "_target_": "process_budget.ProcessBudget",
    "max_epochs": "@max_epochs",
    "minutes": "@minutes",
    "warm_up": "@warm_up",
}
"""In the place of a bundle's ``budget``; the minutes of its history are those of the processor, too."""


class ProcessBudget(Budget):
    """Minutes of this process, with all its threads and without other processes, in place of those of the clock."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before_s = time.process_time()

    def minutes_spent(self) -> float:
        """Since the training began; one that is resumed begins anew."""
        return (time.process_time() - self.before_s) / 60
