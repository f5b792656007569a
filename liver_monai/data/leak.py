"""The split by slice, which leaks: slices of one patient train, and others of the same patient test.

It is what notebooks for 2D networks do, and it is here for one purpose: to put the figure it gives beside the figure on
patients that a network never saw. Nothing but the benchmark's ``--show-leak`` uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import io_orientation

from liver_monai.data.partition import choose_cases
from liver_monai.data.preparation import open_dataset
from liver_monai.data.splits import Split
from liver_monai.data.store import build_store
from liver_monai.io.volumes import slice_axis
from liver_monai.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class LeakySplit(Split):
    """A split whose training cases are all cases, of each of which some slices train.

    Args:
        centres: case_id -> slices of the model grid, counted from the feet, on which a training slab may be centred.
        n_slices: case_id -> slices of the model grid.
    """

    centres: dict[str, list[int]]
    n_slices: dict[str, int]


def split_by_slice(
    dataset_dir: str | Path,
    *,
    spec: ModelSpec,
    store: str | Path,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    seed: int = 0,
) -> LeakySplit:
    """Training slices drawn at random from all cases, as many as the cases of ``train`` have together.

    Budget, number of training slices and validation are then those of the split by patient; that some of the slices
    are of ``test`` cases is the one difference. As in every split by slice of a 2.5D network, a training slab's
    neighbours are seen whether they train or not; their labels are not.

    Args:
        dataset_dir: the data set.
        spec: its grid is where slices are counted.
        store: where the cases are kept on that grid.
        train, validation, test: the case ids of a partition by patient.
        seed: another seed draws other slices.

    Raises:
        InputError: the data set lacks a case.
    """
    cases = choose_cases(open_dataset(dataset_dir).cases, [*train, *validation, *test], dataset_dir=dataset_dir)
    n_slices = {case.case_id: case.shape[0] for case in build_store(cases, spec=spec, folder=store)}
    centres = draw_slices(n_slices, n_drawn=sum(n_slices[case_id] for case_id in train), seed=seed)
    return LeakySplit(
        train=[case for case in cases if centres[case.case_id]],
        validation=[case for case in cases if case.case_id in validation],
        centres=centres,
        n_slices=n_slices,
    )


def draw_slices(n_slices: Mapping[str, int], *, n_drawn: int, seed: int = 0) -> dict[str, list[int]]:
    """``n_drawn`` slices of all cases together, each as likely as the others; ascending by case."""
    slices = [(case_id, z) for case_id in sorted(n_slices) for z in range(n_slices[case_id])]
    drawn = np.random.default_rng(seed).permutation(len(slices))[:n_drawn]
    centres: dict[str, list[int]] = {case_id: [] for case_id in n_slices}
    for index in sorted(drawn):
        case_id, z = slices[index]
        centres[case_id].append(z)
    return centres


def held_out_slices(
    shape: tuple[int, ...], affine: np.ndarray, *, spacing_mm: tuple[float, ...], n_slices: int, centres: Sequence[int]
) -> tuple[np.ndarray, int]:
    """Slices of a mask's own grid whose nearest slice of the model grid trained nothing, and the axis they lie along.

    Args:
        shape: ``(X, Y, Z)`` of the mask.
        affine: ``(4, 4)`` of the mask, in any orientation.
        spacing_mm: of the model grid.
        n_slices: of the case on the model grid.
        centres: those of them that train.
    """
    axis = slice_axis(affine)
    is_upward = io_orientation(affine)[axis, 1] > 0
    from_feet = np.arange(shape[axis]) if is_upward else np.arange(shape[axis])[::-1]
    step = np.linalg.norm(np.asarray(affine)[:3, axis]) / spacing_mm[2]
    nearest = (from_feet - (shape[axis] - 1) / 2) * step + (n_slices - 1) / 2  # both grids share their centre
    nearest = np.clip(np.floor(nearest + 0.5), 0, n_slices - 1).astype(int)
    return np.flatnonzero(~np.isin(nearest, centres)), axis
