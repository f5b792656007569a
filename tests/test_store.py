"""The store: what is kept is what the files hold, and is kept only as long as it is true."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from filelock import FileLock

from liver_monai.data.cases import Case
from liver_monai.data.layouts import find_cases
from liver_monai.data.slabs import slab_indices
from liver_monai.data.store import build_store, open_case, source_of, store_cases
from liver_monai.data.stored_case import Lesion
from liver_monai.data.transforms import model_grid, preprocessing
from liver_monai.data.validation import StoredVolume
from liver_monai.errors import InputError
from liver_monai.processes import Processes
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
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*/*")}


def age(folder):
    """Set the time of every case back, so that writing one anew shows."""
    for path in folder.glob("*/*"):
        os.utime(path, ns=(0, 0))


def test_slices_come_first_and_nothing_is_lost(tmp_path):
    case = make_case(tmp_path)

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    np.testing.assert_array_equal(stored.image(), np.arange(6 * 5 * 4).reshape(6, 5, 4).transpose(2, 0, 1))
    np.testing.assert_array_equal(stored.label(), nib.load(case.label).get_fdata().transpose(2, 0, 1))
    assert (stored.image().dtype, stored.label().dtype) == (np.int16, np.uint8)
    assert stored.shape == (4, 6, 5)
    assert {value: slices.tolist() for value, slices in stored.slices_with.items()} == {LIVER: [1, 2, 3], TUMOR: [2]}
    assert stored.class_counts.tolist() == [[30, 0, 0], [21, 9, 0], [21, 7, 2], [21, 9, 0]]


@pytest.mark.parametrize("slab_size", [1, 3, 5, 7])
def test_a_slab_is_the_slices_around_its_centre(tmp_path, slab_size):
    case = make_case(tmp_path)

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    volume = stored.image()
    for centre in range(4):
        expected = volume[slab_indices(centre, n_slices=4, slab_size=slab_size)]
        np.testing.assert_array_equal(stored.slab(centre, slab_size=slab_size), expected)
        np.testing.assert_array_equal(stored.label(centre, centre + 1)[0], stored.label()[centre])


def test_lesions_are_counted_as_they_touch(tmp_path):
    """Two voxels that meet at a corner are one lesion; voxels are 2 x 2 x 3 mm."""
    label = np.zeros((6, 5, 4))
    label[1, 1, 0] = label[2, 2, 1] = label[5, 4, 3] = TUMOR
    label[5, 3, 3] = LIVER

    (stored,) = build_store([make_case(tmp_path, label=label)], spec=SPEC, folder=tmp_path / "store")

    assert stored.lesions == (
        Lesion(lesion=1, n_voxels=2, volume_ml=0.024, first_slice=0, last_slice=1, centre=(0.5, 1.5, 1.5)),
        Lesion(lesion=2, n_voxels=1, volume_ml=0.012, first_slice=3, last_slice=3, centre=(3.0, 5.0, 4.0)),
    )
    assert (stored.liver_ml, stored.tumor_ml) == pytest.approx((0.048, 0.036))
    assert stored.burden == pytest.approx(0.75)


def test_a_volume_comes_back_with_its_place_and_its_reference(tmp_path):
    """What validation reads is what prediction makes of the file: the mask can be brought back to the CT's grid."""
    affine = np.array([[-0.9, 0, 0, 50], [0, -0.9, 0, 40], [0, 0, 4.0, -30], [0, 0, 0, 1]])
    label = np.arange(12 * 10 * 6).reshape(12, 10, 6) % 3
    case = make_case(tmp_path, image=np.arange(720).reshape(12, 10, 6), label=label)
    for path, voxels in ((case.image, np.arange(720).reshape(12, 10, 6)), (case.label, label)):
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    expected = preprocessing(SPEC)(case.to_item())["image"]

    item = StoredVolume(SPEC, store=tmp_path / "store")(case)

    low, high = SPEC.hu_window
    torch.testing.assert_close(item["image"].as_tensor(), expected.as_tensor(), atol=0.51 / (high - low), rtol=0)
    for name in ("affine", "original_affine", "oriented_affine", "oriented_shape"):
        np.testing.assert_allclose(item["image"].meta[name], expected.meta[name], rtol=1e-12)
    np.testing.assert_array_equal(item["label"][0].numpy(), label)
    np.testing.assert_array_equal(item["label"].affine, nib.load(case.label).affine)
    assert item["label"].dtype == torch.uint8


def test_a_case_is_read_from_the_store_when_its_files_are_gone(tmp_path):
    case = make_case(tmp_path)
    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")
    kept = replace(case, source=source_of(case))
    case.image.unlink()
    case.label.unlink()

    (again,) = build_store([kept], spec=SPEC, folder=tmp_path / "store")

    np.testing.assert_array_equal(again.image(), stored.image())
    with pytest.raises(InputError, match=r"ct.nii: no such file"):
        build_store([case], spec=SPEC, folder=tmp_path / "store")
    with pytest.raises(InputError, match=r"ct.nii: no such file"):
        build_store([kept], spec=FINER, folder=tmp_path / "store")


def test_phantoms_are_stored_as_the_model_grid_has_them(phantom_dataset, tmp_path):
    spec = ModelSpec(encoder="resnet34", spacing_mm=(8, 8, 8))
    cases = find_cases(phantom_dataset)

    stored = build_store(cases, spec=spec, folder=tmp_path)

    assert [case.case_id for case in stored] == [case.case_id for case in cases]
    item = model_grid(spec)(cases[0].to_item())
    np.testing.assert_allclose(stored[0].image(), item["image"][0].permute(2, 0, 1), atol=0.5)  # rounded to whole HU
    np.testing.assert_array_equal(stored[0].label(), item["label"][0].permute(2, 0, 1))


