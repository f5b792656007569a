"""DICOM-SEG out: what is read back is what was written, by highdicom and by us."""

from __future__ import annotations

import re
import tarfile

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_export import ct_slices, enhanced_ct, export, write

from liver_monai.data.phantom import make_phantom
from liver_monai.errors import InputError
from liver_monai.io.dicom import only_volume
from liver_monai.io.dicom.writer import write_segmentation
from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.scoring.lesions import components


@pytest.fixture(scope="module")
def phantom():
    """CT and mask as LPS, with an affine in RAS, and a few millimetres between slices."""
    case = make_phantom(shape=(64, 64, 16), seed=3)
    hu, mask = np.asarray(case.image), np.asarray(case.label).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    affine[:3, 3] = 30, 40, -100
    assert {0, 1, 2} == set(np.unique(mask).tolist())
    return np.rint(hu).astype(np.int16), mask, affine


def marked(path, number, *, like):
    """A segment's voxels ``(X, Y, Z)`` as highdicom reads them, on the grid of an array."""
    segmentation = hd.seg.segread(path)
    planes = segmentation.get_pixels_by_source_instance(
        source_sop_instance_uids=[uid for _, _, uid in segmentation.get_source_image_uids()],
        segment_numbers=[number],
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    by_uid = dict(zip([uid for _, _, uid in segmentation.get_source_image_uids()], planes[..., 0], strict=True))
    return np.stack([by_uid[uid].T for uid in like], axis=-1)


@pytest.mark.parametrize("is_upward", [True, False])
def test_a_segmentation_is_read_back_to_the_voxel(phantom, tmp_path, is_upward):
    hu, mask, affine = phantom
    folder = export(tmp_path / "ct", hu, affine, is_upward=is_upward, seed=1)
    ct = only_volume(folder)
    volume = read_volume(ct)
    np.testing.assert_array_equal(volume[0], hu)  # the grid that the mask lies on

    path = tmp_path / "mask.dcm"
    write_segmentation(mask, path, ct=ct)

    np.testing.assert_array_equal(read_mask(path, grid=volume)[0], mask)
    headers = [pydicom.dcmread(file) for file in folder.iterdir()]
    headers.sort(key=lambda header: header.ImagePositionPatient[2])
    uids = [header.SOPInstanceUID for header in headers]
    np.testing.assert_array_equal(marked(path, 1, like=uids), mask >= 1)
    np.testing.assert_array_equal(marked(path, 2, like=uids), mask == 2)


def test_its_segments_are_coded_and_its_patient_is_the_ct_s(phantom, tmp_path):
    hu, mask, affine = phantom
    folder = export(tmp_path / "ct", hu, affine)
    write_segmentation(mask, tmp_path / "mask.dcm", ct=only_volume(folder))
    written, source = pydicom.dcmread(tmp_path / "mask.dcm"), pydicom.dcmread(next(folder.iterdir()))

    types = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in written.SegmentSequence]
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in types] == [
        ("10200004", "SCT"),
        ("108369006", "SCT"),
    ]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[keyword].value == source[keyword].value
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert written.SegmentationType == "BINARY"


def test_each_lesion_can_have_a_segment(phantom, tmp_path):
    hu, mask, affine = phantom
    mask = mask.copy()
    mask[0, 0, 0] = 2  # one more, away from the others
    lesions, n_lesions = components(mask == 2)
    assert n_lesions > 1
    folder = export(tmp_path / "ct", hu, affine)
    write_segmentation(mask, tmp_path / "mask.dcm", ct=only_volume(folder), lesions=lesions)
    labels = [segment.SegmentLabel for segment in pydicom.dcmread(tmp_path / "mask.dcm").SegmentSequence]
    assert labels == ["Liver", *(f"Tumour {number}" for number in range(1, n_lesions + 1))]
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.dcm", grid=read_volume(folder))[0], mask)


def test_a_multi_frame_ct_has_its_segmentation_in_the_order_of_its_frames(phantom, tmp_path):
    hu, mask, affine = phantom
    folder = write(tmp_path / "ct", [enhanced_ct(hu, affine)])
    ct = only_volume(folder)
    write_segmentation(mask, tmp_path / "mask.dcm", ct=ct)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.dcm", grid=read_volume(ct))[0], mask)


def test_an_empty_mask_is_a_segmentation_too(phantom, tmp_path):
    hu, mask, affine = phantom
    folder = export(tmp_path / "ct", hu, affine)
    write_segmentation(np.zeros_like(mask), tmp_path / "mask.dcm", ct=only_volume(folder))
    assert not read_mask(tmp_path / "mask.dcm", grid=read_volume(folder)).any()


def test_what_cannot_be_written_is_refused(phantom, tmp_path):
    hu, mask, affine = phantom
    leaning = affine.copy()
    leaning[1, 2] = 0.6
    tilted = only_volume(export(tmp_path / "tilted", hu, leaning))
    with pytest.raises(InputError, match="tilted by"):
        write_segmentation(mask, tmp_path / "mask.dcm", ct=tilted)
    straight = only_volume(export(tmp_path / "ct", hu, affine))
    with pytest.raises(ValueError, match=re.escape("mask of shape (64, 64, 15) does not belong to")):
        write_segmentation(mask[..., 1:], tmp_path / "mask.dcm", ct=straight)
    no_study = tmp_path / "study"
    write(no_study, ct_slices(hu, affine))  # each slice says it is of a study of its own
    with pytest.raises(InputError, match="its headers lack"):
        write_segmentation(mask, tmp_path / "mask.dcm", ct=only_volume(no_study))
    assert not (tmp_path / "mask.dcm").exists()


def test_report_writes_one_beside_the_findings(cli, phantom, tmp_path):
    hu, mask, affine = phantom
    folder = export(tmp_path / "ct", hu, affine)
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    options = ["--image", folder, "-o", tmp_path / "out", "--to", "dicom-seg"]
    done = cli("report", tmp_path / "mask.nii.gz", *options)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "mask_seg.dcm", grid=read_volume(folder))[0], mask)
    written = [file for file in (tmp_path / "out").iterdir() if file.suffix != ".dcm"]
    assert not [file for file in written if b"Secret" in file.read_bytes()]  # the patient's name, see dicom_export

    options[1] = tmp_path / "mask.nii.gz"
    refused = cli("report", tmp_path / "mask.nii.gz", *options, "--overwrite")
    assert refused.exit_code == 1
    assert "give that series" in refused.stderr


def test_a_real_series_takes_a_segmentation(real_data, tmp_path):
    with tarfile.open(real_data / "dicom" / "hcc048_portal_16slices.tar.gz") as archive:
        archive.extractall(tmp_path / "ct", filter="data")
    ct = only_volume(tmp_path / "ct")
    volume = read_volume(ct)
    mask = np.zeros(volume.shape[1:], dtype=np.uint8)
    mask[100:300, 100:250, 2:9], mask[150:180, 120:140, 4:6] = 1, 2
    write_segmentation(mask, tmp_path / "mask.dcm", ct=ct)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.dcm", grid=volume)[0], mask)
