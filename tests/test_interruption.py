"""A training that is asked to end by SIGTERM saves where it stands, and goes on to the weights it would have had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import QUICK_TRAINING, as_options
from ignite.engine import Events
from torch.utils.data import DataLoader, Dataset
from training_state import assert_equal, load, rows, small_trainer

from liver_monai.data.draws import DrawSampler
from liver_monai.engine.interruption import EXIT_CODE

STEPS, BATCH = 3, 4


class Numbered(Dataset):
    """Items that depend on their number alone, as slabs do."""

    def __len__(self):
        return STEPS * BATCH

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        return {key: torch.randn(8, generator=generator) for key in ("image", "label")}


def train(folder, *, epochs=3, asked_in=None, resume=False):
    """Train a network with dropout; ``asked_in`` is the step in which the process is sent SIGTERM."""
    dataset = Numbered()
    batches = DataLoader(dataset, sampler=DrawSampler(dataset, batch_size=BATCH), batch_size=BATCH)
    trainer = small_trainer(folder, batches, epochs=epochs, resume=resume)

    def ask(engine):
        if engine.state.iteration == asked_in:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.add_event_handler(Events.ITERATION_STARTED, ask)
    trainer.run()
    return folder


@pytest.mark.parametrize("steps", [(1,), (2,), (3,), (4,), (5, 6, 8), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_it_ends_after_the_step_and_goes_on_to_the_same_weights(tmp_path, steps, caplog):
    whole = train(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    for number, step in enumerate(steps):
        with pytest.raises(SystemExit) as ended:
            train(tmp_path / "asked", asked_in=step, resume=number > 0)
        state = load(tmp_path / "asked")["trainer"]
        assert ended.value.code == EXIT_CODE == 143
        assert (state["epoch"], state.get("steps", 0)) == divmod(step, STEPS)
        assert signal.getsignal(signal.SIGTERM) == before
    asked = train(tmp_path / "asked", resume=True)

    assert_equal(load(asked), load(whole))
    assert rows(asked) == rows(whole)
    assert caplog.text.count("go on with --resume") == len(steps)


def test_asked_in_its_last_step_it_ends_as_any(tmp_path):
    whole = train(tmp_path / "whole")

    asked = train(tmp_path / "asked", asked_in=3 * STEPS)

    assert_equal(load(asked), load(whole))


def test_once_it_is_done_the_signal_is_as_before(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    train(tmp_path, epochs=1)

    assert signal.getsignal(signal.SIGTERM) == before


# The real command


def start(*arguments):
    code = "import sys; from liver_monai.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_command_ends_with_143_and_a_line_and_goes_on(cli, phantom_dataset, tmp_path):
    options = as_options({**dict(QUICK_TRAINING), "slabs_per_epoch": 32})
    whole, asked = tmp_path / "whole", tmp_path / "asked"
    for run in (whole, asked):
        process = start("--data", phantom_dataset, "-o", run, "--epochs", 3, *options)
        if run is asked:
            until = time.monotonic() + 60
            while not (run / "models" / "checkpoint.pth").exists() and time.monotonic() < until:
                time.sleep(0.01)
            process.terminate()
        _, errors = process.communicate()
        assert process.returncode == (EXIT_CODE if run is asked else 0), errors
    assert "SIGTERM: the training stopped" in errors
    assert "Traceback" not in errors

    resumed = cli("train", "-o", asked, "--resume")

    assert resumed.exit_code == 0, resumed.output
    states = [torch.load(run / "models" / "model.pt", weights_only=True) for run in (asked, whole)]
    assert_equal(*states)
