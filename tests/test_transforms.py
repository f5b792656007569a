"""From files to what the network sees."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.transforms import (
    LoadImageVolumed,
    RandDropNeighborsd,
    RandJitterNeighborsd,
    augmentation,
    model_grid,
    preprocessing,
)
from liver_monai.errors import InputError
from liver_monai.io.volumes import AFFINE_TOLERANCE_MM
from liver_monai.spec import ModelSpec

SPEC = ModelSpec(encoder="resnet34", slab_size=3, spacing_mm=(2, 2, 3), hu_window=(-200, 250), roi_size=(32, 48))
RAS = np.diag([2.0, 2.0, 3.0, 1.0])
"""Voxels of the model grid's size in the model's orientation: such a volume is taken over as it is."""
LPS = np.diag([-2.0, -2.0, 3.0, 1.0])


def write(path, voxels, affine=RAS):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return str(path)


def test_the_hu_window_by_hand(tmp_path):
    """Air and everything below the window is exactly 0, the upper end and metal exactly 1, the middle 0.5."""
    hu = np.array([-3024, -1000, -201, -200, 25, 250, 251, 3071], dtype=np.int16).reshape(2, 2, 2)

    volume = preprocessing(SPEC)({"image": write(tmp_path / "ct.nii", hu)})["image"]

    assert volume.dtype == torch.float32
    assert volume.as_tensor().ravel().tolist() == [0, 0, 0, 0, 0.5, 1, 1, 1]


@given(low=st.integers(-1000, 0), width=st.integers(1, 2000), hu=st.integers(-1024, 3071))
def test_every_window_is_linear_between_its_ends(tmp_path_factory, low, width, hu):
    spec = ModelSpec(encoder="resnet34", spacing_mm=(2, 2, 3), hu_window=(low, low + width))
    path = write(tmp_path_factory.mktemp("ct") / "ct.nii", np.full((1, 1, 1), hu, dtype=np.int16))

    volume = preprocessing(spec)({"image": path})["image"]

    assert volume.item() == pytest.approx(min(max((hu - low) / width, 0), 1), abs=1e-6)


def test_a_ct_in_any_orientation_is_seen_in_ras(tmp_path):
    hu = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)

    volume = preprocessing(SPEC)({"image": write(tmp_path / "ct.nii", hu, LPS)})["image"]

    np.testing.assert_allclose(volume[0].numpy(), (hu[::-1, ::-1] + 200) / 450, atol=1e-6)
    np.testing.assert_array_equal(np.diag(volume.affine), np.diag(RAS))


def test_a_true_spacing_takes_the_place_of_one_that_lies(tmp_path):
    """Header 1, 1, 1; the patient's voxels are twice as large, and slices three times as far apart."""
    mirrored = np.array([[-1.0, 0, 0, 9], [0, -1, 0, 7], [0, 0, 1, -3], [0, 0, 0, 1]])
    hu = np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)
    item = {
        "image": write(tmp_path / "ct.nii", hu, mirrored),
        "label": write(tmp_path / "mask.nii", (hu % 3).astype(np.uint8), mirrored),
        "spacing_mm": (2.0, 2.0, 3.0),
    }

    stored = model_grid(SPEC)(item)

    assert stored["image"].shape == stored["label"].shape == (1, 4, 3, 2)  # the spec's grid is 2, 2, 3 mm
    np.testing.assert_allclose(stored["image"][0].numpy(), hu[::-1, ::-1], atol=1e-3)
    np.testing.assert_array_equal(stored["label"][0].numpy(), (hu % 3)[::-1, ::-1])
    np.testing.assert_allclose(np.diag(stored["image"].affine), [2, 2, 3, 1])
    np.testing.assert_allclose(
        np.asarray(stored["image"].meta["original_affine"]), mirrored @ np.diag([2.0, 2.0, 3.0, 1.0])
    )


