"""The slabs a network is trained on: which are drawn, and that each is the volume's own."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, get_track_meta
from monai.transforms import Compose, OneOf, RandGaussianNoised, RandShiftIntensityd
from monai.utils import set_determinism
from scipy import ndimage

from liver_monai.data.balance import describe_draws, find_doubts
from liver_monai.data.cases import Case
from liver_monai.data.draws import AIR_HU, CENTRED_ON, DrawSampler, SlabDataset, lesion_probabilities
from liver_monai.data.layouts import find_cases
from liver_monai.data.slabs import slab_view
from liver_monai.data.transforms import model_grid, preprocessing
from liver_monai.spec import LIVER, TUMOR, ModelSpec

GRID = np.diag([2.0, 2.0, 3.0, 1.0])


def make_spec(**values):
    return ModelSpec(**{"encoder": "resnet34", "spacing_mm": (2, 2, 3), "slab_size": 3, "roi_size": (16, 16), **values})


def make_case(folder, image, label, *, name="ct"):
    for suffix, voxels, dtype in (("", image, np.int16), ("_mask", label, np.uint8)):
        nib.save(nib.Nifti1Image(voxels.astype(dtype), GRID), folder / f"{name}{suffix}.nii")
    return Case(case_id=name, image=folder / f"{name}.nii", label=folder / f"{name}_mask.nii")


def as_drawn(item):
    """In place of the augmentation: the slab in HU."""
    return item


def draw(case, spec, *, n_samples=1, transform=as_drawn, **options):
    cases = case if isinstance(case, list) else [case]
    folder = cases[0].image.parent / "store"
    return SlabDataset(cases, spec=spec, folder=folder, n_samples=n_samples, transform=transform, **options)


def numbered_case(folder, shape=(40, 36, 8)):
    """A CT whose HU are the number of their voxel, with liver and tumour in the middle."""
    image = np.arange(np.prod(shape)).reshape(shape) - 2000
    label = np.zeros(shape)
    label[16:24, 14:22, 2:6], label[19:21, 17:19, 3:5] = LIVER, TUMOR
    return make_case(folder, image, label)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    return numbered_case(tmp_path_factory.mktemp("numbered"))


@pytest.mark.parametrize(("slab_size", "output_slices"), [(1, 1), (3, 1), (5, 1), (3, 3), (7, 5)])
def test_a_slab_is_a_piece_of_the_ct_with_the_label_of_its_middle(numbered, slab_size, output_slices):
    spec = make_spec(slab_size=slab_size, output_slices=output_slices)
    image, label = (nib.load(path).get_fdata() for path in (numbered.image, numbered.label))
    slabs_in_ct = slab_view(torch.from_numpy(image), slab_size)
    labels_in_ct = slab_view(torch.from_numpy(label), output_slices)

    for slab in (draw(numbered, spec)[number] for number in range(40)):
        x, y, z = np.unravel_index(int(slab["image"][slab_size // 2, 0, 0]) + 2000, image.shape)
        piece = (slice(x, x + 16), slice(y, y + 16))
        np.testing.assert_array_equal(slab["image"], slabs_in_ct[z][:, *piece])
        np.testing.assert_array_equal(slab["label"], labels_in_ct[z][:, *piece])


def test_slabs_of_phantoms_are_what_preprocessing_shows_the_network(phantom_dataset, tmp_path):
    """Training and prediction see the same values, up to the store's rounding to whole HU."""
    spec = make_spec(spacing_mm=(8, 8, 8), roi_size=(96, 96))
    case = find_cases(phantom_dataset)[0]
    volume = preprocessing(spec)(case.to_item())["image"].as_tensor()[0]
    label = model_grid(spec)(case.to_item())["label"].as_tensor()[0]
    slabs_in_ct = slab_view(volume, spec.slab_size)
    in_crop = tuple(slice(-first, size - first) for size in volume.shape[:2] for first in [(size - 96) // 2])
    low, high = spec.hu_window

    dataset = SlabDataset([case], spec=spec, folder=tmp_path, n_samples=1, transform=as_drawn)
    for slab in (dataset[number] for number in range(10)):
        seen = torch.from_numpy((slab["image"][:, *in_crop].clip(low, high) - low) / (high - low))
        z = int((slabs_in_ct - seen).abs().amax(dim=(1, 2, 3)).argmin())
        torch.testing.assert_close(seen, slabs_in_ct[z], atol=0.51 / (high - low), rtol=0)
        np.testing.assert_array_equal(slab["label"][0][in_crop], label[:, :, z])


@settings(max_examples=30)
@given(size=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_where_the_ct_ends_there_is_air_without_a_label(tmp_path_factory, size):
    """Small slices lie in the middle of the crop; no voxel is lost or shown twice."""
    shape = (*size, 2)
    case = make_case(tmp_path_factory.mktemp("small"), np.full(shape, 100), np.full(shape, LIVER))

    slab = draw(case, make_spec())[0]

    covered = [min(n, 16) for n in size]
    is_ct = slab["image"][0] == 100
    assert is_ct.sum() == np.prod(covered)
    assert (slab["image"][:, ~is_ct] == AIR_HU).all()
    np.testing.assert_array_equal(slab["label"][0], is_ct)
    rows, columns = np.nonzero(is_ct)
    for positions, n in ((rows, covered[0]), (columns, covered[1])):
        assert abs(positions.min() - (16 - n) / 2) <= 0.5


def test_the_class_in_the_centre_is_drawn_as_often_as_declared(numbered):
    """The label is tiny, so a slab drawn anywhere hardly ever has it in its centre."""
    n_draws = 1500
    dataset = draw(numbered, make_spec())

    centres = np.array([dataset[number]["label"][0, 8, 8] for number in range(n_draws)])

    assert sum(CENTRED_ON.values()) == pytest.approx(1)
    for value in (TUMOR, LIVER):
        deviation = (CENTRED_ON[value] * (1 - CENTRED_ON[value]) / n_draws) ** 0.5
        assert (centres == value).mean() == pytest.approx(CENTRED_ON[value], abs=4 * deviation)


def test_every_case_is_drawn_equally_often_however_large(tmp_path):
    small = make_case(tmp_path, np.zeros((16, 16, 1)), np.zeros((16, 16, 1)), name="small")
    large = make_case(tmp_path, np.ones((32, 32, 20)), np.full((32, 32, 20), TUMOR), name="large")
    dataset = draw([small, large], make_spec())

    share_of_large = np.mean([dataset[number]["image"][0, 0, 0] for number in range(400)])

    assert share_of_large == pytest.approx(0.5, abs=4 * (0.25 / 400) ** 0.5)


@pytest.mark.parametrize("values", [(), (LIVER,), (TUMOR,)])
def test_a_case_that_lacks_a_class_is_drawn_from_all_the_same(tmp_path, values):
    label = np.zeros((20, 20, 4))
    for value in values:
        label[10, 10, value] = value
    dataset = draw(make_case(tmp_path, np.zeros(label.shape), label), make_spec())

    seen = {int(value) for number in range(60) for value in np.unique(dataset[number]["label"])}

    assert seen == {0, *values}


@pytest.mark.parametrize("centres", [[3], [0, 4, 6], [0, 7]])
def test_only_the_chosen_slices_are_in_the_centre_of_a_slab(numbered, centres):
    """With liver and tumour among them, without tumour, and without both."""
    spec = make_spec(slab_size=1)
    image = nib.load(numbered.image).get_fdata()
    dataset = draw(numbered, spec, centres={"ct": centres})

    seen = {
        int(np.unravel_index(int(dataset[number]["image"][0, 0, 0]) + 2000, image.shape)[2]) for number in range(80)
    }

    assert seen == set(centres)


def test_all_of_a_ct_without_liver_is_seen(tmp_path):
    shape = (20, 20, 6)
    image = np.arange(np.prod(shape)).reshape(shape)
    dataset = draw(make_case(tmp_path, image, np.zeros(shape)), make_spec())

    seen = np.unique(np.concatenate([dataset[number]["image"].ravel() for number in range(200)]))

    np.testing.assert_array_equal(seen, np.arange(np.prod(shape)))


def test_a_slab_depends_on_the_seed_and_its_number_alone(numbered):
    """The augmentation's part, too: whatever was drawn before, by whichever worker."""
    spec = make_spec()
    first, second, other = (draw(numbered, spec, transform=None, seed=seed) for seed in (7, 7, 8))

    forwards = [first[number]["image"] for number in range(6)]
    backwards = [second[number]["image"] for number in reversed(range(6))]

    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not any(torch.equal(slab, other[number]["image"]) for number, slab in enumerate(forwards))
    assert not any(torch.equal(forwards[0], slab) for slab in forwards[1:])


@pytest.mark.parametrize("kind", [Compose, OneOf])
def test_every_random_part_of_a_transform_goes_by_the_number(numbered, kind):
    """Of composed transforms one within the other, and of those that choose among others."""
    parts = [RandGaussianNoised("image", prob=1.0), Compose([RandShiftIntensityd("image", offsets=9.0, prob=1.0)])]
    first, second = (draw(numbered, make_spec(), transform=kind(parts)) for _ in range(2))

    forwards = [first[number]["image"] for number in range(6)]
    backwards = [second[number]["image"] for number in reversed(range(6))]

    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({float(each[0, 0, 0] % 1) for each in forwards}) == 6


def test_metadata_are_kept_as_before_once_a_slab_is_made_or_not(numbered):
    def fail(_):
        assert not get_track_meta()
        raise ValueError("no slab")

    with pytest.raises(ValueError, match="no slab"):
        draw(numbered, make_spec(), transform=fail)[0]
    assert get_track_meta()


def test_under_one_global_seed_two_trainings_see_the_same_batches(numbered):
    batches = []
    for _ in range(2):
        set_determinism(3)
        dataset = draw(numbered, make_spec(), n_samples=8, transform=None, seed=3)
        batches.append(list(DataLoader(dataset, sampler=DrawSampler(dataset), batch_size=4)))
    set_determinism(None)

    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(*batches, strict=True))
    assert batches[0][0]["image"].shape == (4, 3, 16, 16)
    assert batches[0][0]["label"].shape == (4, 1, 16, 16)


def test_numbers_go_on_from_epoch_to_epoch(numbered):
    dataset = draw(numbered, make_spec(), n_samples=5)
    sampler = DrawSampler(dataset)

    numbers = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        numbers.extend(sampler)

    assert len(sampler) == len(dataset) == 5
    assert numbers == list(range(15))


def test_an_epoch_can_begin_amid_its_numbers_once(numbered):
    sampler = DrawSampler(draw(numbered, make_spec(), n_samples=5))

    sampler.skip_once(3)

    assert list(sampler) == [3, 4]
    sampler.set_epoch(1)
    assert list(sampler) == [5, 6, 7, 8, 9]


# By lesion


def case_of_lesions(folder):
    """Lesions that share slices: one around another, one that touches by a corner, a large one and a voxel."""
    label = np.full((60, 56, 8), LIVER)
    label[14:21, 14:21, 1:6] = TUMOR
    label[15:20, 15:20, 1:6] = LIVER
    label[17, 17, 2:4] = TUMOR
    label[30:32, 30:32, 2:4] = label[32, 32, 4] = TUMOR
    label[34:46, 18:34, 3:8] = TUMOR
    label[40, 40, 5] = TUMOR
    image = np.arange(label.size).reshape(label.shape) - 2000
    return make_case(folder, image, label, name="lesions"), label


def numbers_of(label):
    return ndimage.label(label == TUMOR, structure=np.ones((3, 3, 3)))[0]


@pytest.mark.parametrize(
    ("sizes", "power", "shares"),
    [
        ([1, 4, 16], -0.5, [4 / 7, 2 / 7, 1 / 7]),
        ([1, 4, 16], 0, [1 / 3, 1 / 3, 1 / 3]),
        ([1, 3, 16], 1, [0.05, 0.15, 0.8]),
        ([7], -0.5, [1]),
    ],
)
def test_how_often_a_lesion_is_drawn_follows_from_its_size(sizes, power, shares):
    np.testing.assert_allclose(lesion_probabilities(sizes, power=power), shares)


def test_lesions_are_drawn_as_often_as_declared_and_each_of_their_slices_alike(tmp_path):
    n_draws = 6000
    case, _ = case_of_lesions(tmp_path)
    dataset = draw(case, make_spec(), lesion_power=-0.5)
    lesions = dataset.cases[0].lesions
    shares = lesion_probabilities([lesion.n_voxels for lesion in lesions], power=-0.5)

    drawn = [each for each in map(dataset.draw, range(n_draws)) if each.value == TUMOR]

    assert len(lesions) == 5
    assert len(drawn) == pytest.approx(CENTRED_ON[TUMOR] * n_draws, rel=0.1)
    for lesion, share in zip(lesions, shares, strict=True):
        slices = [each.z for each in drawn if each.lesion == lesion]
        assert len(slices) / len(drawn) == pytest.approx(share, abs=4 * (share * (1 - share) / len(drawn)) ** 0.5)
        assert set(slices) == set(range(lesion.first_slice, lesion.last_slice + 1))


def test_the_voxels_of_a_lesion_are_its_own(tmp_path):
    case, label = case_of_lesions(tmp_path)
    numbers = numbers_of(label)
    (stored,) = draw(case, make_spec()).cases

    for lesion in stored.lesions:
        found = {
            (int(x), int(y), z)
            for z in range(lesion.first_slice, lesion.last_slice + 1)
            for x, y in stored.voxels_of(lesion, z)
        }
        number = numbers[next(iter(found))]
        assert found == {tuple(map(int, voxel)) for voxel in np.argwhere(numbers == number)}
        assert len(found) == lesion.n_voxels


def test_a_slab_is_centred_on_the_lesion_that_was_drawn(tmp_path):
    case, label = case_of_lesions(tmp_path)
    dataset = draw(case, make_spec(slab_size=1), lesion_power=-0.5)
    numbers = numbers_of(label).ravel()

    for number in range(200):
        drawn, slab = dataset.draw(number), dataset[number]
        voxel = int(slab["image"][0, 8, 8]) + 2000
        assert np.unravel_index(voxel, label.shape)[2] == drawn.z
        if drawn.lesion is not None:
            assert np.count_nonzero(numbers == numbers[voxel]) == drawn.lesion.n_voxels
            assert slab["label"][0, 8, 8] == TUMOR


def test_lesions_without_a_slice_that_may_be_drawn_are_left_out(tmp_path):
    case, _ = case_of_lesions(tmp_path)
    dataset = draw(case, make_spec(), lesion_power=-0.5, centres={"lesions": [1, 7]})

    drawn = [dataset.draw(number) for number in range(200)]

    assert {each.z for each in drawn} == {1, 7}
    lesions = {(each.lesion.first_slice, each.lesion.last_slice) for each in drawn if each.lesion}
    assert lesions == {(1, 5), (3, 7)}


def test_the_balance_that_is_told_is_that_of_the_slabs(tmp_path):
    case, _ = case_of_lesions(tmp_path)
    dataset = draw(case, make_spec(), n_samples=2000, lesion_power=-0.5)
    n_tumors = sum(dataset.draw(number).value == TUMOR for number in range(2000))

    text = describe_draws(dataset)

    assert f"first epoch: 2000 slabs, centred {n_tumors} on a tumour" in text
    assert "5 of 5 lesions, tumours in 1 of 1 cases" in text
    assert find_doubts(dataset) == []


def test_labels_that_teach_nothing_are_doubted(tmp_path):
    empty = make_case(tmp_path, np.zeros((16, 16, 2)), np.zeros((16, 16, 2)), name="empty")

    doubts = find_doubts(draw(empty, make_spec(), n_samples=4))

    assert "no training case has liver or tumour" in doubts[0]
    assert "no training case has a tumour" in doubts[1]


def test_the_store_is_left_as_it_was(numbered):
    dataset = draw(numbered, make_spec(), transform=None)
    before = dataset.cases[0].image(), dataset.cases[0].label()

    for number in range(20):
        dataset[number]

    np.testing.assert_array_equal(dataset.cases[0].image(), before[0])
    np.testing.assert_array_equal(dataset.cases[0].label(), before[1])
