"""Every known trap is planted in a phantom data set and found; a clean data set gives nothing above a note."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from liver_monai.data.cases import Case
from liver_monai.data.checks.content import find_matches, measure_content
from liver_monai.data.checks.dataset import DataSet
from liver_monai.data.checks.findings import CaseReport, Finding, worst_severity
from liver_monai.data.checks.run import examine, examine_case
from liver_monai.data.checks.sources import find_scans
from liver_monai.data.checks.table import CASE_CHECKS, DATASET_CHECKS, check_dataset
from liver_monai.data.phantom import make_phantom
from liver_monai.processes import Processes

DONE, FAILED, USAGE = 0, 1, 2
SHAPE = (96, 96, 24)


@cache
def patient(seed):
    """A phantom; for reading only."""
    return make_phantom(seed=seed, shape=SHAPE, orientation="LPS", n_tumors=seed)


PHANTOM = patient(3)
CHECKS = {check.name: check for check in (*CASE_CHECKS, *DATASET_CHECKS)}
TRUE_SPACING = tuple(np.linalg.norm(PHANTOM.affine[:3, :3], axis=0))


def write_nifti(path, voxels, affine=PHANTOM.affine, *, qform=None, unit="mm"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine if qform is None else qform, code=1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def report_on(tmp_path, image=PHANTOM.image, label=PHANTOM.label, affine=PHANTOM.affine, **header):
    """The report of a case with these voxels; ``label`` may be ``None``."""
    ct = write_nifti(tmp_path / "volume-1.nii", image, affine, **header)
    mask = None if label is None else write_nifti(tmp_path / "segmentation-1.nii", label, affine)
    return examine_case(Case(case_id="1", image=ct, label=mask))


def found(report, name):
    """The one finding of a check, with the severity of its row and the way out at its end."""
    (finding,) = [each for each in report.findings if each.check == name]
    assert finding.severity == CHECKS[name].severity
    assert finding.message.endswith(CHECKS[name].way_out)
    assert finding.case_id == "1"
    return finding


def above_note(report):
    return {finding.check for finding in report.findings if finding.severity != "note"}


# Nothing to find


@pytest.mark.parametrize("seed", range(6))
def test_a_clean_phantom_gives_notes_at_most(tmp_path, seed):
    phantom = patient(seed)

    report = report_on(tmp_path, phantom.image, phantom.label, phantom.affine)

    assert above_note(report) == set(), report.findings
    assert report.figures["liver_ml"] == pytest.approx(phantom.truth["liver_ml"], abs=0.1)
    assert report.figures["tumor_ml"] == pytest.approx(sum(t["volume_ml"] for t in phantom.truth["tumors"]), abs=0.1)
    assert abs(report.figures["liver_hu"] - np.mean(phantom.image[phantom.label > 0])) < 5
    assert report.figures["orientation"] == phantom.truth["orientation"]


# Planted traps: image


def with_metal(image):
    image[40:44, 40:44, 10] = 3071
    return image


def with_padding(image):
    image[image < -1000] = -2048
    return image


def coarse(image):
    return (image // 7 * 7).astype(np.int16)


IMAGE_TRAPS = {
    "normalized": ("not-hu", lambda image: ((image + 1024) / 4096).astype(np.float32), "0.[0-9]+: a range below 200"),
    "8 bits": ("not-hu", lambda image: np.clip((image + 200) / 450 * 255, 0, 255).astype(np.uint8), "8-bit grey"),
    "no intercept": ("not-hu", lambda image: (np.maximum(image, -1024) + 1024).astype(np.int16), "intercept of -1024"),
    "padding and no intercept": (
        "not-hu",
        lambda image: np.where(image < -1000, -2000, np.maximum(image, -1024) + 1024).astype(np.int16),
        "intercept",
    ),
    "wrapped round": ("not-hu", lambda image: image.astype(np.uint16), "wrapped round"),
    "constant": ("not-hu", np.zeros_like, "all voxels are equal"),
    "clipped": ("clipped", lambda image: np.clip(image, -150, 240), "-150 and 240 HU"),
    "saturated": ("saturated", lambda image: np.clip(image, -1024, 300), "300 HU, the highest"),
    "coarse": ("coarse-steps", coarse, "of the 451 values"),
    "padding": ("padding", with_padding, "-2048 HU: padding"),
    "metal": ("metal", with_metal, "up to 3071 HU"),
}


@pytest.mark.parametrize("trap", IMAGE_TRAPS)
def test_a_trap_in_the_voxels_is_found(tmp_path, trap):
    name, spoil, words = IMAGE_TRAPS[trap]

    report = report_on(tmp_path, spoil(PHANTOM.image.copy()))

    assert re.search(words, found(report, name).message)
    if CHECKS[name].severity == "note":
        assert above_note(report) == set()


def test_windows_and_padding_that_harm_nothing_are_no_errors(tmp_path):
    """Clipped to the default window or beyond it, a CT is still one in Hounsfield units."""
    report = report_on(tmp_path, np.clip(PHANTOM.image, -200, 250))

    assert above_note(report) == set(), report.findings


def nan(path):
    voxels = PHANTOM.image.astype(np.float32)
    voxels[3, 3, 3] = np.nan
    write_nifti(path, voxels)


def infinite(path):
    voxels = PHANTOM.image.astype(np.float32)
    voxels[3, 3, 3] = np.inf
    write_nifti(path, voxels)


def truncated(path):
    write_nifti(path, PHANTOM.image)
    path.write_bytes(path.read_bytes()[:-5000])


def four_dimensional(path):
    write_nifti(path, np.stack([PHANTOM.image] * 2, axis=-1))


def colour(path):
    voxels = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def flat_affine(path):
    write_nifti(path, PHANTOM.image)
    with path.open("r+b") as file:
        file.seek(280)  # srow_x
        file.write(struct.pack("<4f", 0, 0, 0, 0))


UNREADABLE = {nan: "NaN", infinite: "infinite", truncated: "damaged", four_dimensional: "three dimensions"}
UNREADABLE |= {colour: "colour", flat_affine: "does not place voxels"}


@pytest.mark.parametrize("spoil", UNREADABLE, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("side", ["image", "label"])
def test_what_cannot_be_read_is_an_error_of_its_side(tmp_path, spoil, side):
    files = {"image": tmp_path / "volume-1.nii", "label": tmp_path / "segmentation-1.nii"}
    write_nifti(files["image"], PHANTOM.image)
    write_nifti(files["label"], PHANTOM.label)
    spoil(files[side])

    report = examine_case(Case(case_id="1", **files))

    assert UNREADABLE[spoil] in found(report, f"unreadable-{side}").message
    assert str(files[side]) in found(report, f"unreadable-{side}").message
    assert above_note(report) == {f"unreadable-{side}"}


def test_a_damaged_gzip_is_an_error(tmp_path):
    ct = write_nifti(tmp_path / "ct.nii.gz", PHANTOM.image)
    ct.write_bytes(ct.read_bytes()[:5000])

    assert "damaged" in found(examine_case(Case(case_id="1", image=ct)), "unreadable-image").message


# Planted traps: header


def scaled(factors):
    return PHANTOM.affine @ np.diag([*factors, 1])


def sheared_affine():
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(20))
    return shear @ PHANTOM.affine


HEADER_TRAPS = {
    "identity": ("unknown-spacing", {"affine": np.eye(4)}, r"\(1, 1, 1\) mm"),
    "metres": ("odd-spacing", {"affine": scaled((0.001, 0.001, 0.001))}, "scanners make 0.1 to 12 mm"),
    "unit": ("header-unit", {"unit": "meter"}, "spacings in meter"),
    "thick": ("thick-slices", {"affine": scaled((1, 1, 1.1))}, "more than 5 mm"),
    "short": ("short-scan", {"affine": scaled((1, 1, 0.2))}, "24 slices cover"),
    "sheared": ("sheared", {"affine": sheared_affine()}, "sheared by"),
    "two truths": ("header-affines", {"qform": scaled((-1, 1, 1))}, "qform and sform"),
}


@pytest.mark.parametrize("trap", HEADER_TRAPS)
def test_a_trap_in_the_header_is_found(tmp_path, trap):
    name, header, words = HEADER_TRAPS[trap]

    assert re.search(words, found(report_on(tmp_path, **header), name).message)


def test_the_true_spacing_of_a_sheared_scan_and_its_angle(tmp_path):
    report = report_on(tmp_path, affine=sheared_affine())

    slice_mm = TRUE_SPACING[2]
    across_mm = slice_mm * np.tan(np.radians(20))
    expected = np.degrees(np.arctan2(across_mm, slice_mm))
    assert found(report, "sheared").figures["shear_degrees"] == pytest.approx(expected, abs=0.01)
    assert above_note(report) == {"header-affines"}  # a qform cannot hold a shear


@pytest.mark.parametrize("pixdim", [(0.0, 4.0, 8.0), (-4.0, 4.0, 8.0), (1.0, 1.0, 1.0)])
def test_a_spacing_in_the_header_that_is_not_the_affines_is_found(tmp_path, pixdim):
    ct = write_nifti(tmp_path / "ct.nii", PHANTOM.image)
    with ct.open("r+b") as file:
        file.seek(80)  # pixdim[1]
        file.write(struct.pack("<3f", *pixdim))

    finding = found(examine_case(Case(case_id="1", image=ct)), "header-spacing")

    assert finding.figures["pixdim_mm"] == list(pixdim)


# Planted traps: orientation


FLIPS = {"mirrored": (0,), "back-to-front": (1,), "upside-down": (2,)}


@pytest.mark.parametrize(("orientation", "seed"), [("LPS", 0), ("RAS", 1), ("LAS", 2), ("PIR", 4)])
@pytest.mark.parametrize("name", FLIPS)
def test_a_header_that_contradicts_the_anatomy_is_found(tmp_path, name, orientation, seed):
    """The voxels stay, the header exchanges two ends of one axis: exactly that check speaks."""
    phantom = patient(seed)
    flip = np.eye(4)
    flip[FLIPS[name], FLIPS[name]] = -1
    turn = ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(orientation))
    image, label = (apply_orientation(voxels, turn) for voxels in (phantom.image, phantom.label))

    report = report_on(tmp_path, image, label, flip @ phantom.affine @ inv_ornt_aff(turn, SHAPE))

    assert above_note(report) == {name}, report.findings
    if name == "mirrored":
        assert "possibly a mirror image" in found(report, name).message


def test_a_scan_turned_by_180_degrees_is_not_called_a_mirror_image(tmp_path):
    report = report_on(tmp_path, affine=np.diag([-1, -1, 1, 1]) @ PHANTOM.affine)

    assert above_note(report) == {"mirrored", "back-to-front"}
    assert "turned by 180 degrees, not mirrored" in found(report, "mirrored").message


def test_axes_in_the_wrong_order_are_found(tmp_path):
    swap = np.eye(4)[[0, 2, 1, 3]]

    report = report_on(tmp_path, affine=swap @ PHANTOM.affine)

    assert "front-back axis" in found(report, "turned").message


# Planted traps: mask


def other_value(label):
    label[50, 50, 12] = 3
    return label


def fraction(label):
    label = label.astype(np.float32)
    label[label == 1] = 0.5
    return label


def tumor_elsewhere(label):
    label[5:8, 5:8, 2:4] = 2
    return label


def second_part(label):
    label[5:25, 5:25, 2:8] = 1
    return label


def speck(label):
    label[2, 2, 2] = 2
    return label


def to_the_end(label):
    where = np.argwhere(label)[0]
    label[where[0], where[1], -1] = 1
    return label


LABEL_TRAPS = {
    "value 3": ("label-values", other_value, r"3 \(1\)"),
    "fractions": ("label-values", fraction, r"0.5 \("),
    "float": ("float-label", lambda label: label.astype(np.float32), "float32"),
    "empty": ("empty-label", np.zeros_like, "neither liver nor tumour"),
    "tumour outside": ("tumor-outside-liver", tumor_elsewhere, "1 of [0-9]+ lesions"),
    "two livers": ("liver-parts", second_part, "2 large parts"),
    "two slices": ("liver-volume", lambda label: np.where(np.arange(24) // 2 == 6, label, 0), "500 to 4000"),
    "cut": ("liver-cut", to_the_end, "last slice"),
}


@pytest.mark.parametrize("trap", LABEL_TRAPS)
def test_a_trap_in_the_mask_is_found(tmp_path, trap):
    name, spoil, words = LABEL_TRAPS[trap]

    report = report_on(tmp_path, label=spoil(PHANTOM.label.copy()))

    assert re.search(words, found(report, name).message)
    if CHECKS[name].severity == "note":
        assert above_note(report) == set()


def test_tiny_lesions_are_noted(tmp_path):
    """One voxel of 1 mm is smaller than a ball of 3 mm (14 mm3), 27 are larger."""
    image = np.random.default_rng(0).integers(-1000, 300, (40, 40, 120), dtype=np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[5:35, 5:35, 10:110] = 1
    label[20, 20, 30] = 2
    label[10:13, 10:13, 60:63] = 2

    report = report_on(tmp_path, image, label, np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3))

    assert found(report, "tiny-lesions").figures == {"n_tiny": 1, "n_lesions": 2}


@pytest.mark.parametrize("kind", ["shape", "origin", "spacing", "direction"])
def test_a_mask_on_another_grid_is_an_error(tmp_path, kind):
    ct = write_nifti(tmp_path / "volume-1.nii", PHANTOM.image)
    moved = {"shape": PHANTOM.affine, "origin": PHANTOM.affine.copy(), "spacing": scaled((1.01, 1, 1))}
    moved["direction"] = np.diag([-1, 1, 1, 1]) @ PHANTOM.affine
    moved["origin"][0, 3] += 0.2
    label = PHANTOM.label[:-1] if kind == "shape" else PHANTOM.label
    mask = write_nifti(tmp_path / "segmentation-1.nii", label, moved[kind])

    report = examine_case(Case(case_id="1", image=ct, label=mask))

    assert ("shape" if kind == "shape" else "mm apart, more than 0.1 mm") in found(report, "label-grid").message
    assert above_note(report) == {"label-grid"}


def test_a_mask_within_the_tolerance_is_none(tmp_path):
    ct = write_nifti(tmp_path / "volume-1.nii", PHANTOM.image)
    near = PHANTOM.affine.copy()
    near[0, 3] += 0.05
    mask = write_nifti(tmp_path / "segmentation-1.nii", PHANTOM.label, near)

    assert above_note(examine_case(Case(case_id="1", image=ct, label=mask))) == set()


# Content


def contents_of(*volumes):
    return [measure_content(voxels) for voxels in volumes]


def kinds(*volumes):
    return [match.kind for match in find_matches(contents_of(*volumes))]


@given(
    order=st.permutations(range(3)),
    flips=st.sets(st.integers(0, 2)),
    dtype=st.sampled_from([np.int16, np.int32, np.float32, np.float64]),
    clip=st.sampled_from([(-4000, 4000), (-1024, 1023), (-200, 250), (-160, 240)]),
)
@hypothesis_settings(max_examples=25)
def test_flips_axes_types_and_windows_do_not_change_the_content(order, flips, dtype, clip):
    turned = np.flip(np.transpose(PHANTOM.image, order), tuple(flips))
    first, second = contents_of(PHANTOM.image, np.clip(turned, *clip).astype(dtype))

    assert first.digest == second.digest
    assert [match.kind for match in find_matches([first, second])] == ["same"]


def test_padding_and_cut_air_do_not_change_the_content():
    padded = np.pad(PHANTOM.image, ((10, 3), (0, 7), (0, 0)), constant_values=-2048)

    assert kinds(PHANTOM.image, padded) == ["same"]


@pytest.mark.parametrize("kept", [slice(8, 24), slice(0, 24, 2)])
def test_a_part_of_a_scan_is_found_flipped_too(kept):
    (match,) = find_matches(contents_of(PHANTOM.image, PHANTOM.image[::-1, :, kept]))

    assert match.kind == "part"
    assert match.n_shared == len(range(24)[kept])


def test_patients_differ_neighbouring_seeds_too():
    patients = [patient(seed).image for seed in range(6)]

    assert kinds(*patients) == []
    assert len({content.digest for content in contents_of(*patients)}) == 6


def test_the_same_patient_with_other_noise_is_similar():
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    noisy = np.rint(PHANTOM.image + noise).astype(np.int16)

    assert kinds(PHANTOM.image, noisy[::-1].transpose(1, 0, 2)) == ["similar"]


def test_one_changed_voxel_is_another_content_but_shares_slices():
    changed = PHANTOM.image.copy()
    where = tuple(np.argwhere((changed > 0) & (changed < 100))[0])
    changed[where] += 1

    first, second = contents_of(PHANTOM.image, changed)

    assert first.digest != second.digest
    assert kinds(PHANTOM.image, changed) == ["part"]


# Data sets


def write_lits(folder, phantoms):
    for number, phantom in enumerate(phantoms):
        write_nifti(folder / f"volume-{number}.nii", phantom.image, phantom.affine)
        write_nifti(folder / f"segmentation-{number}.nii", phantom.label, phantom.affine)
    return folder


@pytest.fixture
def lits(tmp_path):
    return write_lits(tmp_path / "lits", [patient(seed) for seed in (3, 1, 2)])


def of_check(summary, name):
    return [finding for finding in summary["findings"] if finding["check"] == name]


def checked(cli, *arguments, code=DONE):
    result = cli("check", *arguments, "--jobs", 1, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_clean_data_set_gives_notes_and_exit_code_0(cli, lits):
    summary = checked(cli, lits)

    assert summary["n"] == 3
    assert summary["worst"] == "note"
    assert summary["n_findings"]["error"] == summary["n_findings"]["warning"] == 0
    assert len({case["content"] for case in summary["cases"]}) == 3


def test_a_flipped_duplicate_is_found_within_a_data_set(cli, lits):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    write_nifti(lits / "volume-9.nii", PHANTOM.image[::-1], PHANTOM.affine @ flip)
    write_nifti(lits / "segmentation-9.nii", PHANTOM.label[::-1], PHANTOM.affine @ flip)

    summary = checked(cli, lits, code=FAILED)

    (finding,) = of_check(summary, "duplicate")
    assert (finding["case_id"], finding["severity"]) == ("9", "error")
    assert finding["figures"]["other"] == "0"
    assert summary["n_findings"] == {"error": 1, "warning": 0, "note": summary["n_findings"]["note"]}


def test_cases_that_two_data_sets_share_are_found(cli, lits, tmp_path):
    """As 3D-IRCADb and LiTS share theirs: other numbers, other orientation, other file type, clipped."""
    other = tmp_path / "ircad"
    image = np.clip(patient(1).image, -1000, 1000).transpose(1, 0, 2)[:, ::-1].astype(np.float32)
    write_nifti(other / "imagesTr" / "p17.nii.gz", image, np.diag([4.0, 4, 8, 1]))
    write_nifti(other / "imagesTr" / "p18.nii.gz", patient(5).image, np.diag([4.0, 4, 8, 1]))

    summary = checked(cli, lits, other, code=FAILED)

    (finding,) = of_check(summary, "duplicate")
    assert finding["case_id"] == "ircad/p17"
    assert finding["figures"]["other"] == "lits/1"


def test_an_excluded_case_is_recorded_and_not_checked(cli, lits, tmp_path):
    shutil.copy(lits / "volume-0.nii", lits / "volume-9.nii")
    shutil.copy(lits / "segmentation-0.nii", lits / "segmentation-9.nii")
    (tmp_path / "excludes.csv").write_text("case_id,reason\n9,a copy of 0\n", encoding="utf-8")

    summary = checked(cli, lits, "--excludes", tmp_path / "excludes.csv")

    assert (summary["n"], summary["n_excluded"]) == (3, 1)
    (finding,) = of_check(summary, "excluded")
    assert (finding["case_id"], finding["figures"]["reason"]) == ("9", "a copy of 0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id,reason\n99,odd\n", "the data set has no case '99'"),
        ("case_id,why\n1,odd\n", "lacks the column reason"),
    ],
)
def test_a_list_of_excluded_cases_must_fit(cli, lits, tmp_path, text, words):
    (tmp_path / "excludes.csv").write_text(text, encoding="utf-8")

    result = cli("check", lits, "--excludes", tmp_path / "excludes.csv")

    assert result.exit_code == FAILED
    assert words in result.stderr


def reports(**figures):
    return [
        CaseReport(case_id=str(number), image="", figures={name: value} | {"n_lesions": 1})
        for name, values in figures.items()
        for number, value in enumerate(values)
    ]


def in_dataset(name, data):
    return [finding for finding in check_dataset(data) if finding.check == name]


def test_what_differs_between_cases_is_noted():
    (spacing,) = in_dataset("mixed-spacing", DataSet(folders=[], reports=reports(slice_mm=[0.7, 1.0, 5.0])))
    (orientation,) = in_dataset("mixed-orientation", DataSet(folders=[], reports=reports(orientation=["LPS", "RAS"])))
    (contrast,) = in_dataset("odd-contrast", DataSet(folders=[], reports=reports(liver_hu=[104, 110, 55])))

    assert spacing.message.startswith("slices lie 0.7 to 5 mm apart, median 1 mm; neighbours of a slab lie 3 mm")
    assert orientation.figures == {"LPS": 1, "RAS": 1}
    assert (contrast.case_id, contrast.figures["median_hu"]) == ("2", 104)


def test_cases_without_a_tumour_are_listed():
    cases = [CaseReport(case_id=str(number), image="", figures={"n_lesions": number % 2}) for number in range(4)]

    (finding,) = in_dataset("no-tumor", DataSet(folders=[], reports=cases))

    assert finding.figures["case_ids"] == ["0", "2"]
    assert "2 of 4 cases" in finding.message


def test_scans_of_one_patient_are_listed():
    cases = [CaseReport(case_id=case_id, image="", patient_id=case_id[0]) for case_id in ("a1", "a2", "b1")]

    (finding,) = in_dataset("several-scans", DataSet(folders=[], reports=cases))

    assert finding.figures == {"patient_id": "a", "case_ids": ["a1", "a2"]}


@pytest.mark.parametrize("key", ["licence", "license"])
def test_the_licence_of_a_data_set_is_told(tmp_path, key):
    (tmp_path / "dataset.json").write_text(json.dumps({key: "CC-BY-SA 4.0"}), encoding="utf-8")

    licences = find_scans([tmp_path]).licences
    (finding,) = in_dataset("licence", DataSet(folders=[tmp_path], reports=[], licences=licences))

    assert "CC-BY-SA 4.0" in finding.message


def test_worst_severity():
    findings = [
        Finding(case_id="", check="", severity=severity, message="") for severity in ("note", "error", "warning")
    ]

    assert worst_severity(findings) == "error"
    assert worst_severity(findings[:1]) == "note"
    assert worst_severity([]) is None


# The command


def test_one_bad_case_never_stops_the_others(cli, lits, tmp_path):
    (lits / "volume-1.nii").write_bytes(b"no CT")
    (lits / "segmentation-2.nii").write_bytes(gzip.compress(b"no mask"))

    result = cli("check", lits, "-o", tmp_path / "out", "--jobs", 1)

    assert result.exit_code == FAILED
    summary = json.loads((tmp_path / "out" / "check.json").read_text(encoding="utf-8"))
    assert {(each["case_id"], each["check"]) for each in summary["findings"] if each["severity"] == "error"} == {
        ("1", "unreadable-image"),
        ("2", "unreadable-label"),
    }
    assert [case["case_id"] for case in summary["cases"]] == ["0", "1", "2"]
    assert "1: 1 error" in result.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "findings.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(summary["findings"])


@pytest.mark.slow
def test_processes_give_the_reports_that_one_process_gives(lits):
    cases = [Case(case_id=str(n), image=lits / f"volume-{n}.nii", label=lits / f"segmentation-{n}.nii") for n in (0, 1)]

    alone, together = (list(examine(cases, pool=Processes(n))) for n in (1, 2))

    for one, other in zip(alone, together, strict=True):
        assert (one.case_id, one.findings, one.figures) == (other.case_id, other.findings, other.figures)
        assert one.content.digest == other.content.digest
        np.testing.assert_array_equal(one.thumbnail.gray, other.thumbnail.gray)


def test_a_check_goes_on_where_it_stopped_and_gives_the_same(cli, lits, tmp_path):
    out = tmp_path / "out"
    first = checked(cli, lits, "-o", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    times = {file: file.stat().st_mtime_ns for file in (out / "cases").iterdir()}
    (out / "cases" / "1.json").unlink()
    (out / "cases" / "2.json").write_text("{half", encoding="utf-8")

    assert checked(cli, lits, "-o", out, "--resume") == first

    kept = [file.name for file in (out / "cases").iterdir() if file.stat().st_mtime_ns == times[file]]
    assert kept == ["0.json"]
    without_provenance = re.compile(r"<details.*</details>", flags=re.DOTALL)
    again = (out / "report.html").read_text(encoding="utf-8")
    assert without_provenance.sub("", again) == without_provenance.sub("", page)


def test_a_changed_file_is_checked_anew(cli, lits, tmp_path):
    checked(cli, lits, "-o", tmp_path / "out")
    write_nifti(lits / "volume-1.nii", np.zeros(SHAPE, np.int16))

    summary = checked(cli, lits, "-o", tmp_path / "out", "--resume", code=FAILED)

    assert [finding["case_id"] for finding in of_check(summary, "not-hu")] == ["1"]


def test_a_check_that_is_there_is_kept(cli, lits, tmp_path):
    checked(cli, lits, "-o", tmp_path / "out")

    result = cli("check", lits, "-o", tmp_path / "out")

    assert result.exit_code == FAILED
    assert "--overwrite" in result.stderr
    checked(cli, lits, "-o", tmp_path / "out", "--overwrite")


def test_a_single_scan_is_checked_and_told_in_full(cli, tmp_path):
    ct = write_nifti(tmp_path / "ct.nii.gz", PHANTOM.image)

    result = cli("check", ct)

    assert result.exit_code == DONE, result.output
    assert result.stdout == ""
    assert "orientation LPS" in result.stderr
    assert re.search(r"soft_tissue_hu \d+", result.stderr)


def test_a_third_path_and_a_missing_one_are_refused(cli, tmp_path):
    assert cli("check", "a", "b", "c").exit_code == USAGE
    missing = cli("check", tmp_path / "nothing")
    assert missing.exit_code == FAILED
    assert "no such file" in missing.stderr


def test_the_page_shows_every_case_and_finding(cli, lits, tmp_path):
    (lits / "volume-1.nii").write_bytes(b"no CT <script>")

    cli("check", lits, "-o", tmp_path / "out", "--jobs", 1)

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count("no picture") == 1
    assert page.index(">1</h3>") < page.index(">0</h3>")  # worst first
    assert "unreadable-image" in page


# Interruptions


@pytest.fixture
def interruptible(lits, tmp_path):
    """A check of six cases in two processes, stopped by a signal when the first of them is there."""

    def run_and_stop(number):
        for copy in range(3, 6):
            phantom = patient(copy - 3)
            write_nifti(lits / f"volume-{copy}.nii", phantom.image[::-1], phantom.affine)
            write_nifti(lits / f"segmentation-{copy}.nii", phantom.label[::-1], phantom.affine)
        command = [sys.executable, "-c", "from liver_monai.cli import main; main()", "check", lits]
        command += ["-o", tmp_path / "out", "--jobs", "2"]
        running = subprocess.Popen(
            [str(word) for word in command], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        wait_for(lambda: any((tmp_path / "out").glob("cases/*.json")))
        running.send_signal(number)
        _, said = running.communicate(timeout=120)
        wait_for(lambda: not is_alive(running.pid))
        return running.returncode, said

    return run_and_stop


def wait_for(happened):
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(group):
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_check_leaves_whole_files_no_processes_and_goes_on(cli, interruptible, lits, tmp_path, number):
    code, said = interruptible(number)

    assert code == (FAILED if number == signal.SIGINT else -signal.SIGKILL)
    if number == signal.SIGINT:
        assert said.splitlines()[-1] == "Error: interrupted; what is finished is kept, go on with --resume"
        assert "Traceback" not in said
    assert not (tmp_path / "out" / "check.json").exists()
    kept = list((tmp_path / "out" / "cases").glob("[!.]*.json"))
    assert kept
    assert all(json.loads(file.read_text(encoding="utf-8")) for file in kept)
    resumed = cli("check", lits, "-o", tmp_path / "out", "--resume", "--jobs", 1, "--json")
    anew = cli("check", lits, "--jobs", 1, "--json")
    assert json.loads(resumed.stdout) == json.loads(anew.stdout)


# Real scans


def test_a_sound_real_case_gives_no_finding(real_data):
    """3D-IRCADb-01's patient 17: figures measured with other tools."""
    folder = real_data / "ircadb17"

    report = examine_case(
        Case(case_id="17", image=folder / "ircadb17_ct.nii.gz", label=folder / "ircadb17_label.nii.gz")
    )

    assert report.findings == ()
    assert report.figures["orientation"] == "LPS"
    assert report.figures["liver_hu"] == pytest.approx(102, abs=3)
    assert report.figures["tumor_ml"] == pytest.approx(165, abs=3)
    assert report.figures["n_lesions"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (np.diag([-1.0, 1, 1, 1]), {"mirrored"}),
        (np.diag([1.0, -1, 1, 1]), {"back-to-front"}),
        (None, {"unknown-spacing", "mirrored", "back-to-front"}),  # as MSD delivers it
    ],
)
def test_wrong_headers_of_a_real_case_are_found(real_data, tmp_path, header, expected):
    files = {name: nib.load(real_data / "ircadb17" / f"ircadb17_{name}.nii.gz") for name in ("ct", "label")}
    affine = np.eye(4) if header is None else header @ files["ct"].affine
    image, label = (np.asarray(file.dataobj).astype(np.int16) for file in files.values())

    assert above_note(report_on(tmp_path, image, label, affine)) == expected


