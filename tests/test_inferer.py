"""Laws of streaming inference, with stand-in networks that look at nothing but intensity, so that masks are known."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from liver_monai.data.grid import interpolation_matrix
from liver_monai.data.phantom import make_phantom
from liver_monai.data.slabs import slab_view
from liver_monai.data.transforms import preprocessing
from liver_monai.engine.ensemble import Ensemble
from liver_monai.engine.inference import Choices, Model, load_model
from liver_monai.engine.inferer import SlabInferer, batch_of_one
from liver_monai.engine.postprocess import postprocessing
from liver_monai.errors import InputError
from liver_monai.io.probabilities import MAPS
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec, offsets

HU_WINDOW = (-200, 250)
LIVER_FROM_HU, TUMOR_FROM_HU = -20.5, 100.5  # no whole number lies on a threshold
ORIENTATIONS = ("RAS", "LAS", "LPS", "RPI", "PIR", "SAL", "AIR", "IPL")


def make_spec(*, spacing_mm=(2.0, 2.0, 4.0), slab_size=3, roi_size=(256, 256), output_slices=1):
    return ModelSpec(
        encoder="stand-in",
        slab_size=slab_size,
        spacing_mm=spacing_mm,
        hu_window=HU_WINDOW,
        roi_size=roi_size,
        output_slices=output_slices,
    )


def threshold_network(slab_size, *, slice_weights=None):
    """Background, liver or tumor by the intensity of the centre slice, or by the weighted mean of the slab's slices."""
    low, high = HU_WINDOW
    liver_from, tumor_from = ((hu - low) / (high - low) for hu in (LIVER_FROM_HU, TUMOR_FROM_HU))
    if slice_weights is None:
        slice_weights = [float(channel == slab_size // 2) for channel in range(slab_size)]
    network = torch.nn.Conv2d(slab_size, 3, kernel_size=1)
    slopes = torch.tensor([0.0, 10.0, 20.0])  # three lines; the uppermost changes at the two thresholds
    with torch.no_grad():
        network.weight[:] = slopes[:, None, None, None] * torch.tensor(slice_weights)[None, :, None, None]
        network.bias[:] = torch.tensor([0.0, -10 * liver_from, -10 * (liver_from + tumor_from)])
    return network.eval()


class EachByItself(torch.nn.Module):
    """As ``threshold_network``, for each of the slices in the middle of a slab."""

    def __init__(self, slab_size, *, output_slices):
        super().__init__()
        of_slices = torch.eye(slab_size)[[slab_size // 2 + offset for offset in offsets(output_slices)]]
        self.networks = torch.nn.ModuleList(
            threshold_network(slab_size, slice_weights=weights) for weights in of_slices.tolist()
        )

    def forward(self, slabs):
        return torch.cat([network(slabs) for network in self.networks], dim=1)


class Witness(torch.nn.Module):
    """A network that remembers what it was shown."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.shapes = []
        self.centres = []

    def forward(self, slabs):
        self.shapes.append(tuple(slabs.shape))
        self.centres += slabs[:, slabs.shape[1] // 2].flatten(1).amax(dim=1).tolist()
        return self.network(slabs)


def write_ct(folder, voxels, affine):
    path = Path(folder) / "ct.nii"
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def model_of(spec, network, **options):
    return Model(
        spec=spec,
        network=network,
        preprocessing=preprocessing(spec, by_slice=True),
        inferer=SlabInferer(spec, **options),
        postprocessing=postprocessing(output_dir=None, largest_component=False, fill_holes=False),
        device=torch.device("cpu"),
    )


def segment(folder, voxels, affine, *, spec=None, network=None, **options):
    """The mask ``(X, Y, Z)`` of a CT in a file, by a stand-in network."""
    spec = spec or make_spec()
    network = network or threshold_network(spec.slab_size)
    mask = model_of(spec, network, **options).segment(write_ct(folder, voxels, affine))
    assert mask.shape == (1, *voxels.shape)
    assert mask.dtype == torch.uint8
    np.testing.assert_array_equal(mask.affine, nib.load(Path(folder) / "ct.nii").affine)
    return mask[0].numpy()


def thresholded(hu):
    """What the stand-in network makes of a CT, voxel by voxel."""
    return (hu > LIVER_FROM_HU).astype(np.uint8) + (hu > TUMOR_FROM_HU)


def to_ras(mask, affine):
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(mask, affine)).dataobj)


def random_ct(shape, *, seed=0):
    return np.random.default_rng(seed).integers(-300, 300, shape, dtype=np.int16)


def smooth_ct(shape, *, seed=0):
    """Blobs that stay what they are when they are resampled."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(-300, 300, (1, 1, 5, 5, 4))).float()
    fine = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    return fine[0, 0].numpy().astype(np.int16)


def scaling(*spacing_mm):
    return np.diag([*spacing_mm, 1.0])


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


# Several slices a pass


@pytest.mark.parametrize("output_slices", [1, 3, 5])
@pytest.mark.parametrize("n_slices", [1, 2, 3, 10, 15])
@pytest.mark.parametrize("sw_batch_size", [1, 4])
def test_several_slices_a_pass_are_each_its_own(tmp_path, output_slices, n_slices, sw_batch_size):
    voxels, affine = random_ct((24, 20, n_slices)), scaling(2, 2, 4)
    witness = Witness(EachByItself(5, output_slices=output_slices))
    spec = make_spec(slab_size=5, output_slices=output_slices)

    mask = segment(tmp_path, voxels, affine, spec=spec, network=witness, sw_batch_size=sw_batch_size)

    np.testing.assert_array_equal(mask, thresholded(voxels))
    assert len(witness.centres) == -(-n_slices // output_slices)


def test_several_slices_a_pass_have_maps_and_ensembles(tmp_path):
    voxels, affine = random_ct((24, 20, 7)), scaling(2, 2, 4)
    network = EachByItself(3, output_slices=3)
    ct = write_ct(tmp_path, voxels, affine)

    one = model_of(make_spec(), threshold_network(3), maps=MAPS).segment(ct)
    several = model_of(make_spec(output_slices=3), Ensemble([network, network]), maps=MAPS).segment(ct)

    np.testing.assert_array_equal(several, one)


# One anatomy, whatever way it is stored


@pytest.fixture(scope="module")
def ras_phantom_mask(tmp_path_factory):
    phantom = make_phantom(seed=3, shape=(48, 40, 20), orientation="RAS")
    mask = segment_with_all_neighbours(tmp_path_factory.mktemp("ras"), phantom.image, phantom.affine)
    assert set(np.unique(mask)) == {0, 1, 2}
    return mask


def segment_with_all_neighbours(folder, voxels, affine):
    """By a network to which the order of slices matters."""
    network = threshold_network(3, slice_weights=[0.1, 0.3, 0.6])
    return segment(folder, voxels, affine, spec=make_spec(spacing_mm=(5, 5, 8)), network=network)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_way_of_storing_a_ct_gives_the_same_mask(tmp_path, ras_phantom_mask, orientation):
    phantom = make_phantom(seed=3, shape=(48, 40, 20), orientation=orientation)
    assert "".join(nib.aff2axcodes(phantom.affine)) == orientation

    mask = segment_with_all_neighbours(tmp_path, phantom.image, phantom.affine)

    np.testing.assert_array_equal(to_ras(mask, phantom.affine), ras_phantom_mask)


def test_the_order_of_slices_does_matter_to_that_network(tmp_path, ras_phantom_mask):
    """Otherwise the law above would say nothing about it."""
    phantom = make_phantom(seed=3, shape=(48, 40, 20), orientation="RAS")

    mask = segment_with_all_neighbours(tmp_path, phantom.image[:, :, ::-1].copy(), phantom.affine)

    assert (mask[:, :, ::-1] != ras_phantom_mask).any()


@pytest.mark.parametrize("degrees", [(0, 0, 20), (12, -7, 30), (0, 0, 45), (45, 0, 0), (0, 0, 90)])
def test_a_tilted_grid_is_segmented_along_its_own_axes(tmp_path, ras_phantom_mask, degrees):
    """Slices stay the acquired slices, so that a rotation up to 45 degrees changes no voxel."""
    phantom = make_phantom(seed=3, shape=(48, 40, 20), orientation="RAS")
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()

    mask = segment_with_all_neighbours(tmp_path, phantom.image, rotation @ phantom.affine)

    if max(np.abs(degrees)) < 45:
        np.testing.assert_array_equal(mask, ras_phantom_mask)
    else:  # the axes have changed places: another direction is head to foot
        assert dice(mask > 0, ras_phantom_mask > 0) > 0.9


SHEAR = np.array([[1, 0, 0.3, 0], [0.15, 1, 0, 0], [0, 0.1, 1, 0], [0, 0, 0, 1]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (25, -15, 35), degrees=True).as_matrix()
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
GRIDS = {
    "isotropic": scaling(1.5, 1.5, 1.5),
    "thick slices": scaling(0.9, 0.9, 5),
    "anisotropic in plane": scaling(1.8, 1.0, 2.5),
    "LPS": FLIP @ scaling(1, 1, 2),
    "sagittal": scaling(3, 1, 1)[:, [1, 2, 0, 3]],
    "oblique": OBLIQUE @ scaling(1.2, 1.2, 2),
    "oblique, mirrored": OBLIQUE @ FLIP @ scaling(1.2, 1.2, 2),
    "sheared": SHEAR @ scaling(1.2, 1.2, 2),
    "sheared, oblique, permuted": (SHEAR @ OBLIQUE @ scaling(1.2, 1.2, 2))[:, [2, 0, 1, 3]],
}
LIVER_RADIUS_MM, TUMOR_RADIUS_MM = 40.0, 22.0


def cone(affine):
    """A CT of 100 mm whose HU fall with the distance from a point, so that both thresholds are spheres in the world."""
    shape = tuple(int(100 / mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
    placed = affine.copy()
    placed[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + [3.0, -2.0, 4.0]
    voxels = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), axis=-1)
    distance_mm = np.linalg.norm(apply_affine(placed, voxels), axis=-1)
    slope = (TUMOR_FROM_HU - LIVER_FROM_HU) / (LIVER_RADIUS_MM - TUMOR_RADIUS_MM)
    hu = TUMOR_FROM_HU + (TUMOR_RADIUS_MM - distance_mm) * slope
    return hu.astype(np.float32), placed, distance_mm


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 3.0), (1.0, 1.0, 1.0)])
def test_the_mask_lies_where_the_intensity_lies_in_the_world(tmp_path, grid, spacing_mm):
    hu, affine, distance_mm = cone(GRIDS[grid])

    mask = segment(tmp_path, hu, affine, spec=make_spec(spacing_mm=spacing_mm))

    assert dice(mask > 0, distance_mm < LIVER_RADIUS_MM) >= 0.99
    assert dice(mask == 2, distance_mm < TUMOR_RADIUS_MM) >= 0.98


# Exact results


@settings(max_examples=12)
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9)), slab_size=st.sampled_from([1, 3, 7]))
def test_on_the_model_grid_the_mask_is_what_the_network_says(shape, slab_size):
    hu = random_ct(shape)
    spec = make_spec(spacing_mm=(0.8, 0.8, 2.5), slab_size=slab_size)

    with tempfile.TemporaryDirectory() as folder:
        mask = segment(folder, hu, scaling(0.8, 0.8, 2.5), spec=spec)

    np.testing.assert_array_equal(mask, thresholded(hu))


@pytest.mark.parametrize("native_mm", [(0.7, 0.8, 1.25), (3.0, 2.5, 6.0), (2.0, 2.0, 4.0), (0.9, 3.1, 9.0)])
@pytest.mark.parametrize("batch", [1, 4])
def test_streaming_gives_what_the_whole_volume_would_give(tmp_path, native_mm, batch):
    hu = smooth_ct((37, 53, 21))
    spec = make_spec(slab_size=5)
    network = threshold_network(5, slice_weights=[0.4, 0.1, 0.3, 0.15, 0.05])

    mask = segment(tmp_path, hu, scaling(*native_mm), spec=spec, network=network, sw_batch_size=batch)

    logits = whole_volume_logits(tmp_path / "ct.nii", spec=spec, network=network)
    best = logits.topk(2, dim=0).values
    is_decided = (best[0] - best[1] > 1e-4).numpy()  # elsewhere the order of additions decides
    assert is_decided.mean() > 0.99
    assert set(np.unique(mask)) == {0, 1, 2}
    np.testing.assert_array_equal(mask[is_decided], logits.argmax(dim=0).numpy()[is_decided])


def whole_volume_logits(ct, *, spec, network):
    """``(3, X, Y, Z)`` of a CT stored RAS: every slab at once, then the three matrices at once."""
    volume = preprocessing(spec)({"image": str(ct)})["image"]
    native_mm = np.linalg.norm(np.asarray(volume.meta["oriented_affine"])[:3, :3], axis=0)
    with torch.inference_mode():
        logits = network(slab_view(volume.as_tensor()[0], spec.slab_size)).permute(1, 2, 3, 0)
    along_x, along_y, along_z = (
        interpolation_matrix(int(n_out), n_in, step=mm / model_mm)
        for n_out, n_in, mm, model_mm in zip(
            volume.meta["oriented_shape"], volume.shape[1:], native_mm, spec.spacing_mm, strict=True
        )
    )
    for axis, matrix in enumerate((along_x, along_y, along_z), start=1):
        logits = torch.tensordot(logits, matrix, dims=([axis], [1])).movedim(-1, axis)
    return logits


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_batch_size_changes_nothing(tmp_path, batch):
    hu = smooth_ct((30, 20, 12))
    spec = make_spec(slab_size=3)
    network = threshold_network(3, slice_weights=[0.5, 0.3, 0.2])

    one_by_one = segment(tmp_path, hu, scaling(1, 1, 2), spec=spec, network=network, sw_batch_size=1)
    mask = segment(tmp_path, hu, scaling(1, 1, 2), spec=spec, network=network, sw_batch_size=batch)

    np.testing.assert_array_equal(mask, one_by_one)


@pytest.mark.parametrize("slab_size", [1, 3, 7])
def test_slabs_of_any_size_are_centred_on_the_slice_they_label(tmp_path, slab_size):
    """Slices alternate between three tissues, so that a slab off by one slice would show."""
    tissues = np.array([-150, 30, 180], dtype=np.int16)
    hu = np.broadcast_to(tissues[np.arange(17) % 3], (18, 14, 17)).copy()

    mask = segment(tmp_path, hu, scaling(2, 2, 4), spec=make_spec(slab_size=slab_size))

    np.testing.assert_array_equal(mask[9, 7], np.arange(17) % 3)
    np.testing.assert_array_equal(mask, thresholded(hu))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("search", ["whole", "liver"])
def test_the_mask_of_a_flipped_ct_is_the_flipped_mask(tmp_path, axis, search):
    """By a network to which both sides of a slab are the same."""
    hu = smooth_ct((20, 26, 120))
    spec = make_spec(slab_size=3)
    network = threshold_network(3, slice_weights=[0.25, 0.5, 0.25])

    mask, of_flipped = (
        segment(tmp_path, voxels, scaling(2.5, 1.7, 3), spec=spec, network=network, search=search)
        for voxels in (hu, np.flip(hu, axis).copy())
    )

    assert (np.flip(of_flipped, axis) != mask).mean() < 1e-4  # where the order of additions decides
    assert set(np.unique(mask)) == {0, 1, 2}


def test_the_number_of_threads_changes_nothing(tmp_path, trained_run, phantom_dataset):
    ct = phantom_dataset / "imagesTr" / "liver_000.nii.gz"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = load_model(trained_run, choices=Choices(device="cpu")).segment(ct)
        torch.set_num_threads(3)
        three = load_model(trained_run, choices=Choices(device="cpu")).segment(ct)
    finally:
        torch.set_num_threads(threads)

    assert (one > 0).any()
    np.testing.assert_array_equal(three.numpy(), one.numpy())


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_size_changes_nothing_of_a_real_networks_mask(trained_run, phantom_dataset, batch):
    ct = phantom_dataset / "imagesTr" / "liver_000.nii.gz"

    mask, expected = (
        load_model(trained_run, choices=Choices(device="cpu", overrides={"inferer#sw_batch_size": size})).segment(ct)
        for size in (batch, 4)
    )

    np.testing.assert_array_equal(mask.numpy(), expected.numpy())


# Sizes


@pytest.mark.parametrize("slab_size", [1, 3, 7])
@pytest.mark.parametrize("native_mm", [(2, 2, 4), (1, 1, 1), (2, 2, 40)])
def test_a_single_slice(tmp_path, slab_size, native_mm):
    hu = smooth_ct((40, 32, 1))

    mask = segment(tmp_path, hu, scaling(*native_mm), spec=make_spec(slab_size=slab_size))

    inner = (slice(2, -2), slice(2, -2))
    assert dice(mask[inner] > 0, thresholded(hu)[inner] > 0) > 0.97


@pytest.mark.parametrize(
    ("n_slices", "slice_mm"),
    [(300, 1.0), (300, 4.0), (300, 5.0), (1500, 0.5), pytest.param(1500, 2.5, marks=pytest.mark.slow)],
)
def test_many_slices(tmp_path, n_slices, slice_mm):
    """A ramp along z: its thresholds lie at slices that can be computed."""
    ramp = np.linspace(HU_WINDOW[0], HU_WINDOW[1], n_slices).astype(np.float32)
    hu = np.broadcast_to(ramp, (24, 20, n_slices)).copy()

    mask = segment(tmp_path, hu, scaling(2, 2, slice_mm))

    undecided = 2 * 4 / slice_mm + 2  # slices within two of the model grid around each threshold
    assert (mask == mask[:1, :1]).all()
    assert (np.diff(mask[0, 0].astype(int)) >= 0).all()
    assert (mask[0, 0] != thresholded(ramp)).sum() <= undecided


@pytest.mark.parametrize("shape", [(37, 53, 6), (5, 9, 4), (1, 1, 3), (1, 200, 2), (16, 32, 3), (8, 8, 1), (8, 8, 2)])
def test_any_size_in_plane_comes_back_as_it_was(tmp_path, shape):
    hu = random_ct(shape)
    witness = Witness(threshold_network(3))

    mask = segment(tmp_path, hu, scaling(2, 2, 4), network=witness)

    np.testing.assert_array_equal(mask, thresholded(hu))
    assert all(size % OUTPUT_STRIDE == 0 for shown in witness.shapes for size in shown[2:])


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_large_slices_go_through_windows_and_come_out_whole(tmp_path, overlap):
    hu = random_ct((150, 101, 5))
    spec = make_spec(roi_size=(32, 32))
    witness = Witness(threshold_network(3))

    mask = segment(tmp_path, hu, scaling(2, 2, 4), spec=spec, network=witness, overlap=overlap)

    assert {shown[2:] for shown in witness.shapes} == {(64, 64)}
    assert max(shown[0] for shown in witness.shapes) <= 4  # windows of a forward pass, however many slices they are of
    np.testing.assert_array_equal(mask, thresholded(hu))


def test_smaller_slices_are_one_window(tmp_path):
    witness = Witness(threshold_network(3))

    segment(tmp_path, random_ct((60, 33, 5)), scaling(2, 2, 4), spec=make_spec(roi_size=(32, 32)), network=witness)

    assert witness.shapes == [(4, 3, 64, 48), (1, 3, 64, 48)]


# What is asked of network and memory


@pytest.mark.parametrize("slice_mm", [1.0, 4.0, 9.0])
def test_every_slab_is_seen_once_and_in_order(tmp_path, slice_mm):
    ramp = np.linspace(-199, 249, 23).astype(np.float32)
    hu = np.broadcast_to(ramp, (17, 17, 23)).copy()
    witness = Witness(threshold_network(3))

    segment(tmp_path, hu, scaling(2, 2, slice_mm), network=witness, sw_batch_size=3)

    assert len(witness.centres) == round(23 * slice_mm / 4)
    assert (np.diff(witness.centres) > 0).all()


@pytest.mark.parametrize("model_mm", [1.0, 2.0, 5.0])
def test_memory_for_logits_does_not_grow_with_the_length_of_a_ct(tmp_path, model_mm):
    """A further slice costs its mask, not its logits, nor itself as the network sees it."""
    spec = make_spec(spacing_mm=(1.0, 1.0, model_mm))
    short, long = (peak_bytes(tmp_path, spec, shape=(200, 200, n_slices)) for n_slices in (40, 120))

    further_bytes = (long - short) / (80 * 200 * 200)  # a voxel of the CT
    assert 1 <= further_bytes < 1.15


def peak_bytes(folder, spec, *, shape):
    """The most that torch holds at any time during inference, without the CT itself."""
    ct = write_ct(folder, random_ct(shape), scaling(1, 1, 2))
    batch = batch_of_one(preprocessing(spec, by_slice=True)({"image": str(ct)})["image"])
    network = threshold_network(spec.slab_size)
    trace = folder / "trace.json"
    with (
        torch.inference_mode(),
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile,
    ):
        SlabInferer(spec, sw_batch_size=4)(batch, network)
    profile.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    held = np.cumsum([event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])])
    return int(held.max())


