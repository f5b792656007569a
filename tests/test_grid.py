"""Laws of the model grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from nibabel.affines import apply_affine

from liver_monai.data.grid import SliceResampler, interpolation_matrix, to_model_grid

SHEARED = np.array([[0.8, 0.1, 0.2, -40.0], [-0.1, 0.7, 0.3, 12.0], [0.05, 0.0, 2.5, 100.0], [0, 0, 0, 1]])


def linear_field(shape, affine):
    """2 x - y + 3 z of world coordinates: linear interpolation must give it back exactly."""
    voxels = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    return (apply_affine(affine, voxels) @ np.array([2.0, -1.0, 3.0])).astype(np.float32)


@given(n_out=st.integers(1, 40), n_in=st.integers(1, 40), step=st.floats(0.1, 8))
def test_weights_of_every_output_voxel_add_up_to_one(n_out, n_in, step):
    weights = interpolation_matrix(n_out, n_in, step=step)

    assert weights.shape == (n_out, n_in)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(n_out))


@given(n=st.integers(1, 50))
def test_equal_grids_are_left_as_they_are(n):
    torch.testing.assert_close(interpolation_matrix(n, n, step=1.0), torch.eye(n))


@given(n_in=st.integers(8, 60), step=st.floats(1.0, 4.0))
def test_coarser_grids_use_every_inner_voxel(n_in, step):
    """No voxel of a fine CT is skipped, so noise averages out instead of aliasing."""
    n_out = max(1, round(n_in / step))

    used = interpolation_matrix(n_out, n_in, step=step).sum(dim=0)

    assert (used[int(step) : n_in - int(step)] > 0).all()


def test_halving_the_resolution_by_hand():
    weights = interpolation_matrix(2, 4, step=2.0)

    # Centres lie at 0.5 and 2.5, the box has the width sqrt(3): it covers 1 - (1 - 0.366)^2 / 2 = 0.799 of the
    # triangles of both neighbours and (1 - 0.634)^2 / 2 = 0.067 of the next one's; together 1.665.
    row = torch.tensor([0.799, 0.799, 0.067, 0.0]) / 1.665
    torch.testing.assert_close(weights, torch.stack([row, row.flip(0)]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 2.0), (0.5, 0.5, 1.0), (1.5, 0.6, 4.0)])
def test_a_field_linear_in_world_space_stays_what_it_is(spacing_mm):
    """Holds only if values and affine move together, for a rotated and sheared grid, too."""
    shape = (24, 20, 16)
    volume = MetaTensor(torch.from_numpy(linear_field(shape, SHEARED))[None], affine=torch.from_numpy(SHEARED))

    resampled = to_model_grid(volume, spacing_mm=spacing_mm)

    expected = linear_field(resampled.shape[1:], np.asarray(resampled.affine))
    inner = tuple(slice(3, -3) for _ in range(3))  # at the rim the edge voxel goes on, which is not linear
    np.testing.assert_allclose(resampled[0].numpy()[inner], expected[inner], atol=1e-2)


def test_spacing_and_centre_of_the_model_grid():
    volume = MetaTensor(torch.zeros(1, 30, 31, 9), affine=torch.from_numpy(SHEARED))

    resampled = to_model_grid(volume, spacing_mm=(1.5, 2.0, 3.0))

    affine = np.asarray(resampled.affine)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (1.5, 2.0, 3.0))
    middle = [(np.array(grid.shape[1:]) - 1) / 2 for grid in (volume, resampled)]
    np.testing.assert_allclose(apply_affine(affine, middle[1]), apply_affine(SHEARED, middle[0]))


def test_a_mask_gets_the_class_that_covers_most_of_a_voxel():
    label = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    label[:, 2:] = 2
    volume = MetaTensor(label, affine=torch.eye(4))

    resampled = to_model_grid(volume, spacing_mm=(2.0, 2.0, 2.0), is_mask=True)

    assert resampled.dtype == torch.uint8
    assert resampled[0, :, 0, 0].tolist() == [0, 2]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 12)),
    step=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.3, 3)),
)
def test_there_and_back_has_the_shape_it_began_with(shape, step):
    new_shape = tuple(max(1, round(size / s)) for size, s in zip(shape, step, strict=True))
    back = SliceResampler(shape_out=shape, shape_in=new_shape, step=1 / np.asarray(step))
    coarse = {z: torch.full(new_shape[:2], float(z)) for z in range(new_shape[2])}

    slices = [back.slice_at(z, coarse) for z in range(shape[2])]

    assert all(values.shape == shape[:2] for values in slices)
    means = [float(values.mean()) for values in slices]
    assert means == sorted(means)
