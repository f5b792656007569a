"""From one format to another: voxels equal, corners in place, and nothing written that is not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_export import ct_slices, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_segments import AFFINE, SHAPE, write_structures

from liver_monai.errors import InputError
from liver_monai.io.conversion import COPY_TOLERANCE_MM, convert
from liver_monai.io.masks import write_mask
from liver_monai.io.volumes import is_volume_file, read_header, read_mask, read_volume, strip_suffix

SHEARED = np.array([[-0.7, 0.01, 0, 120.5], [0, -0.7, 0.4, 80.25], [0, 0.02, 2.5, -300.125], [0, 0, 0, 1]])
TILTED = np.array([[-0.7, 0, 0, 120.5], [0, -0.7 * 0.96, 0, 80.25], [0, -0.7 * 0.28, 2.5, -300.125], [0, 0, 0, 1]])
FORMATS = (".nii", ".nii.gz", ".nrrd", ".mha")


def voxels(dtype=np.int16):
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 200).astype(dtype)


def write_itk(path, array, *, origin=(1.0, 2.0, 3.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([0.7, 0.8, 2.5])
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("affine", [AFFINE, SHEARED])
def test_every_format_keeps_voxels_and_places(tmp_path, suffix, affine):
    source = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(voxels(), affine), source)

    there = tmp_path / "out" / f"there{suffix}"
    convert(source, there)
    convert(there, tmp_path / "back.nii.gz")

    for path in (there, tmp_path / "back.nii.gz"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume[0].numpy(), voxels())
        np.testing.assert_allclose(np.asarray(volume.affine), affine, atol=COPY_TOLERANCE_MM / max(SHAPE))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [there.name]


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.lists(st.floats(-2000, 2000), min_size=3, max_size=3))
def test_any_affine_survives_nrrd(tmp_path_factory, turn, origin):
    affine = np.eye(4)
    affine[:3, :3] = 2 * np.eye(3) + np.reshape(turn, (3, 3)) * 0.6
    affine[:3, 3] = origin
    folder = tmp_path_factory.mktemp("any")
    nib.save(nib.Nifti1Image(voxels(), affine), folder / "ct.nii")

    header = convert(folder / "ct.nii", folder / "ct.nrrd")

    np.testing.assert_allclose(header.affine, nib.load(folder / "ct.nii").affine, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_itk_places_voxels_where_itk_says(tmp_path, suffix):
    path = write_itk(tmp_path / f"ct{suffix}", voxels().transpose(2, 1, 0))

    volume, header, image = read_volume(path), read_header(path), sitk.ReadImage(str(path))

    assert (header.shape, header.stored_dtype, header.axis_codes) == (SHAPE, "int16", "LPS")
    np.testing.assert_allclose(header.spacing_mm, (0.7, 0.8, 2.5))
    for index in ((0, 0, 0), (3, 5, 7)):
        left, posterior, superior = image.TransformIndexToPhysicalPoint(index)
        placed = np.asarray(volume.affine) @ [*index, 1]
        np.testing.assert_allclose(placed[:3], [-left, -posterior, superior])
        assert int(volume[0][index]) == image[index]


def test_dicom_becomes_nifti_as_simpleitk_reads_it(tmp_path):
    folder = write(tmp_path / "ct", ct_slices(voxels(), AFFINE))

    convert(folder, tmp_path / "ct.nii.gz")

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs, ours = reader.Execute(), sitk.ReadImage(str(tmp_path / "ct.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for index in ((0, 0, 0), (11, 9, 7)):
        np.testing.assert_allclose(
            ours.TransformIndexToPhysicalPoint(index), theirs.TransformIndexToPhysicalPoint(index), atol=1e-4
        )


@settings(max_examples=10)
@given(arrays(np.uint8, SHAPE, elements=st.integers(0, 2)))
def test_masks_stay_small(tmp_path_factory, mask):
    folder = tmp_path_factory.mktemp("masks")
    nib.save(nib.Nifti1Image(mask, AFFINE), folder / "mask.nii")

    header = convert(folder / "mask.nii", folder / "mask.nrrd")

    assert header.stored_dtype == "uint8"
    np.testing.assert_array_equal(read_mask(folder / "mask.nrrd")[0].numpy(), mask)


def test_dicom_masks_are_converted_on_the_grid_of_their_ct(cli, tmp_path):
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:5, 3:6, 2:4] = 1
    masks = write_structures(tmp_path / "MASKS_DICOM", {"liver": truth})
    ct = write(tmp_path / "ct", ct_slices(voxels(), AFFINE))
    off = write(tmp_path / "off", ct_slices(voxels(), TILTED))
    longer = write(tmp_path / "longer", ct_slices(np.zeros((14, 10, 8), np.int16), AFFINE))

    done = cli("convert", masks, tmp_path / "mask.nii.gz", "--ct", ct)
    refused = cli("convert", masks, tmp_path / "wrong.nii.gz", "--ct", off)

    assert done.exit_code == 0, done.output
    assert done.stderr.strip() == f"{tmp_path / 'mask.nii.gz'}: 12 x 10 x 8 voxels of 0.8 x 0.9 x 2.5 mm, LPS"
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").get_fdata(), truth)
    assert refused.exit_code == 1
    assert "does not lie on the voxels of its CT" in refused.stderr
    assert not (tmp_path / "wrong.nii.gz").exists()
    assert convert(masks, tmp_path / "longer.nii.gz", ct=longer).shape == (14, 10, 8)


def test_a_mask_of_another_grid_is_no_mask_of_the_ct(tmp_path):
    nib.save(nib.Nifti1Image(voxels() % 3, AFFINE), tmp_path / "mask.nii")
    nib.save(nib.Nifti1Image(voxels()[:5], AFFINE), tmp_path / "ct.nii")

    with pytest.raises(InputError, match="both must lie on one grid"):
        convert(tmp_path / "mask.nii", tmp_path / "out.nii", ct=tmp_path / "ct.nii")


def test_nothing_is_overwritten_unasked_and_formats_are_named(cli, tmp_path):
    source = tmp_path / "ct.nii"
    nib.save(nib.Nifti1Image(voxels(), AFFINE), source)
    (tmp_path / "there.nrrd").write_text("years of work")

    for out, rule in (
        ("there.nrrd", "is there already; give --overwrite"),
        ("ct.nii", "is the file to convert"),
        ("ct.mhd", "is of a format that is not written; end its name in .nii, .nii.gz, .nrrd, .mha"),
        ("ct", "is of a format that is not written"),
    ):
        refused = cli("convert", source, tmp_path / out)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
        assert rule in refused.stderr
    assert (tmp_path / "there.nrrd").read_text() == "years of work"
    assert cli("convert", source, tmp_path / "there.nrrd", "--overwrite").exit_code == 0
    assert cli("convert", source, tmp_path / "o.nrrd", "--series", "1").exit_code == 1


def test_series_are_chosen(cli, tmp_path):
    for number, name in enumerate("ab"):
        write(tmp_path / "study" / name, ct_slices(voxels() + number, AFFINE))

    several = cli("convert", tmp_path / "study", tmp_path / "ct.nii")
    chosen = cli("convert", tmp_path / "study", tmp_path / "ct.nii", "--series", 2)

    assert several.exit_code == 1
    assert "holds 2 volumes; choose one with --series" in several.stderr
    assert chosen.exit_code == 0, chosen.output
    np.testing.assert_array_equal(nib.load(tmp_path / "ct.nii").get_fdata(), voxels() + 1)


def test_no_name_of_a_patient_leaves_dicom(tmp_path):
    folder = write(tmp_path / "ct", ct_slices(voxels(), AFFINE))

    for suffix in (".nii", ".nrrd", ".mha"):
        convert(folder, tmp_path / f"ct{suffix}")
        assert b"ecret" not in (tmp_path / f"ct{suffix}").read_bytes()


@pytest.mark.parametrize("source", ["ct", "ct.nrrd"])
def test_a_mask_has_the_affine_of_its_ct_whatever_the_format(tmp_path, source):
    folder = write(tmp_path / "ct", ct_slices(voxels(), TILTED))
    convert(folder, tmp_path / "ct.nrrd")
    mask = (voxels() % 3).astype(np.uint8)

    write_mask(mask, tmp_path / "mask.nii.gz", ct=tmp_path / source)

    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(written.dataobj, mask)
    np.testing.assert_allclose(written.affine, TILTED, atol=1e-4)
    assert (written.get_data_dtype(), written.header.get_xyzt_units()[0]) == (np.uint8, "mm")
    with pytest.raises(ValueError, match="does not belong"):
        write_mask(mask[1:], tmp_path / "mask.nii.gz", ct=tmp_path / source)


def text(path):
    path.write_text("this is no CT")


def truncated(path):
    write_itk(path, np.random.default_rng(0).integers(-1000, 1000, (30, 30, 30), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:5000])


def four_dimensional(path):
    sitk.WriteImage(sitk.Image([4, 4, 4, 3], sitk.sitkInt16), str(path))


def colour(path):
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(path))


def with_nan(path):
    write_itk(path, np.full((4, 4, 4), np.nan, np.float32))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (text, "is named like (NRRD|MetaImage) but cannot be read"),
        (truncated, "is damaged"),
        (four_dimensional, "three dimensions"),
        (colour, "3 numbers a voxel"),
        (with_nan, "64 of 64 voxels are NaN"),
    ],
)
def test_what_is_no_ct_is_refused_in_one_line(tmp_path, suffix, spoil, rule):
    path = tmp_path / f"ct{suffix}"
    spoil(path)

    with pytest.raises(InputError, match=rule) as refusal:
        read_volume(path)

    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_of_files(tmp_path):
    names = ("a.nii", "a.nii.gz", "A.NRRD", "a.nhdr", "a.mha", "a.mhd")

    assert all(is_volume_file(tmp_path / name) and strip_suffix(name).lower() == "a" for name in names)
    assert not any(is_volume_file(tmp_path / name) for name in ("a.dcm", "a.zip", "a.raw", ".a.nrrd", "a"))
    assert [strip_suffix(name) for name in ("a.zip", "a.dcm", "a.b", "a.1")] == ["a", "a", "a.b", "a.1"]
