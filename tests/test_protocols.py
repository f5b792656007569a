"""Whole cases by each protocol, worked out by hand, with both kinds of empty masks; measures declare their range."""

from __future__ import annotations

from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from liver_monai.scoring.crop import foreground_box
from liver_monai.scoring.lits_2017 import UNDEFINED
from liver_monai.scoring.measures import MEASURES, MaskPair, measure
from liver_monai.scoring.protocols import PROTOCOLS, SEGMENTATION, score_case, summarize

LABELS = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def row_of(*labels):
    return np.array(labels, dtype=np.uint8).reshape(-1, 1, 1)


def score(prediction, reference, **options):
    """Score two rows of voxels of 2 x 5 x 10 mm, 0.1 mL."""
    return score_case(row_of(*prediction), row_of(*reference), spacing_mm=(2, 5, 10), **options)


BY_HAND = {
    "dice": 2 * 2 / 5,
    "iou": 2 / 3,
    "voe": 1 / 3,
    "rvd": (3 - 2) / 2,
    "abs_rvd": 1 / 2,
    "assd_mm": 2 / 5,
    "rmsd_mm": np.sqrt(4 / 5),
    "msd_mm": 2,
    "hd95_mm": 1.8,
    "nsd": 1.0,
}


def test_every_measure_by_hand():
    values = score([0, 1, 2, 0], [0, 1, 1, 1]).values["liver"]
    assert values == {name: pytest.approx(value) for name, value in BY_HAND.items()}
    assert score([0, 1, 2, 0], [0, 1, 1, 1], tolerance_mm=1.9).values["liver"]["nsd"] == pytest.approx(4 / 5)
    too_large = score([1, 1, 1, 0], [0, 1, 1, 0]).values["liver"]
    assert (too_large["rvd"], too_large["abs_rvd"]) == (pytest.approx(-1 / 3), pytest.approx(1 / 3))


EMPTY = {  # both empty, one empty
    "dice": (1, 0),
    "iou": (1, 0),
    "voe": (0, 1),
    "rvd": (nan, nan),
    "abs_rvd": (nan, nan),
    "assd_mm": (nan, nan),
    "rmsd_mm": (nan, nan),
    "msd_mm": (nan, nan),
    "hd95_mm": (nan, nan),
    "nsd": (1, 0),
}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_of_empty_masks(name):
    empty, full = np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool)
    found = [
        measure(MaskPair(prediction=p, reference=r, spacing_mm=(1, 1, 1)), [name])[name]
        for p, r in ((empty, empty), (empty, full), (full, empty))
    ]
    assert found == pytest.approx([EMPTY[name][0], EMPTY[name][1], EMPTY[name][1]], nan_ok=True)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_says_what_it_is(name):
    each = MEASURES[name]
    same = np.ones((2, 2, 2), bool)
    assert measure(MaskPair(prediction=same, reference=same, spacing_mm=(1, 1, 1)), [name])[name] == each.best
    assert each.worst in (0, 1, inf)
    assert name.endswith("_mm") == (each.unit == "mm")


def test_lits_by_hand():
    """One case with a lesion found, one that it misses and one that is not there; one without any tumour or liver."""
    first = score([0, 1, 2, 2, 2, 1, 0, 1, 1, 2], [0, 1, 2, 2, 1, 1, 2, 1, 1, 1])
    summary = summarize([first, score([0, 0], [0, 0]), score([1, 2], [0, 0]), score([0, 0], [1, 2])])

    assert summary["n"] == 4
    assert summary["tumor"] == {
        "dice_per_case": pytest.approx((4 / 7 + 1 + 0 + 0) / 4),
        "dice_global": pytest.approx(4 / 9),
        "iou_per_case": pytest.approx((2 / 5 + 1 + 0 + 0) / 4),
        "iou_global": pytest.approx(2 / 7),
        "n_missing": 1,
        "n_spurious": 1,
        "n_both_empty": 1,
        "n_measured": 1,
    }
    assert summary["liver"]["assd_mm"] == first.values["liver"]["assd_mm"]  # of the one case that has one
    assert summary["liver"]["n_measured"] == 1
    for threshold in ("overlap", "iou_50"):
        assert summary["lesion_detection"][threshold] == {
            "n_references": 3, "tp": 1, "fp": 2, "fn": 2,
            "precision": pytest.approx(1 / 3), "recall": pytest.approx(1 / 3), "f1": pytest.approx(1 / 3),
        }  # fmt: skip
    assert summary["lesion_segmentation"]["n_objects"] == 1
    assert summary["lesion_segmentation"]["dice"] == pytest.approx(4 / 5)
    assert summary["lesion_segmentation"]["msd_mm"] == pytest.approx(2)
    assert summary["lesion_detection_by_size"]["<10 mm"] == {
        "n_references": 3,
        "recall_overlap": pytest.approx(1 / 3),
        "recall_iou_50": pytest.approx(1 / 3),
        "n_false_positives": 2,
    }
    assert summary["lesion_detection_by_size"][">20 mm"]["recall_iou_50"] is None
    difference = abs(3 / 9 - 4 / 8)
    assert first.burden == (pytest.approx(4 / 8), pytest.approx(3 / 9))
    assert summary["tumor_burden"] == {
        "rmse": pytest.approx(difference),
        "max": pytest.approx(difference),
        "n_undefined": 3,
    }


