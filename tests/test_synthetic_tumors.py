"""Tumours drawn into livers: where they are, how large, and that slices show cuts of one body."""

from __future__ import annotations

import time

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage

from liver_monai.data.cases import Case
from liver_monai.data.draws import SlabDataset
from liver_monai.data.layouts import find_cases
from liver_monai.data.phantom import make_phantom
from liver_monai.data.synthetic_tumors import (
    GAP_MM,
    LARGE_MM,
    REACH,
    RandLiverTumord,
    draw_tumor,
    paint_tumor,
    roomy_places,
)
from liver_monai.errors import InputError
from liver_monai.spec import LIVER, TUMOR, ModelSpec

SPACING_MM = (1.5, 1.5, 3.0)
LIVER_HU = 100.0

spacings = st.tuples(*[st.sampled_from([0.8, 1.0, 1.5, 2.0])] * 2, st.sampled_from([1.0, 2.0, 3.0, 5.0]))
seeds = st.integers(0, 2**31)


def positions(shape, spacing_mm):
    """Axes of a grid, slices first."""
    steps = (spacing_mm[2], spacing_mm[0], spacing_mm[1])
    return tuple(np.arange(n, dtype=np.float32) * mm for n, mm in zip(shape, steps, strict=True))


def noisy(shape, *, seed=0):
    return np.random.default_rng(seed).normal(LIVER_HU, 12, shape).astype(np.float32)


def liver_slab(*, seed=0, shape=(5, 96, 96)):
    """A ball of liver in fat, with a tumour in it."""
    z, x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    label = np.where((x / 40) ** 2 + (y / 40) ** 2 + (z / 12) ** 2 < 1, LIVER, 0).astype(np.uint8)
    label[:, 40:50, 40:48] = TUMOR
    image = np.where(label == 0, -100, noisy(shape, seed=seed)).astype(np.float32)
    return {"image": image, "label": label}


def transform(*, seed=0, **values):
    drawn = RandLiverTumord(**{"spacing_mm": SPACING_MM, "prob": 1.0, "radius_mm": (3, 20), **values})
    return drawn.set_random_state(seed)


def everywhere(spacing_mm, radius_mm):
    """A liver without end and the middle of it, as large as a tumour needs."""
    reach = 2.5 * radius_mm
    shape = tuple(int(np.ceil(2 * reach / mm)) for mm in (spacing_mm[2], spacing_mm[0], spacing_mm[1]))
    return shape, positions(shape, spacing_mm), (reach, reach, reach)


# Where


@settings(max_examples=40)
@given(seed=seeds)
def test_only_liver_becomes_tumour_and_nothing_else_changes(seed):
    before = liver_slab(seed=seed)

    after = transform(seed=seed)(before)

    changed = before["label"] != after["label"]
    assert (before["label"][changed] == LIVER).all()
    assert (after["label"][changed] == TUMOR).all()
    is_liver = before["label"] == LIVER
    np.testing.assert_array_equal(after["image"][~is_liver], before["image"][~is_liver])


@settings(max_examples=25)
@given(seed=seeds, spacing_mm=spacings)
def test_what_is_far_from_a_tumour_stays_as_it_is(seed, spacing_mm):
    radius_mm = 8.0
    shape, axes, centre = everywhere(spacing_mm, radius_mm)
    image, label = noisy(shape), np.full(shape, LIVER, np.uint8)
    tumor = draw_tumor(np.random.default_rng(seed), centre, radius_mm, contrast_hu=-50.0)

    painted = image.copy()
    paint_tumor(painted, label, tumor, axes=axes)

    distance = tumor.distance(axes)
    margin = np.maximum(REACH * radius_mm, tumor.edge_mm)
    np.testing.assert_array_equal(painted[distance > margin], image[distance > margin])
    assert (label[distance > 0] == LIVER).all()
    assert (label[distance < 0] == TUMOR).all()


