"""Lesions on rows of voxels, worked out by hand; the faults of the public LiTS scorer."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from liver_monai.scoring import lits_2017
from liver_monai.scoring.lesions import (
    Detection,
    LesionMaps,
    components,
    correspond,
    detect,
    equivalent_diameter_mm,
    size_bin,
)
from liver_monai.scoring.measures import measure

SMALL = arrays(np.bool_, (3, 4, 6))


def maps_of(prediction, reference, spacing_mm=(1, 1, 1)):
    """Maps of two rows of voxels such as ``"##.#"``."""
    rows = [np.array([letter == "#" for letter in text]).reshape(-1, 1, 1) for text in (prediction, reference)]
    return LesionMaps(*rows, spacing_mm=spacing_mm)


def counts(detection):
    return detection.tp, detection.fp, detection.fn


FAULTS = {
    # what: (prediction, reference, (TP, FP, FN) as meant, the same from the public scorer), all at IoU > 0.5
    "five times too large": ("#####", "..#..", (0, 1, 1), (0, 1, 1)),
    "and an unrelated one numbered first": ("#.#####", "....#..", (0, 2, 1), (1, 1, 0)),
    "one over two, poor IoU": ("#########", "#.......#", (0, 1, 2), (-1, 2, 3)),
    "one over two, merged IoU 0.92": ("############", "######.#####", (2, 0, 0), (1, 0, 1)),
    "one split in two": ("####.###", "########", (1, 0, 0), (1, 1, 0)),
    "no reference lesion": ("#.#..#", "......", (0, 3, 0), (0, 3, 0)),
}


@pytest.mark.parametrize("what", FAULTS)
def test_faults_of_the_public_scorer(what):
    prediction, reference, meant, said = FAULTS[what]
    table = maps_of(prediction, reference).table

    assert counts(detect(table, 0.5)) == meant
    assert counts(lits_2017.detect(table, 0.5)) == said


def test_the_faulty_scorer_measures_what_it_kept():
    maps = maps_of("#.#####", "....#..")  # the fault: kept, although its IoU is 0.2
    (match,) = lits_2017.detect(maps.table, 0.5).matches
    assert measure(maps.pair(match), ["iou"])["iou"] == pytest.approx(1 / 5)
    assert lits_2017.detect(maps_of("#########", "#.......#").table, 0.5).matches == ()


def test_correspondence_by_hand():
    maps = maps_of("####.##.####..#", "##.#..##.####.#")

    first, second, third, last = correspond(maps.table)

    assert (first.predictions, first.references, first.iou) == ((0,), (0, 1), pytest.approx(3 / 4))
    assert (second.predictions, second.references, second.iou) == ((1,), (2,), pytest.approx(1 / 3))
    assert (third.predictions, third.references, third.iou) == ((2,), (3,), pytest.approx(3 / 5))
    assert (last.predictions, last.references, last.iou) == ((3,), (4,), 1)
    assert counts(detect(maps.table, 0)) == (5, 0, 0)
    assert counts(detect(maps.table, 0.5)) == (4, 1, 1)


def test_a_prediction_goes_where_it_shares_most():
    """It covers the first reference best, but shares 8 voxels with the second, which another prediction covers best."""
    maps = maps_of("##############.##########", "#####.###################")

    (match,) = correspond(maps.table)

    assert (match.predictions, match.references, match.iou) == ((0, 1), (1,), pytest.approx(18 / 25))
    assert counts(detect(maps.table, 0.5)) == (1, 0, 1)


def test_a_merged_pair_is_cut_out_of_the_maps():
    maps = maps_of("..##.##...#", "..#####....")
    (match,) = detect(maps.table, 0.5).matches
    pair = maps.pair(match)
    assert pair.prediction.ravel().tolist() == [True, True, False, True, True]
    assert measure(pair, ["dice", "rvd"]) == {"dice": pytest.approx(8 / 9), "rvd": pytest.approx(1 / 4)}


@pytest.mark.parametrize(("prediction", "reference", "expected"), [
    ("....", "....", (0, 0, 0)),
    ("....", "#.#.", (0, 0, 2)),
    ("#.#.", "....", (0, 2, 0)),
])  # fmt: skip
def test_empty_masks(prediction, reference, expected):
    table = maps_of(prediction, reference).table
    assert counts(detect(table, 0)) == counts(lits_2017.detect(table, 0)) == expected


def test_precision_recall_and_f1_by_hand():
    some = Detection(tp=2, fp=1, fn=4)
    assert (some.precision, some.recall, some.f1) == (pytest.approx(2 / 3), pytest.approx(2 / 6), pytest.approx(4 / 9))
    spurious, missed, nothing = Detection(tp=0, fp=2, fn=0), Detection(tp=0, fp=0, fn=2), Detection(tp=0, fp=0, fn=0)
    assert (spurious.precision, spurious.f1, missed.recall, missed.f1, nothing.f1) == (0, 0, 0, 0, 1)
    assert all(isnan(each) for each in (spurious.recall, missed.precision, nothing.recall, nothing.precision))


def test_more_lesions_than_small_numbers_can_count():
    """Half of a chessboard of single voxels, more than an int16 holds; they are numbered as few are."""
    mask = np.zeros((66, 66, 66), dtype=bool)
    mask[::2, ::2, ::2] = True
    table = LesionMaps(mask, mask, spacing_mm=(1, 1, 1)).table
    assert len(table.reference_voxels) == 33**3 > np.iinfo(np.int16).max
    assert counts(detect(table, 0.5)) == (33**3, 0, 0)


def test_lesions_touch_by_faces():
    assert components(np.eye(3, dtype=bool)[None])[1] == 3
    assert components(np.array([[[1, 1, 0], [0, 1, 1]]], dtype=bool))[1] == 1


def test_sizes_by_hand():
    assert equivalent_diameter_mm(np.pi / 6) == pytest.approx(10)  # a sphere of 10 mm holds pi/6 mL
    assert [size_bin(each) for each in (9.99, 10, 20, 20.01)] == ["<10 mm", "10-20 mm", "10-20 mm", ">20 mm"]
    assert maps_of("#", "#", spacing_mm=(2, 3, 5)).volume_ml(10) == pytest.approx(0.3)


@given(prediction=SMALL, reference=SMALL, min_iou=st.sampled_from([0.0, 0.5]))
def test_laws_of_detection(prediction, reference, min_iou):
    maps = LesionMaps(prediction, reference, spacing_mm=(1, 1, 1))
    detection = detect(maps.table, min_iou)

    assert detection.tp + detection.fn == components(reference)[1]
    assert min(counts(detection)) >= 0
    for match in detection.matches:
        assert measure(maps.pair(match), ["iou"])["iou"] == pytest.approx(match.iou)
        assert match.iou > min_iou
    assert detection.tp <= detect(maps.table, 0).tp


@given(prediction=SMALL, reference=SMALL, axes=st.permutations(range(3)), flips=st.sets(st.integers(0, 2)))
def test_the_numbers_of_lesions_do_not_matter(prediction, reference, axes, flips):
    """Turned and mirrored masks number their lesions otherwise; ties, which the first lesion wins, are left out."""
    maps = LesionMaps(prediction, reference, spacing_mm=(1, 1, 1))
    shared = list(maps.table.shared.values())
    if len(set(shared)) < len(shared):
        return
    turned = [np.flip(mask.transpose(axes), tuple(flips)) for mask in (prediction, reference)]
    assert counts(detect(LesionMaps(*turned, spacing_mm=(1, 1, 1)).table, 0)) == counts(detect(maps.table, 0))


@given(mask=SMALL, min_iou=st.sampled_from([0.0, 0.5]))
def test_a_perfect_prediction_finds_everything(mask, min_iou):
    table = LesionMaps(mask, mask, spacing_mm=(1, 1, 1)).table
    assert counts(detect(table, min_iou)) == (components(mask)[1], 0, 0)
