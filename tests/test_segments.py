"""Masks in DICOM: segmentation objects and a series for each structure, on the grid of their CT."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pytest
from dicom_export import ct_slices, set_pixels, write
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from liver_monai.data.transforms import LoadImageVolumed
from liver_monai.errors import InputError
from liver_monai.io.dicom.segments import label_of
from liver_monai.io.volumes import read_mask, read_volume, require_same_grid

AFFINE = np.diag([-0.8, -0.9, 2.5, 1.0])
SHAPE = (12, 10, 8)


@pytest.fixture(scope="module")
def truth():
    """A liver in slices 2 to 5 and a tumour on it; nothing symmetric."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:9, 3:7, 2:6] = 1
    mask[3:5, 4:8, 3:5] = 2
    return mask


@pytest.fixture(scope="module")
def ct_datasets():
    slices = ct_slices(np.zeros(SHAPE, np.int16), AFFINE)
    for dataset in slices:
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (
            slices[0].StudyInstanceUID,
            slices[0].FrameOfReferenceUID,
        )
        dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = dataset.AccessionNumber = ""
        dataset.StudyDate = dataset.StudyTime = ""
    return slices


LIVER = ("Liver", codes.SCT.Liver)
TUMOR = ("Lesion 1", codes.SCT.Neoplasm)
SPLEEN = ("Spleen", codes.SCT.Spleen)


def write_seg(folder, ct_datasets, structures, *, kind="BINARY", of_slices=slice(None)):
    """A SEG of ``(name, code)`` and marked voxels ``(X, Y, Z)``; slices without a mark are left out."""
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=code,
            algorithm_type="MANUAL",
        )
        for number, ((name, code), _) in enumerate(structures, start=1)
    ]
    stacked = np.stack([marked.transpose(2, 1, 0) for _, marked in structures], axis=-1)[of_slices]
    segmentation = hd.seg.Segmentation(
        source_images=ct_datasets[of_slices],
        pixel_array=stacked.astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    folder.mkdir(parents=True)
    segmentation.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def write_structures(folder, structures):
    """3D-IRCADb: a folder a structure with 8-bit images of 0 and 255."""
    for name, marked in structures.items():
        slices = ct_slices(np.zeros(SHAPE, np.int16), AFFINE)
        for z, dataset in enumerate(slices):
            set_pixels(dataset, (marked[:, :, z].T * 255).astype(np.uint8))
        write(folder / name, slices, prefix="image_")
    return folder


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_is_laid_on_all_slices_of_its_ct(tmp_path, ct_datasets, truth, kind):
    ct = read_volume(write(tmp_path / "ct", ct_datasets))
    structures = [(TUMOR, truth == 2), (SPLEEN, truth == 3), (LIVER, truth == 1)]
    seg = write_seg(tmp_path / "seg", ct_datasets, structures, kind=kind)

    mask = read_mask(seg, grid=ct)

    require_same_grid(mask, ct)
    np.testing.assert_array_equal(mask[0].numpy(), truth)


def test_a_segmentation_alone_has_a_grid_of_its_own(tmp_path, ct_datasets, truth):
    mask = read_mask(write_seg(tmp_path / "seg", ct_datasets, [(LIVER, truth > 0), (TUMOR, truth == 2)]))

    np.testing.assert_array_equal(mask[0].numpy(), truth[:, :, 2:6])
    np.testing.assert_allclose(np.asarray(mask.affine)[:3, 3], [0, 0, 5], atol=1e-9)


def test_a_tumour_lies_on_the_liver_it_overlaps_in_any_order(tmp_path, ct_datasets, truth):
    seg = write_seg(tmp_path / "seg", ct_datasets, [(TUMOR, truth == 2), (LIVER, truth > 0)])

    np.testing.assert_array_equal(read_mask(seg)[0].numpy(), truth[:, :, 2:6])


def test_a_ct_stored_the_other_way_round_gets_its_mask(tmp_path, ct_datasets, truth):
    seg = write_seg(tmp_path / "seg", ct_datasets, [(LIVER, truth > 0), (TUMOR, truth == 2)])
    flipped = read_volume(write(tmp_path / "ct", ct_datasets))
    turned = flipped.flip(1).clone()
    affine = AFFINE.copy()
    affine[:, 0] *= -1
    affine[:3, 3] = AFFINE[:3, :3] @ [SHAPE[0] - 1, 0, 0]
    turned.affine = affine

    np.testing.assert_array_equal(read_mask(seg, grid=turned)[0].numpy(), truth[::-1])


def test_masks_are_loaded_with_their_ct(tmp_path, ct_datasets, truth):
    ct = write(tmp_path / "ct", ct_datasets)
    seg = write_seg(tmp_path / "seg", ct_datasets, [(LIVER, truth > 0), (TUMOR, truth == 2)])

    loaded = LoadImageVolumed(("image", "label"))({"image": str(ct), "label": str(seg)})

    np.testing.assert_array_equal(loaded["label"][0].numpy(), truth)


def test_a_series_for_each_structure(tmp_path, truth):
    halves = {"livertumor01": truth == 2, "livertumor02": np.zeros(SHAPE), "liver": truth > 0, "bone": truth == 0}
    folder = write_structures(tmp_path / "MASKS_DICOM", halves)

    mask = read_mask(folder)

    np.testing.assert_array_equal(mask[0].numpy(), truth)
    np.testing.assert_allclose(np.asarray(mask.affine), AFFINE, atol=1e-9)
    np.testing.assert_array_equal(read_mask(folder / "liver")[0].numpy(), truth > 0)


def off_the_voxels(ct):
    ct.affine[0, 3] += 0.4
    return ct


def another_spacing(ct):
    ct.affine[0, 0] *= 1.05
    return ct


def too_short(ct):
    return ct[:, :, :, :4]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (off_the_voxels, "does not lie on the voxels of its CT"),
        (another_spacing, "does not lie on the voxels of its CT"),
        (too_short, "marks voxels outside of its CT"),
    ],
)
def test_a_mask_of_another_ct_is_refused(tmp_path, ct_datasets, truth, change, rule):
    seg = write_seg(tmp_path / "seg", ct_datasets, [(LIVER, truth > 0)])
    ct = change(read_volume(write(tmp_path / "ct", ct_datasets)))

    with pytest.raises(InputError, match=rule) as refusal:
        read_mask(seg, grid=ct)

    assert str(seg) in str(refusal.value)


