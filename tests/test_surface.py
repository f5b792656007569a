"""Surfaces and distances: worked out by hand, and against MONAI, medpy and DeepMind's surface-distance."""

from __future__ import annotations

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from medpy import metric as medpy
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric
from scipy import ndimage

from liver_monai.scoring.surface import FACES, FACES_AND_EDGES, PLANES_AT_A_TIME, surface, surface_distances

SPACINGS_MM = st.tuples(*[st.floats(0.4, 5.0)] * 3)


def box(shape, *slices):
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def draw_blobs(seed, *, n_masks=2, shape=(13, 17, 19)):
    """Smooth random masks that overlap in part."""
    generator = np.random.default_rng(seed)
    shared = ndimage.gaussian_filter(generator.standard_normal(shape), 2)
    for _ in range(n_masks):
        own = ndimage.gaussian_filter(generator.standard_normal(shape), 1.5)
        field = shared + generator.uniform(0.1, 1) * own
        yield field > np.quantile(field, generator.uniform(0.6, 0.98))


def test_by_hand():
    """Two voxels against one of them and a voxel 2 further: every voxel is surface."""
    prediction, reference = box((6, 1, 1), slice(0, 2)), box((6, 1, 1), [1, 4])

    distances = surface_distances(prediction, reference, spacing_mm=(3, 1, 1))

    assert sorted(distances.prediction_to_reference_mm) == [0, 3]
    assert sorted(distances.reference_to_prediction_mm) == [0, 9]
    assert distances.assd_mm == pytest.approx((0 + 3 + 0 + 9) / 4)
    assert distances.rmsd_mm == pytest.approx(np.sqrt((9 + 81) / 4))
    assert distances.msd_mm == 9
    assert distances.hd95_mm == pytest.approx(0.95 * 9)
    assert [distances.nsd(tolerance) for tolerance in (0, 2.9, 3, 9)] == [0.5, 0.5, 0.75, 1]


def test_a_surface_by_hand():
    """Of 5 x 5 x 5 voxels the inner 27 have no background around; taking out an edge's voxel shows to 18, not to 6."""
    mask = box((7, 7, 7), *[slice(1, 6)] * 3)
    assert surface(mask).sum() == 125 - 27

    mask[1, 1, 3] = False
    assert surface(mask)[2, 2, 3]
    assert not surface(mask, connectivity=FACES)[2, 2, 3]


def test_the_end_of_the_array_is_background():
    full = np.ones((4, 4, 4), dtype=bool)
    assert surface(full).sum() == 64 - 8


@given(
    seed=st.integers(0, 2**32 - 1),
    connectivity=st.integers(1, 3),
    n_planes=st.sampled_from([1, 2, PLANES_AT_A_TIME, PLANES_AT_A_TIME + 1, 2 * PLANES_AT_A_TIME + 3]),
)
def test_a_surface_is_what_scipy_erodes(seed, connectivity, n_planes):
    mask = np.random.default_rng(seed).random((n_planes, 6, 7)) < 0.9
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, connectivity))
    np.testing.assert_array_equal(surface(mask, connectivity=connectivity), mask ^ eroded)


def test_distances_need_two_surfaces_of_one_shape():
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    for masks in ((empty, full), (full, empty), (empty, empty)):
        with pytest.raises(ValueError, match="empty"):
            surface_distances(*masks, spacing_mm=(1, 1, 1))
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(1, 2, 2\)"):
        surface_distances(full, full[:1], spacing_mm=(1, 1, 1))


@given(seed=st.integers(0, 2**32 - 1), spacing_mm=SPACINGS_MM)
def test_symmetry_scale_and_order(seed, spacing_mm):
    prediction, reference = draw_blobs(seed)
    there = surface_distances(prediction, reference, spacing_mm=spacing_mm)
    back = surface_distances(reference, prediction, spacing_mm=spacing_mm)
    doubled = surface_distances(prediction, reference, spacing_mm=[2 * step for step in spacing_mm])

    assert there.msd_mm == back.msd_mm
    assert there.assd_mm == pytest.approx(back.assd_mm)
    assert doubled.rmsd_mm == pytest.approx(2 * there.rmsd_mm)
    assert there.assd_mm <= there.rmsd_mm + 1e-9 <= there.msd_mm + 2e-9
    assert there.hd95_mm <= there.msd_mm
    same = surface_distances(reference, reference, spacing_mm=spacing_mm)
    assert (same.msd_mm, same.nsd(0)) == (0, 1)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # MONAI 1.6.1 calls itself so
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), spacing_mm=SPACINGS_MM, tolerance_mm=st.floats(0.1, 6))
def test_agreement_with_monai(seed, spacing_mm, tolerance_mm):
    """To float32's precision; MONAI's surface is that of the six neighbours. It averages both directions together."""
    masks = list(draw_blobs(seed))
    ours = surface_distances(*masks, spacing_mm=spacing_mm, connectivity=FACES)
    every_distance = np.concatenate([ours.prediction_to_reference_mm, ours.reference_to_prediction_mm])
    assume(np.abs(every_distance - tolerance_mm).min() > 1e-3)  # on which side of it float32 falls is not the point
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in masks]

    def theirs(metric, **options):
        return metric(*tensors, spacing=list(spacing_mm), **options).item()

    assert ours.assd_mm == pytest.approx(theirs(SurfaceDistanceMetric(symmetric=True)), rel=1e-5, abs=1e-5)
    assert ours.msd_mm == pytest.approx(theirs(HausdorffDistanceMetric()), rel=1e-5)
    assert ours.hd95_mm == pytest.approx(theirs(HausdorffDistanceMetric(percentile=95)), rel=1e-5, abs=1e-5)
    assert ours.nsd(tolerance_mm) == pytest.approx(theirs(SurfaceDiceMetric([tolerance_mm])), abs=1e-6)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), spacing_mm=SPACINGS_MM)
def test_agreement_with_medpy(seed, spacing_mm):
    """The library of the LiTS scorer, to rounding. Its ASSD is the mean of the two directions' means, so one by one."""
    masks = list(draw_blobs(seed))
    ours = surface_distances(*masks, spacing_mm=spacing_mm)
    options = {"voxelspacing": spacing_mm, "connectivity": FACES_AND_EDGES}

    assert ours.msd_mm == pytest.approx(medpy.binary.hd(*masks, **options))
    assert ours.prediction_to_reference_mm.mean() == pytest.approx(medpy.binary.asd(*masks, **options))
    assert ours.reference_to_prediction_mm.mean() == pytest.approx(medpy.binary.asd(*masks[::-1], **options))


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # surface-distance 0.1 takes names of old
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), spacing_mm=SPACINGS_MM)
def test_agreement_with_deepmind_to_a_voxel(seed, spacing_mm):
    """Its surface elements lie on the corners between voxels, half a diagonal from ours, on both of the surfaces."""
    masks = list(draw_blobs(seed))
    ours = surface_distances(*masks, spacing_mm=spacing_mm)
    theirs = surface_distance.compute_surface_distances(masks[1], masks[0], spacing_mm)

    diagonal_mm = float(np.linalg.norm(spacing_mm))
    assert ours.msd_mm == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 100), abs=diagonal_mm)
    wide, narrow = (
        surface_distance.compute_surface_dice_at_tolerance(theirs, t) for t in (ours.msd_mm + diagonal_mm + 1e-6, 0)
    )
    assert wide == ours.nsd(ours.msd_mm) == 1
    assert narrow <= 1
