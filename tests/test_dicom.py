"""DICOM in: an export of a phantom comes back as it was, and what is broken is refused with its place."""

from __future__ import annotations

import logging
import shutil
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_export import compress, ct_slices, ds, enhanced_ct, localizer, set_pixels, write
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from refusals import assert_refused

from liver_monai.data.cases import find_images
from liver_monai.data.phantom import make_phantom
from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, choose_volumes, find_dicom_volumes, only_volume
from liver_monai.io.volumes import read_header, read_volume

DS_ROUNDING_MM = 1e-9
"""Decimal strings have 16 characters: a position of hundreds of millimetres is rounded to 12 decimals."""


def small_ct(orientation="LPS"):
    """HU (X, Y, Z) of 12 bits and the affine of a small CT."""
    made = make_phantom(seed=3, shape=(36, 28, 10), spacing_mm=(9.0, 9.5, 17.3), orientation=orientation)
    return made.image.clip(-1024, 3071), made.affine


@pytest.fixture(scope="module")
def phantom():
    """A CT as scanners store it."""
    return small_ct()


def assert_same(volume, hu, affine):
    np.testing.assert_array_equal(volume[0].numpy(), hu)
    np.testing.assert_allclose(np.asarray(volume.affine), affine, rtol=0, atol=DS_ROUNDING_MM)


def changed(datasets, **attributes):
    for dataset in datasets:
        for name, value in attributes.items():
            setattr(dataset, name, value)
    return datasets


# what is read


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("seed", [None, 0])
def test_an_export_comes_back_exact_in_either_order_under_any_names(tmp_path, phantom, order, seed):
    slices = ct_slices(*phantom)[::order]
    folder = write(tmp_path / "ct", [*slices, localizer(slices[0].SeriesInstanceUID)], seed=seed)

    volume = read_volume(folder)

    assert volume.dtype == torch.int16
    assert_same(volume, *phantom)


@pytest.mark.parametrize("code", ["RAS", "LAS", "LPS", "ASR", "SPL"])
def test_whichever_way_the_axes_run_each_voxel_keeps_its_place(tmp_path, code):
    hu, affine = small_ct(code)

    volume = read_volume(write(tmp_path / "ct", ct_slices(hu, affine)))

    ours, theirs = (
        nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
        for voxels, affine in ((volume[0].numpy(), np.asarray(volume.affine)), (hu, affine))
    )
    np.testing.assert_array_equal(ours.dataobj, theirs.dataobj)
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=DS_ROUNDING_MM)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "ImplicitVRLittleEndian"]
)
def test_compressed_pixels_come_back_exact(tmp_path, phantom, syntax):
    folder = write(tmp_path / "ct", ct_slices(*phantom))
    compress(folder, syntax)

    assert_same(read_volume(folder), *phantom)


def test_an_enhanced_multi_frame_file_is_a_volume(tmp_path, phantom):
    folder = write(tmp_path / "ct", [enhanced_ct(*phantom)])

    assert_same(read_volume(folder / "IM0000"), *phantom)
    assert_same(read_volume(folder), *phantom)


def test_a_zip_is_read_in_memory(tmp_path, phantom):
    folder = write(tmp_path / "study" / "series", ct_slices(*phantom))
    archive = tmp_path / "CT.of.today.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in folder.iterdir():
            file.write(each, f"study/series/{each.name}")
        file.writestr("__MACOSX/._IM0000", b"resource fork")
    shutil.rmtree(tmp_path / "study")

    volume = only_volume(archive)

    assert_same(read_volume(archive), *phantom)
    assert (volume.name, str(volume)) == ("CT.of.today", str(archive))
    assert list(tmp_path.iterdir()) == [archive]


