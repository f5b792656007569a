"""Evaluation of masks drawn by hand: scores, counts, and what is wrong with a pair that has none."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ignite.engine import Engine

from liver_monai.data.cases import Case
from liver_monai.engine.evaluation import evaluate, lesion_rows, score_row, summarize, write_scores
from liver_monai.engine.metrics import CaseDice, CaseDiceHandler
from liver_monai.io.tables import write_rows
from liver_monai.io.volumes import AFFINE_TOLERANCE_MM, read_mask
from liver_monai.processes import Processes
from liver_monai.scoring.protocols import score_case

AFFINE = np.array([[-2.0, 0, 0, 90], [0, -2.5, 0, 80], [0, 0, 4, -30], [0, 0, 0, 1]])
"""Voxels of 2 x 2.5 x 4 mm, 0.02 millilitres."""


def write(path, mask, affine=AFFINE):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(mask, dtype=np.uint8), affine), path)
    return path


def row_of(*labels):
    """A mask of one row of voxels."""
    return np.array(labels, dtype=np.uint8).reshape(-1, 1, 1)


def pair(folder, case_id, prediction, reference, *, affine=AFFINE):
    """A case with its reference and, unless it is ``None``, its prediction, both written to files."""
    label = write(folder / "references" / f"{case_id}.nii.gz", reference)
    predictions = {}
    if prediction is not None:
        predictions[case_id] = write(folder / "predictions" / f"{case_id}.nii.gz", prediction, affine)
    return Case(case_id=case_id, image=label, label=label), predictions


def scores_of(folder, pairs):
    """Scores of ``{case_id: (prediction, reference)}``."""
    cases, predictions = [], {}
    for case_id, (prediction, reference) in pairs.items():
        case, found = pair(folder, case_id, prediction, reference)
        cases.append(case)
        predictions.update(found)
    return list(evaluate(predictions, cases))


BY_HAND = {
    # liver 4 of 4 and 5 voxels, tumor 2 of 3 and 2
    "a": (row_of(0, 0, 1, 2, 2, 2), row_of(0, 1, 1, 1, 2, 2)),
    # liver 2 of 2 and 2, a tumor that is not there
    "b": (row_of(1, 2, 0, 0), row_of(1, 1, 0, 0)),
    # liver 1 of 1 and 3, its tumor missing
    "c": (row_of(1, 0, 0, 0), row_of(1, 2, 2, 0)),
    # nothing, and nothing found
    "d": (row_of(0, 0), row_of(0, 0)),
}


def assert_holds(found, expected):
    assert {name: found[name] for name in expected} == expected


def test_a_case_by_hand(tmp_path):
    (score,) = scores_of(tmp_path, {"a": BY_HAND["a"]})

    row = score_row(score)

    assert score.result.table.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 2]]
    expected = {
        "case_id": "a",
        "liver_dice": pytest.approx(8 / 9),
        "liver_iou": pytest.approx(4 / 5),
        "liver_reference_ml": pytest.approx(5 * 0.02),
        "liver_prediction_ml": pytest.approx(4 * 0.02),
        "liver_msd_mm": pytest.approx(2),
        "liver_assd_mm": pytest.approx(2 / 9),
        "tumor_dice": pytest.approx(4 / 5),
        "tumor_iou": pytest.approx(2 / 3),
        "tumor_reference_ml": pytest.approx(2 * 0.02),
        "tumor_prediction_ml": pytest.approx(3 * 0.02),
        "tumor_missing": 0,
        "tumor_spurious": 0,
        "lesions_iou_50_tp": 1,
        "lesions_iou_50_fp": 0,
        "lesions_iou_50_fn": 0,
        "lesions_iou_50_recall": 1,
        "lesions_iou_50_precision": 1,
        "lesions_iou_50_f1": 1,
        "prediction_burden": pytest.approx(3 / 4),
        "reference_burden": pytest.approx(2 / 5),
        "pixel_accuracy": pytest.approx(4 / 6),
        "error": "",
    }
    assert {name: row[name] for name in expected} == expected


def test_a_summary_by_hand(tmp_path):
    summary = summarize(scores_of(tmp_path, BY_HAND))

    assert (summary["n"], summary["n_failed"]) == (4, 0)
    assert_holds(summary["liver"], {
        "dice_per_case": pytest.approx((8 / 9 + 1 + 2 / 4 + 1) / 4),
        "dice_global": pytest.approx(2 * (4 + 2 + 1) / ((4 + 2 + 1) + (5 + 2 + 3))),
        "iou_per_case": pytest.approx((4 / 5 + 1 + 1 / 3 + 1) / 4),
        "iou_global": pytest.approx((4 + 2 + 1) / (5 + 2 + 3)),
        "n_missing": 0,
        "n_spurious": 0,
        "n_both_empty": 1,
        "n_measured": 3,
    })  # fmt: skip
    assert_holds(summary["tumor"], {
        "dice_per_case": pytest.approx((4 / 5 + 0 + 0 + 1) / 4),
        "dice_global": pytest.approx(2 * 2 / ((3 + 1 + 0) + (2 + 0 + 2))),
        "iou_per_case": pytest.approx((2 / 3 + 0 + 0 + 1) / 4),
        "iou_global": pytest.approx(2 / (3 + 1 + 2)),
        "n_missing": 1,
        "n_spurious": 1,
        "n_both_empty": 1,
        "n_measured": 1,
    })  # fmt: skip
    assert summary["pixel_accuracy"] == {
        "per_case": pytest.approx((4 / 6 + 3 / 4 + 2 / 4 + 1) / 4),
        "global": pytest.approx((4 + 3 + 2 + 2) / 16),
    }


MASKS = arrays(np.uint8, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 2))


@settings(max_examples=20)
@given(mask=MASKS)
def test_a_perfect_prediction_has_the_best_scores(tmp_path_factory, mask):
    summary = summarize(scores_of(tmp_path_factory.mktemp("masks"), {"a": (mask, mask)}))

    for name in ("liver", "tumor"):
        best = {"dice_per_case": 1, "dice_global": 1, "iou_per_case": 1, "iou_global": 1}
        assert_holds(summary[name], {**best, "n_missing": 0, "n_spurious": 0})
    assert summary["pixel_accuracy"] == {"per_case": 1, "global": 1}


def test_volumes_are_those_of_the_true_spacing_where_a_header_lies(tmp_path):
    prediction, reference = BY_HAND["a"]
    case, predictions = pair(tmp_path, "a", prediction, reference, affine=np.eye(4))
    write(case.label, reference, np.eye(4))

    (lying,) = evaluate(predictions, [case])
    (true,) = evaluate(predictions, [replace(case, spacing_mm=(2, 5, 10))])

    assert lying.result.voxel_ml == pytest.approx(0.001)
    assert true.result.voxel_ml == pytest.approx(0.1)
    assert score_row(true)["tumor_reference_ml"] == pytest.approx(0.2)


def test_a_missing_prediction_is_a_failed_case(tmp_path):
    (score,) = scores_of(tmp_path, {"a": (None, row_of(1, 2))})

    assert "no prediction of case 'a' was found" in score.error
    assert str(score.case.label) in score.error
    assert score_row(score) == {"case_id": "a", "error": score.error}


def test_a_reference_that_is_not_there_is_a_failed_case(tmp_path):
    path = write(tmp_path / "mask.nii", row_of(1))
    cases = [Case(case_id="a", image=path), Case(case_id="b", image=path, label=tmp_path / "nowhere.nii")]

    scores = list(evaluate({"a": path, "b": path}, cases))

    assert [score.error for score in scores] == [
        "a: has no reference mask",
        f"{tmp_path / 'nowhere.nii'}: no such file or folder",
    ]


def test_masks_of_different_shapes_are_not_compared(tmp_path):
    (score,) = scores_of(tmp_path, {"a": (row_of(1, 2, 1), row_of(1, 2))})

    assert score.result is None
    assert "a.nii.gz has the shape (3, 1, 1)" in score.error
    assert "a.nii.gz (2, 1, 1)" in score.error


MIRRORED = AFFINE @ np.diag([-1.0, 1, 1, 1])
FINER = AFFINE @ np.diag([1, 1, 0.5, 1])
SHIFTED = AFFINE + np.array([[0, 0, 0, 0], [0, 0, 0, 0.2], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("affine", [MIRRORED, FINER, SHIFTED])
def test_masks_that_lie_elsewhere_are_not_compared(tmp_path, affine):
    case, predictions = pair(tmp_path, "a", np.ones((3, 3, 3)), np.ones((3, 3, 3)), affine=affine)

    (score,) = evaluate(predictions, [case])

    assert score.result is None
    for mask, where in ((predictions["a"], affine), (case.label, AFFINE)):
        assert str(mask) in score.error
        assert str(where[:3].tolist()) in score.error
    assert "\n" not in score.error


@given(
    shift_mm=st.floats(0, 0.5 * AFFINE_TOLERANCE_MM), offset_mm=st.floats(-500, 500), spacing_mm=st.floats(0.5, 0.98)
)
@settings(max_examples=25)
def test_what_float32_rounds_in_a_header_is_no_difference(tmp_path_factory, shift_mm, offset_mm, spacing_mm):
    """One mask has the CT's affine as sform, the other what is left of it after a way through qform."""
    folder = tmp_path_factory.mktemp("masks")
    affine = np.diag([-spacing_mm, -spacing_mm, 2.5, 1])
    affine[:3, 3] = offset_mm, -offset_mm / 3, offset_mm / 7
    label = write(folder / "reference.nii", np.ones((512, 1, 2)), affine)
    affine[0, 3] += shift_mm
    by_qform = nib.Nifti1Image(np.ones((512, 1, 2), np.uint8), None)
    by_qform.set_qform(affine, code=1)
    nib.save(by_qform, folder / "prediction.nii")

    (score,) = evaluate({"a": folder / "prediction.nii"}, [Case(case_id="a", image=label, label=label)])

    assert score.error == ""
    assert score.result.table[1, 1] == 1024


