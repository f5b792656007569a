"""Laws of 2.5D."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.slabs import slab_indices, slab_view

ODD = st.sampled_from([1, 3, 5, 7])


@given(n_slices=st.integers(1, 12), slab_size=ODD)
def test_every_slice_is_the_centre_of_its_slab(n_slices, slab_size):
    volume = torch.arange(n_slices).expand(2, 3, -1)

    slabs = slab_view(volume, slab_size)

    assert slabs.shape == (n_slices, slab_size, 2, 3)
    assert slabs[:, slab_size // 2, 0, 0].tolist() == list(range(n_slices))


@given(n_slices=st.integers(1, 12), slab_size=ODD)
def test_the_view_and_the_indices_agree(n_slices, slab_size):
    slabs = slab_view(torch.arange(n_slices).expand(1, 1, -1), slab_size)

    for z in range(n_slices):
        assert slabs[z, :, 0, 0].tolist() == slab_indices(z, n_slices=n_slices, slab_size=slab_size)


def test_beyond_the_ends_the_last_slice_goes_on_and_nothing_wraps():
    assert slab_indices(0, n_slices=4, slab_size=5) == [0, 0, 0, 1, 2]
    assert slab_indices(3, n_slices=4, slab_size=5) == [1, 2, 3, 3, 3]


def test_overlapping_slabs_share_their_memory():
    slabs = slab_view(torch.rand(4, 4, 6), 3)

    assert slabs[1, 2].data_ptr() == slabs[2, 1].data_ptr()
