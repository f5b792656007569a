"""Connected components of large masks, numbered a part at a time: no number stands beside every voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from liver_monai.scoring.lesions import components

VOXELS_A_PART = 2**24
"""Numbering as many takes 0.2 GB, whatever the mask; most livers are a part or two."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Of each component of a mask: how many voxels it has, if they were counted, and whether it touches a face."""

    voxels: np.ndarray
    is_at_face: np.ndarray


def select_components(
    mask: np.ndarray,
    choose: Callable[[Components], np.ndarray],
    *,
    counts_voxels: bool = True,
    voxels_a_part: int = VOXELS_A_PART,
) -> np.ndarray:
    """Those components, connected by faces, that ``choose`` says True of.

    Args:
        mask: bool ``(X, Y, Z)``; goes fastest where the last axis is the closest in memory.
        choose: from all components, in the order of their first voxels, to a bool each.
        counts_voxels: whether ``choose`` asks for their voxels; else these are 0.
        voxels_a_part: how many are numbered at a time; whole planes of the first axis, one at least.

    Returns:
        bool of the same shape.
    """
    planes = max(1, voxels_a_part // max(1, mask[0].size))
    places = [slice(start, min(start + planes, len(mask))) for start in range(0, len(mask), planes)]
    voxels, at_face, joints, first = [], [], [], [0]
    last_plane = np.zeros(mask.shape[1:], dtype=np.int32)
    for place in places:
        labels, n = components(mask[place])
        voxels.append(_count(labels, n) if counts_voxels else np.zeros(n))
        ends = [0] * (place.start == 0) + [-1] * (place.stop == len(mask))
        at_face.append(_at_face(labels, n, ends=ends))
        joints.append(_joints(last_plane, labels[0], shift=first[-1]))
        last_plane = np.where(labels[-1] > 0, labels[-1] + first[-1], 0)
        first.append(first[-1] + n)
    if not first[-1]:
        return np.zeros(mask.shape, dtype=bool)
    group = _grouped(np.concatenate(joints), n=first[-1])
    sums = [np.bincount(group, weights=np.concatenate(values)) for values in (voxels, at_face)]
    is_chosen = choose(Components(voxels=sums[0], is_at_face=sums[1] > 0))[group]
    if is_chosen.all() or not is_chosen.any():
        return mask.copy() if is_chosen.any() else np.zeros_like(mask)
    selected = np.empty(mask.shape, dtype=bool)
    for index in reversed(range(len(places))):
        if index < len(places) - 1:  # the last part's numbers are there still
            labels, _ = components(mask[places[index]])
        selected[places[index]] = np.append(False, is_chosen[first[index] : first[index + 1]])[labels]
    return selected


def _count(labels: np.ndarray, n: int) -> np.ndarray:
    """Voxels of each component; of a single one four times as fast."""
    return np.array([np.count_nonzero(labels)]) if n == 1 else np.bincount(labels.ravel(), minlength=n + 1)[1:]


def _at_face(labels: np.ndarray, n: int, *, ends: list[int]) -> np.ndarray:
    """Whether each component touches a side of its part, or an end that is the array's, too."""
    touches = np.zeros(n + 1, dtype=bool)
    for axis, faces in ((0, ends), (1, (0, -1)), (2, (0, -1))):
        for face in faces:
            touches[labels.take(face, axis=axis)] = True
    return touches[1:]


def _joints(before: np.ndarray, plane: np.ndarray, *, shift: int) -> np.ndarray:
    """Pairs of components, counted from 0 over all parts, that touch between two parts."""
    touch = (before > 0) & (plane > 0)
    return np.unique(np.stack([before[touch] - 1, plane[touch] - 1 + shift], axis=1), axis=0)


def _grouped(joints: np.ndarray, *, n: int) -> np.ndarray:
    """The component that each of ``n`` pieces belongs to, numbered by their first pieces."""
    graph = coo_matrix((np.ones(len(joints), dtype=bool), (joints[:, 0], joints[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    numbers: np.ndarray = group
    return numbers
