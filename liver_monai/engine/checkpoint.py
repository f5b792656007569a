"""The checkpoint: everything that a training needs to go on, in one file that is whole at any moment."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader

from liver_monai.data.draws import DrawSampler
from liver_monai.engine.interruption import Interruption
from liver_monai.engine.random_state import RandomState
from liver_monai.errors import InputError, one_line
from liver_monai.io.files import whole_file


class Checkpoint:
    """Keeps everything a training needs to go on in one file, written after each epoch, whole or not at all.

    On SIGTERM it is written after the step at hand, too, and the process ends (``Interruption``).

    Killed at any moment and taken up again, a training on a CPU ends with the weights, to the bit, that it would have
    ended with: what the file lacks is begun anew, and depends on nothing else. That does not hold for one by minutes.

    MONAI's own saver writes in place, so that a process killed while saving loses the checkpoint it had.

    Args:
        path: the file.
        objects: what has ``state_dict`` and ``load_state_dict``, ``None`` where it is switched off; the trainer, its
            gradient scaler and the random generators are added.
        validator: its best score is kept, so that a resumed training does not replace better weights by worse ones.
        resume: load the file when the training starts.
    """

    def __init__(
        self, *, path: str, objects: dict[str, Any], validator: Engine | None = None, resume: bool = False
    ) -> None:
        self.path = Path(path)
        best = {} if validator is None else {"best": _BestScore(validator)}
        self.objects = {name: item for name, item in objects.items() if item is not None} | best
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, after all handlers that change what is kept, or draw random numbers."""
        own = {"trainer": _Epochs(engine), "scaler": _Scaler(engine), "random": _Generators(engine)}
        objects = {**self.objects, **own}  # in this order they are loaded
        interruption = Interruption()
        interruption.attach(engine)
        if self.resume:
            self._require_fitting(engine, set(objects))
            CheckpointLoader(str(self.path), objects, map_location="cpu").attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step, interruption, objects)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch, interruption, objects)

    def _after_step(self, engine: Engine, interruption: Interruption, objects: dict[str, Any]) -> None:
        """Stop here if that is asked for, unless the epoch ends here anyway."""
        if _steps_of_epoch(engine) == 0 or engine.should_terminate_single_epoch or not interruption.is_asked_for():
            return
        self._write(objects)
        step = f"{_steps_of_epoch(engine)} of {engine.state.epoch_length}"
        interruption.stop(engine, saved=f"in epoch {engine.state.epoch} after step {step}, saved in {self.path}")

    def _after_epoch(self, engine: Engine, interruption: Interruption, objects: dict[str, Any]) -> None:
        self._write(objects)
        is_last = engine.should_terminate or engine.state.epoch == engine.state.max_epochs
        if not is_last and interruption.is_asked_for():
            interruption.stop(engine, saved=f"after epoch {engine.state.epoch}, saved in {self.path}")

    def _require_fitting(self, engine: Engine, names: set[str]) -> None:
        """Refuse what cannot be gone on with before the engine runs, while it is still told in one line."""
        try:
            states = torch.load(self.path, map_location="cpu", weights_only=True)
            missing = names - states.keys()
            if missing:
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
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
        content = io.BytesIO()  # torch does not say why a file cannot be written
        torch.save({name: item.state_dict() for name, item in objects.items()}, content)
        with whole_file(self.path) as temporary:
            temporary.write_bytes(content.getbuffer())


def _steps_of_epoch(engine: Engine) -> int:
    """How many steps of an unfinished epoch are done; 0 where it is finished."""
    return int(engine.state.iteration % engine.state.epoch_length)


class _Epochs:
    """How far a trainer has come, in epochs and, amid one, in steps and their losses.

    An epoch that the minutes cut short is done, too, and is not begun again. How long an epoch is may have changed
    since; one that was interrupted is then begun again.
    """

    def __init__(self, trainer: Engine) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        state = self.trainer.state
        facts = {name: getattr(state, name) for name in ("epoch", "epoch_length", "max_epochs")}
        if self.trainer.last_event_name == Events.EPOCH_COMPLETED:
            return facts
        amid = {"steps": _steps_of_epoch(self.trainer), "losses": list(getattr(state, "losses", ()))}
        return {**facts, "epoch": state.epoch - 1, **amid}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        trainer, length = self.trainer, self.trainer.state.epoch_length
        sampler = getattr(trainer.data_loader, "sampler", None)
        steps = 0
        if isinstance(sampler, DrawSampler) and state["epoch_length"] == length:
            steps = state.get("steps", 0)
            sampler.skip_once(steps * trainer.data_loader.batch_size)
            trainer.state.losses = state.get("losses", [])
        trainer.load_state_dict(
            {"iteration": state["epoch"] * length + steps, "epoch_length": length, "max_epochs": state["max_epochs"]}
        )


class _Generators(RandomState):
    """The random generators; amid an epoch they are put back once more, after its data loader has drawn from them."""

    def __init__(self, trainer: Engine) -> None:
        super().__init__(trainer.state.device)
        self.trainer = trainer

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        pending = [state] if _steps_of_epoch(self.trainer) else []

        def put_back(_: Engine) -> None:
            if pending:
                super(_Generators, self).load_state_dict(pending.pop())

        self.trainer.add_event_handler(Events.ITERATION_STARTED, put_back)


class _Scaler:
    """The gradient scaler of mixed precision, which MONAI's trainer makes when it starts."""

    def __init__(self, trainer: Engine) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        scaler = self.trainer.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state and self.trainer.scaler is not None:  # a training may go on on another device
            self.trainer.scaler.load_state_dict(state)


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