def test_gantry_tilt_is_kept_as_shear(tmp_path, phantom, caplog):
    hu, affine = phantom
    sheared = affine.copy()
    sheared[:3, 1] = [0, -9.5 * np.cos(0.3), -9.5 * np.sin(0.3)]  # the plane leans by 0.3 rad, the table does not

    volume = read_volume(write(tmp_path / "ct", ct_slices(hu, sheared)))

    assert_same(volume, hu, sheared)
    assert f"gantry tilt of {np.degrees(0.3):.1f} degrees, kept as shear" in caplog.text


def test_jitter_of_rounded_positions_is_accepted(tmp_path, phantom):
    slices = ct_slices(*phantom)
    for number, dataset in enumerate(slices[1:-1]):
        dataset.ImagePositionPatient[2] += 0.0005 * (-1) ** number

    assert_same(read_volume(write(tmp_path / "ct", slices)), *phantom)


def test_rescale_may_differ_from_slice_to_slice(tmp_path, phantom):
    hu, affine = phantom
    slices = ct_slices(hu, affine)
    for z, dataset in enumerate(slices):
        dataset.RescaleIntercept = -1000 - z
        set_pixels(dataset, (hu[:, :, z].T.astype(int) + 1000 + z).astype(np.int16))
    assert_same(read_volume(write(tmp_path / "whole", slices)), hu, affine)

    changed(slices[:1], RescaleSlope="0.5")
    volume = read_volume(write(tmp_path / "fraction", slices))

    assert volume.dtype == torch.float32
    np.testing.assert_allclose(volume[0, :, :, 0].numpy(), (hu[:, :, 0] + 1000) * 0.5 - 1000)
    np.testing.assert_array_equal(volume[0, :, :, 1:].numpy(), hu[:, :, 1:])


@pytest.mark.parametrize("bits_stored", [12, 16])
@pytest.mark.parametrize("padding", [63536, -2000])
def test_signed_padding_of_unsigned_pixels_is_air(tmp_path, phantom, bits_stored, padding):
    """63536 is -2000 as 16 unsigned bits: believed as it stands, air around the patient is denser than metal."""
    hu, affine = phantom
    slices = ct_slices(hu, affine)
    for dataset in slices:
        pixels = dataset.pixel_array.copy()
        pixels[:3] = 63536
        set_pixels(dataset, pixels)
        dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
        dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)

    volume = read_volume(write(tmp_path / "ct", slices))[0].numpy()

    assert (volume[:, :3] == -1024).all()
    np.testing.assert_array_equal(volume[:, 3:], hu[:, 3:])


def test_a_padding_value_that_could_be_tissue_is_left(tmp_path, phantom):
    slices = changed(ct_slices(*phantom), PixelPaddingValue=1024)  # 0 HU

    assert_same(read_volume(write(tmp_path / "ct", slices)), *phantom)


def test_monochrome1_says_how_to_show_and_not_what_is_stored(tmp_path, phantom, caplog):
    slices = changed(ct_slices(*phantom), PhotometricInterpretation="MONOCHROME1")

    assert_same(read_volume(write(tmp_path / "ct", slices)), *phantom)
    assert "MONOCHROME1" in caplog.text


def test_identifiers_may_stand_in_the_file_meta_information_only(tmp_path, phantom):
    slices = ct_slices(*phantom)
    for dataset in slices:
        del dataset.SOPClassUID, dataset.SeriesInstanceUID, dataset.Modality
    folder = write(tmp_path / "ct", ct_slices(*phantom))
    for file, dataset in zip(sorted(folder.iterdir()), slices, strict=True):
        dataset.preamble = bytes(128)
        dataset.save_as(file)

    assert_same(read_volume(folder), *phantom)


