"""Scores a slice at a time, as notebooks for 2D networks report them; they flatter, see ``pixel_accuracy``."""

from __future__ import annotations

import numpy as np


def slice_scores(prediction: np.ndarray, reference: np.ndarray, *, axis: int = 2) -> np.ndarray:
    """Pixel accuracy and mean IoU of background and liver, a row a slice ``(n, 2)``.

    The tumour is merged into the liver, and only the slices count whose reference holds both liver and background.

    Args:
        prediction, reference: labels ``(X, Y, Z)`` of the same shape.
        axis: the one that runs from slice to slice.
    """
    rows = []
    planes = (np.moveaxis(mask, axis, 0) for mask in (prediction, reference))
    for predicted, referred in zip(*planes, strict=True):
        liver = referred > 0
        if liver.any() and not liver.all():
            rows.append(_plane_scores(predicted > 0, liver))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _plane_scores(predicted: np.ndarray, referred: np.ndarray) -> tuple[float, float]:
    shared, wrong = np.count_nonzero(predicted & referred), np.count_nonzero(predicted ^ referred)
    background = predicted.size - shared - wrong
    return 1 - wrong / predicted.size, (shared / (shared + wrong) + background / (background + wrong)) / 2
