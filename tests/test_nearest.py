"""Distances to the nearest voxel, however they are found: against all pairs, and each way against the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from liver_monai.scoring import nearest
from liver_monai.scoring.nearest import nearest_mm

SPACINGS_MM = st.tuples(*[st.floats(0.3, 6.0)] * 3)


def every_pair_mm(sources, targets, spacing_mm):
    """By definition."""
    places = [np.argwhere(mask) * spacing_mm for mask in (sources, targets)]
    return cdist(*places).min(axis=1)


def draw(seed, shape=(9, 12, 15), share=0.1):
    generator = np.random.default_rng(seed)
    sources, targets = (generator.random(shape) < share for _ in range(2))
    targets[tuple(generator.integers(0, shape))] = True
    return sources, targets


WAYS = {
    "tree": {},
    "looking around": {"FEW": 0},
    "looking around, in parts": {"FEW": 0, "AT_A_TIME": 7},
    "then a tree": {"FEW": 0, "N_NEIGHBOURS": 5, "MAX_TREE": np.inf},
    "then a tree that ends, then planes": {"FEW": 0, "N_NEIGHBOURS": 5, "MAX_TREE": 1.2},
    "then planes alone": {"FEW": 0, "N_NEIGHBOURS": 1},
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spacing_mm=SPACINGS_MM, share=st.sampled_from([0.002, 0.1, 0.6]))
def test_every_way_finds_the_nearest(way, seed, spacing_mm, share):
    sources, targets = draw(seed, share=share)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(nearest, name, value)
        found = nearest_mm(sources, targets, spacing_mm=spacing_mm)
    np.testing.assert_allclose(found, every_pair_mm(sources, targets, spacing_mm), rtol=1e-12)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.4, 0.4, 6), (6, 0.4, 0.4), (5, 0.3, 5)])
def test_a_look_around_misses_no_nearer_voxel(spacing_mm):
    """The steps it takes are the shortest there are."""
    steps = nearest._nearest_steps(np.array(spacing_mm))
    lengths_mm = np.linalg.norm(steps * spacing_mm, axis=1)
    assert len(np.unique(steps, axis=0)) == nearest.N_NEIGHBOURS
    assert not steps[0].any()
    wide = np.stack(np.meshgrid(*[np.arange(-60, 61)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    assert (np.linalg.norm(wide * spacing_mm, axis=1) < lengths_mm[-1] - 1e-9).sum() <= nearest.N_NEIGHBOURS
    assert (np.diff(lengths_mm) >= 0).all()


def test_masks_that_are_far_apart_agree_with_a_distance_transform():
    """A ball seen from the end of the array: near, far and very far voxels, more than a few of each."""
    x, y, z = np.ogrid[:70, :80, :90]
    ball = (x - 20) ** 2 + (y - 30) ** 2 + (z - 25) ** 2 <= 14**2
    spacing_mm = (0.7, 0.8, 2.5)
    ends = np.ones_like(ball)
    ends[1:-1, 1:-1, 1:-1] = False
    sources = ends | ndimage.binary_dilation(ball, iterations=2)
    assert sources.sum() > 2 * nearest.FEW

    found = nearest_mm(sources, ball, spacing_mm=spacing_mm)

    expected = ndimage.distance_transform_edt(~ball, sampling=spacing_mm)[sources]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.min() == 0
