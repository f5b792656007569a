"""Laws of the synthetic CTs: one patient on every grid, truths as drawn, and no easy way to the tumors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from liver_monai.data.phantom import Phantom, make_phantom, write_phantoms
from liver_monai.data.phantom.shapes import Ellipsoid, Segment, SmoothField, coverage, union
from liver_monai.data.phantom.tumors import COUNTS

SHAPE = (96, 96, 40)
SEEDS = range(6)
COARSE = (48, 48, 24)


@cache
def phantom(seed: int) -> Phantom:
    return make_phantom(seed=seed, shape=SHAPE)


def voxel_ml(case: Phantom) -> float:
    return float(np.prod(case.truth["spacing_mm"])) / 1000


def in_ras(voxels: NDArray[np.uint8], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))


def test_same_arguments_give_equal_bits() -> None:
    first, second = make_phantom(seed=3, shape=COARSE), make_phantom(seed=3, shape=COARSE)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert np.array_equal(first.affine, second.affine)
    assert first.truth == second.truth


def test_other_seed_is_another_patient() -> None:
    spacing = (8.0, 8.0, 9.0)
    first, second = (make_phantom(seed=seed, shape=COARSE, spacing_mm=spacing, orientation="RAS") for seed in (1, 2))
    assert not np.array_equal(first.label > 0, second.label > 0)


@pytest.mark.parametrize("code", ["LPS", "LAS", "RPI", "SAR"])
def test_orientation_changes_storage_and_not_the_world(code: str) -> None:
    ras = make_phantom(seed=4, shape=(48, 40, 24), orientation="RAS")
    other = make_phantom(seed=4, shape=(48, 40, 24), orientation=code)
    assert "".join(nib.aff2axcodes(other.affine)) == code == other.truth["orientation"]
    for mine, theirs in ((ras.image, other.image), (ras.label, other.label)):
        turned = in_ras(theirs, other.affine)
        assert np.array_equal(mine, np.asanyarray(turned.dataobj))
        np.testing.assert_allclose(ras.affine, turned.affine, atol=1e-9)
    assert ras.truth["tumors"] == other.truth["tumors"]


def test_spacing_changes_sampling_and_not_the_patient() -> None:
    fine = make_phantom(seed=5, shape=(140, 110, 90), spacing_mm=(2.6, 2.6, 2.7))
    coarse = make_phantom(seed=5, shape=(80, 64, 40), spacing_mm=(4.5, 4.5, 6.0))
    assert fine.truth["liver_ml"] == pytest.approx(coarse.truth["liver_ml"], rel=0.02)
    assert len(fine.truth["tumors"]) == len(coarse.truth["tumors"]) > 0
    for mine, theirs in zip(fine.truth["tumors"], coarse.truth["tumors"], strict=True):
        np.testing.assert_allclose(mine["center_mm"], theirs["center_mm"], atol=2.5)
        assert mine["radius_mm"] == pytest.approx(theirs["radius_mm"], rel=0.1)


def test_tumors_replace_liver_and_change_nothing_else() -> None:
    healthy = make_phantom(seed=6, shape=COARSE, n_tumors=0)
    ill = make_phantom(seed=6, shape=COARSE, n_tumors=4)
    assert not (healthy.label == 2).any()
    assert healthy.truth["tumors"] == []
    assert (ill.label == 2).any()
    assert np.array_equal(healthy.label > 0, ill.label > 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_shows_whole_liver_and_body(seed: int) -> None:
    case = phantom(seed)
    assert case.image.dtype == np.int16
    assert case.label.dtype == np.uint8
    assert case.image.shape == case.label.shape == SHAPE
    faces = [np.take(case.label, index, axis=axis) for axis in range(3) for index in (0, -1)]
    assert not any(face.any() for face in faces)
    sides = [np.take(case.image, index, axis=axis) for axis in (0, 1) for index in (0, -1)]
    assert np.mean([(side < -800).mean() for side in sides]) > 0.9  # air, but for the table


@pytest.mark.parametrize("seed", SEEDS)
def test_liver_is_one_organ_on_the_right_under_the_lung(seed: int) -> None:
    case = phantom(seed)
    liver = case.label > 0
    pieces, count = ndimage.label(liver)
    largest = np.bincount(pieces.ravel())[1:].max() if count else 0
    assert largest > 0.98 * liver.sum()
    assert 900 < case.truth["liver_ml"] < 2400
    centre = apply_affine(case.affine, np.argwhere(liver).mean(axis=0))
    assert centre[0] > 15  # world x grows to the patient's right
    columns = liver.any(axis=2)
    top = SHAPE[2] - 1 - np.argmax(liver[:, :, ::-1], axis=2)  # every code here ends in S
    above = case.image[columns, np.minimum(top[columns] + 5, SHAPE[2] - 1)]
    assert np.median(above) < -500


@pytest.mark.parametrize("seed", SEEDS)
def test_truth_is_what_is_drawn(seed: int) -> None:
    case = phantom(seed)
    truth = json.loads(json.dumps(case.truth))
    assert truth == case.truth
    assert truth["liver_ml"] == pytest.approx((case.label > 0).sum() * voxel_ml(case), abs=1e-3)
    tumors = truth["tumors"]
    assert sum(tumor["volume_ml"] for tumor in tumors) == pytest.approx(
        (case.label == 2).sum() * voxel_ml(case), abs=0.01
    )
    for tumor in tumors:
        index = np.rint(apply_affine(np.linalg.inv(case.affine), tumor["center_mm"])).astype(int)
        assert case.label[tuple(index)] == 2
        assert 4 / 3 * np.pi * tumor["radius_mm"] ** 3 / 1000 == pytest.approx(tumor["volume_ml"], rel=0.01)
        assert abs(tumor["contrast_hu"]) > 10
    _, lesions = ndimage.label(case.label == 2)
    assert lesions >= len(tumors)  # tumors never merge


def test_one_phantom_in_eight_has_no_tumor() -> None:
    assert COUNTS[0] == 1 / 8
    assert sum(COUNTS) == pytest.approx(1)


def test_phases_differ_as_contrast_does() -> None:
    liver_hu: dict[str, list[float]] = {}
    for seed in (0, 1, 2, 3, 8, 12):
        case = make_phantom(seed=seed, shape=COARSE)
        inner = ndimage.binary_erosion(case.label == 1)
        liver_hu.setdefault(case.truth["phase"], []).append(float(np.median(case.image[inner])))
    means = [np.mean(liver_hu[phase]) for phase in ("non-contrast", "arterial", "portal-venous")]
    assert 40 < means[0] < means[1] < means[2] < 130


def best_dice(image: NDArray[np.int16], tumor: NDArray[np.bool_], region: NDArray[np.bool_]) -> float:
    """The Dice of the best interval of Hounsfield units within a region, chosen with the truth in hand."""
    edges = np.arange(-200, 400, 4)
    inside = np.concatenate([[0], np.cumsum(np.histogram(image[region & tumor], edges)[0])])
    everywhere = np.concatenate([[0], np.cumsum(np.histogram(image[region], edges)[0])])
    low, high = np.triu_indices(len(edges), 1)
    hit, size = inside[high] - inside[low], everywhere[high] - everywhere[low]
    return float(np.max(2 * hit / (size + tumor.sum())))


def test_no_threshold_finds_the_tumors() -> None:
    ill = [phantom(seed) for seed in SEEDS if phantom(seed).truth["tumors"]]
    anywhere = [best_dice(case.image, case.label == 2, np.ones(SHAPE, dtype=bool)) for case in ill]
    in_liver = [best_dice(case.image, case.label == 2, case.label > 0) for case in ill]
    assert np.mean(anywhere) < 0.35
    assert 0.3 < np.mean(in_liver) < 0.85
    images = np.concatenate([case.image.ravel() for case in ill])
    labels = np.concatenate([case.label.ravel() for case in ill])
    assert best_dice(images, labels == 2, np.ones(labels.shape, dtype=bool)) < 0.2  # one interval for all phases
    assert best_dice(images, labels == 2, labels > 0) < 0.6


def test_noise_is_that_of_a_scanner() -> None:
    first, second = (make_phantom(seed=seed, shape=SHAPE, n_tumors=0) for seed in (0, 3))
    for case in (first, second):
        core = ndimage.binary_erosion(case.label == 1, iterations=2)
        step = np.diff(case.image.astype(float), axis=2)[core[:, :, 1:] & core[:, :, :-1]]
        spread = 1.4826 * np.median(np.abs(step)) / np.sqrt(2)  # vessels are outliers
        assert 6 < spread < 18


def test_smooth_field_has_unit_variance_and_no_grid() -> None:
    field = SmoothField(np.random.default_rng(0), pitch_mm=12)
    axes = tuple(np.linspace(-200, 200, 60, dtype=np.float32) for _ in range(3))
    values = field.on((axes[0], axes[1], axes[2]))
    assert values.dtype == np.float32
    assert float(values.std()) == pytest.approx(1, abs=0.05)
    part = field.on((axes[0][10:20], axes[1][::3], axes[2][40:]))
    np.testing.assert_allclose(part, values[10:20, ::3, 40:], atol=1e-5)


def test_distances_by_hand() -> None:
    x, y, z = (np.array([value], dtype=np.float32) for value in (3.0, 4.0, 0.0))
    assert Ellipsoid((0, 0, 0), (2, 2, 2)).distance(x, y, z)[0] == pytest.approx(3)  # 5 mm away, radius 2
    assert Ellipsoid((3, 0, 0), (1, 6, 1), (0, 0, 0)).distance(x, y, z)[0] == pytest.approx(-2)
    assert Ellipsoid((3, 4, 0), (9, 5, 5), (0, 0, 90)).distance(x + 5, y, z)[0] == pytest.approx(0, abs=1e-5)
    assert Segment((0, 0, 0), (6, 0, 0), (1, 3)).distance(x, y, z)[0] == pytest.approx(2)  # 4 off, radius 2 midway
    assert Segment((0, 4, 0), (0, 9, 0), (1, 1)).distance(x, y, z)[0] == pytest.approx(2)  # beside its start
    np.testing.assert_allclose(coverage(np.array([-5.0, -0.5, 0.0, 0.5, 5.0]), edge_mm=2), [1, 0.75, 0.5, 0.25, 0])
    assert union(np.float32(2), np.float32(2), blend_mm=4) == pytest.approx(1)  # a rounded crease adds blend / 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("shape", (0, 8, 8)),
        ("spacing_mm", (1.0, 0.0, 1.0)),
        ("n_tumors", -2),
        ("orientation", "RLS"),
        ("orientation", "ras"),
    ],
)
def test_bad_argument_is_named(name: str, value: object) -> None:
    arguments = {"seed": 0, "shape": (8, 8, 8), name: value}
    with pytest.raises(ValueError, match=name):
        make_phantom(**arguments)


def test_dataset_has_the_decathlon_layout(tmp_path: Path) -> None:
    listing = write_phantoms(tmp_path / "set", n_cases=2, shape=COARSE, seed=7)
    dataset = json.loads(listing.read_text())
    truths = json.loads((tmp_path / "set" / "phantoms.json").read_text())
    assert dataset["labels"] == {"0": "background", "1": "liver", "2": "tumor"}
    assert dataset["modality"] == {"0": "CT"}
    assert dataset["numTraining"] == len(dataset["training"]) == 2
    assert [truth["seed"] for truth in truths.values()] == [7, 8]
    names = {path.relative_to(listing.parent).as_posix() for path in listing.parent.rglob("*") if path.is_file()}
    listed = {entry[kind].removeprefix("./") for entry in dataset["training"] for kind in ("image", "label")}
    assert names == listed | {"dataset.json", "phantoms.json"}
    for entry, truth in zip(dataset["training"], truths.values(), strict=True):
        expected = make_phantom(seed=truth["seed"], shape=COARSE)
        for kind, voxels in (("image", expected.image), ("label", expected.label)):
            stored = nib.load(listing.parent / entry[kind])
            assert np.array_equal(np.asanyarray(stored.dataobj), voxels)
            assert stored.get_data_dtype() == voxels.dtype
            np.testing.assert_allclose(stored.affine, expected.affine, atol=1e-4)
            assert (int(stored.header["sform_code"]), int(stored.header["qform_code"])) == (1, 1)
            assert stored.header.get_xyzt_units()[0] == "mm"
