"""What a training leaves behind, compared to the bit."""

from __future__ import annotations

import csv

import torch


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