@pytest.fixture
def torso(real_data):
    """A torso CT, its machine-made liver, and the affine of both."""
    ct = nib.load(real_data / "totalsegmentator" / "example_ct.nii.gz")
    organs = nib.load(real_data / "totalsegmentator" / "example_seg.nii.gz")
    label = np.zeros(ct.shape, np.uint8)
    label[:, :, 82:112] = np.asarray(organs.dataobj) == 5
    return np.asarray(ct.dataobj).astype(np.int16), label, ct.affine


@pytest.mark.parametrize("flipped", [None, 0, 1])
def test_a_real_torso_is_told_from_its_mirror_images(torso, tmp_path, flipped):
    image, label, affine = torso
    flip = np.eye(4)
    if flipped is not None:
        flip[flipped, flipped] = -1

    report = report_on(tmp_path, image, label, flip @ affine)

    assert above_note(report) == {None: set(), 0: {"mirrored"}, 1: {"back-to-front"}}[flipped]
    assert found(report, "metal").figures["high_hu"] > 3000


def test_labels_of_a_hundred_structures_are_refused(real_data):
    folder = real_data / "totalsegmentator"

    report = examine_case(Case(case_id="1", image=folder / "example_ct_sm.nii.gz", label=folder / "example_seg.nii.gz"))

    assert above_note(report) == {"label-values", "short-scan"}


