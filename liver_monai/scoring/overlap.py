"""Overlap of two masks: Dice, IoU and pixel accuracy, a case at a time or pooled over cases.

Everything follows from one 3 x 3 table of counts, so that a case is read once and pooling is adding tables.
"""

from __future__ import annotations

import numpy as np

CLASSES = {"liver": (1, 2), "tumor": (2,)}
"""Labels that make up each structure; a tumour is part of the liver (Bilic et al., Medical Image Analysis 84, 2023)."""
N_LABELS = 3


def count_table(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Voxels of each (reference label, predicted label) as an int64 table ``(3, 3)``.

    Args:
        prediction, reference: masks of the same shape with the labels 0, 1 and 2.

    Raises:
        ValueError: shapes differ, or a mask holds another label.
    """
    require_same_shape(prediction, reference)
    table = np.zeros(N_LABELS * N_LABELS, dtype=np.int64)
    for predicted, referred in zip(prediction, reference, strict=True):  # a plane at a time stays in the cache
        for plane in (predicted, referred):
            _require_labels(plane)
        pairs = np.asarray(referred * np.uint8(N_LABELS) + predicted)
        table += [np.count_nonzero(pairs == pair) for pair in range(len(table))]  # much faster than bincount
    return table.reshape(N_LABELS, N_LABELS)


def require_same_shape(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Refuse two masks that cannot be of one grid.

    Raises:
        ValueError: their shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, reference {reference.shape}; they must agree")


def _require_labels(plane: np.ndarray) -> None:
    if plane.size and not 0 <= plane.min() <= plane.max() < N_LABELS:
        raise ValueError(f"a mask holds values from {plane.min()} to {plane.max()}; the labels are 0, 1 and 2")


def dice(table: np.ndarray, structure: str) -> float:
    """2 |P and R| / (|P| + |R|) in [0, 1]; 1 when both are empty."""
    intersection, predicted, referred = _sizes(table, structure)
    return 1.0 if predicted + referred == 0 else 2 * intersection / (predicted + referred)


def iou(table: np.ndarray, structure: str) -> float:
    """|P and R| / |P or R| in [0, 1]; 1 when both are empty."""
    intersection, predicted, referred = _sizes(table, structure)
    union = predicted + referred - intersection
    return 1.0 if union == 0 else intersection / union


def pixel_accuracy(table: np.ndarray) -> float:
    """Share of voxels with the right label in [0, 1]; near 1 even for an empty mask, as most of a CT is background."""
    return float(np.trace(table) / table.sum())


def _sizes(table: np.ndarray, structure: str) -> tuple[int, int, int]:
    """Voxels of the intersection, of the prediction and of the reference."""
    labels = list(CLASSES[structure])
    return int(table[np.ix_(labels, labels)].sum()), int(table[:, labels].sum()), int(table[labels, :].sum())


def score(prediction: np.ndarray, reference: np.ndarray, *, spacing_mm: tuple[float, float, float]) -> dict[str, float]:
    """Overlap of one case: Dice and IoU of liver and tumour, volumes in millilitres, pixel accuracy.

    Args:
        prediction, reference: masks of the same shape on the same grid, with the labels 0, 1 and 2.
        spacing_mm: voxel spacing along the masks' axes.

    Raises:
        ValueError: shapes differ, or a mask holds another label.
    """
    table = count_table(np.asarray(prediction), np.asarray(reference))
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    scores = {}
    for name in CLASSES:
        _, predicted, referred = _sizes(table, name)
        scores[f"{name}_dice"] = dice(table, name)
        scores[f"{name}_iou"] = iou(table, name)
        scores[f"{name}_reference_ml"] = referred * voxel_ml
        scores[f"{name}_prediction_ml"] = predicted * voxel_ml
    return {**scores, "pixel_accuracy": pixel_accuracy(table)}
