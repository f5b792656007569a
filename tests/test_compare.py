"""Comparisons: statistics worked out by hand, what cannot be compared, and the command on evaluations."""

from __future__ import annotations

import csv
import json
from math import isnan, nan

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.engine.comparison import read_evaluations
from liver_monai.errors import InputError
from liver_monai.report.intervals import ForestRow, forest_figure
from liver_monai.scoring.compare import bootstrap_interval, holm, paired_difference, signed_rank_p

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    with_nan = holm([0.02, nan, 0.5])
    assert with_nan[0::2] == pytest.approx([0.04, 0.5])
    assert isnan(with_nan[1])


@given(p_values=P_VALUES)
def test_holm_keeps_the_order_and_only_enlarges(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= min(1, p * len(p_values)) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_the_signed_rank_test_by_hand():
    """Six differences of one sign: of 2 ** 6 ways to give signs, two are as extreme."""
    assert signed_rank_p(np.array([1, 2, 3, 4, 5, 6.0])) == pytest.approx(2 / 64)
    assert signed_rank_p(np.array([1, 2, 3, 4, 5, 6, 0.0])) == pytest.approx(2 / 64)
    assert signed_rank_p(np.zeros(3)) == 1
    assert isnan(signed_rank_p(np.array([])))


def test_a_difference_by_hand():
    found = paired_difference([0.5, nan, 0.7, 0.9], [0.6, 0.1, 0.8, nan])
    assert (found.n, found.n_undefined) == (2, 2)
    assert found.mean_first == pytest.approx(0.6)
    assert found.difference == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    with pytest.raises(ValueError, match="2 scores against 1"):
        paired_difference([1, 2], [1])


def test_an_interval_is_repeatable_and_covers_the_mean():
    values = np.random.default_rng(0).normal(1, 1, 40)
    low, high = bootstrap_interval(values, n_resamples=2000)
    assert (
        (low, high)
        == bootstrap_interval(values, n_resamples=2000)
        != bootstrap_interval(values, n_resamples=2000, seed=1)
    )
    half = 1.96 * values.std() / np.sqrt(40)  # what the normal approximation says
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert all(isnan(bound) for bound in bootstrap_interval(values[:1]))


def write_evaluation(folder, rows, **summary):
    """An evaluation with ``{case_id: (tumor_dice, tumor_assd_mm or None)}``."""
    folder.mkdir(parents=True)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case_id", "tumor_dice", "liver_assd_mm", "error"])
        for case_id, (dice, assd_mm) in rows.items():
            writer.writerow([case_id, dice, "" if assd_mm is None else assd_mm, ""])
        writer.writerow(["failed", "", "", "no such file"])
    liver = {"n_missing": sum(assd_mm is None for _, assd_mm in rows.values()), "n_spurious": 0}
    summary = {"protocol": "lits", "tolerance_mm": 2.0, "liver": liver, **summary}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


FIRST = {f"c{number}": (0.5 + 0.01 * number, 2.0) for number in range(6)}
BETTER = {case_id: (dice + 0.1 + 0.01 * number, 1.0 if number else None)
          for number, (case_id, (dice, _)) in enumerate(FIRST.items())}  # fmt: skip


def test_the_command(tmp_path, cli):
    folders = [write_evaluation(tmp_path / name, rows) for name, rows in (("first", FIRST), ("better", BETTER))]

    done = cli("compare", *folders, "-o", tmp_path / "out", "--json")

    assert done.exit_code == 0, done.output
    comparison = json.loads(done.stdout)
    rows = {row["measure"]: row for row in comparison["rows"]}
    assert rows.keys() == {"tumor_dice", "liver_assd_mm"}
    assert rows["tumor_dice"]["difference"] == pytest.approx(0.125)
    assert 0.1 < rows["tumor_dice"]["low"] < 0.125 < rows["tumor_dice"]["high"] < 0.15
    assert rows["tumor_dice"]["p"] == pytest.approx(2 / 64)
    assert rows["tumor_dice"]["p_holm"] == pytest.approx(4 / 64)
    assert (rows["liver_assd_mm"]["n"], rows["liver_assd_mm"]["n_undefined"]) == (5, 1)
    assert rows["liver_assd_mm"]["difference"] == -1
    assert comparison["missing"]["better"]["liver"]["n_missing"] == 1
    with (tmp_path / "out" / "comparison.csv").open(newline="", encoding="utf-8") as file:
        assert [row["measure"] for row in csv.DictReader(file)] == list(rows)
    assert (tmp_path / "out" / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert "Comparison with first" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "comparison already" in cli("compare", *folders, "-o", tmp_path / "out").output


def test_what_cannot_be_compared(tmp_path):
    first = write_evaluation(tmp_path / "first", FIRST)
    fewer = write_evaluation(tmp_path / "fewer", {name: FIRST[name] for name in list(FIRST)[:5]})
    faulty = write_evaluation(tmp_path / "faulty", FIRST, protocol="lits-2017")
    wider = write_evaluation(tmp_path / "wider", FIRST, tolerance_mm=5.0)
    (tmp_path / "empty").mkdir()
    for folders, said in (
        ([first], "at least two"),
        ([first, first], "given twice"),
        ([first, fewer], "first scored c5"),
        ([fewer, first], "first scored c5"),
        ([first, faulty], "protocol lits.*lits-2017"),
        ([first, wider], r"tolerance_mm 2\.0.*5\.0"),
        ([first, tmp_path / "empty"], "holds no evaluation"),
    ):
        with pytest.raises(InputError, match=said):
            read_evaluations(folders)


def test_lesions_are_compared_case_by_case(tmp_path, cli):
    """Evaluations of real masks: the second one finds the lesion that the first one misses; one case holds none."""
    lesion, liver = np.array([1, 2, 2, 1], np.uint8).reshape(-1, 1, 1), np.ones((4, 1, 1), np.uint8)
    for name, masks in {"reference": [lesion, liver], "misses": [liver, liver], "finds": [lesion, liver]}.items():
        for number, mask in enumerate(masks):
            path = tmp_path / name / f"case_{number}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
    for name in ("misses", "finds"):
        assert cli("evaluate", tmp_path / name, tmp_path / "reference", "-o", tmp_path / f"e_{name}").exit_code == 0

    done = cli("compare", tmp_path / "e_misses", tmp_path / "e_finds", "-o", tmp_path / "out", "--json")

    rows = {row["measure"]: row for row in json.loads(done.stdout)["rows"]}
    recall, precision, f1 = (rows[f"lesions_iou_50_{key}"] for key in ("recall", "precision", "f1"))
    assert (recall["mean_first"], recall["mean_second"], recall["n"], recall["n_undefined"]) == (0, 1, 1, 1)
    assert (precision["n"], precision["difference"]) == (0, None)
    assert (f1["mean_first"], f1["mean_second"], f1["n"]) == (0.5, 1, 2)
    assert "lesion F1 at IoU &gt; 0.5" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_evaluations_of_one_name_are_told_apart(tmp_path):
    folders = [write_evaluation(tmp_path / name / "evaluation", FIRST) for name in ("a", "b")]
    assert [each.name for each in read_evaluations(folders)] == [str(folder) for folder in folders]


def test_a_forest_shows_which_side_is_better():
    def row(low, high, *, is_larger_better=True):
        return ForestRow(
            label="", unit="", difference=(low + high) / 2, low=low, high=high, is_larger_better=is_larger_better
        )

    figure = forest_figure([row(0.1, 0.2), row(-0.2, -0.1), row(-0.1, 0.1), row(-0.2, -0.1, is_larger_better=False)])

    (axes,) = figure.axes
    colours = {line.get_ydata()[0]: line.get_color() for line in axes.lines if len(set(line.get_ydata())) == 1}
    assert colours[3] == colours[0] != colours[2]
    assert len(set(colours.values())) == 3
