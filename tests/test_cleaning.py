"""Cleaned masks: drawn ones with results one can see, laws, and agreement with SimpleITK."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from liver_monai.engine.cleaning import clean_mask

MASKS = arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 2))
NOTHING = {"largest_component": False, "fill_holes": False}


def drawn(text):
    """``"0110 0120"`` -> ``(2, 4, 1)``: a slice, a word each row."""
    return np.array([[int(value) for value in row] for row in text.split()], dtype=np.uint8)[:, :, None]


def clean(mask, **rules):
    return clean_mask(mask, voxel_mm3=1.0, **rules)


@pytest.mark.parametrize(
    ("before", "after", "rules"),
    [
        ("1100001 1100000", "1100000 1100000", {**NOTHING, "largest_component": True}),
        ("1100022 1100000", "1100000 1100000", {**NOTHING, "largest_component": True}),
        ("1122000 1100000", "1122000 1100000", {**NOTHING, "largest_component": True}),
        ("1110 0001", "1110 0000", {**NOTHING, "largest_component": True}),
        ("0000 0000", "0000 0000", {}),
        ("2200 0000", "2200 0000", {}),
    ],
    ids=["far liver", "far tumour", "tumour at the rim", "touching by an edge only", "nothing", "tumour alone"],
)
def test_one_liver_with_its_tumours_stays(before, after, rules):
    np.testing.assert_array_equal(clean(drawn(before), **rules), drawn(after))


def ball(value, *, radius, size=15):
    x, y, z = np.ogrid[:size, :size, :size]
    centre = size // 2
    return np.where((x - centre) ** 2 + (y - centre) ** 2 + (z - centre) ** 2 <= radius**2, value, 0).astype(np.uint8)


def test_a_hole_in_the_liver_is_liver_and_one_in_a_tumor_is_tumor():
    hole = ball(1, radius=2) > 0
    liver = ball(1, radius=6)
    np.testing.assert_array_equal(clean(np.where(hole, 0, liver)), liver)
    tumor = np.maximum(liver, ball(2, radius=4))
    np.testing.assert_array_equal(clean(np.where(hole, 0, tumor)), tumor)


def test_liver_that_a_tumor_encloses_stays_liver():
    mask = np.where(ball(1, radius=2) > 0, 1, np.maximum(ball(1, radius=6), ball(2, radius=4))).astype(np.uint8)
    np.testing.assert_array_equal(clean(mask), mask)


def test_a_bay_is_no_hole():
    mask = ball(1, radius=6)
    mask[7, 7, 7:] = 0
    np.testing.assert_array_equal(clean(mask), mask)


def test_tumors_below_the_minimum_become_liver():
    mask = np.ones((9, 5, 3), dtype=np.uint8)
    mask[1, 1:3, 1], mask[4, 1:4, 1] = 2, 2  # two and three voxels of 4 mm3
    expected = mask.copy()
    expected[1, 1:3, 1] = 1
    np.testing.assert_array_equal(clean_mask(mask, voxel_mm3=4.0, min_lesion_mm3=12.0), expected)
    np.testing.assert_array_equal(clean_mask(mask, voxel_mm3=4.0, min_lesion_mm3=8.0), mask)


@given(MASKS)
def test_nothing_asked_nothing_done(mask):
    np.testing.assert_array_equal(clean(mask, **NOTHING), mask)


@given(MASKS, st.integers(0, 5))
def test_cleaning_twice_is_cleaning_once_and_leaves_its_input_alone(mask, minimum):
    before = mask.copy()
    once = clean(mask, min_lesion_mm3=minimum)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(clean(once, min_lesion_mm3=minimum), once)


@given(MASKS)
def test_components_and_holes_are_those_of_simpleitk(mask):
    foreground = SimpleITK.GetImageFromArray((mask > 0).astype(np.uint8))
    ordered = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(foreground, False))
    sizes = np.bincount(SimpleITK.GetArrayFromImage(ordered).ravel(), minlength=3)[1:]
    kept = clean(mask, largest_component=True, fill_holes=False)
    assert (kept > 0).sum() == sizes[0]
    filled = clean(mask, largest_component=False, fill_holes=True)
    by_simpleitk = SimpleITK.GetArrayFromImage(SimpleITK.BinaryFillhole(foreground, fullyConnected=False))
    np.testing.assert_array_equal(filled > 0, by_simpleitk > 0)


@given(MASKS, st.permutations(range(3)), st.sets(st.sampled_from(range(3))))
def test_holes_do_not_depend_on_how_the_mask_is_stored(mask, axes, flipped):
    def stored(array):
        return np.flip(array.transpose(axes), axis=tuple(flipped))

    rules = {"largest_component": False, "min_lesion_mm3": 3.0}
    np.testing.assert_array_equal(clean(stored(mask), **rules), stored(clean(mask, **rules)))