def test_lesions_that_are_not_there_have_no_share(tmp_path):
    spurious, missing, nothing = map(score_row, scores_of(tmp_path, {name: BY_HAND[name] for name in "bcd"}))
    found = [[row[f"lesions_overlap_{key}"] for key in ("recall", "precision", "f1")]
             for row in (spurious, missing, nothing)]  # fmt: skip
    assert found == [[None, 0, 0], [0, None, 0], [None, None, 1]]


def test_a_bad_case_never_stops_the_others(tmp_path):
    pairs = {"missing": (None, row_of(1)), **BY_HAND, "shape": (row_of(1, 1), row_of(1))}
    damaged, predictions = pair(tmp_path, "damaged", row_of(1), row_of(1))
    predictions["damaged"].write_bytes(b"no mask")
    wrong, found = pair(tmp_path, "value", row_of(7), row_of(1))

    scores = scores_of(tmp_path, pairs) + list(evaluate({**predictions, **found}, [damaged, wrong]))
    summary = summarize(scores)

    assert [bool(score.error) for score in scores] == [True, False, False, False, False, True, True, True]
    assert "holds the value 7" in scores[-1].error
    assert (summary["n"], summary["n_failed"]) == (4, 4)
    assert summary["liver"] == summarize(scores[1:5])["liver"]


