"""What training does around its steps, as handlers for MONAI's engines."""

from __future__ import annotations

import csv
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader

from liver_monai.errors import InputError, one_line
from liver_monai.io.files import whole_file
from liver_monai.model.weights import save_weights
from liver_monai.spec import ModelSpec

logger = logging.getLogger(__name__)

WARM_UP = 0.05
"""Share of the budget in which the learning rate rises from 0; a usual value for AdamW from random weights."""


class Budget:
    """How far a training has come: in epochs or in minutes, whichever is further.

    Args:
        max_epochs: the epochs of the whole training.
        minutes: wall time of the whole training with its validations, or ``None``.

    Raises:
        InputError: no epoch, or no time.
    """

    def __init__(self, *, max_epochs: int, minutes: float | None = None) -> None:
        if int(max_epochs) != max_epochs or max_epochs < 1 or (minutes is not None and minutes <= 0):
            raise InputError(
                f"max_epochs is {max_epochs} and minutes {minutes}; a training needs one whole epoch or more, and time"
            )
        self.max_epochs = max_epochs
        self.minutes = minutes
        self.minutes_before = 0.0  # spent before this process took the training up
        self.started_s = time.monotonic()
        self.epochs_done = 0.0

    def minutes_spent(self) -> float:
        """Wall time since the start, that of earlier processes included."""
        return self.minutes_before + (time.monotonic() - self.started_s) / 60

    def progress(self) -> float:
        """From 0 at the start to 1 at the end."""
        by_time = self.minutes_spent() / self.minutes if self.minutes is not None else 0.0
        return min(1.0, max(self.epochs_done / self.max_epochs, by_time))

    def is_spent(self) -> bool:
        """Whether the end is reached; processes that train together go by the first one's clock."""
        return bool(idist.broadcast(float(self.progress() >= 1), src=0))

    def learning_rate_factor(self, step: int = 0) -> float:
        """Linear warm-up, then a cosine to 0 at the end of the budget; the form ``LambdaLR`` calls."""
        progress = self.progress()
        if progress < WARM_UP:
            return (progress + 1e-3) / (WARM_UP + 1e-3)  # never 0: the first step must learn too
        return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))

    def state_dict(self) -> dict[str, float]:
        """What a resumed training must know."""
        return {"minutes_spent": self.minutes_spent()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up a training that had spent ``minutes_spent``."""
        self.minutes_before = state["minutes_spent"]
        self.started_s = time.monotonic()


class BudgetHandler:
    """Tells the budget how many epochs are done and ends the training when its minutes are spent."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, before the learning-rate handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _count(self, engine: Engine) -> None:
        self.budget.epochs_done = engine.state.iteration / engine.state.epoch_length
        if self.budget.minutes is not None and self.budget.is_spent():
            engine.terminate_epoch()  # what belongs to the end of an epoch still happens

    def _end(self, engine: Engine) -> None:
        if self.budget.is_spent():
            engine.terminate()


class ValidateAtEnd:
    """One more validation after the last epoch, where the interval of ``ValidationHandler`` left it out."""

    def __init__(self, *, budget: Budget, validator: Engine) -> None:
        self.budget = budget
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate if the budget is spent and this epoch was not validated."""
        if self.budget.is_spent() and self.validator.state.epoch != engine.state.epoch:
            self.validator.run(engine.state.epoch)


class EarlyStop:
    """Ends the training when the validator's best score is ``patience`` epochs old.

    MONAI's own handler counts in a state of its own, which a resumed training would begin anew; the best epoch is in
    the checkpoint.
    """

    def __init__(self, *, patience: int, validator: Engine) -> None:
        self.patience = patience
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """End the training if nothing became better for too long."""
        best_epoch = self.validator.state.best_metric_epoch
        if best_epoch > 0 and engine.state.epoch - best_epoch >= self.patience:
            logger.info(f"the best score is {self.patience} epochs old; the training ends")
            engine.terminate()


class WeightsSaver:
    """Writes ``model.pt``: on a validator when its key metric is the best so far, on a trainer after each epoch."""

    def __init__(self, *, network: torch.nn.Module, path: str, spec: ModelSpec) -> None:
        self.network = network
        self.path = path
        self.spec = spec

    def attach(self, engine: Engine) -> None:
        """Attach to a validator or, where nothing can be validated, to the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save what is worth saving."""
        if idist.get_rank() > 0:
            return
        name = engine.state.key_metric_name
        if name is None:
            save_weights(self.network, self.path, spec=self.spec, epoch=engine.state.epoch)
        elif engine.state.best_metric_epoch == engine.state.epoch:
            score = float(engine.state.best_metric)
            save_weights(self.network, self.path, spec=self.spec, epoch=engine.state.epoch, **{name: score})


class Checkpoint:
    """Keeps everything a training needs to go on in one file, written after each epoch, whole or not at all.

    MONAI's own saver writes in place, so that a process killed while saving loses the checkpoint it had.

    Args:
        path: the file.
        objects: what has ``state_dict`` and ``load_state_dict``; the trainer is added.
        validator: its best score is kept, so that a resumed training does not replace better weights by worse ones.
        resume: load the file when the training starts.
    """

    def __init__(
        self, *, path: str, objects: dict[str, Any], validator: Engine | None = None, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.objects = objects if validator is None else {**objects, "best": _BestScore(validator)}
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler."""
        objects = {**self.objects, "trainer": _Epochs(engine)}
        if self.resume:
            self._require_fitting(engine)
            CheckpointLoader(str(self.path), objects, map_location="cpu").attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self._write(objects))

    def _require_fitting(self, engine: Engine) -> None:
        """Refuse what cannot be gone on with before the engine runs, while it is still told in one line."""
        try:
            states = torch.load(self.path, map_location="cpu", weights_only=True)
            epochs_done = states["trainer"]["epoch"]
            self.objects["network"].load_state_dict(states["network"])
        except Exception as error:  # torch raises a dozen types for a file that is not its own
            raise InputError(
                f"{self.path}: does not fit this training ({one_line(error)[:200]}); put the old values back into the "
                "run's configs, or begin anew in another folder"
            ) from error
        if epochs_done > engine.state.max_epochs:
            raise InputError(
                f"max_epochs is {engine.state.max_epochs}, but {self.path} has come to epoch {epochs_done}"
            )

    def _write(self, objects: dict[str, Any]) -> None:
        if idist.get_rank() > 0:
            return
        with whole_file(self.path) as temporary:
            torch.save({name: item.state_dict() for name, item in objects.items()}, temporary)


