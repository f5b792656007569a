"""Findings: drawn lesions with hand-computed figures, ellipsoids whose truth is a formula, and laws."""

import csv
import json
import re

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist
from scipy.spatial.transform import Rotation

import liver_monai
from liver_monai.errors import InputError
from liver_monai.report.diameters import EDGE, FURTHEST_APEX, apexes, axial_diameters, maximum_diameter
from liver_monai.report.findings import LESION_COLUMNS, findings_schema
from liver_monai.report.measurement import find_findings

MASKS = arrays.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)).filter(np.any)
SEEDS = st.integers(0, 2**32 - 1)


def random_affine(seed):
    """Any orientation, anisotropic, tilted, with gantry shear."""
    rng = np.random.default_rng(seed)
    axes = Rotation.random(random_state=seed).as_matrix() @ np.diag(rng.uniform(0.5, 5, 3))
    axes[:, 1] += 0.1 * axes[:, 2]
    return nib.affines.from_matvec(axes, rng.uniform(-100, 100, 3))


def liver_with(*lesions, shape=(40, 30, 20), margin=2):
    """A box of liver with boxes of tumour in it, each given as three slices."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[margin:-margin, margin:-margin, margin:-margin] = 1
    for lesion in lesions:
        mask[lesion] = 2
    return mask


def test_a_box_has_the_figures_one_computes_by_hand():
    mask = liver_with(np.s_[10:14, 5:8, 6:16])
    findings = find_findings(mask, np.diag([1.5, 2.0, 3.0, 1.0]))

    assert findings.liver_ml == pytest.approx(36 * 26 * 16 * 9 / 1000)
    assert findings.tumor_ml == pytest.approx(4 * 3 * 10 * 9 / 1000)
    assert findings.burden == pytest.approx(4 * 3 * 10 / (36 * 26 * 16))
    (lesion,) = findings.lesions
    assert lesion.volume_ml == findings.tumor_ml
    assert lesion.sphere_mm == pytest.approx((6 * 1080 / np.pi) ** (1 / 3))
    assert lesion.slices == (6, 15)
    # from the edge of a corner voxel to that of the opposite one, either along x or along y a quarter of a step outside
    assert lesion.longest.length_mm == pytest.approx(max(np.hypot(3.5 * 1.5, 2 * 2), np.hypot(3 * 1.5, 2.5 * 2)))
    assert lesion.centroid_mm == pytest.approx((-11.5 * 1.5, -6 * 2, 10.5 * 3))
    assert lesion.depth_mm == pytest.approx(3 * 2)  # the liver begins three voxels of 2 mm below
    assert not lesion.touches_border


def test_a_voxel_is_half_a_voxel_wide():
    mask = np.zeros((5, 5, 5), dtype=np.uint8)
    mask[2, 2, 2] = 2
    (lesion,) = find_findings(mask, np.diag([2.0, 2.0, 2.0, 1.0])).lesions
    assert lesion.longest.length_mm == lesion.perpendicular.length_mm == lesion.maximum_mm == pytest.approx(1.0)


def test_a_cross_is_crossed_at_a_right_angle():
    mask = np.zeros((15, 15, 1), dtype=bool)
    mask[2:13, 7], mask[7, 4:11] = True, True
    found = axial_diameters(mask, np.eye(4))
    assert found.longest.length_mm == pytest.approx(10.5)
    assert found.perpendicular.length_mm == pytest.approx(6.5)
    assert sorted(found.longest.ends[:, 0]) == [1.75, 12.25]
    assert sorted(found.perpendicular.ends[:, 1]) == pytest.approx([3.75, 10.25])


def test_lesions_come_largest_first_and_their_diameters_add_up():
    boxes = [np.s_[4:5, 4:5, 4:5], np.s_[10:20, 10:11, 5:6], np.s_[30:33, 20:21, 9:10]]
    findings = find_findings(liver_with(*boxes), np.eye(4))
    assert [lesion.lesion_id for lesion in findings.lesions] == [1, 2, 3]
    assert [round(lesion.longest.length_mm, 6) for lesion in findings.lesions] == [9.5, 2.5, 0.5]
    assert findings.to_json()["sum_of_2_longest_mm"] == pytest.approx(12)
    assert findings.to_json()["sum_of_5_longest_mm"] == pytest.approx(12.5)


def test_brightness_is_held_against_the_liver_nearby():
    lesion = np.s_[18:22, 13:17, 8:12]
    mask = liver_with(lesion)
    image = np.full(mask.shape, -1000.0)
    image[mask == 1] = 100
    image[2:6] = 500  # beyond 10 mm, a vessel that must not count
    image[lesion] = 60
    image[18, 13, 8] = 92  # the mean rises to 60.5, the median does not
    (found,) = find_findings(mask, np.eye(4), image=image).lesions
    assert found.mean_hu == pytest.approx(60.5)
    assert found.median_hu == 60
    assert found.contrast_hu == pytest.approx(60.5 - 100)


def test_confidence_is_the_mean_probability():
    mask = liver_with(np.s_[10:12, 10:11, 5:6])
    probabilities = np.where(mask == 2, 0.6, 0.1)
    probabilities[10, 10, 5] = 0.8
    (found,) = find_findings(mask, np.eye(4), probabilities=probabilities).lesions
    assert found.confidence == pytest.approx(0.7)
    (in_bytes,) = find_findings(mask, np.eye(4), probabilities=(probabilities * 255).astype(np.uint8)).lesions
    assert in_bytes.confidence == pytest.approx(0.7)


def test_what_the_scan_cuts_off_is_said():
    whole, cut = np.s_[10:12, 10:12, 5:7], np.s_[20:22, 10:12, 17:20]
    findings = find_findings(liver_with(whole, cut), np.eye(4))
    assert [lesion.touches_border for lesion in findings.lesions] == [True, False]


def test_depth_is_taken_to_the_surface_that_the_image_shows():
    mask = liver_with(np.s_[10:12, 10:12, 5:7])
    shown = mask[:, :, 3:]  # the lower surface, three voxels below the lesion, is cut off; the next lies before it
    assert find_findings(mask, np.eye(4)).lesions[0].depth_mm == 3
    assert find_findings(shown, np.eye(4)).lesions[0].depth_mm == 8
    assert find_findings(np.full((3, 3, 3), 2, dtype=np.uint8), np.eye(4)).lesions[0].depth_mm is None
    at_the_surface = liver_with(np.s_[2:4, 10:12, 5:7])
    assert find_findings(at_the_surface, np.eye(4)).lesions[0].depth_mm == 0


@given(SEEDS)
@settings(max_examples=30)
def test_depths_of_many_lesions_are_those_of_each(seed):
    rng = np.random.default_rng(seed)
    mask = liver_with(shape=(14, 12, 10), margin=1)
    mask[(mask == 1) & (rng.random(mask.shape) < 0.03)] = 2
    spacing_mm = rng.uniform(0.5, 5, 3)
    places = np.argwhere(mask > 0)
    near = [mask[tuple((places + step).T)] == 0 for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])]
    surface_mm = places[np.any(near, axis=0)] * spacing_mm
    labels, n_lesions = ndimage.label(mask == 2)
    expected = [cdist(np.argwhere(labels == n + 1) * spacing_mm, surface_mm).min() for n in range(n_lesions)]
    found = find_findings(mask, np.diag([*spacing_mm, 1.0]))
    assert sorted(lesion.depth_mm for lesion in found.lesions) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("value", [0, 1])
def test_without_lesions_there_is_nothing_to_measure(value):
    findings = find_findings(np.full((4, 4, 4), value, dtype=np.uint8), np.eye(4))
    assert findings.lesions == []
    assert findings.burden == (None if value == 0 else 0.0)


def test_arrays_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="grid"):
        find_findings(np.zeros((4, 4, 4), dtype=np.uint8), np.eye(4), image=np.zeros((4, 4, 5)))


def rows_of(*lengths, width=9):
    """A plane of rows, each in the middle."""
    plane = np.zeros((len(lengths) + 2, width), dtype=bool)
    for row, length in enumerate(lengths, start=1):
        plane[row, (width - length) // 2 : (width + length) // 2] = True
    return plane


def test_a_round_end_goes_on_beyond_its_last_row():
    """Rows of 3 and 5: a parabola whose squared chords are 9 and 25 ends 9 / 16 above the first."""
    found = apexes(rows_of(3, 5, 7, 7, 5, 3)).tolist()
    assert [1 - 9 / 16, 4] in found
    assert [6 + 9 / 16, 4] in found
    assert [1 - FURTHEST_APEX, 4] in apexes(rows_of(7, 9, 9)).tolist()  # 49 / 32 would be in the row beyond
    assert [1 - EDGE, 4] in apexes(rows_of(3, 9, 9)).tolist()  # 9 / 72 would be within the edge


@pytest.mark.parametrize("lengths", [(1,), (5,), (5, 5, 5), (3, 3)])
def test_a_box_has_no_round_end(lengths):
    assert apexes(rows_of(*lengths)).size == 0


def test_where_a_row_has_a_gap_there_is_no_round_end():
    plane = rows_of(5, 7, 9)
    assert (apexes(plane)[:, 0] < 1).any()
    plane[1, 4] = False
    assert not (apexes(plane)[:, 0] < 1).any()


@given(arrays.arrays(bool, st.tuples(*[st.integers(1, 8)] * 2)).filter(np.any))
def test_an_apex_lies_beside_a_voxel(plane):
    for apex in apexes(plane):
        assert np.abs(np.argwhere(plane) - apex).max(axis=1).min() <= 1


def every_edge(mask):
    """A point between every voxel inside and each of its neighbours outside, found voxel by voxel."""
    points = []
    for voxel in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                neighbour = voxel + step * np.eye(mask.ndim, dtype=int)[axis]
                is_beyond = (neighbour < 0).any() or (neighbour >= mask.shape).any()
                if is_beyond or not mask[tuple(neighbour)]:
                    points.append(voxel + EDGE * (neighbour - voxel))
    return np.array(points)


def assert_longest_of_all_pairs(mask, affine):
    """On each slice, and of all points together."""
    planes = {z: mask[:, :, z] for z in np.flatnonzero(mask.any(axis=(0, 1))).tolist()}
    points = {z: np.concatenate([every_edge(plane), apexes(plane)]) for z, plane in planes.items()}
    on_slices_mm = {z: pdist(on_slice @ affine[:3, :2].T).max() for z, on_slice in points.items()}
    found = axial_diameters(mask, affine)
    assert found.longest.length_mm == pytest.approx(max(on_slices_mm.values()))
    assert on_slices_mm[found.slice_index] == pytest.approx(found.longest.length_mm)
    in_space = [np.insert(on_slice, 2, z, axis=1) for z, on_slice in points.items()]
    longest_mm = pdist(np.concatenate([every_edge(mask), *in_space]) @ affine[:3, :3].T).max()
    assert maximum_diameter(mask, affine).length_mm == pytest.approx(longest_mm)


@given(MASKS, SEEDS)
def test_the_longest_lines_are_those_of_all_pairs(mask, seed):
    affine = random_affine(seed)
    assert_longest_of_all_pairs(mask, affine)


@pytest.mark.parametrize("seed", range(3))
def test_the_longest_lines_of_a_large_lesion_are_those_of_all_pairs(seed):
    """So many points that their convex hull is taken first."""
    rng = np.random.default_rng(seed)
    mask = np.linalg.norm((np.indices((40, 40, 12)).T - (19.5, 19.5, 5.5)) / (17, 12, 5), axis=-1).T <= 1
    mask &= rng.random(mask.shape) < 0.9
    assert_longest_of_all_pairs(mask, random_affine(seed))


@given(MASKS, SEEDS)
def test_the_perpendicular_is_one_and_is_not_longer(mask, seed):
    affine = random_affine(seed)
    found = axial_diameters(mask, affine)
    lines = [np.diff(d.ends @ affine[:3, :2].T, axis=0)[0] for d in (found.longest, found.perpendicular)]
    for line, diameter in zip(lines, (found.longest, found.perpendicular), strict=True):
        assert np.linalg.norm(line) == pytest.approx(diameter.length_mm, abs=1e-6)
    assert abs(lines[0] @ lines[1]) < 1e-6 * (1 + found.longest.length_mm**2)
    assert found.perpendicular.length_mm <= found.longest.length_mm + 1e-9


def ellipsoid(seed):
    """A rotated ellipsoid of at least three voxels in every half axis, on an anisotropic grid, and its matrix."""
    rng = np.random.default_rng(seed)
    spacing_mm = np.array([*[rng.uniform(0.5, 1.2)] * 2, rng.uniform(0.7, 5.0)])
    half_axes_mm = rng.uniform(3, 7, 3) * spacing_mm.max()
    turn = Rotation.random(random_state=seed).as_matrix()
    matrix = turn @ np.diag(half_axes_mm**-2.0) @ turn.T
    shape = np.ceil(np.sqrt(np.diag(np.linalg.inv(matrix))) / spacing_mm).astype(int) * 2 + 4
    centre = (shape - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
    points = (np.moveaxis(np.indices(shape), 0, -1) - centre) * spacing_mm
    inside = np.einsum("...i,ij,...j", points, matrix, points) <= 1
    return np.where(inside, 2, 0).astype(np.uint8), spacing_mm, half_axes_mm, matrix, centre


def ellipsoid_errors(seed):
    """Measured less true, in voxels: longest, perpendicular, maximum along its own direction, and sphere."""
    mask, spacing_mm, half_axes_mm, matrix, centre = ellipsoid(seed)
    affine = np.diag([*spacing_mm, 1.0])
    (lesion,) = find_findings(mask, affine).lesions
    z_mm = (np.arange(mask.shape[2]) - centre[2]) * spacing_mm[2]
    in_plane, across = matrix[:2, :2], matrix[:2, 2]
    level = (1 - z_mm**2 * (matrix[2, 2] - across @ np.linalg.solve(in_plane, across))).max()
    minor_mm, major_mm = 2 * np.sqrt(level / np.linalg.eigvalsh(in_plane)[::-1])
    line_mm = np.diff(maximum_diameter(mask > 0, affine).ends, axis=0)[0] * spacing_mm
    voxel_mm = (np.abs(line_mm) * spacing_mm).max() / np.linalg.norm(line_mm)
    return (
        (lesion.longest.length_mm - major_mm) / spacing_mm[0],
        (lesion.perpendicular.length_mm - minor_mm) / spacing_mm[0],
        (lesion.maximum_mm - 2 * half_axes_mm.max()) / voxel_mm,
        (lesion.sphere_mm - 2 * np.cbrt(half_axes_mm.prod())) / spacing_mm.min(),
    )


@given(SEEDS)
def test_an_ellipsoid_measures_what_its_formula_says(seed):
    """Volume within half a voxel, each end of every line, too."""
    *lines, sphere = ellipsoid_errors(seed)
    assert np.abs(lines).max() <= 1
    assert abs(sphere) <= 0.5


def test_ellipsoids_measure_what_their_formulas_say_within_half_a_voxel():
    errors = np.array([ellipsoid_errors(seed) for seed in range(150)])
    longest, perpendicular, maximum, _ = (np.abs(errors) <= 0.5).mean(axis=0)
    assert min(longest, perpendicular, maximum) >= 0.98
    assert np.abs(errors.mean(axis=0)).max() <= 0.25


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL", "IPR"])
def test_findings_do_not_depend_on_how_the_mask_is_stored(codes):
    mask = liver_with(np.s_[10:14, 5:8, 6:16], np.s_[20:29, 20:22, 10:11])
    affine = nib.affines.from_matvec(np.diag([0.8, 0.7, 2.5]), (-50, 20, 300))
    stored = nib.Nifti1Image(mask, affine).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
    )
    expected, found = find_findings(mask, affine), find_findings(np.asarray(stored.dataobj), stored.affine)

    assert found.liver_ml == pytest.approx(expected.liver_ml)
    for one, other in zip(expected.lesions, found.lesions, strict=True):
        for name in ("volume_ml", "maximum_mm", "centroid_mm", "depth_mm"):
            assert getattr(one, name) == pytest.approx(getattr(other, name))
        assert one.longest.length_mm == pytest.approx(other.longest.length_mm)
        assert one.perpendicular.length_mm == pytest.approx(other.perpendicular.length_mm)
        worlds = [
            np.sort(nib.affines.apply_affine(a, line.ends_voxel), axis=0)
            for a, line in ((affine, one.longest), (stored.affine, other.longest))
        ]
        np.testing.assert_allclose(np.sort(np.array(other.longest.ends_mm) * (-1, -1, 1), axis=0), worlds[1], atol=0.05)
        assert np.linalg.norm(np.diff(worlds[1], axis=0)) == pytest.approx(one.longest.length_mm, abs=0.05)
        axis = codes.find("S") if "S" in codes else codes.find("I")
        last = stored.shape[axis] - 1
        slices = one.slices if "S" in codes else (last - one.slices[1], last - one.slices[0])
        assert other.slices == slices


@given(SEEDS, st.integers(0, 2))
def test_a_tilted_grid_changes_no_volume_and_no_maximum(seed, n_flips):
    mask, spacing_mm, *_ = ellipsoid(seed % 7)
    assume(mask.size < 50_000)
    straight = np.diag([*spacing_mm, 1.0])
    turned = nib.affines.from_matvec(Rotation.from_euler("xyz", [8, -6, 10], degrees=True).as_matrix()) @ straight
    one, other = find_findings(mask, straight).lesions[0], find_findings(mask, turned).lesions[0]
    assert one.volume_ml == pytest.approx(other.volume_ml)
    assert one.maximum_mm == pytest.approx(other.maximum_mm)
    assert one.longest.length_mm == pytest.approx(other.longest.length_mm)


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scan_files(tmp_path):
    """A mask with two lesions, its CT and its probabilities, all anisotropic and LPS."""
    mask = liver_with(np.s_[10:14, 5:8, 6:16], np.s_[20:29, 20:22, 10:11])
    affine = nib.affines.from_matvec(np.diag([-0.8, -0.7, 2.5]), (-50, 20, 300))
    image = np.choose(mask, [-100, 110, 70]).astype(np.int16)
    probabilities = np.where(mask == 2, 204, 10).astype(np.uint8)
    paths = {"mask": tmp_path / "case_7.nii.gz", "image": tmp_path / "ct.nii.gz", "maps": tmp_path / "maps"}
    paths["maps"].mkdir()
    named = {paths["mask"]: mask, paths["image"]: image, paths["maps"] / "case_7_tumor.nii.gz": probabilities}
    for path, voxels in named.items():
        nib.save(nib.Nifti1Image(voxels, affine), path)
    return paths


def test_report_writes_what_it_found(cli, scan_files, tmp_path):
    out = tmp_path / "out"
    options = ["--image", scan_files["image"], "--probabilities", scan_files["maps"], "-o", out]
    done = cli("report", scan_files["mask"], *options, "--json")
    assert done.exit_code == 0, done.output

    said = json.loads(done.stdout)
    assert said == json.loads((out / "findings.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(findings_schema())
    jsonschema.validate(said, findings_schema(), cls=jsonschema.Draft202012Validator)
    assert said["case_id"] == "case_7"
    assert [lesion["confidence"] for lesion in said["lesions"]] == pytest.approx([0.8, 0.8])
    assert [lesion["contrast_hu"] for lesion in said["lesions"]] == [-40, -40]
    with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(LESION_COLUMNS)
    assert [float(row["volume_ml"]) for row in rows] == pytest.approx(
        [lesion["volume_ml"] for lesion in said["lesions"]], abs=1e-4
    )
    text = (out / "findings.txt").read_text(encoding="utf-8")
    assert "2 tumours" in text
    assert "not a clinical assessment" in text
    assert text.strip() in done.stderr
    assert len(json.loads((out / "record.json").read_text(encoding="utf-8"))["inputs_sha256"]) == 3

    again = cli("report", scan_files["mask"], *options)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert cli("report", scan_files["mask"], *options, "--overwrite").exit_code == 0


def test_a_mask_alone_has_findings_too(cli, scan_files, tmp_path):
    alone = liver_monai.findings(scan_files["mask"]).to_json()
    jsonschema.validate(alone, findings_schema(), cls=jsonschema.Draft202012Validator)
    done = cli("report", scan_files["mask"], "-o", tmp_path / "out", "--json")
    assert json.loads(done.stdout) == {"case_id": "case_7", **alone}
    assert alone["lesions"][0]["mean_hu"] is None


def test_a_ct_of_another_grid_is_refused(scan_files, tmp_path):
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((40, 30, 20), dtype=np.int16), np.eye(4)), other)
    with pytest.raises(InputError, match="mm apart"):
        liver_monai.findings(scan_files["mask"], image=other)
    with pytest.raises(InputError, match=re.escape("--series 1: is for DICOM")):
        liver_monai.findings(scan_files["mask"], image=other, series="1")


def test_the_two_tumors_of_a_real_liver(real_data):
    """86 and 79 mL, as the label has them; both darker than the liver; as long as all pairs of voxels say."""
    folder = real_data / "ircadb17"
    found = liver_monai.findings(folder / "ircadb17_label.nii.gz", image=folder / "ircadb17_ct.nii.gz")
    label = nib.load(folder / "ircadb17_label.nii.gz")
    spacing_mm = np.array(label.header.get_zooms())
    parts, _ = ndimage.label(np.asarray(label.dataobj) == 2)
    sizes = np.bincount(parts.ravel())[1:]
    for lesion, number in zip(found.lesions, np.argsort(-sizes) + 1, strict=True):
        planes = np.moveaxis(parts == number, 2, 0)
        rims = [np.argwhere(plane & ~ndimage.binary_erosion(plane)) for plane in planes if plane.any()]
        between_centres_mm = max(pdist(rim * spacing_mm[:2]).max() for rim in rims)
        assert 0 < lesion.longest.length_mm - between_centres_mm < spacing_mm[0]
    assert [round(lesion.volume_ml) for lesion in found.lesions] == [86, 79]
    assert all(lesion.contrast_hu < 0 for lesion in found.lesions)
