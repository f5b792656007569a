"""Overlap on masks drawn by hand, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import DiceMetric, MeanIoU

from liver_monai.scoring.overlap import count_table, dice, iou, pixel_accuracy, score

MASKS = arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2))


def test_by_hand():
    reference = np.array([[[0, 1, 1, 1, 2, 2]]], dtype=np.uint8)
    prediction = np.array([[[0, 0, 1, 2, 2, 2]]], dtype=np.uint8)

    table = count_table(prediction, reference)

    assert table.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 2]]
    assert dice(table, "liver") == pytest.approx(2 * 4 / (4 + 5))  # the tumour is part of the liver
    assert iou(table, "liver") == pytest.approx(4 / 5)
    assert dice(table, "tumor") == pytest.approx(2 * 2 / (3 + 2))
    assert iou(table, "tumor") == pytest.approx(2 / 3)
    assert pixel_accuracy(table) == pytest.approx(4 / 6)


def test_empty_masks():
    empty, full = np.zeros((2, 2, 2), dtype=np.uint8), np.full((2, 2, 2), 2, dtype=np.uint8)

    both, missing, spurious = count_table(empty, empty), count_table(empty, full), count_table(full, empty)

    assert [dice(table, "tumor") for table in (both, missing, spurious)] == [1, 0, 0]


def test_volumes_come_in_millilitres():
    mask = np.ones((10, 10, 10), dtype=np.uint8)

    scores = score(mask, mask, spacing_mm=(2, 1, 5))

    assert scores["liver_reference_ml"] == pytest.approx(10)
    assert scores["tumor_prediction_ml"] == 0


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(2, 2, 3\)"):
        count_table(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8))


@given(prediction=MASKS, reference=MASKS)
def test_adding_tables_is_pooling_voxels(prediction, reference):
    halves = [count_table(prediction[part], reference[part]) for part in (slice(0, 1), slice(1, 3))]

    np.testing.assert_array_equal(sum(halves), count_table(prediction, reference))


@given(prediction=MASKS, reference=MASKS)
def test_agreement_with_monai(prediction, reference):
    table = count_table(prediction, reference)
    for structure, threshold in (("liver", 1), ("tumor", 2)):
        masks = [torch.from_numpy(mask >= threshold)[None, None].float() for mask in (prediction, reference)]
        if not masks[1].any():
            continue  # MONAI leaves empty references to a policy of its own
        assert dice(table, structure) == pytest.approx(DiceMetric()(*masks).item(), abs=1e-6)
        assert iou(table, structure) == pytest.approx(MeanIoU()(*masks).item(), abs=1e-6)
