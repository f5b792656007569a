"""Views of two masks in which nothing is needless: the box around what they hold, the axes in memory's order."""

from __future__ import annotations

from typing import Any

import numpy as np


def foreground_box(prediction: np.ndarray, reference: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around everything that is not 0 in either mask; empty when nothing is."""
    across = np.zeros(prediction.shape[1:], dtype=bool)
    planes = []
    for number, (predicted, referred) in enumerate(zip(prediction, reference, strict=True)):
        if predicted.max(initial=0) or referred.max(initial=0):
            planes.append(number)
            across |= (predicted != 0) | (referred != 0)
    if not planes:
        return tuple(slice(0, 0) for _ in prediction.shape)
    return (slice(planes[0], planes[-1] + 1), *(_extent(np.any(across, axis=1 - axis)) for axis in range(2)))


def occupied_box(mask: np.ndarray) -> tuple[slice, ...]:
    """``foreground_box`` of one 3-D mask, its planes taken as they lie in memory, which is several times faster."""
    order = np.argsort([-abs(stride) for stride in mask.strides], kind="stable")
    planes = mask.transpose(order)
    box = foreground_box(planes, planes)
    return tuple(box[axis] for axis in np.argsort(order))


def in_order_of_memory(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Views whose last axis is the one that lies closest in memory; no score depends on the order of the axes."""
    order = np.argsort([-abs(stride) for stride in prediction.strides], kind="stable")
    return prediction.transpose(order), reference.transpose(order), tuple(spacing_mm[axis] for axis in order)


def _extent(used: Any) -> slice:
    indices = np.flatnonzero(used)
    return slice(int(indices[0]), int(indices[-1]) + 1)
