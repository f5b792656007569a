"""Ways to predict: several networks, maps, memory, reading ahead."""

from __future__ import annotations

import json
import shutil
import threading
import time
from math import log

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from test_inferer import HU_WINDOW, random_ct, scaling, smooth_ct, threshold_network

from liver_monai.data.cases import find_images
from liver_monai.engine.ensemble import Ensemble
from liver_monai.engine.inference import Choices, load_model, predict
from liver_monai.engine.inferer import SlabInferer, batch_of_one
from liver_monai.engine.memory import BYTES_A_PIXEL, GB, fitting_batch, resident_bytes
from liver_monai.engine.read_ahead import read_ahead
from liver_monai.errors import InputError
from liver_monai.io.probabilities import read_probabilities
from liver_monai.model.bundle import override_bundle
from liver_monai.spec import ModelSpec

# Several networks


def constant(*logits):
    """A network that says the same everywhere."""
    values = torch.tensor(logits)[None, :, None, None]
    return lambda slabs: values.repeat(len(slabs), 1, *slabs.shape[2:])


def test_probabilities_are_averaged():
    slabs = torch.zeros(2, 5, 4, 6)
    networks = [constant(0.0, 0.0, 0.0), constant(log(8.0), 0.0, 0.0), constant(0.0, log(2.0), -200.0)]

    logits = Ensemble(networks)(slabs)

    expected = torch.tensor([1 / 3 + 0.8 + 1 / 3, 1 / 3 + 0.1 + 2 / 3, 1 / 3 + 0.1 + 0.0]) / 3
    torch.testing.assert_close(logits.softmax(dim=1), expected[None, :, None, None].expand(2, 3, 4, 6))


def test_a_label_that_no_network_believes_in_stays_finite():
    logits = Ensemble([constant(0.0, -1e4, -1e4)] * 2)(torch.zeros(1, 1, 2, 2))

    assert torch.isfinite(logits).all()


def test_an_ensemble_of_one_model_is_that_model(trained_run, phantom_dataset):
    (case, *_) = find_images([phantom_dataset])

    alone, twice = (
        load_model(bundle, choices=Choices(device="cpu")).segment(case.image)
        for bundle in (trained_run, [trained_run] * 2)
    )

    assert (alone != twice).float().mean() < 1e-4  # where two labels are equally probable
    assert (alone > 0).any()