def test_two_cts_in_a_batch_are_refused():
    batch = MetaTensor(torch.zeros(2, 1, 16, 16, 3))

    with pytest.raises(ValueError, match="one by one"):
        SlabInferer(make_spec())(batch, threshold_network(3))


class Short(torch.nn.Module):
    """A network for more than ``most`` slabs of which memory is too short."""

    def __init__(self, network, *, most, error):
        super().__init__()
        self.network, self.most, self.error = network, most, error
        self.sizes = []

    def forward(self, slabs):
        self.sizes.append(len(slabs))
        if len(slabs) > self.most:
            raise self.error
        return self.network(slabs)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("roi_size", [(256, 256), (16, 16)], ids=["one window", "many windows"])
def test_where_memory_is_short_the_batch_is_halved_and_the_mask_is_the_same(tmp_path, error, roi_size):
    ct, spec = random_ct((40, 36, 30)), make_spec(roi_size=roi_size)
    network = Short(threshold_network(spec.slab_size), most=2, error=error)

    mask = segment(tmp_path, ct, scaling(2, 2, 4), spec=spec, network=network, sw_batch_size=8)

    np.testing.assert_array_equal(mask, segment(tmp_path, ct, scaling(2, 2, 4), spec=spec))
    assert [size for size in network.sizes if size > 2] == [8, 4], "what did not fit once is not tried again"


def test_where_not_one_slab_fits_the_way_out_is_told(tmp_path):
    network = Short(threshold_network(3), most=0, error=torch.OutOfMemoryError("CUDA out of memory"))

    with pytest.raises(InputError, match=r"not even one slab a pass fits into memory; .*--device"):
        segment(tmp_path, random_ct((16, 16, 4)), scaling(2, 2, 4), network=network)


def test_other_errors_of_a_network_are_not_tried_again(tmp_path):
    network = Short(threshold_network(3), most=0, error=RuntimeError("shapes do not fit"))

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        segment(tmp_path, random_ct((16, 16, 4)), scaling(2, 2, 4), network=network)
    assert network.sizes == [4]
