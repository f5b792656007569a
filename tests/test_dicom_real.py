"""Real scans, read by us and by others, who know nothing of each other: every voxel at its place, or a refusal."""

from __future__ import annotations

import tarfile
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_export import compress, ct_slices, localizer, write
from nibabel.affines import apply_affine
from pydicom.uid import generate_uid

from liver_monai.errors import InputError
from liver_monai.io.dicom import find_dicom_volumes, only_volume
from liver_monai.io.volumes import read_mask, read_volume

TOLERANCE_MM = 0.01
"""Readers round and average positions differently; a voxel is a hundred times as large."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

pytestmark = pytest.mark.filterwarnings("ignore")  # of other readers, about the very data that we test with

DCMQI = "dcmqi_ct3slice_seg/segmentations"
READ = {
    "totalsegmentator_20slices": ["tests/reference_files/example_ct_dicom"],
    "ircadb17_dicom_10slices": ["ircadb17_dicom_10slices/PATIENT_DICOM"],
    "hcc011_multiphase_3acq_8pos": ["hcc011_multiphase_3acq_8pos"],
    "hcc048_portal_16slices": ["hcc048_portal_16slices"],
    "dicom2nifti_failing": ["dicom2nifti_failing/tests/data/failing/gantrytilting"],
    "dcmqi_ct3slice_seg": [f"{DCMQI}/{name}/image" for name in ("23x38x3", "24x38x3")] + [f"{DCMQI}/ct-3slice"],
}
FOLDERS = [(archive, folder) for archive, folders in READ.items() for folder in folders]


@pytest.fixture
def unpacked(real_data, tmp_path):
    """Unpacks an archive of real scans into a folder that pytest removes."""

    def unpack(name: str) -> Path:
        kind = "awkward" if name.startswith("pydicom") else "dicom"
        with tarfile.open(real_data / kind / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path

    return unpack


def index_of(volume, points_lps):
    """Voxel indices of points (n, 3) of patient space."""
    to_index = np.linalg.inv(np.asarray(volume.affine)) @ LPS_TO_RAS
    return (to_index @ np.column_stack([points_lps, np.ones(len(points_lps))]).T)[:3].T


def assert_voxels_agree(volume, points_lps, values_hu):
    """What another reader finds at a point is what we find there; padding, which is air to us, aside."""
    exact = index_of(volume, points_lps)
    index = np.round(exact).astype(int)
    spacing_mm = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    assert (np.abs(exact - index) * spacing_mm).max() < TOLERANCE_MM
    ours = volume[0].numpy()[tuple(index.T)]
    differ = ours != values_hu
    assert (ours[differ] == -1024).all()
    assert (np.asarray(values_hu)[differ] < -1024).all()


@pytest.mark.parametrize(("archive", "folder"), FOLDERS)
def test_nibabel_finds_every_voxel_of_every_slice_where_we_do(unpacked, archive, folder):
    """nibabel places each slice by its own header; so does the standard's formula, computed here from pydicom."""
    from nibabel.nicom import dicomwrappers  # warns when it is imported

    volumes = find_dicom_volumes(unpacked(archive) / folder)

    assert volumes
    for source in volumes:
        volume = read_volume(source)
        rng = np.random.default_rng(0)
        for path in source.paths:
            wrapper = dicomwrappers.wrapper_from_file(path)
            scaled = wrapper.get_data()
            pixels = np.column_stack([rng.integers(0, size, 200) for size in scaled.shape[:2]])
            pixels = np.vstack([pixels, [[0, 0], [scaled.shape[0] - 1, scaled.shape[1] - 1]]])
            grid = np.column_stack([pixels, np.zeros(len(pixels)), np.ones(len(pixels))])
            points = (wrapper.affine @ grid.T)[:3].T
            np.testing.assert_allclose(points, points_by_the_standard(path, pixels), atol=1e-6)
            assert_voxels_agree(volume, points, scaled[tuple(pixels.T)])


def points_by_the_standard(path, pixels):
    """PS3.3, C.7.6.2.1.1, for pixels (row, column)."""
    header = pydicom.dcmread(path, stop_before_pixels=True)
    row, column = np.reshape(np.array(header.ImageOrientationPatient, dtype=float), (2, 3))
    between_rows, between_columns = map(float, header.PixelSpacing)
    start = np.array(header.ImagePositionPatient, dtype=float)
    return start + pixels[:, 1:] * between_columns * row + pixels[:, :1] * between_rows * column


