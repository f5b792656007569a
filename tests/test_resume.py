"""A training that is killed at any moment and taken up again ends with the weights it would have ended with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import QUICK_TRAINING, as_options
from ignite.engine import Events
from training_state import assert_equal, load, rows, small_trainer

from liver_monai.engine.random_state import RandomState
from liver_monai.errors import InputError

N_KILLS = int(os.environ.get("LIVER_MONAI_TEST_KILLS", "3"))
"""More of them are for trying by hand."""

EVERYTHING = {**dict(QUICK_TRAINING), "ema_decay": 0.9, "max_grad_norm": 1.0, "slabs_per_epoch": 8}


# The generators


def test_generators_go_on_where_they_stood(tmp_path):
    def draws():
        return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist(), np.random.normal()

    np.random.normal()  # leaves half of a pair behind
    generators = RandomState(torch.device("cpu"))
    torch.save(generators.state_dict(), tmp_path / "state")
    first = draws()
    generators.load_state_dict(torch.load(tmp_path / "state", weights_only=True))

    assert draws() == first


# One process


class Loader:
    """Batches that depend on the epoch alone."""

    def __init__(self):
        self.epoch = 0

    def __len__(self):
        return 3

    def __iter__(self):
        self.epoch += 1
        generator = torch.Generator().manual_seed(self.epoch)
        for _ in range(3):
            yield {key: torch.randn(4, 8, generator=generator) for key in ("image", "label")}


class KilledError(Exception):
    pass


def train(folder, *, epochs=4, killed_in=None, resume=False):
    """Train; ``killed_in`` is the step after which the process is no more."""
    loader = Loader()
    trainer = small_trainer(folder / "models", loader, epochs=epochs, resume=resume)

    def kill(engine):
        if killed_in == engine.state.iteration:
            raise KilledError

    trainer.add_event_handler(Events.ITERATION_COMPLETED, kill)
    if resume:
        trainer.add_event_handler(Events.STARTED, lambda engine: setattr(loader, "epoch", engine.state.epoch))
    trainer.run()
    return folder


@pytest.mark.parametrize("killed_in", [4, 6, 8, 11])
def test_what_was_interrupted_within_an_epoch_is_done_again_alike(tmp_path, killed_in):
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", killed_in=killed_in)

    killed = train(tmp_path / "killed", resume=True)

    assert_equal(load(killed / "models"), load(whole / "models"))
    assert rows(killed / "models") == rows(whole / "models")


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path):
    train(tmp_path, epochs=1)
    path = tmp_path / "models" / "checkpoint.pth"
    states = torch.load(path, weights_only=True)
    del states["averaged"], states["random"]
    torch.save(states, path)

    with pytest.raises(InputError, match="it lacks averaged, random"):
        train(tmp_path, resume=True)


# The real command


def command(out, data, *arguments):
    code = "import sys; from liver_monai.cli import main; sys.exit(main())"
    options = [str(each) for each in ("train", "--data", data, "-o", out, *arguments)]
    return [sys.executable, "-c", code, *options]


def begin(run, data, epochs):
    """A process that trains, or goes on."""
    arguments = ["--resume"] if (run / "configs").exists() else ["--epochs", epochs, *as_options(EVERYTHING)]
    return subprocess.Popen(command(run, data, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(run, data, epochs):
    process = begin(run, data, epochs)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def is_killed_after(process, seconds):
    """Whether it was still at work."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_it_ends_with_the_same_weights(phantom_dataset, tmp_path):
    """Each process gets about as far as its second epoch; some are killed before the first, some while they save."""
    epochs, whole, killed = 2 * N_KILLS + 2, tmp_path / "whole", tmp_path / "killed"
    started_s = time.monotonic()
    finish(whole, phantom_dataset, epochs)
    epoch_s = 60 * float(rows(whole / "models", minutes=True)[-1]["minutes"]) / epochs
    start_s = time.monotonic() - started_s - epochs * epoch_s
    rng = np.random.default_rng()

    kills = 0
    while kills < N_KILLS:
        seconds = rng.uniform(0.8, 1.0) * start_s + rng.uniform(0, 2) * epoch_s
        assert is_killed_after(begin(killed, phantom_dataset, epochs), seconds), f"done after {kills} kills"
        kills += 1
    finish(killed, phantom_dataset, epochs)

    assert_equal(load(killed / "models", "model.pt"), load(whole / "models", "model.pt"))
    states = load(killed / "models"), load(whole / "models")
    for state in states:
        del state["budget"]  # the clock
    assert_equal(*states)
    assert rows(killed / "models") == rows(whole / "models")