@settings(max_examples=25)
@given(seed=seeds)
def test_tumours_keep_their_distance_from_those_that_are_there(seed):
    before = liver_slab(seed=seed)

    after = transform(seed=seed)(before)["label"]

    drawn = (after == TUMOR) & (before["label"] == LIVER)
    steps = (SPACING_MM[2], SPACING_MM[0], SPACING_MM[1])
    away_mm = ndimage.distance_transform_edt(before["label"] != TUMOR, sampling=steps)
    assert (away_mm[drawn] > GAP_MM - 1).all()  # the distance to an ellipsoid is one of first order


def test_a_slab_without_liver_or_without_room_stays_as_it_is():
    air = {"image": np.zeros((3, 32, 32), np.float32), "label": np.zeros((3, 32, 32), np.uint8)}
    thread = {"image": noisy((3, 32, 32)), "label": np.zeros((3, 32, 32), np.uint8)}
    thread["label"][:, 16, :] = LIVER

    for before in (air, thread):
        after = transform(radius_mm=(6, 9))(before)
        for key in before:
            np.testing.assert_array_equal(after[key], before[key])


def test_the_slice_in_the_middle_of_a_slab_shows_a_tumour():
    slab = liver_slab()
    is_new = [
        ((transform(seed=seed, radius_mm=(6, 12))(slab)["label"] == TUMOR) & (slab["label"] == LIVER))[2].any()
        for seed in range(40)
    ]

    assert np.mean(is_new) > 0.9


def test_a_tumour_is_placed_where_the_liver_goes_on_around_it():
    liver = np.zeros((1, 30, 40), bool)
    liver[0, 5:26, 8:29] = True  # 21 x 21 voxels of 2 x 1 mm, its middle at 15, 18
    axes = positions(liver.shape, (2.0, 1.0, 3.0))

    rows, columns = np.unravel_index(roomy_places(liver, 10.0, axes=axes), liver.shape)[1:]  # 7 mm: 4 rows, 7 columns

    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 21, 15, 21)
    assert len(rows) == 13 * 7
    np.testing.assert_array_equal(roomy_places(liver, 90.0, axes=axes), np.flatnonzero(liver))


# One body


@settings(max_examples=25)
@given(seed=seeds, spacing_mm=spacings, radius_mm=st.floats(4, 14))
def test_the_label_has_the_volume_of_the_drawn_radius(seed, spacing_mm, radius_mm):
    shape, axes, centre = everywhere(spacing_mm, radius_mm)
    label = np.full(shape, LIVER, np.uint8)
    tumor = draw_tumor(np.random.default_rng(seed), centre, radius_mm, contrast_hu=-50.0)

    paint_tumor(noisy(shape), label, tumor, axes=axes)

    volume = np.count_nonzero(label == TUMOR) * np.prod(spacing_mm)
    drawn_radius = (volume / (4 / 3 * np.pi)) ** (1 / 3)
    assert drawn_radius == pytest.approx(radius_mm, abs=0.2 * radius_mm + 0.1 * max(spacing_mm))  # 0.04 is one sd


@settings(max_examples=20)
@given(seed=seeds, first=st.integers(0, 9), spacing_mm=spacings)
def test_a_slab_shows_the_cut_of_the_body_that_the_whole_volume_shows(seed, first, spacing_mm):
    radius_mm = 10.0
    shape, axes, centre = everywhere(spacing_mm, radius_mm)
    tumor = draw_tumor(np.random.default_rng(seed), centre, radius_mm, contrast_hu=-60.0)
    cut = slice(first, min(first + 5, shape[0]))
    whole = noisy(shape), np.full(shape, LIVER, np.uint8)
    slab = whole[0][cut].copy(), whole[1][cut].copy()

    paint_tumor(*whole, tumor, axes=axes)
    paint_tumor(*slab, tumor, axes=(axes[0][cut], *axes[1:]))

    np.testing.assert_array_equal(slab[1], whole[1][cut])
    assert (
        np.abs(slab[0] - whole[0][cut]).max() < 12
    )  # the liver around it, and its noise, are measured in fewer slices


