"""The store: what is kept is what the files hold, and is kept only as long as it is true."""

from __future__ import annotations

import os

import nibabel as nib
import numpy as np
import pytest

from liver_monai.data.cases import Case, find_cases
from liver_monai.data.store import build_store
from liver_monai.data.transforms import model_grid
from liver_monai.spec import LIVER, TUMOR, ModelSpec

SPEC = ModelSpec(encoder="resnet34", spacing_mm=(2, 2, 3))
FINER = ModelSpec(encoder="resnet34", spacing_mm=(1, 1, 3))
GRID = np.diag([2.0, 2.0, 3.0, 1.0])


def write(path, voxels):
    nib.save(nib.Nifti1Image(voxels, GRID), path)
    return path


def make_case(folder, *, label=None, image=None, name="ct"):
    """A case on the model grid: 6 x 5 x 4 voxels whose HU tell where they are, with two tumour voxels in slice 2."""
    if image is None:
        image = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    if label is None:
        label = np.zeros(image.shape)
        label[2:5, 1:4, 1:4], label[3, 2:4, 2] = LIVER, TUMOR
    return Case(
        case_id=name,
        image=write(folder / f"{name}.nii", image.astype(np.int16)),
        label=write(folder / f"{name}_mask.nii", label.astype(np.uint8)),
    )


def written_at(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def age(folder):
    """Set every file's time back, so that writing one anew shows."""
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))


def test_slices_come_first_and_nothing_is_lost(tmp_path):
    case = make_case(tmp_path)

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    np.testing.assert_array_equal(stored.image, np.arange(6 * 5 * 4).reshape(6, 5, 4).transpose(2, 0, 1))
    np.testing.assert_array_equal(stored.label, nib.load(case.label).get_fdata().transpose(2, 0, 1))
    assert (stored.image.dtype, stored.label.dtype) == (np.int16, np.uint8)
    assert {value: slices.tolist() for value, slices in stored.slices_with.items()} == {LIVER: [1, 2, 3], TUMOR: [2]}
    assert isinstance(stored.image, np.memmap)


def test_phantoms_are_stored_as_the_model_grid_has_them(phantom_dataset, tmp_path):
    spec = ModelSpec(encoder="resnet34", spacing_mm=(8, 8, 8))
    cases = find_cases(phantom_dataset)

    stored = build_store(cases, spec=spec, folder=tmp_path)

    assert [case.case_id for case in stored] == [case.case_id for case in cases]
    item = model_grid(spec)(cases[0].to_item())
    np.testing.assert_allclose(stored[0].image, item["image"][0].permute(2, 0, 1), atol=0.5)  # rounded to whole HU
    np.testing.assert_array_equal(stored[0].label, item["label"][0].permute(2, 0, 1))


def test_hu_beyond_int16_are_clipped_and_do_not_wrap(tmp_path):
    image = np.zeros((2, 2, 2), dtype=np.float32)
    image[0, 0, 0], image[1, 1, 1] = 40000, -40000
    case = make_case(tmp_path, image=np.zeros((2, 2, 2)), label=np.zeros((2, 2, 2)))
    write(case.image, image)

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert (stored.image.max(), stored.image.min()) == (32767, -32768)


def test_a_case_without_liver_and_tumor_is_stored(tmp_path):
    case = make_case(tmp_path, label=np.zeros((6, 5, 4)))

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert {value: len(slices) for value, slices in stored.slices_with.items()} == {LIVER: 0, TUMOR: 0}


def test_what_is_stored_is_not_made_again(tmp_path):
    cases = [make_case(tmp_path, name="a"), make_case(tmp_path, name="b")]
    build_store(cases[:1], spec=SPEC, folder=tmp_path / "store")
    age(tmp_path / "store")
    kept = written_at(tmp_path / "store")

    build_store(cases, spec=SPEC, folder=tmp_path / "store")

    now = written_at(tmp_path / "store")
    assert len(kept) == 3
    assert len(now) == 6
    assert kept.items() <= now.items()


@pytest.mark.parametrize(
    "change", [{"slab_size": 1}, {"hu_window": (-100, 400)}, {"roi_size": (64, 64)}, {"encoder": "mobilenet_v2"}]
)
def test_specs_of_one_grid_share_what_is_stored(tmp_path, change):
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    age(tmp_path / "store")

    build_store([case], spec=ModelSpec(**{**SPEC.to_json(), **change}), folder=tmp_path / "store")

    assert set(written_at(tmp_path / "store").values()) == {0}


def test_another_grid_is_made_anew(tmp_path):
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")

    (stored,) = build_store([case], spec=FINER, folder=tmp_path / "store")

    assert stored.image.shape == stored.label.shape == (4, 12, 10)


@pytest.mark.parametrize("changed", ["image", "label"])
def test_a_changed_file_is_stored_anew(tmp_path, changed):
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    write(getattr(case, changed), np.ones((6, 5, 4), dtype=np.uint8))
    os.utime(getattr(case, changed), ns=(1, 1))  # a file system may count time in steps longer than this test

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert (getattr(stored, changed) == 1).all()


def test_a_case_is_stored_only_when_its_listing_is_there(tmp_path):
    """The listing is written last: a build that was cut short has left arrays without one."""
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    (tmp_path / "store" / "ct.json").unlink()
    np.save(tmp_path / "store" / "ct.image.npy", np.zeros((1, 1, 1), np.int16))

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert stored.image.shape == (4, 6, 5)


def test_arrays_of_two_grids_are_never_taken_for_one_case(tmp_path):
    """A build for another grid is cut short between image and label; going back to the first grid must not trust it."""
    case, folder = make_case(tmp_path), tmp_path / "store"
    build_store([case], spec=SPEC, folder=folder)
    (folder / "ct.label.npy").rename(tmp_path / "label")
    (folder / "ct.label.npy").mkdir()  # nothing can be written here
    with pytest.raises(OSError, match=r"ct\.label\.npy"):
        build_store([case], spec=FINER, folder=folder)
    (folder / "ct.label.npy").rmdir()
    (tmp_path / "label").rename(folder / "ct.label.npy")

    (stored,) = build_store([case], spec=SPEC, folder=folder)

    assert stored.image.shape == stored.label.shape == (4, 6, 5)


def test_nothing_but_the_store_is_left_behind(tmp_path):
    build_store([make_case(tmp_path)], spec=SPEC, folder=tmp_path / "store")

    assert written_at(tmp_path / "store").keys() == {"ct.image.npy", "ct.label.npy", "ct.json"}
