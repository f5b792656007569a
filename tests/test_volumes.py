"""Files in and out: geometry to the bit, and one clear line for what cannot be used."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

from liver_monai.errors import InputError
from liver_monai.io.masks import write_mask
from liver_monai.io.volumes import last_axis_first, read_mask, read_volume

AFFINE = np.array([[-0.7, 0.01, 0, 120.5], [0, -0.7, 0.02, 80.25], [0, 0, 2.5, -300.125], [0, 0, 0, 1]])


def write(path, voxels, *, affine=AFFINE, slope_inter=(None, None), sform=1, qform=1):
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_slope_inter(*slope_inter)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def some_voxels(dtype=np.int16):
    return np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)


@pytest.mark.parametrize(
    ("stored", "read"), [(np.int16, torch.int16), (np.int32, torch.int16), (np.uint8, torch.int16)]
)
def test_integers_that_fit_become_int16(tmp_path, stored, read):
    volume = read_volume(write(tmp_path / "ct.nii.gz", some_voxels(stored)))

    assert volume.dtype == read
    np.testing.assert_array_equal(volume[0].numpy(), some_voxels())


def test_big_endian_and_float64_are_read(tmp_path):
    volume = read_volume(write(tmp_path / "ct.nii", some_voxels(np.float64).astype(">f8")))

    assert volume.dtype == torch.float32
    np.testing.assert_array_equal(volume[0].numpy(), some_voxels(np.float32))


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(some_voxels(np.uint8), AFFINE)
    image.header.set_slope_inter(7.5, -1024)
    path = tmp_path / "ct.nii"
    with path.open("wb") as file:  # nibabel would undo the scaling on the way out, so the parts are written apart
        image.header.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        file.write(some_voxels(np.uint8).tobytes(order="F"))

    volume = read_volume(path)

    np.testing.assert_allclose(volume[0].numpy(), some_voxels() * 7.5 - 1024)


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path):
    volume = read_volume(write(tmp_path / "ct.nii.gz", some_voxels()[..., None]))

    assert volume.shape == (1, 4, 5, 6)


def not_there(path):
    return path


def text(path):
    path.write_text("this is no CT")
    return path


def empty_file(path):
    path.touch()
    return path


def a_folder(path):
    path.mkdir()
    return path


def four_dimensional(path):
    return write(path, np.zeros((4, 4, 4, 3), np.int16))


def two_dimensional(path):
    return write(path, np.zeros((4, 4), np.int16))


def colour(path):
    return write(path, np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


def with_nan(path):
    voxels = some_voxels(np.float32)
    voxels[1, 1, 1] = np.nan
    return write(path, voxels)


def truncated(path):
    write(path, np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:5000])
    return path


def flipped_bytes(path):
    write(path, np.random.default_rng(0).integers(-1000, 1000, (40, 40, 40), dtype=np.int16))
    content = bytearray(path.read_bytes())
    content[3000:3100] = bytes(100)
    path.write_bytes(content)
    return path


def flat_affine(path):
    image = nib.Nifti1Image(some_voxels(), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = [1, 0, 0, 0]
    nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (not_there, "no such file"),
        (text, "cannot be read as NIfTI"),
        (empty_file, "cannot be read as NIfTI"),
        (a_folder, "holds no CT volume in DICOM"),
        (four_dimensional, "three dimensions"),
        (two_dimensional, "three dimensions"),
        (colour, "colour"),
        (with_nan, "1 of 120 voxels are NaN"),
        (truncated, "damaged"),
        (flipped_bytes, "cannot be read as NIfTI"),
        (flat_affine, "does not place voxels"),
    ],
)
def test_what_is_no_ct_is_refused_in_one_line(tmp_path, make, rule):
    path = make(tmp_path / "ct.nii.gz")

    assert_refused(path, rule)


def test_a_value_that_is_no_label_is_named(tmp_path):
    path = write(tmp_path / "mask.nii.gz", np.full((2, 2, 2), 5, np.int16))

    with pytest.raises(InputError, match="value 5"):
        read_mask(path)


def test_a_mask_stored_as_float_is_read(tmp_path):
    mask = read_mask(write(tmp_path / "mask.nii.gz", np.full((2, 2, 2), 2.0, np.float32)))

    assert mask.dtype == torch.uint8
    assert (mask == 2).all()


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (0, 0), (4, 3)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_mask_keeps_the_geometry_of_its_ct_to_the_bit(tmp_path, sform, qform, suffix):
    ct = write(tmp_path / f"ct{suffix}", some_voxels(), sform=sform, qform=qform, slope_inter=(2.0, -1024))
    mask = (some_voxels() % 3).astype(np.uint8)

    write_mask(mask, tmp_path / "out" / "mask.nii.gz", ct=ct)

    source, written = nib.load(ct), nib.load(tmp_path / "out" / "mask.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "quatern_b", "srow_x", "pixdim"):
        np.testing.assert_array_equal(written.header[field], source.header[field])
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), mask)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    ct = write(tmp_path / "ct.nii.gz", some_voxels())
    out = tmp_path / "out"
    write_mask(np.ones((4, 5, 6), np.uint8), out / "mask.nii.gz", ct=ct)
    before = (out / "mask.nii.gz").read_bytes()

    with pytest.raises(ValueError, match="does not belong"):
        write_mask(np.ones((4, 5, 7), np.uint8), out / "mask.nii.gz", ct=ct)

    assert (out / "mask.nii.gz").read_bytes() == before
    assert [file.name for file in out.iterdir()] == ["mask.nii.gz"]


def test_a_gzipped_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(gzip.compress(b"not a volume"))

    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read_volume(path)


@given(
    shape=st.tuples(st.integers(1, 140), st.integers(1, 5), st.integers(1, 5)),
    order=st.permutations(range(3)),
    dtype=st.sampled_from(["<i2", ">i2", "u1", "<f8"]),
)
def test_voxels_keep_their_places_however_they_lie_in_memory(shape, order, dtype):
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    laid_out = np.ascontiguousarray(voxels.transpose(order)).transpose(np.argsort(order))

    copied = last_axis_first(laid_out)

    assert copied.flags.c_contiguous
    assert copied.dtype == voxels.dtype
    np.testing.assert_array_equal(copied, voxels)