@settings(max_examples=15)
@given(seed=seeds, spacing_mm=spacings)
def test_the_same_body_on_another_grid_lies_in_the_same_place(seed, spacing_mm):
    fine = (1.0, 1.0, 1.0)
    middles = []
    for each in (spacing_mm, fine):
        shape, axes, centre = everywhere(each, 12.0)
        tumor = draw_tumor(np.random.default_rng(seed), centre, 12.0, contrast_hu=-50.0)
        label = np.full(shape, LIVER, np.uint8)
        paint_tumor(noisy(shape), label, tumor, axes=axes)
        voxels = np.nonzero(label == TUMOR)
        middles.append([axis[index].mean() for axis, index in zip(axes, voxels, strict=True)])

    np.testing.assert_allclose(middles[0], middles[1], atol=0.3 * max(spacing_mm))


# How it looks


@pytest.mark.parametrize("contrast_hu", [-80.0, -25.0, 40.0])
def test_a_tumour_differs_from_the_liver_by_its_contrast(contrast_hu):
    for seed in range(10):
        shape, axes, centre = everywhere((1.0, 1.0, 1.0), LARGE_MM - 1)  # without rim and core
        image, label = noisy(shape), np.full(shape, LIVER, np.uint8)
        tumor = draw_tumor(np.random.default_rng(seed), centre, LARGE_MM - 1, contrast_hu=contrast_hu)
        paint_tumor(image, label, tumor, axes=axes)
        inside = tumor.distance(axes) < -3

        assert image[inside].mean() - LIVER_HU == pytest.approx(contrast_hu, abs=0.25 * abs(contrast_hu) + 2)


def test_a_tumour_is_as_noisy_as_the_scan():
    shape, axes, centre = everywhere((1.0, 1.0, 1.0), 9.0)
    tumor = draw_tumor(np.random.default_rng(1), centre, 9.0, contrast_hu=-50.0)
    spread = []
    for noise in (0.0, 20.0):
        image = (LIVER_HU + noise * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
        paint_tumor(image, np.full(shape, LIVER, np.uint8), tumor, axes=axes)
        spread.append(image[tumor.distance(axes) < -2].std())

    assert spread[1] > spread[0] + 5


def test_a_tumour_pushes_vessels_aside():
    shape, axes, centre = everywhere((1.0, 1.0, 1.0), 10.0)
    tumor = draw_tumor(np.random.default_rng(3), centre, 10.0, contrast_hu=-50.0)
    slice_, _, column = (int(position) for position in centre)
    vessel = int(np.flatnonzero(tumor.distance(axes)[slice_, :, column] < 0)[-1]) + 2
    image = np.full(shape, LIVER_HU, np.float32)
    image[:, vessel : vessel + 2] = 180.0

    around = np.s_[slice_, vessel : vessel + 6, column]
    before = np.average(range(6), weights=image[around] - LIVER_HU)
    paint_tumor(image, np.full(shape, LIVER, np.uint8), tumor, axes=axes)
    after = np.average(range(6), weights=(image[around] - LIVER_HU).clip(0))

    assert 0.3 < after - before < 1.5  # the surface itself has moved by 1.5 mm


# As a transform


def test_the_same_seed_draws_the_same_and_leaves_its_input_alone():
    slab = liver_slab()
    copy = {key: value.copy() for key, value in slab.items()}

    first, again, other = (transform(seed=seed)(slab) for seed in (5, 5, 6))

    for key in slab:
        np.testing.assert_array_equal(first[key], again[key])
        np.testing.assert_array_equal(slab[key], copy[key])
    assert not np.array_equal(first["image"], other["image"])


def test_prob_is_how_often_tumours_are_drawn():
    slab = liver_slab()
    drawn = transform(prob=0.3, count=(1, 1), radius_mm=(3, 6))

    share = np.mean([drawn(slab)["image"] is not slab["image"] for _ in range(300)])

    assert share == pytest.approx(0.3, abs=4 * (0.21 / 300) ** 0.5)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, MetaTensor])
def test_a_volume_is_taken_like_a_slab_and_comes_back_as_it_was(kind):
    slab = liver_slab(shape=(9, 96, 96))
    volume = {key: kind(np.moveaxis(value, 0, -1)[None]) for key, value in slab.items()}

    after = transform()(volume)

    for key, before in volume.items():
        assert type(after[key]) is type(before)
        assert (after[key].dtype, after[key].shape) == (before.dtype, before.shape)
    assert np.count_nonzero(after["label"] == TUMOR) > np.count_nonzero(slab["label"] == TUMOR)