def test_lesions_have_a_row_each():
    rows = score([0, 1, 2, 2, 2, 1, 0, 1, 1, 2], [0, 1, 2, 2, 1, 1, 2, 1, 1, 1]).lesions
    assert [(row["mask"], row["lesion"]) for row in rows] == [("reference", 1), ("reference", 2), ("prediction", 2)]
    assert [row.get("detected_iou_50") for row in rows] == [True, False, None]
    assert [row.get("dice") for row in rows] == [pytest.approx(4 / 5), None, None]
    assert [row["volume_ml"] for row in rows] == pytest.approx([0.2, 0.1, 0.1])
    assert rows[0]["n_merged"] == 1


def test_lits_2017_says_9001_and_the_signed_maximum():
    no_liver_label = score([0, 2, 0], [1, 2, 0], protocol="lits-2017")
    assert no_liver_label.values["liver"]["dice"] == 0
    assert no_liver_label.values["liver"]["assd_mm"] == no_liver_label.values["liver"]["rvd"] == UNDEFINED
    assert summarize([no_liver_label], protocol="lits-2017")["tumor_burden"]["rmse"] == pytest.approx(UNDEFINED - 1 / 2)

    too_much = score([1, 2, 2, 2], [1, 1, 1, 2], protocol="lits-2017")
    assert summarize([too_much], protocol="lits-2017")["tumor_burden"]["max"] == pytest.approx(1 / 4 - 3 / 4)
    assert summarize([too_much])["tumor_burden"]["max"] == pytest.approx(1 / 2)

    nothing_found = summarize([too_much], protocol="lits-2017")["lesion_segmentation"]
    assert [nothing_found[name] for name in ("dice", "voe", "rvd", "msd_mm")] == [0, 1, UNDEFINED, UNDEFINED]
    assert summarize([too_much])["lesion_segmentation"]["msd_mm"] is None


def test_msd_takes_the_classes_apart_and_drops_what_is_empty_in_both():
    one = score([1, 2, 1, 0], [1, 1, 1, 0], protocol="msd")
    assert one.values["liver"]["dice"] == pytest.approx(4 / 5)  # the tumour is no liver here
    assert one.values["tumor"]["dice"] == 0
    other = score([1, 0], [1, 0], protocol="msd")
    assert isnan(other.values["tumor"]["dice"])
    summary = summarize([one, other], protocol="msd")
    assert summary["tumor"]["dice_per_case"] == 0
    assert (summary["tumor"]["n_both_empty"], summary["tumor"]["n_spurious"]) == (1, 1)
    assert summary["liver"]["dice_per_case"] == pytest.approx((4 / 5 + 1) / 2)


def test_seed_by_hand():
    """Slices along the last axis: 1 voxel of 4 wrong; all liver, so not counted; all right; no liver, not counted."""
    reference = np.array([[0, 0, 1, 2], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]], dtype=np.uint8).T[None]
    prediction = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2], [1, 1, 1, 1]], dtype=np.uint8).T[None]

    scored = score_case(prediction, reference, spacing_mm=(1, 1, 1), protocol="seed")
    summary = summarize([scored], protocol="seed")["slices"]

    assert scored.slices.tolist() == [[0.75, pytest.approx((2 / 3 + 1 / 2) / 2)], [1, 1]]
    assert summary == {
        "n_slices": 2,
        "loss": None,
        "pixel_accuracy": pytest.approx(7 / 8),
        "iou": pytest.approx((7 / 12 + 1) / 2),
    }
    turned = [np.moveaxis(mask, 2, 0) for mask in (prediction, reference)]
    again = score_case(*turned, spacing_mm=(1, 1, 1), protocol="seed", slice_axis=0)
    np.testing.assert_array_equal(again.slices, scored.slices)


@given(prediction=LABELS, reference=LABELS)
def test_the_box_holds_everything_and_is_tight(prediction, reference):
    box = foreground_box(prediction, reference)
    either = (prediction > 0) | (reference > 0)
    assert either[box].sum() == either.sum()
    inside = either[box]
    for axis in range(3):
        planes = np.moveaxis(inside, axis, 0)
        assert not either.any() or (planes[0].any() and planes[-1].any())


@given(prediction=LABELS, reference=LABELS, order=st.sampled_from(["C", "F"]), margin=st.integers(0, 2))
def test_neither_memory_nor_background_changes_a_score(prediction, reference, order, margin):
    spacing_mm = (0.7, 0.8, 2.5)
    plain = score_case(prediction, reference, spacing_mm=spacing_mm)
    padded = [np.asarray(np.pad(mask, margin), order=order) for mask in (prediction, reference)]
    before = [mask.copy() for mask in padded]
    again = score_case(*padded, spacing_mm=spacing_mm)

    assert summarize([again])["liver"] == pytest.approx(summarize([plain])["liver"])
    detections = [summarize([each])["lesion_detection"]["overlap"] for each in (plain, again)]
    assert detections[0] == detections[1]
    for mask, copy in zip(padded, before, strict=True):
        np.testing.assert_array_equal(mask, copy)


@given(mask=LABELS, protocol=st.sampled_from([name for name in PROTOCOLS if name != "seed"]))
def test_a_perfect_mask_has_the_best_scores(mask, protocol):
    scored = score_case(mask, mask, spacing_mm=(1, 1, 1), protocol=protocol)
    for values in scored.values.values():
        for name, value in values.items():
            assert value == MEASURES[name].best or isnan(value) or protocol == "lits-2017"
    for values in scored.objects:
        assert {name: values[name] for name in SEGMENTATION} == {name: MEASURES[name].best for name in SEGMENTATION}


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="labels are 0, 1 and 2"):
        score([5, 0], [1, 0])
    with pytest.raises(ValueError, match=r"\(2, 1, 1\).*\(3, 1, 1\)"):
        score([1, 0], [1, 0, 0])