def test_without_a_single_score_there_are_no_means(tmp_path):
    summary = summarize(scores_of(tmp_path, {"a": (None, row_of(1))}))

    assert summary == {"protocol": "lits", "n": 0, "n_failed": 1}


def test_the_table_has_a_row_a_case_and_every_column(tmp_path):
    scores = scores_of(tmp_path, {"missing": (None, row_of(1)), **BY_HAND})

    summary = write_scores(scores, tmp_path / "out")

    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case_id"] for row in rows] == ["missing", "a", "b", "c", "d"]
    assert len({tuple(row) for row in rows}) == 1
    assert set(rows[0]) == set(score_row(scores[1]))
    assert rows[0]["error"] == scores[0].error
    assert rows[0]["liver_dice"] == ""
    for row, score in zip(rows[1:], scores[1:], strict=True):
        expected = score_row(score)
        assert {
            name: None if row[name] == "" else float(row[name]) for name in expected.keys() - {"case_id", "error"}
        } == {name: value for name, value in expected.items() if name not in ("case_id", "error")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary == summarize(scores)


@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_comes_back_out_of_a_csv_file(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"

    write_rows(path, [{"case_id": str(number), "error": text} for number, text in enumerate(texts)])

    with path.open(newline="", encoding="utf-8") as file:
        assert [row["error"] for row in csv.DictReader(file)] == texts


def test_the_scores_of_a_validation_are_those_of_an_evaluation(tmp_path):
    """In training the masks come as tensors through MONAI's handler, a case at a time."""
    scores = scores_of(tmp_path, BY_HAND)
    tensors = [{"pred": read_mask(score.prediction), "label": read_mask(score.case.label)} for score in scores]
    validator = Engine(lambda engine, case: [case])
    CaseDiceHandler().attach(validator, "val_mean_dice")

    validator.run(tensors)

    summary, metrics = summarize(scores), validator.state.metrics
    assert metrics["val_liver_dice"] == pytest.approx(summary["liver"]["dice_per_case"])
    assert metrics["val_tumor_dice"] == pytest.approx(summary["tumor"]["dice_per_case"])
    assert metrics["val_mean_dice"] == pytest.approx((metrics["val_liver_dice"] + metrics["val_tumor_dice"]) / 2)

    validator.run(tensors[:1])  # the next validation starts from nothing

    assert validator.state.metrics["val_liver_dice"] == pytest.approx(8 / 9)


def test_a_metric_without_a_reference_is_refused():
    with pytest.raises(ValueError, match="reference is missing"):
        CaseDice()(torch.zeros(1, 1, 2, 2, 2))


@pytest.mark.slow
def test_processes_say_what_one_process_says(tmp_path):
    """In order, with the errors. Slow, as every process imports everything anew."""
    cases, predictions = [], {}
    for case_id, masks in {"missing": (None, row_of(1)), **BY_HAND, "value": (row_of(7), row_of(1))}.items():
        case, found = pair(tmp_path, case_id, *masks)
        cases.append(case)
        predictions.update(found)

    alone, together = (list(evaluate(predictions, cases, pool=Processes(n))) for n in (1, 2))

    assert [score_row(score) for score in together] == [score_row(score) for score in alone]
    assert lesion_rows(together) == lesion_rows(alone) != []
    assert [bool(score.error) for score in together] == [True, False, False, False, False, True]


class EndsTheProcess:
    """Ends the process that it is sent to, as a system does that runs out of memory."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_a_killed_process_never_stops_the_others(tmp_path):
    deadly = Case(case_id="deadly", image=tmp_path, label=EndsTheProcess())
    case, predictions = pair(tmp_path, "a", *BY_HAND["a"])

    killed, scored = evaluate(predictions, [deadly, case], pool=Processes(2))

    assert "was killed" in killed.error
    assert score_row(scored)["liver_dice"] == pytest.approx(8 / 9)


def test_lesions_are_written_only_where_a_protocol_knows_them(tmp_path):
    scores = scores_of(tmp_path, BY_HAND)
    write_scores(scores, tmp_path / "out")
    with (tmp_path / "out" / "lesions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["mask"]) for row in rows] == [
        ("a", "reference"),
        ("b", "prediction"),
        ("c", "reference"),
    ]

    write_scores([], tmp_path / "out", protocol="msd")
    assert not (tmp_path / "out" / "lesions.csv").exists()


@pytest.mark.parametrize("protocol", ["lits", "lits-2017", "msd", "seed"])
def test_every_protocol_from_the_command_line(tmp_path, cli, protocol):
    for case_id, masks in BY_HAND.items():
        pair(tmp_path, case_id, *masks)

    done = cli(
        "evaluate", tmp_path / "predictions", tmp_path / "references", "-o", tmp_path / "out",
        "--protocol", protocol, "--jobs", 1, "--json",
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["protocol"], summary["n"], summary["n_failed"]) == (protocol, 4, 0)
    assert f"protocol {protocol}" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "NaN" not in (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")


def test_slices_are_axial_in_any_orientation(tmp_path):
    """Stored with its slices first; 2 of 3 axial slices hold liver and background."""
    reference = np.zeros((3, 2, 2), dtype=np.uint8)
    reference[:2, 0] = 1
    affine = np.array([[0, 2.0, 0, 0], [0, 0, 2.5, 0], [4, 0, 0, 0], [0, 0, 0, 1]])
    label = write(tmp_path / "reference.nii.gz", reference, affine)
    prediction = write(tmp_path / "prediction.nii.gz", reference * 0, affine)

    (score,) = evaluate({"a": prediction}, [Case(case_id="a", image=label, label=label)], protocol="seed")

    assert score.result.slices.tolist() == [[0.5, 0.25]] * 2


def test_six_real_predictions(real_data):
    """Half the resolution of their reference, turned about: liver Dice 0.85 to 0.93, tumour 0.46 to 0.62."""
    reference = read_mask(real_data / "ircadb17" / "ircadb17_label.nii.gz")[0].numpy()[::2, ::2]
    dices, degenerate = [], []
    for file in sorted((real_data / "predictions").glob("*_liver_44.nii.gz")):
        prediction = np.asarray(nib.load(file).dataobj)[::-1, ::-1].astype(np.uint8)
        assert prediction.shape == reference.shape
        result = score_case(prediction, reference, spacing_mm=(2 * 0.743, 2 * 0.743, 1.6))
        if not result.table[:, 0].any():
            degenerate.append(result)
            continue
        dices.append([result.values[name]["dice"] for name in ("liver", "tumor")])
        assert result.values["liver"]["assd_mm"] <= result.values["liver"]["hd95_mm"]
        found = result.detections["overlap"]
        assert found.tp + found.fn == 2
    liver, tumor = zip(*dices, strict=True)
    assert min(liver) > 0.84 and max(liver) < 0.94
    assert min(tumor) > 0.45 and max(tumor) < 0.63
    assert [result.values["liver"]["dice"] < 0.2 for result in degenerate] == [True]  # no background at all
