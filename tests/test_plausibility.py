"""Wrong but plausible: a prediction says by name what is doubtful about its CT and its mask."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from liver_monai.data.cases import Case
from liver_monai.data.phantom import make_phantom
from liver_monai.engine.plausibility import Plausibility
from liver_monai.io.nifti import build_nifti
from liver_monai.io.volumes import read_mask, read_volume

CASE = Case(case_id="ct", image=None)


@pytest.fixture(scope="module")
def phantom():
    """A patient whose liver lies in the scan as a whole: CT and mask ``(X, Y, Z)`` and their affine."""
    made = make_phantom(seed=0, shape=(96, 96, 48), orientation="LPS", n_tumors=3)
    return np.asarray(made.image), np.asarray(made.label), np.asarray(made.affine)


def names(hu, mask, affine):
    """What is warned of, by name."""
    meta = {"affine": torch.from_numpy(affine), "original_affine": torch.from_numpy(affine)}
    ct, labels = (MetaTensor(torch.from_numpy(np.ascontiguousarray(each))[None], meta=meta) for each in (hu, mask))
    return {text.partition(": ")[0] for text in Plausibility(ct, CASE).warnings(labels)}


def test_a_plausible_ct_with_a_plausible_mask_raises_nothing(phantom):
    assert names(*phantom) == set()


def speck(mask):
    """A second liver, a tenth of the first, in the patient's other half."""
    liver = np.argwhere(mask > 0)
    copy = mask.copy()
    low = liver.min(axis=0)
    copy[:20, :20, low[2] : low[2] + 6] = 1
    return copy


def cut(hu, mask, affine):
    """The scan ends amid the liver."""
    middle = int(np.median(np.nonzero(mask)[2]))
    return hu[:, :, middle:], mask[:, :, middle:], affine


SCENES = {
    "no liver": ({"empty-label"}, lambda hu, mask, affine: (hu, np.zeros_like(mask), affine)),
    "half a liver": ({"liver-cut"}, cut),
    "liver in pieces": ({"liver-parts"}, lambda hu, mask, affine: (hu, speck(mask), affine)),
    "huge spacing": ({"liver-volume"}, lambda hu, mask, affine: (hu, mask, affine @ np.diag([2.0, 2.0, 2.0, 1]))),
    "8 bits": ({"not-hu"}, lambda hu, *rest: (np.clip((hu + 200) * 255 / 450, 0, 255).astype(np.int16), *rest)),
    "window": ({"clipped"}, lambda hu, *rest: (np.clip(hu, -160, 240), *rest)),
    "magnetic resonance": ({"not-hu"}, lambda hu, *rest: ((hu.clip(-1000) + 1000) // 2, *rest)),
    "emission": ({"not-hu"}, lambda hu, *rest: ((hu.clip(-1000).astype(np.float32) + 1000) / 300, *rest)),
    "coarse": ({"coarse-steps"}, lambda hu, *rest: (hu // 8 * 8, *rest)),
    "upside down": ({"upside-down"}, lambda hu, mask, affine: (hu[:, :, ::-1], mask[:, :, ::-1], affine)),
    "mirrored": ({"mirrored"}, lambda hu, mask, affine: (hu[::-1], mask[::-1], affine)),
    "back to front": ({"back-to-front"}, lambda hu, mask, affine: (hu[:, ::-1], mask[:, ::-1], affine)),
    "unknown spacing": ({"unknown-spacing"}, lambda hu, mask, _: (hu, mask, np.eye(4))),
    "metres": ({"odd-spacing"}, lambda hu, mask, affine: (hu, mask, affine @ np.diag([1e-3, 1e-3, 1e-3, 1]))),
}


@pytest.mark.parametrize("scene", SCENES)
def test_what_is_implausible_is_named(phantom, scene):
    expected, change = SCENES[scene]

    assert expected <= names(*change(*phantom))


def test_warnings_are_told_and_written_beside_the_mask(tmp_path, phantom, trained_run, cli):
    hu, _, affine = phantom
    nib.save(build_nifti(hu, affine), tmp_path / "good.nii.gz")
    nib.save(build_nifti(np.full_like(hu, 30), affine), tmp_path / "flat.nii.gz")

    done = cli("predict", tmp_path / "good.nii.gz", tmp_path / "flat.nii.gz", "--bundle", trained_run,
               "-o", tmp_path / "out", "--json", "--report")  # fmt: skip

    assert done.exit_code == 0, done.output
    rows = {row["case_id"]: row for row in json.loads(done.stdout)}
    assert "not-hu: values 30 to 30: all voxels are equal" in rows["flat"]["warnings"]
    assert "not-hu" not in rows["good"]["warnings"]
    told = [line for line in done.stderr.splitlines() if line.startswith("flat: warning: ")]
    assert told == [f"flat: warning: {text}" for text in rows["flat"]["warnings"].split(" | ")]
    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert [row["warnings"] for row in csv.DictReader(file)] == [
            rows[name]["warnings"] for name in ("good", "flat")
        ]
    assert "all voxels are equal" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_real_scan_with_its_mask_raises_nothing(real_data):
    case = Case(case_id="ct", image=real_data / "ircadb17" / "ircadb17_ct.nii.gz")

    found = Plausibility(read_volume(case.image), case).warnings(
        read_mask(real_data / "ircadb17" / "ircadb17_label.nii.gz")
    )

    assert found == ()