def test_hu_beyond_int16_are_clipped_and_do_not_wrap(tmp_path):
    image = np.zeros((2, 2, 2), dtype=np.float32)
    image[0, 0, 0], image[1, 1, 1] = 40000, -40000
    case = make_case(tmp_path, image=np.zeros((2, 2, 2)), label=np.zeros((2, 2, 2)))
    write(case.image, image)

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert (stored.image().max(), stored.image().min()) == (32767, -32768)


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
    assert len(kept) == 1
    assert len(now) == 2
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

    assert stored.image().shape == stored.label().shape == (4, 12, 10)


@pytest.mark.parametrize("changed", ["image", "label"])
def test_a_changed_file_is_stored_anew(tmp_path, changed):
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    write(getattr(case, changed), np.ones((6, 5, 4), dtype=np.uint8))
    os.utime(getattr(case, changed), ns=(1, 1))  # a file system may count time in steps longer than this test

    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    assert (getattr(stored, changed)() == 1).all()


def test_a_case_that_was_moved_or_relabelled_elsewhere_is_still_known(tmp_path):
    """Where files lie does not matter; a copy that keeps names, sizes and times is the same case."""
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    age(tmp_path / "store")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = replace(
        case, image=case.image.rename(elsewhere / case.image.name), label=case.label.rename(elsewhere / case.label.name)
    )

    build_store([moved], spec=SPEC, folder=tmp_path / "store")

    assert set(written_at(tmp_path / "store").values()) == {0}


@pytest.mark.parametrize("damage", ["truncate", "remove", "garble"])
def test_a_case_that_is_not_whole_is_made_anew(tmp_path, damage):
    """As a power cut may leave one: the name is there, what was written last is not."""
    case = make_case(tmp_path)
    build_store([case], spec=SPEC, folder=tmp_path / "store")
    (place,) = (tmp_path / "store").glob("*/ct.*")
    if damage == "truncate":
        (place / "image.b2nd").write_bytes((place / "image.b2nd").read_bytes()[:-5])
    elif damage == "remove":
        (place / "label.b2nd").unlink()
    else:
        (place / "case.json").write_text("{")

    with pytest.raises(InputError, match=r"does not hold case 'ct' on the grid 2x2x3mm-RAS; prepare it"):
        open_case(case, spec=SPEC, folder=tmp_path / "store")
    (stored,) = build_store([case], spec=SPEC, folder=tmp_path / "store")

    np.testing.assert_array_equal(stored.image(), np.arange(6 * 5 * 4).reshape(6, 5, 4).transpose(2, 0, 1))


def test_nothing_but_the_store_is_left_behind(tmp_path):
    (tmp_path / "store" / "2x2x3mm-RAS" / ".7.ct.0123.writing").mkdir(parents=True)  # of a writer that was killed
    (tmp_path / "store" / "2x2x3mm-RAS" / ".7.ct.0123.writing" / "image.b2nd").touch()

    (stored,) = build_store([make_case(tmp_path)], spec=SPEC, folder=tmp_path / "store")

    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()] == ["2x2x3mm-RAS"]
    assert list((tmp_path / "store" / "2x2x3mm-RAS").iterdir()) == [stored.folder]
    assert {path.name for path in stored.folder.iterdir()} == {
        "image.b2nd",
        "label.b2nd",
        "reference.b2nd",
        "case.json",
    }


def test_one_bad_case_never_stops_the_others(tmp_path):
    cases = [make_case(tmp_path, name=name) for name in ("a", "b", "c")]
    cases[1].image.write_bytes(b"no NIfTI")

    done = {result.case.case_id: result for result in store_cases(cases, spec=SPEC, folder=tmp_path / "store")}

    assert [name for name, result in done.items() if result.error] == ["b"]
    assert "b.nii" in done["b"].error
    assert len(written_at(tmp_path / "store")) == 2
    with pytest.raises(InputError, match=r"b\.nii: .*; leave a case out with a line in excludes.csv"):
        build_store(cases, spec=SPEC, folder=tmp_path / "store")


def test_processes_store_what_one_does(tmp_path):
    cases = [make_case(tmp_path, name=name) for name in ("a", "b", "c")]
    alone = build_store(cases, spec=SPEC, folder=tmp_path / "alone")

    done = list(store_cases(cases, spec=SPEC, folder=tmp_path / "together", pool=Processes(2)))

    assert sorted(result.case.case_id for result in done) == ["a", "b", "c"]
    for case, expected in zip(cases, alone, strict=True):
        stored = open_case(case, spec=SPEC, folder=tmp_path / "together")
        np.testing.assert_array_equal(stored.image(), expected.image())
        assert stored.lesions == expected.lesions


def test_a_second_writer_waits_for_the_first_and_makes_nothing_twice(tmp_path, caplog):
    case = make_case(tmp_path)
    with FileLock(tmp_path / "store.lock") as lock:  # as another process holds it
        waiting = threading.Thread(target=build_store, args=([case],), kwargs={"spec": SPEC, "folder": tmp_path})
        waiting.start()
        build_store([case], spec=SPEC, folder=tmp_path / "first")
        (tmp_path / "first" / "2x2x3mm-RAS").rename(tmp_path / "2x2x3mm-RAS")
        age(tmp_path)
        assert waiting.is_alive()
        lock.release()
    waiting.join(timeout=20)

    assert not waiting.is_alive()
    assert "waiting for it" in caplog.text
    assert set(written_at(tmp_path).values()) == {0}
