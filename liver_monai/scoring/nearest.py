"""How far it is from some voxels to the nearest of others, in mm: exact, whether they are near, far, few or many.

Voxels that are near, as those of two good masks are, need but a look around each. A k-d tree finds the nearest of those
that are farther, but of many that are about as far as each other, such as a liver seen from the end of the scan, it
would visit most for each. A distance transform costs the same however far they are, and a plane at a time, no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

FEW = 4_000
"""For so many voxels a tree costs less than a look around each, and at its worst no more than planes."""
AT_A_TIME = 16_000
"""So many voxels that look around stay in a processor's cache."""
N_NEIGHBOURS = 257
"""They make up a ball with a radius of four voxels."""
MAX_TREE = 3.0
"""Of the neighbours' radius, what a tree looks for: farther away it visits too much."""


def nearest_mm(sources: np.ndarray, targets: np.ndarray, *, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance of every source voxel, in order of memory, to its nearest target voxel.

    Args:
        sources, targets: bool ``(X, Y, Z)`` of the same shape; there must be a target.
        spacing_mm: voxel spacing along the arrays' axes.
    """
    mm = np.asarray(spacing_mm, dtype=np.float64)
    places = _places(sources)
    if len(places) <= FEW:
        return _by_tree(places, _tree(targets, mm), mm)
    steps = _nearest_steps(mm)
    distances_mm = _by_looking_around(places, targets, steps, _length_mm(steps, mm))
    far = np.flatnonzero(np.isinf(distances_mm))
    if len(far):
        distances_mm[far] = _far_mm(places[far], targets, mm, max_tree_mm=MAX_TREE * _length_mm(steps, mm)[-1])
    return distances_mm


def _far_mm(places: np.ndarray, targets: np.ndarray, mm: np.ndarray, *, max_tree_mm: float) -> np.ndarray:
    tree = _tree(targets, mm)
    distances_mm = _by_tree(places, tree, mm, max_mm=max_tree_mm)
    farther = np.flatnonzero(np.isinf(distances_mm))
    if len(farther) > FEW:
        distances_mm[farther] = _by_planes(places[farther], targets, mm)
    elif len(farther):
        distances_mm[farther] = _by_tree(places[farther], tree, mm)
    return distances_mm


def _places(mask: np.ndarray) -> np.ndarray:
    """Indices ``(n, 3)`` of the voxels of a mask."""
    return np.column_stack(np.unravel_index(np.flatnonzero(mask), mask.shape))


def _tree(targets: np.ndarray, mm: np.ndarray) -> cKDTree:
    return cKDTree(_places(targets) * mm, balanced_tree=False)


def _by_tree(places: np.ndarray, tree: cKDTree, mm: np.ndarray, *, max_mm: float = inf) -> np.ndarray:
    """Infinite: there is none so near."""
    distances_mm, nearest = map(np.asarray, tree.query(places * mm, distance_upper_bound=max_mm))
    found = np.isfinite(distances_mm)
    steps = places[found] - np.rint(tree.data[nearest[found]] / mm)
    distances_mm[found] = _length_mm(steps, mm)  # the same to the last bit as a look around
    return distances_mm


def _by_looking_around(
    places: np.ndarray, targets: np.ndarray, steps: np.ndarray, lengths_mm: np.ndarray
) -> np.ndarray:
    """Every voxel looks at its neighbours, nearest first, until it sees a target. Infinite: there is none around."""
    margin = np.abs(steps).max(axis=0)
    padded = np.pad(targets, [(each, each) for each in margin])
    voxels = np.ravel_multi_index(tuple((places + margin).T), padded.shape)
    flat_steps = np.ravel_multi_index(tuple((steps + margin).T), padded.shape)
    flat_steps -= flat_steps[0]  # that of no step at all
    parts = [voxels[start : start + AT_A_TIME] for start in range(0, len(voxels), AT_A_TIME)]
    return np.concatenate([_look_around(part, padded.ravel(), flat_steps, lengths_mm) for part in parts])


def _look_around(voxels: np.ndarray, targets: np.ndarray, steps: np.ndarray, lengths_mm: np.ndarray) -> np.ndarray:
    """Length of the first step that leads from a voxel to a target; both are given by their place in memory."""
    distances_mm = np.full(len(voxels), np.inf)
    left = np.arange(len(voxels))
    for step, length_mm in zip(steps, lengths_mm, strict=True):
        found = targets[voxels + step]
        if found.any():
            distances_mm[left[found]] = length_mm
            left, voxels = left[~found], voxels[~found]
    return distances_mm


def _nearest_steps(mm: np.ndarray) -> np.ndarray:
    """The shortest steps from a voxel to another ``(N_NEIGHBOURS, 3)``, shortest first."""
    reach = np.ceil((N_NEIGHBOURS * mm.prod()) ** (1 / 3) / mm).astype(int)
    steps = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(steps[np.argsort(_length_mm(steps, mm), kind="stable")[:N_NEIGHBOURS]])


def _by_planes(places: np.ndarray, targets: np.ndarray, mm: np.ndarray) -> np.ndarray:
    """By Pythagoras from the distance to each plane and the distance transform within it."""
    x, y, z = places.T
    squared_mm = np.full(len(places), np.inf)
    for number, plane in enumerate(targets):
        if plane.any():
            within_mm = ndimage.distance_transform_edt(~plane, sampling=mm[1:])
            np.minimum(squared_mm, within_mm[y, z] ** 2 + ((x - number) * mm[0]) ** 2, out=squared_mm)
    return np.asarray(np.sqrt(squared_mm))


def _length_mm(steps: np.ndarray, mm: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(((steps * mm) ** 2).sum(axis=1)))
