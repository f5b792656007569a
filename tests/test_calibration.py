"""Calibration: bins worked out by hand, the same as MONAI's, and from probability maps in files to the report."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import CalibrationErrorMetric

from liver_monai.errors import InputError
from liver_monai.io.probabilities import probability_file, read_probabilities
from liver_monai.report.plots import reliability_figure
from liver_monai.scoring.calibration import N_BINS, calibrate

SHAPE = (6, 7, 8)


def row_of(*values, dtype=float):
    return np.array(values, dtype=dtype).reshape(-1, 1, 1)


def draw(seed):
    """Random probabilities, away from the bounds of bins, and what is true."""
    generator = np.random.default_rng(seed)
    within = generator.uniform(0.05, 0.95, SHAPE)
    probabilities = (generator.integers(0, N_BINS, SHAPE) * generator.choice([0, 1], SHAPE) + within) / N_BINS
    return probabilities.astype(np.float32), generator.random(SHAPE) < generator.random()


def test_by_hand():
    """Three voxels in the first bin, two in the last, of which one is true; 1 belongs to the last bin, 1/15 to none."""
    found = calibrate(row_of(0, 0.01, 0.02, 0.95, 1), row_of(0, 0, 0, 1, 0, dtype=bool))

    assert (found.voxels[0], found.voxels[-1], found.voxels.sum()) == (3, 2, 5)
    assert found.true_voxels.tolist() == [0] * 14 + [1]
    assert found.mean_probability[[0, -1]] == pytest.approx([0.01, 0.975])
    assert found.true_share[-1] == 0.5
    assert np.isnan(found.true_share[1:-1]).all()
    assert found.ece == pytest.approx((3 * 0.01 + 2 * 0.475) / 5)
    assert found.ace == pytest.approx((0.01 + 0.475) / 2)
    assert found.mce == pytest.approx(0.475)


def test_certain_truth_is_calibrated():
    truth = row_of(0, 1, 1, dtype=bool)
    for probabilities in (truth.astype(np.float32), truth.astype(np.uint8) * np.uint8(255)):
        found = calibrate(probabilities, truth)
        assert (found.ece, found.ace, found.mce) == (0, 0, 0)


@given(seed=st.integers(0, 2**32 - 1))
def test_agreement_with_monai(seed):
    probabilities, truth = draw(seed)
    ours = calibrate(probabilities, truth)
    tensors = [torch.from_numpy(each)[None, None].float() for each in (probabilities, truth)]
    for error, reduction in ((ours.ece, "expected"), (ours.ace, "average"), (ours.mce, "maximum")):
        metric = CalibrationErrorMetric(num_bins=N_BINS, calibration_reduction=reduction)
        assert error == pytest.approx(metric(*tensors).item(), abs=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
def test_bytes_say_what_floats_say(seed):
    generator = np.random.default_rng(seed)
    levels = generator.integers(0, 256, SHAPE, dtype=np.uint8)
    levels[(levels % 17 == 0) & (levels < 255)] += 1  # a bound of bins, which floats round to either side
    truth = generator.random(SHAPE) < 0.3
    whole, real = calibrate(levels, truth), calibrate(levels / 255, truth)
    np.testing.assert_array_equal(whole.voxels, real.voxels)
    np.testing.assert_array_equal(whole.true_voxels, real.true_voxels)
    np.testing.assert_allclose(whole.probability_sums, real.probability_sums)


@given(seed=st.integers(0, 2**32 - 1), part=st.integers(1, SHAPE[0] - 1))
def test_parts_add_up_to_the_whole(seed, part):
    probabilities, truth = draw(seed)
    whole = calibrate(probabilities, truth)
    added = calibrate(probabilities[:part], truth[:part]) + calibrate(probabilities[part:], truth[part:])
    np.testing.assert_array_equal(added.voxels, whole.voxels)
    assert whole.voxels.sum() == truth.size
    assert added.ece == pytest.approx(whole.ece)
    assert 0 <= whole.ece <= whole.mce <= 1
    assert whole.ace <= whole.mce


def test_what_cannot_be_calibrated():
    with pytest.raises(ValueError, match=r"\(2, 1, 1\).*\(1, 1, 1\)"):
        calibrate(row_of(0, 1), row_of(1, dtype=bool))
    with pytest.raises(ValueError, match="no voxel"):
        calibrate(row_of(), row_of(dtype=bool))


def write(path, voxels, spacing_mm=2.0):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing_mm] * 3 + [1])), path)
    return path


def test_maps_are_bytes_or_fractions(tmp_path):
    whole = read_probabilities(write(tmp_path / "bytes.nii.gz", row_of(0, 255, dtype=np.uint8)))
    real = read_probabilities(write(tmp_path / "floats.nii.gz", row_of(0, 0.25, dtype=np.float32)))
    assert (whole.dtype, whole.shape, whole.max()) == (torch.uint8, (1, 2, 1, 1), 255)
    assert (real.dtype, real.max()) == (torch.float32, 0.25)
    for voxels, said in (
        (row_of(0, 256, dtype=np.int16), "0 to 256.*whole numbers from 0 to 255"),
        (row_of(-1, 3, dtype=np.int16), "-1 to 3"),
        (row_of(0, 1.5, dtype=np.float32), "0 to 1.5.*floating-point numbers from 0 to 1"),
        (row_of(-0.1, 1, dtype=np.float32), "-0.1 to 1"),
    ):
        with pytest.raises(InputError, match=said):
            read_probabilities(write(tmp_path / "wrong.nii.gz", voxels))


@pytest.fixture
def cohort(tmp_path):
    """Two cases with masks and maps; the first map is uint8 and right, the second float and too sure."""
    mask = row_of(0, 0, 1, 2, dtype=np.uint8)
    for case_id, liver, tumor in (
        ("a", row_of(0, 0, 255, 255, dtype=np.uint8), row_of(0, 0, 0, 255, dtype=np.uint8)),
        ("b", row_of(0.9, 0, 1, 1, dtype=np.float32), row_of(0, 0, 0.5, 0.5, dtype=np.float32)),
    ):
        for folder in ("predictions", "references"):
            write(tmp_path / folder / f"{case_id}.nii.gz", mask)
        for name, voxels in (("liver", liver), ("tumor", tumor)):
            write(probability_file(tmp_path / "maps", case_id, name), voxels)
    return tmp_path


def evaluate(cli, folder, *options):
    done = cli("evaluate", folder / "predictions", folder / "references", "-o", folder / "out", "--jobs", 1, "--json",
               *options)  # fmt: skip
    with (folder / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        return done, {row["case_id"]: row for row in csv.DictReader(file)}


def test_evaluate_calibrates_where_there_are_maps(cli, cohort):
    done, rows = evaluate(cli, cohort, "--probabilities", cohort / "maps")

    assert done.exit_code == 0, done.output
    assert [float(rows["a"][f"{name}_ece"]) for name in ("liver", "tumor")] == [0, 0]
    assert float(rows["b"]["liver_ece"]) == pytest.approx(0.9 / 4)
    assert float(rows["b"]["liver_mce"]) == pytest.approx(0.9)
    assert float(rows["b"]["tumor_ece"]) == pytest.approx(0)  # of two voxels at 0.5 one is a tumour
    liver = json.loads(done.stdout)["calibration"]["liver"]
    assert liver["ece_per_case"] == pytest.approx(0.9 / 8)
    assert liver["ece_global"] == pytest.approx(0.9 / 8)
    assert [each["voxels"] for each in liver["bins"]] == [3, *[0] * 12, 1, 4]
    assert liver["bins"][1]["true_share"] is None
    page = (cohort / "out" / "report.html").read_text(encoding="utf-8")
    assert "Reliability" in page
    record = json.loads((cohort / "out" / "record.json").read_text(encoding="utf-8"))
    assert sum("_liver" in name or "_tumor" in name for name in record["inputs_sha256"]) == 4


def test_without_maps_nothing_is_said_of_them(cli, cohort):
    done, rows = evaluate(cli, cohort)
    assert "calibration" not in json.loads(done.stdout)
    assert "liver_ece" not in rows["a"]


def test_maps_that_do_not_fit(cli, cohort):
    probability_file(cohort / "maps", "a", "tumor").unlink()
    write(probability_file(cohort / "maps", "b", "liver"), row_of(0, 0, 1, 1, dtype=np.float32), spacing_mm=3.0)

    done, rows = evaluate(cli, cohort, "--probabilities", cohort / "maps")

    assert done.exit_code == 1
    assert "a_tumor.nii.gz: no such file" in rows["a"]["error"]
    assert "b_liver.nii.gz" in rows["b"]["error"] and "affine" in rows["b"]["error"]
    again = cli("evaluate", cohort / "predictions", cohort / "references", "-o", cohort / "o", "--probabilities", "no")
    assert again.exit_code != 0
    assert "no such folder" in again.output


def test_the_curve_shows_the_bins_that_hold_voxels():
    bins = [{"voxels": n, "mean_probability": p, "true_share": t} for n, p, t in
            ((10, 0.1, 0.2), (0, None, None), (1, 0.9, 0.8))]  # fmt: skip
    figure = reliability_figure({"liver": bins, "tumour": bins})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["liver", "tumour"]
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[0.1, 0.2], [0.9, 0.8]]