@pytest.mark.parametrize("is_implicit", [True, False])
@pytest.mark.parametrize("has_meta", [True, False])
def test_old_exports_have_no_preamble(tmp_path, phantom, is_implicit, has_meta):
    folder = tmp_path / "ct"
    folder.mkdir()
    for number, dataset in enumerate(ct_slices(*phantom)):
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        file = folder / f"IM{number}"
        dataset.save_as(file, enforce_file_format=True)
        whole = file.read_bytes()[132:]
        meta_bytes = 12 + int.from_bytes(whole[8:12], "little")  # the first element says how long the others are
        file.write_bytes(whole if has_meta else whole[meta_bytes:])
    (folder / "notes").write_bytes(b"\x08\x00\x05\x00 and no more of DICOM than this")
    (folder / "empty").touch()

    assert_same(read_volume(folder), *phantom)


def test_a_tar_is_refused_with_the_way_out(tmp_path, phantom):
    folder = write(tmp_path / "ct", ct_slices(*phantom))
    archive = tmp_path / "study.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, arcname="../ct")

    assert [case.image for case in find_images([archive])] == [archive]
    for read in (read_volume, read_header):
        with pytest.raises(InputError, match=r"study.tar.gz: is a tar archive; unpack it and give the folder"):
            read(archive)


def test_a_zip_too_damaged_to_be_listed_is_a_case_that_fails_alone(tmp_path, phantom):
    folder = write(tmp_path / "ct", ct_slices(*phantom))
    studies = tmp_path / "studies"
    shutil.make_archive(str(studies / "sound"), "zip", folder)
    damaged = studies / "damaged.zip"
    damaged.write_bytes((studies / "sound.zip").read_bytes()[:-100])

    images = {case.case_id: case.image for case in find_images([studies])}

    assert len(images) == 2
    assert images.pop("damaged") == damaged
    assert find_images([damaged])[0].image == damaged
    with pytest.raises(InputError, match=r"damaged\.zip: cannot be unpacked"):
        read_volume(damaged)
    assert_same(read_volume(*images.values()), *phantom)


# what a folder holds


def study(folder, phantom):
    """Two series of a patient, a localizer, a dose report and files that are no DICOM."""
    hu, affine = phantom
    write(folder / "S1", ct_slices(hu, affine, series_number=4))
    write(folder / "S2", ct_slices(hu[..., :6], affine, series_number=7))
    write(folder, [localizer(generate_uid())], prefix="scout")
    (report,) = ct_slices(hu[..., :1], affine)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    write(folder, [report], prefix="dose")
    (folder / "README.txt").write_text("text")
    (folder / "._S1").write_bytes(bytes(128) + b"DICM")
    return folder


def test_series_are_listed_and_the_rest_is_left_out_and_said(tmp_path, phantom, caplog):
    volumes = find_dicom_volumes(study(tmp_path / "study", phantom))

    assert [(volume.number, volume.n_slices, volume.name) for volume in volumes] == [(1, 10, "S1"), (2, 6, "S2")]
    assert "left out 1 Secondary Capture Image Storage (CT), 1 localizer" in caplog.text
    assert str(volumes[0]) == str(tmp_path / "study" / "S1")
    assert len(volumes[0].files) == 10
    assert read_volume(volumes[1]).shape == (1, 36, 28, 6)


def test_several_series_are_refused_with_what_to_choose_them_by(tmp_path, phantom):
    folder = study(tmp_path / "study", phantom)
    volumes = find_dicom_volumes(folder)

    with pytest.raises(InputError, match="holds 2 volumes; choose one with --series") as refusal:
        read_volume(folder)
    assert all(volume.series_uid in str(refusal.value) for volume in volumes)
    assert "\n" not in str(refusal.value)
    for choice in ("2", volumes[1].series_uid, volumes[1].series_uid[:-1]):
        assert only_volume(folder, series=choice) == volumes[1]
    with pytest.raises(InputError, match=r"--series 3: fits no series"):
        choose_volumes(volumes, "3")
    with pytest.raises(InputError, match=r"--series 1\.: fits several series"):
        choose_volumes(volumes, "1.")


