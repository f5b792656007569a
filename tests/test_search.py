"""What is found by looking where the liver is, is what all slices would have given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from test_inferer import HU_WINDOW, ORIENTATIONS, EachByItself, Witness, scaling

from liver_monai.data.phantom import make_phantom
from liver_monai.engine.cleaning import clean_mask
from liver_monai.engine.inferer import SlabInferer, batch_of_one
from liver_monai.engine.search import STRIDE, find_range, look_at
from liver_monai.spec import ModelSpec

SHAPE = (60, 50, 200)  # 240 x 200 x 600 mm
NATIVE_MM = (4.0, 4.0, 3.0)
SPEC = ModelSpec(encoder="stand-in", slab_size=3, spacing_mm=(5.0, 5.0, 3.0), hu_window=HU_WINDOW, roi_size=(64, 64))
OF_THREE = replace(SPEC, output_slices=3)
AIR_HU, LIVER_HU, TUMOR_HU = -150, 60, 180


def ct_of(*bodies, affine=None):
    """HU of ellipsoids ``(value, centre, semi-axes)`` in voxels."""
    hu = np.full(SHAPE, AIR_HU, dtype=np.int16)
    grid = np.ogrid[tuple(slice(0, size) for size in SHAPE)]
    for value, centre, radii in bodies:
        squares = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True))
        hu[squares <= 1] = value
    return as_volume(hu, scaling(*NATIVE_MM) if affine is None else affine)


def as_volume(hu, affine):
    affines = {name: torch.from_numpy(affine.copy()) for name in ("affine", "original_affine")}
    return MetaTensor(torch.from_numpy(hu)[None], meta=affines)


def segmented(volume, search, *, spec=SPEC, **options):
    """Cleaned mask, where was looked, and how many slabs the network saw."""
    witness = Witness(EachByItself(spec.slab_size, output_slices=spec.output_slices))
    with torch.inference_mode():
        mask = SlabInferer(spec, search=search, **options)(batch_of_one(volume), witness)[0]
    return clean_mask(mask[0].numpy(), voxel_mm3=1.0), mask.meta["searched"], len(witness.centres)


def assert_nothing_is_lost(volume, *, spec=SPEC):
    expected, _, of_all = segmented(volume, "whole", spec=spec)
    mask, searched, seen = segmented(volume, "liver", spec=spec)
    np.testing.assert_array_equal(mask, expected)
    return mask, searched, seen / of_all


LIVER = (LIVER_HU, (25, 25, 110), (18, 16, 30))
TUMOR = (TUMOR_HU, (25, 25, 120), (6, 6, 8))
SPLEEN = (LIVER_HU, (50, 40, 30), (8, 8, 12))
TAIL = [(LIVER_HU, (4 + abs((3 * z + 30) % 100 - 50), 25, 134 + z), (3, 4, 1.2)) for z in range(60)]
"""It moves aside so fast that every fourth slice of it is a component of its own."""

SCENES = {
    "liver and tumour": [LIVER, TUMOR],
    "touching the first slice": [(LIVER_HU, (25, 25, 8), (18, 16, 30))],
    "touching the last slice": [(LIVER_HU, (25, 25, 190), (18, 16, 30))],
    "as high as the CT": [(LIVER_HU, (25, 25, 100), (18, 16, 150))],
    "a spleen far below": [LIVER, SPLEEN],
    "a second, smaller liver": [LIVER, (LIVER_HU, (25, 25, 30), (15, 13, 25))],
    "two halves and a neck": [LIVER, (LIVER_HU, (25, 25, 40), (12, 12, 20)), (LIVER_HU, (25, 25, 70), (2, 2, 40))],
    "a lobe that hangs down beside": [
        LIVER,
        (LIVER_HU, (45, 25, 100), (8, 3, 3)),
        (LIVER_HU, (52, 25, 70), (4, 8, 35)),
    ],
    "a tumour at the tip": [LIVER, (TUMOR_HU, (25, 25, 142), (4, 4, 6))],
    "thinner than a step in z": [LIVER, (LIVER_HU, (45, 40, 50), (9, 9, 1))],
}


@pytest.mark.parametrize("spec", [SPEC, OF_THREE], ids=["a slice a pass", "three"])
@pytest.mark.parametrize("scene", SCENES)
def test_nothing_of_the_liver_is_lost(scene, spec):
    mask, searched, _ = assert_nothing_is_lost(ct_of(*SCENES[scene]), spec=spec)

    assert mask.any()
    assert searched.startswith("slices ")


def test_most_of_a_long_ct_is_not_looked_at_closely():
    _, searched, share = assert_nothing_is_lost(ct_of(LIVER, TUMOR))

    first, last = (int(number) for number in searched.split()[1].split("-"))
    assert 69 <= first <= 80
    assert 141 <= last <= 151
    assert searched.endswith("of 200")
    assert share < 0.45


def test_three_slices_a_pass_save_most_of_the_passes():
    _, _, passes = segmented(ct_of(LIVER, TUMOR), "liver", spec=OF_THREE)
    _, _, of_one = segmented(ct_of(LIVER, TUMOR), "liver")

    assert passes < 0.5 * of_one


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_phantom_is_found_however_it_is_stored(orientation):
    phantom = make_phantom(seed=3, shape=(40, 36, 90), orientation=orientation)
    spec = ModelSpec(encoder="stand-in", slab_size=3, spacing_mm=(6, 6, 3), hu_window=HU_WINDOW, roi_size=(64, 64))

    assert_nothing_is_lost(as_volume(phantom.image, phantom.affine), spec=spec)


BODIES = st.tuples(
    st.sampled_from([LIVER_HU, TUMOR_HU]),
    st.tuples(st.integers(0, 59), st.integers(0, 49), st.integers(0, 199)),
    st.tuples(st.integers(3, 25), st.integers(3, 20), st.integers(7, 60)),  # of 3 mm; flatter is no liver
)


@settings(max_examples=25)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=5),
    upside_down=st.booleans(),
    spec=st.sampled_from([SPEC, OF_THREE]),
)
def test_whatever_shapes_there_are_the_largest_is_found(bodies, upside_down, spec):
    affine = scaling(*NATIVE_MM) @ np.diag([1, -1, -1 if upside_down else 1, 1])

    assert_nothing_is_lost(ct_of(*bodies, affine=affine), spec=spec)


def test_a_close_look_takes_the_slices_of_the_first_along():
    for step in range(2, 9):
        assert set(look_at(range(100), STRIDE * step)) <= set(look_at(range(100), step))
        assert list(look_at(range(37, 60), step)) == [z for z in look_at(range(100), step) if 37 <= z < 60]


# Where the search gives up


@pytest.mark.parametrize(
    ("bodies", "reason"),
    [([], "less than 100 mL"), ([(LIVER_HU, (25, 25, 100), (5, 5, 5))], "less than 100 mL")],
    ids=["nothing", "next to nothing"],
)
def test_without_a_liver_all_slices_are_looked_at(bodies, reason):
    _, searched, _ = assert_nothing_is_lost(ct_of(*bodies))

    assert searched.startswith("all slices: ")
    assert reason in searched


def test_a_tail_that_is_not_seen_at_first_is_followed_and_then_given_up():
    mask, searched, _ = assert_nothing_is_lost(ct_of(LIVER, *TAIL))

    assert mask[:, :, 185].any()
    assert searched == "all slices: the liver found does not end"


def test_few_slices_are_looked_at_all():
    hu = np.full((30, 30, 12), LIVER_HU, dtype=np.int16)

    _, searched, share = assert_nothing_is_lost(as_volume(hu, scaling(*NATIVE_MM)))

    assert searched == "all slices: too few to leave some out"
    assert share == 1


def test_the_range_reaches_to_the_next_looks():
    looks = look_at(range(100), 4)
    is_liver = np.zeros((len(looks), 8, 8), dtype=bool)
    is_liver[5:8, 2:6, 2:6] = True

    assert looks[5] == 22
    assert find_range(is_liver, looks, voxel_ml=10.0) == range(18, 35)
    assert find_range(is_liver, looks, voxel_ml=0.1) is None


# The batch, and real scans


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_size_changes_nothing(batch):
    volume = ct_of(LIVER, TUMOR, SPLEEN)
    expected, searched, seen = segmented(volume, "liver", sw_batch_size=4)

    mask, where, count = segmented(volume, "liver", sw_batch_size=batch)

    np.testing.assert_array_equal(mask, expected)
    assert (where, count) == (searched, seen)


def test_a_search_of_another_name_is_refused():
    with pytest.raises(ValueError, match="'liver' or 'whole'"):
        SlabInferer(SPEC, search="tumor")