@pytest.mark.parametrize("values", [{"count": (0, 2)}, {"radius_mm": (9, 3)}, {"darker_hu": (5,)}, {"prob": 1.2}])
def test_values_that_cannot_be_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        transform(**values)


def test_a_lesion_takes_less_than_50_ms():
    """By a clock that stands still while others compute; typical are 5 ms, the largest take 25."""
    phantom = make_phantom(seed=3, shape=(192, 192, 5), spacing_mm=SPACING_MM, orientation="RAS", n_tumors=0)
    slab = {"image": phantom.image.transpose(2, 0, 1).astype(np.float32), "label": phantom.label.transpose(2, 0, 1)}
    drawn = transform(count=(1, 1), radius_mm=(32, 32))
    drawn(slab)

    started_s = time.process_time()
    for _ in range(10):
        drawn(slab)

    assert (time.process_time() - started_s) / 10 < 0.05


# In training


@pytest.fixture(scope="module")
def liver_alone(tmp_path_factory, phantom_dataset):
    """Phantoms whose tumours are labelled as liver, as in data sets of the liver alone."""
    folder = tmp_path_factory.mktemp("liver-alone")
    cases = []
    for case in find_cases(phantom_dataset)[:2]:
        label = nib.load(case.label)
        path = folder / f"{case.case_id}.nii.gz"
        nib.save(nib.Nifti1Image(np.minimum(label.get_fdata(), 1).astype(np.uint8), label.affine), path)
        cases.append(Case(case_id=case.case_id, image=case.image, label=path))
    return cases


def slabs_of(cases, folder, *, prob, **values):
    spec = ModelSpec(
        **{"encoder": "resnet34", "spacing_mm": (5, 5, 10), "slab_size": 5, "roi_size": (64, 64), **values}
    )
    tumors = RandLiverTumord(spacing_mm=spec.spacing_mm, prob=prob, radius_mm=(8, 25))
    return SlabDataset(
        cases, spec=spec, folder=folder, n_samples=1, transform=lambda item: item, synthetic_tumors=tumors
    )


def test_labels_of_the_liver_alone_give_slabs_with_tumours(liver_alone, tmp_path):
    never, always = (slabs_of(liver_alone, tmp_path, prob=prob) for prob in (0.0, 1.0))

    assert not any((never[number]["label"] == TUMOR).any() for number in range(30))
    slabs = [always[number] for number in range(30)]
    assert np.mean([(slab["label"] == TUMOR).any() for slab in slabs]) > 0.6
    assert {slab["image"].shape for slab in slabs} == {(5, 64, 64)}
    assert {slab["label"].shape for slab in slabs} == {(1, 64, 64)}


def test_slabs_with_tumours_depend_on_the_seed_and_their_number_alone(liver_alone, tmp_path):
    first, second = (slabs_of(liver_alone, tmp_path, prob=0.7) for _ in range(2))

    forwards = [first[number]["image"] for number in range(8)]
    backwards = [second[number]["image"] for number in reversed(range(8))]

    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)


def test_beyond_the_ends_of_a_ct_stands_its_last_slice_with_its_tumours(tmp_path):
    shape = (64, 64, 1)
    for name, voxels in (("ct", noisy(shape).astype(np.int16)), ("mask", np.full(shape, LIVER, np.uint8))):
        nib.save(nib.Nifti1Image(voxels, np.diag([5.0, 5.0, 10.0, 1.0])), tmp_path / f"{name}.nii")
    case = Case(case_id="ct", image=tmp_path / "ct.nii", label=tmp_path / "mask.nii")
    drawn = slabs_of([case], tmp_path / "store", prob=1.0)
    slabs = [drawn[number] for number in range(10)]

    assert np.mean([(slab["label"] == TUMOR).any() for slab in slabs]) > 0.6
    for slab in slabs:
        for neighbour in slab["image"]:
            np.testing.assert_array_equal(neighbour, slab["image"][2])