@pytest.mark.parametrize(("archive", "folder"), [each for each in FOLDERS if "gantry" not in each[1]])
def test_simpleitk_finds_the_same_volume(unpacked, archive, folder):
    """Given the files of one volume; it knows no tilt, and of several phases it would make one wrong volume."""
    for source in find_dicom_volumes(unpacked(archive) / folder):
        volume = read_volume(source)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in sorted(source.paths, key=slice_position)])
        image = reader.Execute()
        values = sitk.GetArrayFromImage(image)
        assert values.shape == volume.shape[:0:-1]
        rng = np.random.default_rng(0)
        index = np.column_stack([rng.integers(0, size, 2000) for size in image.GetSize()])
        points = np.array([image.TransformIndexToPhysicalPoint(each.tolist()) for each in index])
        assert_voxels_agree(volume, points, values[tuple(index[:, ::-1].T)])


def slice_position(path):
    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_a_multi_frame_ct_is_read_as_highdicom_and_its_single_frames_say(unpacked, size):
    folder = unpacked("dcmqi_ct3slice_seg") / DCMQI / size

    volume, single = read_volume(folder / "multiframe" / "mf.dcm"), read_volume(folder / "image")
    theirs = hd.imread(folder / "multiframe" / "mf.dcm").get_volume()

    np.testing.assert_array_equal(volume.numpy(), single.numpy())
    np.testing.assert_allclose(np.asarray(volume.affine), np.asarray(single.affine), atol=1e-9)
    index = np.argwhere(np.ones(theirs.spatial_shape, dtype=bool))
    assert_voxels_agree(volume, theirs.map_indices_to_reference(index), theirs.array[tuple(index.T)])


@pytest.mark.parametrize("archive", ["hcc048_portal_16slices", "hcc011_multiphase_3acq_8pos"])
def test_highdicom_finds_the_same_volume(unpacked, archive):
    for source in find_dicom_volumes(unpacked(archive)):
        theirs = hd.get_volume_from_series([pydicom.dcmread(path) for path in source.paths])
        index = np.argwhere(np.ones(theirs.spatial_shape, dtype=bool))[::97]

        assert_voxels_agree(read_volume(source), theirs.map_indices_to_reference(index), theirs.array[tuple(index.T)])


def test_three_phases_are_three_volumes_of_eight_slices(unpacked):
    volumes = find_dicom_volumes(unpacked("hcc011_multiphase_3acq_8pos"))

    assert [(volume.part, volume.n_parts, volume.n_slices) for volume in volumes] == [(1, 3, 8), (2, 3, 8), (3, 3, 8)]
    assert len({volume.series_uid for volume in volumes}) == 1
    for part, volume in enumerate(volumes, start=1):
        acquisitions = {int(pydicom.dcmread(path, stop_before_pixels=True).AcquisitionNumber) for path in volume.paths}
        assert acquisitions == {part}
    with pytest.raises(InputError, match="holds 3 volumes; choose one"):
        read_volume(volumes[0].path)


def test_gantry_tilt_is_real_shear(unpacked, caplog):
    volume = read_volume(unpacked("dicom2nifti_failing") / "dicom2nifti_failing/tests/data/failing/gantrytilting")

    axes = np.asarray(volume.affine)[:3, :3]
    degrees = np.degrees(np.arcsin(abs(axes[:, 1] @ axes[:, 2]) / np.prod(np.linalg.norm(axes[:, 1:], axis=0))))
    assert degrees == pytest.approx(14.0, abs=0.01)
    assert "gantry tilt of 14.0 degrees" in caplog.text


@pytest.mark.parametrize(
    ("folder", "rule"),
    [
        ("sliceincrement/001", r"slices are missing at z = 33.1075 mm, where the others lie 5 mm apart"),
        ("sliceincrement/002", r"slices are missing at z = -50.3581 mm"),
        ("notavolume/001", r"only 4 single slice at 61.5 mm \(no volume\)"),
    ],
)
def test_what_is_no_volume_is_refused(unpacked, folder, rule):
    with pytest.raises(InputError, match=rule) as refusal:
        read_volume(unpacked("dicom2nifti_failing") / "dicom2nifti_failing/tests/data/failing" / folder)

    assert "\n" not in str(refusal.value)