def test_a_segmentation_without_a_liver_says_what_it_has(tmp_path, ct_datasets, truth):
    seg = write_seg(tmp_path / "seg", ct_datasets, [(SPLEEN, truth > 0)])

    with pytest.raises(InputError, match="none of its segments is the liver or its tumour; it has Spleen"):
        read_mask(seg)


def test_folders_without_a_liver_and_several_segmentations_are_refused(tmp_path, ct_datasets, truth):
    with pytest.raises(InputError, match=r"holds no mask of the liver; .* found bone"):
        read_mask(write_structures(tmp_path / "structures", {"bone": truth == 0}))
    for name in "ab":
        write_seg(tmp_path / "segs" / name, ct_datasets, [(LIVER, truth > 0)])
    with pytest.raises(InputError, match=r"holds 2 segmentations \(a/seg.dcm, b/seg.dcm\); give one"):
        read_mask(tmp_path / "segs")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("liver", 1),
        ("Liver", 1),
        ("livertumor", 2),
        ("livertumor01", 2),
        ("livertumors", 2),
        ("liver_tumour", 2),
        ("Tumor 3", 2),
        ("Mass", 2),
        ("liver lesion", 2),
        ("livercyst", None),
        ("leftsurrenaltumor", None),
        ("portalvein", None),
        ("liver vessel", None),
        ("bone", None),
    ],
)
def test_structures_by_name(name, label):
    assert label_of(name) == label
