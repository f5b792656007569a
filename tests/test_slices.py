"""Slices that are made when they are asked for, are those that were made all at once before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from test_inferer import GRIDS, HU_WINDOW, ORIENTATIONS, random_ct, scaling

from liver_monai.data.phantom import make_phantom
from liver_monai.data.slabs import slab_view
from liver_monai.data.slices import ModelSlices, RasSlices, zeros_as_stored
from liver_monai.data.transforms import preprocessing
from liver_monai.spec import ModelSpec


def as_volume(hu, affine):
    affines = {name: torch.from_numpy(affine.copy()) for name in ("affine", "original_affine")}
    return MetaTensor(torch.from_numpy(hu)[None], meta={**affines, "original_channel_dim": 0})


def seen(volume, spec):
    """What ``preprocessing`` makes of a volume that was read."""
    data = {"image": volume}
    for transform in preprocessing(spec).transforms[1:]:
        data = transform(data)
    return data["image"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("slab_size", [1, 5])
def test_slabs_are_those_of_preprocessing(grid, slab_size):
    hu = random_ct((23, 31, 17))
    spec = ModelSpec(encoder="any", slab_size=slab_size, spacing_mm=(2.0, 1.5, 3.0), hu_window=HU_WINDOW)

    slices = ModelSlices(as_volume(hu, GRIDS[grid]), spec)

    whole = seen(as_volume(hu, GRIDS[grid]), spec)
    expected = slab_view(whole.as_tensor()[0], slab_size)
    assert slices.shape == tuple(whole.shape[1:])
    assert slices.native_shape == tuple(int(size) for size in whole.meta["oriented_shape"])
    for z in (0, slices.shape[2] // 2, slices.shape[2] - 1, 0):
        torch.testing.assert_close(slices.slab(z), expected[z], rtol=0, atol=0)


def test_a_volume_on_the_model_grid_is_taken_as_it_is():
    spec = ModelSpec(encoder="any", slab_size=3, spacing_mm=(2.0, 1.5, 3.0), hu_window=HU_WINDOW)
    volume = as_volume(random_ct((23, 31, 17)), GRIDS["LPS"])

    from_ct, from_grid = ModelSlices(volume, spec), ModelSlices(seen(volume, spec), spec)

    assert (from_ct.shape, from_ct.native_shape) == (from_grid.shape, from_grid.native_shape)
    torch.testing.assert_close(from_ct.slab(4), from_grid.slab(4), rtol=0, atol=0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slices_lie_as_the_patient_lies(orientation):
    stored = make_phantom(seed=2, shape=(20, 16, 12), orientation=orientation)
    ras = make_phantom(seed=2, shape=(20, 16, 12), orientation="RAS")

    slices = RasSlices(torch.from_numpy(stored.image), stored.affine)

    np.testing.assert_array_equal(torch.stack(list(slices.values()), dim=2), ras.image)
    np.testing.assert_allclose(slices.affine, ras.affine, atol=1e-9)


@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_what_is_written_is_read(axes, signs, shape):
    affine = scaling(1.0, 2.0, 3.0)[:, [*axes, 3]] @ np.diag([*signs, 1.0])
    (stored,) = zeros_as_stored(1, shape, affine)
    slices = RasSlices(stored, affine)
    values = torch.arange(np.prod(shape), dtype=torch.uint8).reshape(shape)

    for z in slices:
        slices[z] = values[:, :, z]

    assert slices.shape == shape
    for z in slices:
        torch.testing.assert_close(slices[z], values[:, :, z])
    assert sorted(stored.flatten().tolist()) == sorted(values.flatten().tolist())