def test_patients_and_studies_give_volumes_their_names(tmp_path, phantom):
    hu, affine = phantom
    for name in ("a/art", "a/pv", "b/1.2.840.113619.2.55.3.604688"):
        write(tmp_path / "pacs" / "export" / name, ct_slices(hu[..., :3], affine))

    names = [volume.name for volume in find_dicom_volumes(tmp_path / "pacs")]

    assert names == ["a_art", "a_pv", "b"]


def test_volumes_are_small_and_travel_between_processes(tmp_path, phantom):
    import pickle

    volume = only_volume(write(tmp_path / "ct", ct_slices(*phantom)))

    assert pickle.loads(pickle.dumps(volume)) == volume
    assert len({volume, volume}) == 1
    assert "Secret" not in repr(volume.frames)
    assert isinstance(volume, DicomVolume)


def test_the_header_is_that_of_the_volume(tmp_path, phantom):
    folder = write(tmp_path / "ct", ct_slices(*phantom))

    header = read_header(folder)

    assert (header.shape, header.axis_codes, header.stored_dtype) == ((36, 28, 10), "LPS", "uint16")
    np.testing.assert_allclose(header.spacing_mm, (9.0, 9.5, 17.3))
    np.testing.assert_allclose(header.affine, phantom[1], atol=DS_ROUNDING_MM)


# phases


@pytest.mark.parametrize("tell", ["AcquisitionNumber", "AcquisitionTime", "InstanceNumber"])
def test_phases_of_one_series_are_told_apart(tmp_path, phantom, tell):
    hu, affine = phantom
    uid = generate_uid()
    first, second = (
        ct_slices(hu + 20 * phase, affine, series_uid=uid, acquisition=None, first_instance=1 + 10 * phase)
        for phase in (0, 1)
    )
    if tell != "InstanceNumber":
        changed(first, **{tell: "101500"})
        changed(second, **{tell: "101530"})
    folder = write(tmp_path / "ct", [*first, *second], seed=1)

    volumes = find_dicom_volumes(folder)

    assert [(volume.part, volume.n_parts, volume.name) for volume in volumes] == [(1, 2, "ct_1-1"), (2, 2, "ct_1-2")]
    assert_same(read_volume(volumes[0]), hu, affine)
    assert_same(read_volume(volumes[1]), hu + 20, affine)


def test_phases_between_each_other_s_slices_are_told_apart(tmp_path, phantom):
    hu, affine = phantom
    shifted = affine.copy()
    shifted[2, 3] += 17.3 / 2  # together they would be one volume of half the spacing
    slices = ct_slices(hu, affine, acquisition=1), ct_slices(hu, shifted, acquisition=2)
    changed(slices[1], SeriesInstanceUID=slices[0][0].SeriesInstanceUID)

    volumes = find_dicom_volumes(write(tmp_path / "ct", [*slices[0], *slices[1]]))

    assert [volume.n_slices for volume in volumes] == [10, 10]
    assert_same(read_volume(volumes[0]), hu, affine)
    assert_same(read_volume(volumes[1]), hu, shifted)


def test_a_table_that_steps_gives_one_volume(tmp_path, phantom):
    slices = ct_slices(*phantom)
    for z, dataset in enumerate(slices):
        dataset.AcquisitionNumber = 1 + z // 2

    assert_same(read_volume(write(tmp_path / "ct", slices)), *phantom)


def test_acquisitions_that_cannot_be_told_apart_are_refused(tmp_path, phantom):
    hu, affine = phantom
    shifted = affine.copy()
    shifted[2, 3] += 17.3 / 2
    slices = ct_slices(hu, affine), ct_slices(hu, shifted, series_uid=None)
    changed(slices[1], SeriesInstanceUID=slices[0][0].SeriesInstanceUID)
    for z in range(10):  # four steps of the table, each twice
        slices[0][z].AcquisitionNumber, slices[1][z].AcquisitionNumber = z // 5, 2 + z // 5

    with pytest.raises(InputError, match="4 acquisitions take turns"):
        read_volume(write(tmp_path / "ct", [*slices[0], *slices[1]]))