class _Epochs:
    """How far a trainer has come, in epochs: one that the minutes cut short is done, too, and is not begun again.

    How long an epoch is may have changed since.
    """

    def __init__(self, trainer: Engine) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self.trainer.state, name) for name in ("epoch", "epoch_length", "max_epochs")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict({**state, "epoch_length": self.trainer.state.epoch_length})


class _BestScore:
    """The best score of a validator so far, and its epoch."""

    def __init__(self, validator: Engine) -> None:
        self.validator = validator

    def state_dict(self) -> dict[str, float]:
        state = self.validator.state
        return {"best_metric": float(state.best_metric), "best_metric_epoch": state.best_metric_epoch}

    def load_state_dict(self, state: dict[str, float]) -> None:
        for name, value in state.items():
            setattr(self.validator.state, name, value)


class History:
    """A row an epoch, as CSV and as a log line: minutes, learning rate, mean loss and, where validated, the scores."""

    def __init__(
        self, *, path: str, budget: Budget, optimizer: torch.optim.Optimizer, validator: Engine | None = None
    ) -> None:
        self.path = Path(path)
        self.budget = budget
        self.optimizer = optimizer
        self.validator = validator
        self.losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the row of the epoch that ended; of processes that train together, the mean loss."""
        loss = idist.all_reduce(sum(self.losses) / len(self.losses)) / idist.get_world_size()
        row = {
            "epoch": engine.state.epoch,
            "minutes": round(self.budget.minutes_spent(), 3),
            "learning_rate": round(self.optimizer.param_groups[0]["lr"], 8),
            "train_loss": round(float(loss), 5),
            **self._validation_scores(engine.state.epoch),
        }
        self.losses.clear()
        if idist.get_rank() > 0:
            return
        self._append(row)
        logger.info("  ".join(f"{name} {value}" for name, value in row.items() if value != ""))

    def _note_loss(self, engine: Engine) -> None:
        """Keep the batch's loss; where the trainer takes batches apart, every item carries it."""
        output = engine.state.output
        self.losses.append(float(output["loss"] if isinstance(output, dict) else output[0]["loss"]))

    def _validation_scores(self, epoch: int) -> dict[str, float | str]:
        """The scores of this epoch, empty where it was not validated, so that the columns never change."""
        if self.validator is None or self.validator.state.epoch != epoch:
            return dict.fromkeys(VALIDATION_SCORES, "")
        return {name: round(float(self.validator.state.metrics[name]), 5) for name in VALIDATION_SCORES}

    def _append(self, row: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


VALIDATION_SCORES = ("val_mean_dice", "val_liver_dice", "val_tumor_dice")
