"""Real scans and real headers; what the network says of them is not judged, where it says it is."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

from liver_monai.data.grid import SliceResampler, grid_shape
from liver_monai.data.transforms import preprocessing
from liver_monai.engine.inferer import SlabInferer
from liver_monai.io.volumes import read_volume
from liver_monai.spec import ModelSpec

TORSO = "totalsegmentator/example_ct.nii.gz"
SHEARED = "awkward/niivue_shear_ct_uint8_slope.nii.gz"
HEADERS = ("awkward/msd_task03_118_headers.json", "awkward/lits_112_headers_assassint_preproc.json")
DENSE_HU = (-20, 60)
SPEC = ModelSpec(encoder="stand-in", slab_size=1, spacing_mm=(1.0, 1.0, 2.5))


def density_network():
    """ "Liver" is what is denser than -20 HU, "tumor" what is denser than 60 HU; see test_inferer.py."""
    low, high = SPEC.hu_window
    soft, dense = ((hu - low) / (high - low) for hu in DENSE_HU)
    network = torch.nn.Conv2d(1, 3, kernel_size=1)
    with torch.no_grad():
        network.weight[:] = torch.tensor([0.0, 10.0, 20.0])[:, None, None, None]
        network.bias[:] = torch.tensor([0.0, -10 * soft, -10 * (soft + dense)])
    return network.eval()


@pytest.mark.parametrize("name", [TORSO, SHEARED])
def test_a_real_ct_is_segmented_on_its_own_grid(cli, real_data, trained_run, tmp_path, name):
    ct = real_data / name

    result = cli("predict", ct, "--bundle", trained_run, "-o", tmp_path / "out", "--report", "--json")

    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    source, mask = nib.load(ct), nib.load(row["mask"])
    assert mask.shape == source.shape
    np.testing.assert_array_equal(mask.affine, source.affine)
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert mask.header[field] == source.header[field]
    np.testing.assert_array_equal(mask.header["pixdim"][:4], source.header["pixdim"][:4])
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2}
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("name", [TORSO, SHEARED])
def test_a_mask_by_intensity_follows_the_anatomy(real_data, name):
    """A network that thresholds must mark the voxels that are dense, give or take what resampling smooths."""
    volume = preprocessing(SPEC)({"image": str(real_data / name)})["image"]

    with torch.inference_mode():
        mask = SlabInferer(SPEC)(volume[None], density_network())[0, 0].numpy()

    hu = np.asarray(nib.load(real_data / name).dataobj)
    assert mask.shape == hu.shape
    for label, threshold_hu, least_dice in zip((1, 2), DENSE_HU, (0.9, 0.75), strict=True):
        marked, dense = mask >= label, hu > threshold_hu
        assert 2 * np.logical_and(marked, dense).sum() / (marked.sum() + dense.sum()) > least_dice


def test_real_files_are_read_with_the_types_and_numbers_they_mean(real_data):
    torso, sheared = (read_volume(real_data / name) for name in (TORSO, SHEARED))

    assert nib.load(real_data / TORSO).get_data_dtype() == np.int32
    assert torso.dtype == torch.int16
    assert -1300 < float(torso.min()) < -900  # air
    assert sheared.dtype == torch.float32  # 8 bits times 7.11 HU
    assert float(sheared.min()) == pytest.approx(-1024, abs=0.01)
    axes = np.asarray(sheared.affine)[:3, :3] / np.linalg.norm(np.asarray(sheared.affine)[:3, :3], axis=0)
    assert np.abs(axes.T @ axes - np.eye(3)).max() > 0.01  # sheared, and still so


@pytest.mark.parametrize("listing", HEADERS)
@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 3.0), (0.7, 0.7, 1.0)])
def test_every_real_header_has_a_model_grid_and_a_way_back(real_data, listing, spacing_mm):
    headers = json.loads((real_data / listing).read_text())
    assert len(headers) >= 112

    for header in headers:
        shape, affine = tuple(header["shape"]), np.array(header["affine"])
        native_mm = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(native_mm, header["zooms"], rtol=1e-3)
        model_shape = grid_shape(shape, native_mm, np.array(spacing_mm))
        extents_mm = np.array(shape) * native_mm, np.array(model_shape) * spacing_mm
        assert np.abs(extents_mm[0] - extents_mm[1]).max() <= max(spacing_mm) / 2 + 1e-6
        back = SliceResampler(shape_out=shape, shape_in=model_shape, step=native_mm / np.array(spacing_mm))
        sources = [back.sources(z) for z in range(shape[2])]
        assert all(sources), "a slice is made of no slice"
        firsts = [used[0] for used in sources]
        assert firsts == sorted(firsts), "streaming would need a slice that it has let go"
        assert sources[0][0] == 0
        assert sources[-1][-1] == model_shape[2] - 1
        assert max(len(used) for used in sources) <= 2 + 2 * np.ceil(native_mm[2] / spacing_mm[2])


def test_the_affine_of_the_model_grid_keeps_real_scans_where_they_are(real_data):
    """The centre of a volume lies at the same place in the world on both grids."""
    for name in (TORSO, SHEARED):
        volume = preprocessing(SPEC)({"image": str(real_data / name)})["image"]
        source = nib.load(real_data / name)
        centres = [
            apply_affine(np.asarray(affine), (np.array(shape) - 1) / 2)
            for affine, shape in ((volume.affine, volume.shape[1:]), (source.affine, source.shape))
        ]
        np.testing.assert_allclose(*centres, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0), SPEC.spacing_mm)