# what is refused


def missing(slices):
    del slices[4]


def two_missing(slices):
    del slices[7], slices[2]


def duplicate(slices):
    slices.append(dcm_copy(slices[3]))


def dcm_copy(dataset):
    import copy

    twin = copy.deepcopy(dataset)
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return twin


def sent_again_later(slices):
    twin = dcm_copy(slices[3])
    twin.AcquisitionNumber = 2
    slices.append(twin)


def uneven(slices):
    slices[5].ImagePositionPatient[2] += 0.4


def sideways(slices):
    slices[5].ImagePositionPatient[0] += 0.4


def no_rescale(slices):
    del slices[2].RescaleSlope


def no_position(slices):
    del slices[2].ImagePositionPatient


def no_spacing(slices):
    for dataset in slices:
        del dataset.PixelSpacing


def zero_spacing(slices):
    changed(slices, PixelSpacing=ds(0, 1))


def no_directions(slices):
    changed(slices, ImageOrientationPatient=ds(1, 0, 0, 1, 0, 0))


def not_stacked(slices):
    for z, dataset in enumerate(slices):
        dataset.ImagePositionPatient[0] += 40 * z


def inverted(slices):
    for dataset in slices:
        set_pixels(dataset, 4095 - dataset.pixel_array)
    changed(slices, PhotometricInterpretation="MONOCHROME1")


def undeclared_padding(slices):
    for dataset in slices:
        pixels = dataset.pixel_array.copy()
        pixels[:3] = 63536
        set_pixels(dataset, pixels)


def undeclared_padding_of_12_bits(slices):
    undeclared_padding(slices)
    changed(slices, BitsStored=12, HighBit=11)


def parametric(slices):
    changed(slices, RescaleType="Z_EFF")


def colour(slices):
    for dataset in slices:
        dataset.SamplesPerPixel = 3


def truncated(slices):
    slices[3].PixelData = slices[3].PixelData[:500]


def unknown_syntax(slices):
    slices[3].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.203"  # HTJ2K
    slices[3]["PixelData"].is_undefined_length = True
    slices[3].PixelData = encapsulate([b"abcd"])


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (missing, r"slices are missing at z = {z[4]:.6g} mm, where the others lie 17.3 mm apart"),
        (two_missing, r"slices are missing at z = {z[2]:.6g}, {z[7]:.6g} mm"),
        (duplicate, r"more than one slice at z = {z[3]:.6g} mm"),
        (sent_again_later, r"more than one slice at z = {z[3]:.6g} mm"),
        (uneven, r"the one at z = {moved:.6g} mm is 0.4 mm off an even stack, more than 0.1 mm"),
        (sideways, r"the one at z = {z[5]:.6g} mm is 0.4 mm off an even stack"),
        (no_rescale, r"IM0002 has no RescaleSlope and RescaleIntercept \(1 of 10 slices\)"),
        (no_position, r"IM0002 has no ImagePositionPatient"),
        (no_spacing, r"no PixelSpacing"),
        (zero_spacing, r"PixelSpacing \[0.0, 1.0\] must be above 0 mm"),
        (no_directions, r"is no pair of directions"),
        (not_stacked, r"lean by 66.6 degrees, more than 45"),
        (inverted, r"MONOCHROME1 and its corners.* seem to be inverted"),
        (undeclared_padding, r"IM0000 holds values from .* to 62512, which are no HU"),
        (undeclared_padding_of_12_bits, r"IM0000 holds values beyond its 12 bits stored"),
        (parametric, r"holds no CT volume in DICOM, only 10 map of Z_EFF"),
        (colour, r"holds no CT volume in DICOM, only 10 colour image"),
        (truncated, r"the pixels of IM0003 cannot be read"),
        (unknown_syntax, r"the pixels of IM0003 cannot be read \(High-Throughput JPEG 2000"),
    ],
)
def test_what_is_no_whole_volume_is_refused_with_its_place(tmp_path, phantom, spoil, rule):
    slices = ct_slices(*phantom)
    z = [float(dataset.ImagePositionPatient[2]) for dataset in slices]
    spoil(slices)
    folder = write(tmp_path / "ct", slices)

    with pytest.raises(InputError, match=rule.format(z=z, moved=z[5] + 0.4)) as refusal:
        read_volume(folder)

    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "Secret" not in str(refusal.value)