def test_bundles_of_other_slabs_are_refused(trained_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    override_bundle(other, {"spec#hu_window": [-100, 200]})
    (other / "models" / "model.json").unlink()  # which would refuse the window first

    with pytest.raises(InputError, match=r"see different slabs \(hu_window"):
        load_model([trained_run, other], choices=Choices(device="cpu"))


# Maps


SPEC = ModelSpec(encoder="stand-in", slab_size=3, spacing_mm=(2.0, 2.0, 4.0), hu_window=HU_WINDOW)


def as_volume(hu, affine):
    affines = {name: torch.from_numpy(affine.copy()) for name in ("affine", "original_affine")}
    return MetaTensor(torch.from_numpy(hu)[None], meta=affines)


def inferred(volume, network, **options):
    with torch.inference_mode():
        return SlabInferer(SPEC, **options)(batch_of_one(volume), network)[0]


def test_maps_are_the_probabilities_of_the_logits():
    """Of a constant network, at every voxel: 0.45, 0.35, 0.2."""
    network = constant(log(0.45), log(0.35), log(0.2))
    volume = as_volume(random_ct((11, 7, 5)), scaling(1.5, 2, 3))

    mask, liver, tumor, entropy = inferred(volume, network, maps=("liver", "tumor", "entropy"))

    expected = -(0.45 * log(0.45) + 0.35 * log(0.35) + 0.2 * log(0.2)) / log(3)
    values = [channel.unique().tolist() for channel in (mask, liver, tumor, entropy)]
    assert values == [[0], [140], [51], [round(expected * 255)]]


def test_the_mask_is_the_same_with_maps_and_agrees_with_them():
    volume = as_volume(smooth_ct((40, 30, 20)), scaling(1.3, 2, 3))
    network = threshold_network(3)

    (mask,) = inferred(volume, network)
    again, liver, tumor = inferred(volume, network, maps=("liver", "tumor"))

    torch.testing.assert_close(again, mask)
    assert (liver >= tumor).all()
    assert (liver[mask == 0] <= 172).all()  # two labels of a third each
    assert (tumor[mask == 2] >= 84).all()


@pytest.fixture(scope="module")
def with_maps(cli, trained_run, phantom_dataset, tmp_path_factory):
    """What ``predict --probabilities --entropy`` left."""
    out = tmp_path_factory.mktemp("with-maps")
    done = cli("predict", phantom_dataset, "--bundle", trained_run, "-o", out, "--probabilities", "--entropy")
    assert done.exit_code == 0, done.output
    return out


def test_maps_lie_beside_the_masks_with_their_geometry(with_maps, phantom_dataset):
    for ct in (phantom_dataset / "imagesTr").iterdir():
        source, case_id = nib.load(ct), ct.name.removesuffix(".nii.gz")
        for name in ("liver", "tumor", "entropy"):
            written = nib.load(with_maps / "probabilities" / f"{case_id}_{name}.nii.gz")
            assert written.get_data_dtype() == np.uint8
            np.testing.assert_array_equal(written.affine, source.affine)
        assert read_probabilities(with_maps / "probabilities" / f"{case_id}_liver.nii.gz").max() > 127


def test_maps_are_what_evaluation_takes(cli, with_maps, phantom_dataset, tmp_path):
    probabilities = with_maps / "probabilities"

    done = cli("evaluate", with_maps, phantom_dataset, "-o", tmp_path / "e", "--probabilities", probabilities, "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n_failed"] == 0


def test_a_case_without_its_maps_is_predicted_again(cli, with_maps, trained_run, phantom_dataset, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(with_maps, out)
    (out / "probabilities" / "liver_001_tumor.nii.gz").unlink()

    arguments = ("predict", phantom_dataset, "--bundle", trained_run, "-o", out, "--resume", "--json")
    rows = json.loads(cli(*arguments, "--probabilities").stdout)

    assert {row["case_id"]: row["status"] for row in rows}["liver_001"] == "done"
    assert sum(row["status"] == "kept" for row in rows) == len(rows) - 1
    assert {row["status"] for row in json.loads(cli(*arguments).stdout)} == {"kept"}


# Values of the bundle


def test_what_is_set_for_a_prediction_is_recorded_and_holds(cli, trained_run, phantom_dataset, tmp_path):
    done = cli(
        *("predict", phantom_dataset / "imagesTr" / "liver_000.nii.gz", "--bundle", trained_run, "-o", tmp_path),
        *("--search", "whole", "--set", "postprocessing#largest_component=false", "--max-memory", 64),
    )

    assert done.exit_code == 0, done.output
    settings = json.loads((tmp_path / "record.json").read_text())["settings"]
    assert settings["search"] == "whole"
    assert settings["max_memory_gb"] == 64
    assert settings["overrides"] == {"postprocessing#largest_component": False}
    assert "all slices" in (tmp_path / "cases.csv").read_text()


def test_rules_of_cleaning_can_be_set(trained_run):
    overrides = {"postprocessing#min_lesion_mm3": 5.0, "postprocessing#fill_holes": False}

    model = load_model(trained_run, choices=Choices(device="cpu", overrides=overrides))

    (clean,) = model.postprocessing.transforms
    assert clean.rules == {"largest_component": True, "fill_holes": False, "min_lesion_mm3": 5.0}


def test_an_id_that_inference_has_not_is_refused(trained_run):
    with pytest.raises(InputError, match="postprocessing#largest_component"):
        load_model(trained_run, choices=Choices(device="cpu", overrides={"postprocessing#largest_componet": False}))


# Memory


def test_as_many_slabs_as_fit():
    held = resident_bytes()
    slab = BYTES_A_PIXEL * 1000**2
    assert fitting_batch(4, pixels=1000**2, max_memory_gb=None) == 4
    assert fitting_batch(4, pixels=1000**2, max_memory_gb=(held + 2.7 * slab) / GB) == 2
    assert fitting_batch(4, pixels=1000**2, max_memory_gb=(held + 90 * slab) / GB) == 4
    with pytest.raises(InputError, match=r"--max-memory 0\.1: .* are needed at least"):
        fitting_batch(4, pixels=1000**2, max_memory_gb=0.1)


def test_too_little_memory_is_told_of_the_case(trained_run, phantom_dataset, tmp_path):
    cases = find_images([phantom_dataset])[:2]

    results = list(predict(cases, bundle=trained_run, out=tmp_path, choices=Choices(max_memory_gb=0.01)))

    assert [result.status for result in results] == ["failed", "failed"]
    assert "are needed at least" in results[0].error


# Reading ahead


def test_results_come_in_order_and_errors_in_their_place():
    def read(item):
        if item == 2:
            raise InputError("two cannot be read")
        return item * 10

    got = []
    for number, result in enumerate(read_ahead(read, range(5))):
        if number == 2:
            with pytest.raises(InputError, match="two"):
                result()
        else:
            got.append(result())

    assert got == [0, 10, 30, 40]


@pytest.mark.parametrize(("n", "most"), [(0, 0), (1, 1), (2, 2)])
def test_no_more_is_read_than_was_agreed(n, most):
    read_items = []
    for number, result in enumerate(read_ahead(lambda item: read_items.append(item) or item, range(6), n=n)):
        assert result() == number
        deadline = time.monotonic() + 10
        while len(read_items) < min(6, number + 1 + most) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert read_items == list(range(min(6, number + 1 + most)))


def test_reading_goes_on_beside_the_work_and_ends_with_it():
    names = []
    stream = read_ahead(lambda item: names.append(threading.current_thread().name), range(3))
    next(stream)()
    stream.close()

    assert threading.current_thread().name not in names
    assert not any(thread.name in names for thread in threading.enumerate())


def test_a_case_that_cannot_be_read_fails_alone(trained_run, phantom_dataset, tmp_path):
    folder = tmp_path / "cts"
    shutil.copytree(phantom_dataset / "imagesTr", folder)
    broken = sorted(folder.iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:2000])

    results = list(predict(find_images([folder]), bundle=trained_run, out=tmp_path / "out"))

    assert [result.status for result in results] == ["done", "failed", "done", "done"]
    assert "is damaged" in results[1].error
