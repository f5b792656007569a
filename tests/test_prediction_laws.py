"""Laws of whole predictions: what must not change a mask, and where a mask must reach to."""

from __future__ import annotations

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import torch
from test_inferer import make_spec, scaling, segment, smooth_ct, threshold_network

from liver_monai.engine.inference import Choices, load_model
from liver_monai.engine.inferer import SlabInferer

AXES = [(0,), (1,), (2,), (0, 1, 2)]


@pytest.fixture(scope="module")
def model(trained_run):
    """A network with all its convolutions; masks are not cleaned, so that each voxel is its own."""
    loaded = load_model(trained_run, choices=Choices(device="cpu"))
    return dataclasses.replace(loaded, postprocessing=lambda item: item)


@pytest.fixture(scope="module")
def ct(phantom_dataset):
    return phantom_dataset / "imagesTr" / "liver_001.nii.gz"


@pytest.fixture(scope="module")
def mask(model, ct):
    found = model.segment(ct).numpy()
    assert (found > 0).sum() > 1000
    return found


@pytest.fixture
def threads():
    """Sets the number of threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_neither_threads_nor_batch_change_a_mask(model, ct, mask, threads, n_threads, batch):
    threads(n_threads)
    other = dataclasses.replace(
        model, inferer=SlabInferer(model.spec, sw_batch_size=batch, search=model.inferer.search)
    )

    np.testing.assert_array_equal(other.segment(ct).numpy(), mask)


@pytest.mark.parametrize("shape", [(96, 96, 1), (96, 96, 2), (8, 8, 24), (8, 8, 1), (1, 1, 1)])
def test_a_real_network_takes_scans_of_any_size(model, tmp_path, shape):
    path = tmp_path / "ct.nii"
    nib.save(nib.Nifti1Image(smooth_ct(shape), scaling(2, 2, 4)), path)

    found = model.segment(path)

    assert found.shape == (1, *shape)
    assert found.dtype == torch.uint8
    assert set(np.unique(found)) <= {0, 1, 2}


@pytest.mark.parametrize("native_mm", [(2, 2, 4), (1, 1, 1.25), (3, 2.5, 9)])
@pytest.mark.parametrize("slab_size", [1, 5])
def test_a_liver_that_leaves_the_scan_is_marked_up_to_its_last_voxels(tmp_path, native_mm, slab_size):
    """On all six sides, by a network that weighs the slices beside the one it labels."""
    spec = make_spec(slab_size=slab_size)
    network = threshold_network(slab_size, slice_weights=[1 / slab_size] * slab_size)

    mask = segment(tmp_path, np.full((30, 24, 17), 60, np.int16), scaling(*native_mm), spec=spec, network=network)

    assert (mask == 1).all()


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("native_mm", [(2, 2, 4), (0.9, 1.3, 2.5), (3, 2.5, 9)])
def test_the_mask_of_a_flipped_ct_is_the_flipped_mask(tmp_path, axes, native_mm):
    """By a network to which left and right, front and back, head and foot are one."""
    hu = smooth_ct((37, 30, 18))
    network = threshold_network(3, slice_weights=[0.2, 0.6, 0.2])

    mask, of_flipped = (
        segment(tmp_path, np.ascontiguousarray(voxels), scaling(*native_mm), network=network)
        for voxels in (hu, np.flip(hu, axes))
    )

    assert set(np.unique(mask)) == {0, 1, 2}
    assert (mask != np.flip(mask, axes)).any()  # or the law would say nothing
    np.testing.assert_array_equal(of_flipped, np.flip(mask, axes))