def test_mixed_orientations_are_volumes_of_their_own(tmp_path, phantom):
    hu, affine = phantom
    coronal = affine[:, [0, 2, 1, 3]]  # rows run along z, slices along y
    uid = generate_uid()
    axial_slices = ct_slices(hu, affine, series_uid=uid)
    coronal_slices = ct_slices(hu.transpose(0, 2, 1), coronal, series_uid=uid, first_instance=50)

    volumes = find_dicom_volumes(write(tmp_path / "ct", [*axial_slices, *coronal_slices], seed=2))

    assert sorted(volume.n_slices for volume in volumes) == [10, 28]
    by_size = {volume.n_slices: read_volume(volume) for volume in volumes}
    assert_same(by_size[10], hu, affine)
    ours, theirs = (
        nib.as_closest_canonical(nib.Nifti1Image(voxels, place))
        for voxels, place in ((by_size[28][0].numpy(), np.asarray(by_size[28].affine)), (hu, affine))
    )
    np.testing.assert_array_equal(ours.dataobj, theirs.dataobj)


def test_one_slice_of_another_orientation_is_missed_in_the_stack(tmp_path, phantom):
    slices = ct_slices(*phantom)
    slices[4].ImageOrientationPatient = ds(1, 0, 0, 0, 0, -1)

    with pytest.raises(InputError, match="slices are missing at z ="):
        read_volume(write(tmp_path / "ct", slices))


def not_there(path):
    return path / "nowhere"


def one_slice(path):
    return write(path, ct_slices(np.zeros((4, 4, 3), np.int16), np.eye(4))) / "IM0001"


def damaged_header(path):
    write(path, ct_slices(np.zeros((4, 4, 3), np.int16), np.eye(4)))
    dataset = dcmread(path / "IM0001")
    dataset.add_new("PixelSpacing", "LO", "none\\at all")
    dataset.save_as(path / "IM0001")
    return path


def only_named_so(path):
    write(path, ct_slices(np.zeros((4, 4, 3), np.int16), np.eye(4)))
    (path / "last.dcm").write_bytes(b"")
    return path


def no_zip(path):
    path.mkdir()
    (path / "a.zip").write_bytes(b"PK, but no zip")
    return path / "a.zip"


def masks_alone(path):
    slices = ct_slices(np.zeros((4, 4, 3), np.int16), np.eye(4))
    for dataset in slices:
        set_pixels(dataset, np.zeros((4, 4), np.uint8))
    return write(path, slices)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (not_there, "no such file or folder"),
        (one_slice, r"only 1 single slice at 1 mm \(no volume\); give the folder"),
        (damaged_header, "IM0001: its DICOM header cannot be read"),
        (only_named_so, "last.dcm is named like DICOM, but is none"),
        (no_zip, "cannot be unpacked"),
        (masks_alone, "only 1 series of 8-bit masks"),
    ],
)
def test_what_holds_no_volume_is_refused_in_one_line(tmp_path, make, rule):
    path = make(tmp_path / "ct")

    assert_refused(path, rule)


def test_nothing_is_said_of_a_clean_series(tmp_path, phantom, caplog):
    with caplog.at_level(logging.INFO):
        read_volume(write(tmp_path / "ct", ct_slices(*phantom)))

    assert caplog.text == ""


def test_a_dataset_without_dicom_is_no_error_to_look_at(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")

    assert find_dicom_volumes(tmp_path) == []
