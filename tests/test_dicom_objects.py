"""Measurement reports and structure sets: what others read back is what was measured and marked."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_export import enhanced_ct, export, write
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from pydicom.misc import is_dicom
from pydicom.sr.codedict import codes

from liver_monai.data.phantom import make_phantom
from liver_monai.errors import InputError
from liver_monai.io.dicom import only_volume
from liver_monai.io.dicom.contours import outlines, write_structure_set
from liver_monai.io.dicom.structures import MAX_LESIONS, structures
from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.report.mask import findings, report_mask
from liver_monai.report.measurement import find_findings, number_lesions

PLANTED = {
    "PatientName": "Secretperson^Hiddenname",
    "PatientID": "secret-id",
    "PatientBirthDate": "19530217",
    "PatientAddress": "Hidden Lane 7",
    "OtherPatientIDs": "other-id-4711",
    "ReferringPhysicianName": "Referringdoctor^Hiddenname",
    "OperatorsName": "Operatorperson^Hiddentech",
    "InstitutionName": "Hospital of Nowhere",
    "AccessionNumber": "ACC-990017",
}
"""What a source says of people and places."""
IN_OBJECTS = {"PatientName", "PatientID", "PatientBirthDate", "ReferringPhysicianName", "AccessionNumber"}
"""What the standard has every object of a study repeat (PS3.3, C.7.1.1 and C.7.2.1)."""


@pytest.fixture(scope="module")
def phantom():
    """CT and mask as LPS, with an affine in RAS: two tumours more, and holes in liver and tumour."""
    case = make_phantom(shape=(64, 64, 16), seed=3)
    hu, mask = np.asarray(case.image), np.array(case.label).astype(np.uint8)
    mask[2:9, 3:12, 4:6] = 2
    mask[4:6, 5:7, 4:6], mask[7, 9, 4:6] = 0, 0
    mask[50:53, 5:6, 9] = 2
    affine = np.diag([-1.25, -0.75, 2.5, 1.0])
    affine[:3, 3] = 30, 40, -100
    return np.rint(hu).astype(np.int16), mask, affine


@pytest.fixture(scope="module", params=["upward", "downward", "enhanced"])
def written(phantom, tmp_path_factory, request):
    """The CT's folder and that of all objects."""
    hu, mask, affine = phantom
    folder = tmp_path_factory.mktemp("objects")
    if request.param == "enhanced":
        ct = write(folder / "ct", [enhanced_ct(hu, affine)])
    else:
        ct = export(folder / "ct", hu, affine, is_upward=request.param == "upward", seed=1)
    nib.save(nib.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    report_mask(
        folder / "mask.nii.gz", out=folder / "out", image=ct, to=["dicom-seg", "sr", "rtstruct"], say=lambda text: None
    )
    return ct, folder / "out"


def figures(group):
    """Values of a group by the code of their name and the derivation, with the code of their unit."""
    return {
        (each.name.value, each.derivation.value if each.derivation else ""): (each.value, each.unit.value)
        for each in group.get_measurements()
    }


def slices_of(folder: Path) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """By instance and frame: from (column, row) of pixel centres to mm, ``(3, 3)``, and back."""
    found = {}
    for file in filter(is_dicom, filter(Path.is_file, folder.iterdir())):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        frames = header.get("PerFrameFunctionalGroupsSequence", [None])
        for number, frame in enumerate(frames, start=1):
            shared = header.SharedFunctionalGroupsSequence[0] if frame else None
            position = (frame.PlanePositionSequence[0] if frame else header).ImagePositionPatient
            directions = (shared.PlaneOrientationSequence[0] if frame else header).ImageOrientationPatient
            rows_mm, columns_mm = (shared.PixelMeasuresSequence[0] if frame else header).PixelSpacing
            row, column = np.array(directions[:3], float), np.array(directions[3:], float)
            to_mm = np.column_stack([row * columns_mm, column * rows_mm, np.array(position, float)])
            found[header.SOPInstanceUID, number] = to_mm
    return found


def test_a_report_holds_what_was_measured(written):
    _, out = written
    found = json.loads((out / "findings.json").read_text())
    report = hd.sr.srread(out / "mask_sr.dcm")

    liver, *lesions = report.content.get_volumetric_roi_measurement_groups()

    assert figures(liver) == {("118565006", ""): (pytest.approx(found["liver_ml"], abs=1e-4), "cm3")}
    assert len(lesions) == len(found["lesions"]) >= 3
    for group, lesion in zip(lesions, found["lesions"], strict=True):
        assert group.tracking_identifier == f"Tumour {lesion['lesion_id']}"
        assert group.finding_type == codes.SCT.Neoplasm
        assert [site.value for site in group.finding_sites] == [codes.SCT.Liver]
        assert figures(group) == {
            ("118565006", ""): (pytest.approx(lesion["volume_ml"], abs=1e-4), "cm3"),
            ("103339001", ""): (pytest.approx(lesion["longest"]["length_mm"], abs=1e-4), "mm"),
            ("103340004", ""): (pytest.approx(lesion["perpendicular"]["length_mm"], abs=1e-4), "mm"),
            ("112031", "373098007"): (pytest.approx(lesion["mean_hu"], abs=1e-4), "[hnsf'U]"),
            ("112031", "373099004"): (pytest.approx(lesion["median_hu"], abs=1e-4), "[hnsf'U]"),
        }


def test_its_groups_refer_to_segments_of_the_same_volume(written):
    ct, out = written
    report, segmentation = hd.sr.srread(out / "mask_sr.dcm"), hd.seg.segread(out / "mask_seg.dcm")
    voxel_ml = 1.25 * 0.75 * 2.5 / 1000

    for group in report.content.get_volumetric_roi_measurement_groups():
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        description = segmentation.get_segment_description(segment.referenced_segment_numbers[0])
        assert (description.tracking_uid, description.tracking_id) == (group.tracking_uid, group.tracking_identifier)
        volume = segmentation.get_volume(segment_numbers=list(segment.referenced_segment_numbers))
        assert figures(group)["118565006", ""][0] == pytest.approx(volume.array.sum() * voxel_ml, abs=1e-3)
        assert segment.source_series_for_segmentation.value == only_volume(ct).series_uid


def test_its_diameters_end_on_the_slice_where_they_were_measured(written):
    ct, out = written
    found = json.loads((out / "findings.json").read_text())
    report = pydicom.dcmread(out / "mask_sr.dcm")
    to_mm = slices_of(ct)

    told = [item for item in nested(report) if item.get("GraphicType") == "POLYLINE"]

    lines = [lesion[name] for lesion in found["lesions"] for name in ("longest", "perpendicular")]
    assert len(told) == len(lines)
    for item, line in zip(told, lines, strict=True):
        image = item.ContentSequence[0].ReferencedSOPSequence[0]
        key = image.ReferencedSOPInstanceUID, int(image.get("ReferencedFrameNumber") or 1)
        pixels = np.array(item.GraphicData, float).reshape(2, 2) - 0.5  # counted from the corner of the first
        ends_mm = np.column_stack([pixels, np.ones(2)]) @ to_mm[key].T
        np.testing.assert_allclose(ends_mm, line["ends_mm"], atol=6e-3)  # given in hundredths


def nested(dataset):
    """All content items, in their order."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from nested(item)


def test_a_structure_set_marks_the_same_voxels(written, phantom):
    ct, out = written
    _, mask, affine = phantom
    dataset = pydicom.dcmread(out / "mask_rtstruct.dcm")
    volume = read_volume(ct)
    lesions = number_lesions(mask, affine)
    expected = {"Liver": mask >= 1} | {f"Tumour {n}": lesions == n for n in range(1, lesions.max() + 1)}
    assert [item.ROIName for item in dataset.StructureSetROISequence] == list(expected)

    for contours, marked in zip(dataset.ROIContourSequence, expected.values(), strict=True):
        np.testing.assert_array_equal(rasterised(contours, slices_of(ct), volume), marked)


def rasterised(contours, to_mm, volume):
    """Voxels ``(X, Y, Z)`` whose centres lie inside of the contours, found by what the file says alone."""
    marked = np.zeros(volume.shape[1:], dtype=bool)
    to_voxel = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ np.asarray(volume.affine))
    columns, rows = np.indices(marked.shape[:2])
    for contour in contours.ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints
        image = contour.ContourImageSequence[0]
        plane = to_mm[image.ReferencedSOPInstanceUID, int(image.get("ReferencedFrameNumber") or 1)]
        pixels, *_ = np.linalg.lstsq(plane[:, :2], (points - plane[:, 2]).T, rcond=None)
        np.testing.assert_allclose(plane[:, :2] @ pixels + plane[:, [2]], points.T, atol=1e-3)  # on that image
        inside = Polygon(pixels.T).contains_points(np.column_stack([columns.ravel(), rows.ravel()]))
        z = round((to_voxel @ [*plane[:, 2], 1])[2])
        assert not (marked[:, :, z] & inside.reshape(marked.shape[:2])).any()
        marked[:, :, z] |= inside.reshape(marked.shape[:2])
    return marked


@given(plane=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_hold_the_centres_of_a_plane_and_no_others(plane):
    centres = np.argwhere(np.ones_like(plane))
    polygons = [np.array(corners) - 0.5 for corners in outlines(plane)]
    inside = [Polygon(corners).contains_points(centres) for corners in polygons]
    turns = [winding(corners, centres) for corners in polygons]

    assert np.array_equal(np.sum(inside, axis=0) if inside else np.zeros(plane.size), plane.ravel())
    assert np.array_equal(np.abs(np.sum(turns, axis=0)) if turns else np.zeros(plane.size), plane.ravel())
    areas = [abs(np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))) / 2 for p in polygons]
    assert sum(areas) == plane.sum()


def winding(corners, points):
    """How often a polygon turns around each of the points."""
    x, y = corners[:, 0, None] - points[:, 0], corners[:, 1, None] - points[:, 1]
    angles = np.arctan2(y, x)
    steps = (np.roll(angles, -1, axis=0) - angles + np.pi) % (2 * np.pi) - np.pi
    return np.rint(steps.sum(axis=0) / (2 * np.pi))


def test_a_frame_around_a_frame_is_one_polygon_each():
    plane = np.zeros((9, 9), dtype=bool)
    plane[1:8, 1:8], plane[2:7, 2:7], plane[4, 4] = True, False, True
    ring, core = outlines(plane)
    assert len(ring) == 10  # four corners outside, four inside, and the two ends of the channel
    assert core == [(4, 4), (5, 4), (5, 5), (4, 5)]


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_lesions_are_numbered_as_they_are_found(phantom, flips):
    _, mask, _ = phantom
    affine = np.diag([*np.array(flips) * (1.25, 0.75, 2.5), 1])
    lesions, voxel_ml = number_lesions(mask, affine), 1.25 * 0.75 * 2.5 / 1000

    found = find_findings(mask, affine)

    assert np.array_equal(lesions > 0, mask == 2)
    assert [lesion.volume_ml for lesion in found.lesions] == pytest.approx(
        [np.count_nonzero(lesions == lesion.lesion_id) * voxel_ml for lesion in found.lesions]
    )
    for lesion in found.lesions:
        assert np.flatnonzero((lesions == lesion.lesion_id).any(axis=(0, 1)))[[0, -1]].tolist() == list(lesion.slices)


def test_more_lesions_than_have_names_are_one_structure():
    mask = np.zeros((3 * MAX_LESIONS, 3, 3), dtype=np.uint8)
    mask[::2, 1, 1] = 2
    lesions = number_lesions(mask, np.eye(4))
    parts = list(structures(mask, lesions))
    assert [part.name for part in parts][-2:] == [f"Tumour {MAX_LESIONS}", "Further tumours"]
    assert sum(part.marked.astype(int) for part in parts[1:]).max() == 1
    assert np.array_equal(sum(part.marked for part in parts[1:]), mask == 2)


def test_an_empty_mask_has_empty_objects(phantom, tmp_path):
    hu, mask, affine = phantom
    ct = export(tmp_path / "ct", hu, affine)
    nib.save(nib.Nifti1Image(np.zeros_like(mask), affine), tmp_path / "mask.nii.gz")
    report_mask(
        tmp_path / "mask.nii.gz", out=tmp_path, image=ct, to=["dicom-seg", "sr", "rtstruct"], say=lambda text: None
    )
    report = hd.sr.srread(tmp_path / "mask_sr.dcm")
    assert [figures(group) for group in report.content.get_volumetric_roi_measurement_groups()] == [
        {("118565006", ""): (0, "cm3")}
    ]
    contours = pydicom.dcmread(tmp_path / "mask_rtstruct.dcm").ROIContourSequence
    assert not [item for item in contours if "ContourSequence" in item]


# Commands


def test_what_cannot_be_written_is_refused(cli, phantom, tmp_path):
    hu, mask, affine = phantom
    ct = export(tmp_path / "ct", hu, affine)
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    command = ["report", tmp_path / "mask.nii.gz", "-o", tmp_path / "out"]

    alone = cli(*command, "--image", ct, "--to", "sr")
    assert alone.exit_code == 1
    assert "give --to dicom-seg,sr" in alone.stderr
    assert cli(*command, "--image", ct, "--to", "dicom-seg,pdf").exit_code == 2
    nameless = cli(*command, "--image", tmp_path / "mask.nii.gz", "--with-patient")
    assert nameless.exit_code == 1
    assert "only headers of DICOM name the patient" in nameless.stderr

    for file in ct.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.FrameOfReferenceUID
        dataset.save_as(file)
    for name in ("dicom-seg", "rtstruct"):
        lost = cli(*command, "--image", ct, "--to", name)
        assert lost.exit_code == 1
        assert "lack one FrameOfReferenceUID" in lost.stderr
    with pytest.raises(InputError, match="tilted by"):
        leaning = affine.copy()
        leaning[1, 2] = 0.6
        tilted = only_volume(export(tmp_path / "tilted", hu, leaning))
        write_structure_set(mask, tmp_path / "mask.dcm", ct=tilted)
    assert not list(tmp_path.rglob("*.dcm"))


@pytest.fixture(scope="module")
def predicted(cli, trained_run, phantom_dataset, tmp_path_factory):
    """A DICOM series, a NIfTI, and a series without a frame of reference, in one call; and what came of it."""
    folder = tmp_path_factory.mktemp("predicted")
    image = nib.load(sorted((phantom_dataset / "imagesTr").iterdir())[0])
    image = nib.as_closest_canonical(image).slicer[::-1, ::-1, :]  # rows and columns as DICOM has them
    hu = np.rint(image.get_fdata()).astype(np.int16)
    for name in ("whole", "lost"):
        for file in export(folder / "cts" / name, hu, image.affine).iterdir():
            dataset = pydicom.dcmread(file)
            for keyword, value in PLANTED.items():
                setattr(dataset, keyword, value)
            if name == "lost":
                del dataset.FrameOfReferenceUID
            dataset.save_as(file)
    nib.save(image, folder / "plain.nii.gz")
    cts = [folder / "cts" / "whole", folder / "cts" / "lost", folder / "plain.nii.gz"]
    options = ["--bundle", trained_run, "-o", folder / "out", "--to", "dicom-seg,sr,rtstruct", "--report"]
    return cts, options, cli("predict", *cts, *options), folder / "out"


def test_prediction_writes_objects_beside_masks(predicted):
    (whole, *_), _, done, out = predicted

    assert done.exit_code == 3, done.output
    assert "plain: its CT is no DICOM" in done.stderr
    assert "lost: keeps its mask, but lacks dicom-seg" in done.stderr
    assert sorted(file.name for file in out.glob("*.dcm")) == ["whole_rtstruct.dcm", "whole_seg.dcm", "whole_sr.dcm"]
    assert {file.name for file in out.glob("*.nii.gz")} == {"whole.nii.gz", "lost.nii.gz", "plain.nii.gz"}
    with (out / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert {row["status"] for row in rows.values()} == {"done"}
    assert [case_id for case_id, row in rows.items() if row["dicom_error"]] == ["lost"]
    mask = read_mask(out / "whole.nii.gz")[0].numpy()
    assert np.array_equal(read_mask(out / "whole_seg.dcm", grid=read_volume(whole))[0], mask)
    report = hd.sr.srread(out / "whole_sr.dcm")
    liver, *_ = report.content.get_volumetric_roi_measurement_groups()
    found = findings(out / "whole.nii.gz", image=whole)
    assert found.liver_ml > 0
    assert figures(liver)["118565006", ""][0] == pytest.approx(found.liver_ml, abs=1e-4)


def test_only_objects_name_the_patient(predicted):
    *_, out = predicted
    files = [file for file in out.rglob("*") if file.is_file() and file.suffix != ".dcm"]
    assert {".html", ".json", ".csv", ".gz"} <= {file.suffix for file in files}
    words = [word for value in PLANTED.values() for word in value.split("^")]
    for file in files:
        content = file.read_bytes()
        assert not [word for word in words if word.encode() in content], file
    for file in out.glob("*.dcm"):
        dataset = pydicom.dcmread(file)
        said = {keyword for keyword, value in PLANTED.items() if dataset.get(keyword) == value}
        assert said == IN_OBJECTS
        left_out = [PLANTED[keyword].encode() for keyword in PLANTED.keys() - IN_OBJECTS]
        assert not [value for value in left_out if value in file.read_bytes()]


def test_a_page_names_the_patient_when_asked(cli, predicted, tmp_path):
    (whole, *_), options, _, out = predicted
    done = cli("predict", whole, *options, "--resume", "--with-patient")
    assert done.exit_code == 0, done.output
    naming = [file for file in out.rglob("*") if file.suffix != ".dcm" and file.is_file()]
    naming = [file.relative_to(out).as_posix() for file in naming if b"secret-id" in file.read_bytes()]
    assert naming == ["findings/whole/report.html"]
    page = (out / "findings" / "whole" / "report.html").read_text()
    assert "Secretperson Hiddenname" in page
    assert PLANTED["PatientAddress"] not in page


def test_a_real_series_takes_all_objects(real_data, tmp_path):
    with tarfile.open(real_data / "dicom" / "hcc048_portal_16slices.tar.gz") as archive:
        archive.extractall(tmp_path / "ct", filter="data")
    volume = read_volume(only_volume(tmp_path / "ct"))
    mask = np.zeros(volume.shape[1:], dtype=np.uint8)
    mask[100:300, 100:250, 2:9], mask[150:180, 120:140, 4:6] = 1, 2
    mask[200:210, 200:230, 3:7] = 0
    nib.save(nib.Nifti1Image(mask, np.asarray(volume.affine)), tmp_path / "mask.nii.gz")
    options = {"image": tmp_path / "ct", "out": tmp_path / "out", "say": lambda text: None}
    found = report_mask(tmp_path / "mask.nii.gz", to=["dicom-seg", "sr", "rtstruct"], **options)

    files = [file for file in (tmp_path / "ct").rglob("*") if file.is_file()]
    to_mm = {key: plane for folder in {file.parent for file in files} for key, plane in slices_of(folder).items()}
    liver, tumor = pydicom.dcmread(tmp_path / "out" / "mask_rtstruct.dcm").ROIContourSequence
    np.testing.assert_array_equal(rasterised(liver, to_mm, volume), mask >= 1)
    np.testing.assert_array_equal(rasterised(tumor, to_mm, volume), mask == 2)
    groups = hd.sr.srread(tmp_path / "out" / "mask_sr.dcm").content.get_volumetric_roi_measurement_groups()
    volumes_ml = [figures(group)["118565006", ""][0] for group in groups]
    assert volumes_ml == pytest.approx([found["liver_ml"], found["tumor_ml"]], abs=1e-4)