def test_what_the_store_keeps_are_hu_and_labels_of_one_grid(tmp_path):
    affine = np.diag([-1.0, 1.0, 1.5, 1.0])
    label = np.zeros((8, 8, 4), np.uint8)
    label[:4] = 2  # on the patient's right in the file, whose first axis runs to the left
    item = {
        "image": write(tmp_path / "ct.nii", label.astype(np.int16) * 50, affine),
        "label": write(tmp_path / "mask.nii", label, affine),
    }

    stored = model_grid(SPEC)(item)

    assert stored["image"].shape == stored["label"].shape == (1, 4, 4, 2)
    np.testing.assert_array_equal(stored["image"].affine, stored["label"].affine)
    assert stored["label"][0, :, 0, 0].tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(stored["image"][0, [0, 3], 0, 0].numpy(), [0, 100], atol=1e-4)


def test_the_values_of_a_label_are_checked(tmp_path):
    item = {
        "image": write(tmp_path / "ct.nii", np.zeros((2, 2, 2), np.int16)),
        "label": write(tmp_path / "mask.nii", np.full((2, 2, 2), 7, np.uint8)),
    }

    with pytest.raises(RuntimeError) as refusal:  # MONAI's Compose wraps what a transform raises
        model_grid(SPEC)(item)
    assert isinstance(refusal.value.__cause__, InputError)
    assert "value 7" in str(refusal.value.__cause__)


def drawn_slab(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    image = rng.integers(-1024, 1500, (SPEC.slab_size, *SPEC.roi_size)).astype(dtype)
    return {"image": image, "label": rng.integers(0, 3, (1, *SPEC.roi_size), dtype=np.uint8)}


@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([np.float32, np.int16]))
def test_a_varied_slab_is_still_a_slab_with_its_label(seed, dtype):
    item = drawn_slab(seed, dtype)
    before = {key: array.copy() for key, array in item.items()}

    varied = augmentation(SPEC).set_random_state(seed=seed)(item)

    assert varied.keys() == {"image", "label"}
    assert varied["image"].shape == (SPEC.slab_size, *SPEC.roi_size)
    assert varied["label"].shape == (1, *SPEC.roi_size)
    assert varied["image"].dtype == torch.float32
    assert torch.isfinite(varied["image"]).all()
    assert set(varied["label"].unique().tolist()) <= {0, 1, 2}
    for key, array in before.items():
        assert item[key].dtype == array.dtype
        np.testing.assert_array_equal(item[key], array)


def test_image_and_label_are_moved_together():
    """A bright square and its label still cover each other wherever the slab was turned, scaled and shifted to."""
    square = np.zeros(SPEC.roi_size, dtype=np.uint8)
    square[8:24, 12:36] = 1
    item = {"image": np.stack([square * 1000.0 - 500] * SPEC.slab_size).astype(np.float32), "label": square[None]}
    vary = augmentation(SPEC).set_random_state(seed=0)
    moved = 0

    for _ in range(20):
        varied = vary(item)
        bright, label = varied["image"] > 0.5, varied["label"].bool().expand(SPEC.slab_size, -1, -1)
        assert (bright & label).sum() / (bright | label).sum() > 0.9
        moved += not torch.equal(label[0].to(torch.uint8), torch.from_numpy(square))

    assert moved > 5


def test_the_same_seed_varies_a_slab_the_same_way():
    item = drawn_slab(0)

    once, again, other = (augmentation(SPEC).set_random_state(seed=seed)(item)["image"] for seed in (1, 1, 2))

    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("shift_mm", [0.0, 0.05, 0.2])
def test_a_label_on_another_grid_than_its_ct_is_refused(tmp_path, shift_mm):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    moved = affine.copy()
    moved[0, 3] = shift_mm
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), affine), tmp_path / "ct.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.uint8), moved), tmp_path / "label.nii.gz")
    item = {"image": str(tmp_path / "ct.nii.gz"), "label": str(tmp_path / "label.nii.gz")}
    read = LoadImageVolumed(("image", "label"))

    if shift_mm < AFFINE_TOLERANCE_MM:
        assert read(item)["label"].shape == (1, 8, 8, 4)
    else:
        with pytest.raises(InputError, match=r"label.nii.gz and .*ct.nii.gz lie up to 0.2 mm apart"):
            read(item)


# Dropped neighbours