def test_a_part_of_a_real_scan_is_found_in_it(real_data):
    """The header of the part says that it starts where the whole does; its voxels tell better."""
    names = ("example_ct.nii.gz", "example_ct_sm.nii.gz")
    reports = [examine_case(Case(case_id=name, image=real_data / "totalsegmentator" / name)) for name in names]

    (match,) = find_matches([report.content for report in reports])

    assert (match.kind, match.n_shared) == ("part", 30)


def test_a_real_sheared_8_bit_scan_with_two_affines_is_described(real_data):
    report = examine_case(Case(case_id="1", image=real_data / "awkward" / "niivue_shear_ct_uint8_slope.nii.gz"))

    assert {finding.check for finding in report.findings} == {"sheared", "coarse-steps", "header-affines"}


# The table


def test_every_check_has_a_name_of_its_own_and_words_for_it():
    assert len(CHECKS) == len(CASE_CHECKS) + len(DATASET_CHECKS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in CHECKS)
    assert all(check.way_out.endswith(".") and check.looks_at for check in CHECKS.values())


def test_the_documented_table_is_the_one_that_is_run():
    text = (Path(__file__).parent.parent / "docs" / "checks.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \| (.+) \|$", text, flags=re.MULTILINE)

    assert documented == [(check.name, check.severity, check.looks_at, check.way_out) for check in CHECKS.values()]
