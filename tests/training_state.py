"""A small training, and what it leaves behind, compared to the bit."""

from __future__ import annotations

import csv

import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler

from liver_monai.engine.averaging import AverageHandler, average_weights
from liver_monai.engine.checkpoint import Checkpoint
from liver_monai.engine.handlers import Budget, BudgetHandler, History


def small_trainer(folder, batches, *, epochs, resume):
    """Of a network with dropout, its history and checkpoint in a folder; one that resumes draws other numbers first."""
    torch.manual_seed(99 if resume else 0)
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    averaged = average_weights(network, decay=0.9, device=torch.device("cpu"))
    budget = Budget(max_epochs=epochs)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, budget.learning_rate_factor)
    objects = {"network": network, "averaged": averaged, "optimizer": optimizer, "lr_scheduler": scheduler}
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        train_handlers=[
            BudgetHandler(budget),
            LrScheduleHandler(scheduler, epoch_level=False, print_lr=False),
            AverageHandler(averaged=averaged, network=network),
            History(path=str(folder / "history.csv"), budget=budget, optimizer=optimizer),
            Checkpoint(path=str(folder / "checkpoint.pth"), objects={**objects, "off": None}, resume=resume),
        ],
    )


def rows(folder, *, minutes=False):
    """The history in a folder, by default without what the clock says."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        unwanted = set() if minutes else {"minutes"}
        return [{name: row[name] for name in row.keys() - unwanted} for row in csv.DictReader(file)]


def load(folder, name="checkpoint.pth"):
    return torch.load(folder / name, weights_only=True)


def assert_equal(a, b):
    """Nested dictionaries of tensors and numbers, to the bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b