@pytest.mark.parametrize("slab_size", [1, 3, 5, 7])
def test_a_dropped_neighbour_shows_what_lies_nearer_to_the_centre(slab_size):
    """Slices of their own numbers: from the centre outwards none is farther away than its place, none comes back."""
    slab = np.arange(slab_size)[:, None, None] * np.ones((1, 4, 4))
    drop, centre = RandDropNeighborsd("image", prob=0.5), slab_size // 2
    drop.set_random_state(seed=0)
    shown = [drop({"image": slab})["image"] for _ in range(200)]

    for each in shown:
        numbers = each[:, 0, 0].astype(int) - centre
        places = np.arange(slab_size) - centre
        assert numbers[centre] == 0
        assert (np.abs(numbers) <= np.abs(places)).all()
        assert (np.diff(numbers) >= 0).all()
        assert (each == each[:, :1, :1]).all()
    if slab_size > 1:
        is_next_kept = np.mean([each[centre + 1, 0, 0] == centre + 1 for each in shown])
        assert is_next_kept == pytest.approx(0.5, abs=0.15)
    np.testing.assert_array_equal(slab[:, 0, 0], np.arange(slab_size))


@pytest.mark.parametrize("name", ["drop_neighbors", "jitter_neighbors"])
def test_no_neighbour_is_dropped_or_jittered_unless_asked_for(name):
    drawn = []
    for options in ({}, {name: 0.0}, {name: 0.9}):
        augment = augmentation(SPEC, **options).set_random_state(seed=1)
        hu = np.random.default_rng(0).normal(50, 50, (3, 32, 48)).astype(np.float32)
        drawn.append(augment({"image": hu, "label": np.zeros((1, 32, 48), np.uint8)})["image"])

    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("slab_size", [1, 3, 5, 7])
def test_a_jittered_neighbour_shows_the_slice_before_or_after_it(slab_size):
    slab = np.arange(slab_size)[:, None, None] * np.ones((1, 4, 4))
    jitter, centre = RandJitterNeighborsd("image", prob=0.5), slab_size // 2
    jitter.set_random_state(seed=0)
    shown = np.stack([jitter({"image": slab})["image"] for _ in range(400)])

    assert (shown == shown[..., :1, :1]).all()
    steps = shown[..., 0, 0].astype(int) - np.arange(slab_size)
    assert (steps[:, centre] == 0).all()
    for place in set(range(slab_size)) - {centre}:
        possible = {-1, 0, 1} - {-1 if place == 0 else 1 if place == slab_size - 1 else None}
        assert set(steps[:, place]) == possible
        at_ends = place in (0, slab_size - 1)
        assert np.mean(steps[:, place] != 0) == pytest.approx(0.25 if at_ends else 0.5, abs=0.08)


@pytest.mark.parametrize("share", [-0.1, 1.1, 2])
@pytest.mark.parametrize("name", ["drop_neighbors", "jitter_neighbors", "mirroring"])
def test_a_share_that_is_none_is_refused(name, share):
    with pytest.raises(InputError, match=f"{name} is {share}; it must lie between 0 and 1"):
        augmentation(SPEC, **{name: share})


def test_left_and_right_change_places_only_where_asked_for():
    rows = np.broadcast_to(np.linspace(0, 200, 32, dtype=np.float32)[:, None], (3, 32, 48))
    label = np.broadcast_to((np.arange(32) < 16).astype(np.uint8)[:, None], (1, 32, 48))

    def share_mirrored(mirroring):
        augment = augmentation(SPEC, mirroring=mirroring).set_random_state(seed=2)
        drawn = [augment({"image": rows, "label": label}) for _ in range(40)]
        falls = [bool(item["image"][1, :8].mean() > item["image"][1, -8:].mean()) for item in drawn]
        labels = [bool(item["label"][0, :8].float().mean() < item["label"][0, -8:].float().mean()) for item in drawn]
        assert falls == labels  # image and label together
        return sum(falls) / len(falls)

    assert share_mirrored(0.0) == 0
    assert share_mirrored(1.0) == 1
    assert 0.2 < share_mirrored(0.5) < 0.8
