"""What training does around its steps, as handlers for MONAI's engines."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

from liver_monai.data.balance import describe_draws, find_doubts
from liver_monai.data.draws import SlabDataset
from liver_monai.errors import InputError
from liver_monai.io.files import write_json
from liver_monai.io.tables import read_table, write_rows
from liver_monai.model.weights import load_initial_weights, save_weights
from liver_monai.spec import ModelSpec

logger = logging.getLogger(__name__)

WARM_UP = 0.05
"""Share of the budget in which the learning rate rises from 0; a usual value for AdamW from random weights."""

LEAST_FACTOR = 1e-3
"""Of the learning rate: the first step must learn, too."""

MOST_SKIPPED = 20
"""Steps in a row: the scaler begins at 2^16 and halves with each, so that a healthy training needs fewer."""

VALIDATION_SCORES = ("val_mean_dice", "val_liver_dice", "val_tumor_dice")
"""What a validator measures (``CaseDiceHandler``), which are columns of the history, too."""


class Budget:
    """How far a training has come: in epochs or in minutes, whichever is further.

    Args:
        max_epochs: the epochs of the whole training.
        minutes: wall time of the whole training with its validations, or ``None``.
        warm_up: share of it in which the learning rate rises.

    Raises:
        InputError: no epoch, no time, or nothing left after the warm-up.
    """

    def __init__(self, *, max_epochs: int, minutes: float | None = None, warm_up: float = WARM_UP) -> None:
        if int(max_epochs) != max_epochs or max_epochs < 1 or (minutes is not None and minutes <= 0):
            raise InputError(
                f"max_epochs is {max_epochs} and minutes {minutes}; a training needs one whole epoch or more, and time"
            )
        if not 0 <= warm_up < 1:
            raise InputError(f"warm_up is {warm_up}; it must be a share of the training: 0 or more and less than 1")
        self.max_epochs = max_epochs
        self.minutes = minutes
        self.warm_up = warm_up
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
        if progress < self.warm_up:
            return (progress + LEAST_FACTOR) / (self.warm_up + LEAST_FACTOR)
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warm_up) / (1 - self.warm_up)))

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


class TellDraws:
    """Logs what the first epoch draws, and warns of labels that can teach nothing."""

    def __init__(self, *, dataset: SlabDataset) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Log it once, whichever number of processes train together."""
        if idist.get_rank() > 0:
            return
        logger.info(describe_draws(self.dataset))
        for doubt in find_doubts(self.dataset):
            logger.warning(f"warning: {doubt}")


class InitialWeights:
    """Begins a training from other weights, and writes down whose they are.

    Args:
        network: what is trained.
        source: a run's folder, or a state_dict.
        spec: of the network.
        record: JSON that says where the weights came from.
    """

    def __init__(self, *, network: torch.nn.Module, source: str, spec: ModelSpec, record: str) -> None:
        self.network = network
        self.source = source
        self.spec = spec
        self.record = Path(record)

    def attach(self, engine: Engine) -> None:
        """Load them, before the engine runs: what does not fit is still told in one line."""
        facts = load_initial_weights(self.network, self.source, spec=self.spec)
        if idist.get_rank() == 0:
            write_json(self.record, facts)


class RequireFiniteLoss:
    """Ends a training whose loss is NaN or infinite before anything of it is saved.

    The scaler of mixed precision leaves out steps that overflow, so that there only many in a row mean an end.
    """

    def __init__(self) -> None:
        self.n_in_a_row = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, before whatever saves."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the loss of the step."""
        loss = loss_of(engine)
        self.n_in_a_row = 0 if math.isfinite(loss) else self.n_in_a_row + 1
        if self.n_in_a_row > (0 if engine.scaler is None else MOST_SKIPPED):
            raise InputError(
                f"the loss is {loss} in epoch {engine.state.epoch}; what was saved is that of the epochs before. Go on "
                "from there with --resume --set max_grad_norm=0.1, or train anew with a smaller learning_rate; "
                "liver-monai check finds CTs whose values are none"
            )


def loss_of(engine: Engine) -> float:
    """The loss of a step; where the trainer takes batches apart, every item carries it."""
    output = engine.state.output
    return float(output["loss"] if isinstance(output, dict) else output[0]["loss"])


class ClipGradients:
    """Scales the gradients of a step down where their common norm is above ``max_norm``.

    Raises:
        InputError: a norm that is not above 0.
    """

    def __init__(self, *, max_norm: float) -> None:
        if max_norm <= 0:
            raise InputError(f"max_grad_norm is {max_norm}; it must be above 0, or null for no limit")
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip what the backward pass left, without the factor of mixed precision."""
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)


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


class History:
    """A row an epoch, as CSV and as a log line: minutes, learning rate, mean loss and, where validated, the scores.

    An epoch that is done again after an interruption has one row, the second.
    """

    def __init__(
        self, *, path: str, budget: Budget, optimizer: torch.optim.Optimizer, validator: Engine | None = None
    ) -> None:
        self.path = Path(path)
        self.budget = budget
        self.optimizer = optimizer
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after its validation handler and before its checkpoint, or a row could be lost."""
        engine.state.losses = []  # of the epoch; there, because a checkpoint amid the epoch needs them
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: engine.state.losses.append(loss_of(engine)))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the row of the epoch that ended; of processes that train together, the mean loss."""
        losses = engine.state.losses
        loss = idist.all_reduce(sum(losses) / len(losses)) / idist.get_world_size()
        row = {
            "epoch": engine.state.epoch,
            "minutes": round(self.budget.minutes_spent(), 3),
            "learning_rate": round(self.optimizer.param_groups[0]["lr"], 8),
            "train_loss": round(float(loss), 5),
            **self._validation_scores(engine.state.epoch),
        }
        losses.clear()
        if idist.get_rank() > 0:
            return
        self._add(row)
        logger.info("  ".join(f"{name} {value}" for name, value in row.items() if value != ""))

    def _validation_scores(self, epoch: int) -> dict[str, float | str]:
        """The scores of this epoch, empty where it was not validated, so that the columns never change."""
        if self.validator is None or self.validator.state.epoch != epoch:
            return dict.fromkeys(VALIDATION_SCORES, "")
        return {name: round(float(self.validator.state.metrics[name]), 5) for name in VALIDATION_SCORES}

    def _add(self, row: dict[str, Any]) -> None:
        """The rows of earlier epochs and this one."""
        write_rows(self.path, [*self._rows_before(row["epoch"]), row], columns=row)

    def _rows_before(self, epoch: int) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        return [row for row in read_table(self.path, columns=("epoch",)) if int(row["epoch"]) < epoch]