def test_a_map_of_blood_flow_is_no_ct(unpacked):
    with pytest.raises(InputError, match="only 2 colour image"):
        read_volume(unpacked("pydicom_liver_seg_variants") / "eCT_Supplemental.dcm")


# masks


def test_masks_of_structures_lie_on_the_ct_and_are_those_of_the_nifti(unpacked, real_data):
    folder = unpacked("ircadb17_dicom_10slices") / "ircadb17_dicom_10slices"
    ct = read_volume(folder / "PATIENT_DICOM")

    mask = read_mask(folder / "MASKS_DICOM", grid=ct)

    truth = np.asarray(nib.load(real_data / "ircadb17" / "ircadb17_label.nii.gz").dataobj)
    whole = read_volume(real_data / "ircadb17" / "ircadb17_ct.nii.gz")
    assert mask.shape == ct.shape == (1, 512, 512, 10)
    first = next(z for z in range(whole.shape[3]) if np.array_equal(whole[0, :, :, z].numpy(), ct[0, :, :, 0].numpy()))
    np.testing.assert_array_equal(whole[0, :, :, first : first + 10].numpy(), ct[0].numpy())
    np.testing.assert_array_equal(mask[0].numpy(), truth[:, :, first : first + 10])


@pytest.mark.parametrize("name", ["liver.dcm", "liver_j2k.dcm"])
def test_a_segmentation_marks_what_its_nrrd_marks(unpacked, name):
    unpacked("pydicom_liver_seg_variants")
    folder = unpacked("dcmqi_ct3slice_seg") / DCMQI
    ct = read_volume(folder / "ct-3slice")

    mask = read_mask(folder.parents[1] / name, grid=ct)

    marked = read_volume(folder / "liver_seg.nrrd")
    assert mask.shape == ct.shape
    points = apply_affine(np.asarray(marked.affine), np.argwhere(marked[0].numpy() > 0))
    index = np.round(index_of(mask, points * [-1, -1, 1])).astype(int)
    assert (mask[0].numpy()[tuple(index.T)] == 1).all()
    assert int((mask == 1).sum()) == len(index) == 107098


@pytest.mark.parametrize("name", ["sparse-labelmap-noppv.dcm", "sparse-labelmap-ppv5.dcm"])
def test_a_sparse_label_map_fills_its_ct(unpacked, name):
    folder = unpacked("dcmqi_ct3slice_seg") / DCMQI
    ct = read_volume(folder / "24x38x3" / "image")

    mask = read_mask(folder / name, grid=ct)

    assert mask.shape == ct.shape
    assert [bool((mask[..., z] == 1).any()) for z in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("liver_rle.dcm", "its segmentation cannot be read"),
        ("liver_expb.dcm", "its segmentation cannot be read"),
        ("liver_deflate.dcm", "its segmentation cannot be read"),
    ],
)
def test_segmentations_that_nobody_decodes_are_refused(unpacked, name, rule):
    with pytest.raises(InputError, match=rule) as refusal:
        read_mask(unpacked("pydicom_liver_seg_variants") / name)

    assert "\n" not in str(refusal.value)


def test_a_segmentation_of_other_structures_is_refused(unpacked):
    with pytest.raises(InputError, match="none of its segments is the liver or its tumour; it has GREEN"):
        read_mask(unpacked("dcmqi_ct3slice_seg") / DCMQI / "partial_overlaps.dcm")


# our own export of a real scan


@pytest.mark.slow
@pytest.mark.parametrize(("order", "syntax"), [(1, None), (-1, None), (1, "RLELossless"), (-1, "JPEG2000Lossless")])
def test_an_export_of_a_real_ct_comes_back_exact(real_data, tmp_path, order, syntax):
    image = nib.load(real_data / "ircadb17" / "ircadb17_ct.nii.gz")
    hu = np.asarray(image.dataobj).astype(np.int16)
    hu = hu if syntax is None else hu[:, :, :20]
    uid = generate_uid()
    folder = write(tmp_path / "ct", ct_slices(hu, image.affine, series_uid=uid)[::order], seed=7)
    if syntax:
        compress(folder, syntax)
    write(folder, [localizer(uid)], prefix="scout")

    volume = read_volume(folder)

    np.testing.assert_array_equal(volume[0].numpy(), hu)
    np.testing.assert_allclose(np.asarray(volume.affine), image.affine, rtol=0, atol=1e-9)
    assert only_volume(folder).n_slices == hu.shape[2]
