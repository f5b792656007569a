"""A data set made ready: found, curated, stored, split, and none of it lost when the process is killed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from liver_monai.data.cases import Case
from liver_monai.data.layouts import find_cases
from liver_monai.data.partition import split_named
from liver_monai.data.phantom import write_phantoms
from liver_monai.data.preparation import is_store, open_dataset, prepare, prepare_for_training
from liver_monai.data.splits import split_dataset
from liver_monai.data.store import build_store, case_folder, open_case
from liver_monai.engine.trial import Plan, Trial, run_trial
from liver_monai.errors import InputError
from liver_monai.model.bundle import copy_bundle, find_bundle, read_spec
from liver_monai.spec import LIVER, TUMOR, ModelSpec

COARSE_MM, QUICK_MM = [8, 8, 16], [5, 5, 10]
"""The second is the grid of the quick training."""
COARSE = ModelSpec(encoder="resnet34", spacing_mm=tuple(COARSE_MM))


@pytest.fixture
def data(phantom_dataset, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(phantom_dataset, folder)
    return folder


def quietly(data, out, **options):
    return prepare(data, spec=COARSE, out=out, say=lambda _: None, **options)


def bundle_of_grid(tmp_path, spacing_mm):
    copy_bundle(find_bundle("mobilenet"), tmp_path / "bundle", {"spec#spacing_mm": spacing_mm})
    return tmp_path / "bundle"


def test_a_store_says_what_it_holds(data, tmp_path):
    (data / "excludes.csv").write_text("case_id,reason\nliver_002,label is doubtful\n")
    (data / "spacing_overrides.csv").write_text("case_id,x,y,z\nliver_001,4,4,9\n")
    said = []

    done = prepare(data, spec=COARSE, out=tmp_path / "store", say=said.append)

    assert (done["n"], done["n_kept"], done["n_failed"]) == (3, 0, 0)
    assert done["excluded"] == {"liver_002": "label is doubtful"}
    assert said[0].startswith("licence: Synthetic liver: CC0-1.0")
    assert is_store(tmp_path / "store")
    stored = open_dataset(tmp_path / "store")
    assert [case.case_id for case in stored.cases] == ["liver_000", "liver_001", "liver_003"]
    assert stored.excluded == done["excluded"]
    assert stored.cases[1].spacing_mm == (4, 4, 9)
    geometry = open_case(stored.cases[1], spec=COARSE, folder=tmp_path / "store").geometry
    np.testing.assert_allclose(np.linalg.norm(np.array(geometry["original_affine"])[:3, :3], axis=0), [4, 4, 9])


def test_a_store_alone_is_enough_to_train(data, tmp_path):
    quietly(data, tmp_path / "store")
    shutil.rmtree(data)
    (tmp_path / "store").rename(tmp_path / "moved")

    ready = prepare_for_training(tmp_path / "moved", spec=COARSE, store=tmp_path / "moved")

    assert len(ready.cases) == 4
    for case in ready.cases:
        stored = open_case(case, spec=COARSE, folder=tmp_path / "moved")
        assert stored.reference().sum() > 0
        assert stored.image().shape == stored.shape


def test_prepared_again_nothing_is_made_twice_and_nobody_moves(data, tmp_path):
    first = quietly(data, tmp_path / "store")
    folds = (tmp_path / "store" / "folds.csv").read_text()

    second = quietly(data, tmp_path / "store", seed=5)

    assert (first["n_kept"], second["n_kept"]) == (0, 4)
    assert (tmp_path / "store" / "folds.csv").read_text() == folds


def test_a_bad_case_is_told_and_comes_in_when_it_is_mended(data, tmp_path, cli):
    broken = data / "labelsTr" / "liver_001.nii.gz"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    options = ("-o", tmp_path / "store", "--bundle", bundle_of_grid(tmp_path, COARSE_MM), "--json")

    some = cli("prepare", data, *options)

    assert some.exit_code == 3
    assert list(json.loads(some.stdout)["failed"]) == ["liver_001"]
    assert "liver_001: failed: " in some.stderr
    before = (tmp_path / "store" / "folds.csv").read_text().splitlines()
    broken.write_bytes(whole)
    assert cli("prepare", data, *options).exit_code == 0
    after = (tmp_path / "store" / "folds.csv").read_text().splitlines()
    assert set(before) < set(after)
    assert len(after) == 5


def test_nothing_that_can_be_prepared_is_a_failure(data, tmp_path, cli):
    for image in (data / "imagesTr").iterdir():
        image.write_bytes(b"")

    done = cli("prepare", data, "-o", tmp_path / "store")

    assert done.exit_code == 1
    assert not is_store(tmp_path / "store")


def test_another_data_set_is_not_prepared_into_a_store(data, phantom_dataset, tmp_path):
    quietly(data, tmp_path / "store")

    with pytest.raises(InputError, match=r"store: is the store of .*data; give .* one of its own"):
        quietly(phantom_dataset, tmp_path / "store")


def test_another_data_set_may_borrow_a_store_for_a_training(data, phantom_dataset, tmp_path):
    """As when a run is evaluated on other cases: what the store says of itself stays as it is."""
    (data / "excludes.csv").write_text("case_id,reason\nliver_002,none\n")
    quietly(data, tmp_path / "store")
    index = (tmp_path / "store" / "store.json").read_text()

    ready = prepare_for_training(phantom_dataset, spec=COARSE, store=tmp_path / "store")

    assert len(ready.folds) == 4
    assert (tmp_path / "store" / "store.json").read_text() == index


@pytest.mark.parametrize("content", ["{", "{}", '{"cases": []}'])
def test_a_store_that_cannot_be_read_is_told(tmp_path, content):
    (tmp_path / "store.json").write_text(content)

    with pytest.raises(InputError, match=r"store.json: (is not JSON|is no index of a store).*data set again"):
        open_dataset(tmp_path)


def test_bundles_share_a_store_when_they_share_a_grid():
    specs = [read_spec(find_bundle(name)) for name in ("resnet34", "mobilenet", "deeplabv3plus")]
    case = Case(case_id="a", image=Path("a.nii"), source="known")

    places = {case_folder(case, spec=spec, folder=Path("store")) for spec in specs}

    assert len(places) == 1
    assert case_folder(case, spec=COARSE, folder=Path("store")) not in places


def test_a_training_takes_a_store_as_its_data(data, tmp_path, train_quickly, cli):
    (data / "excludes.csv").write_text("case_id,reason\nliver_002,none\n")
    store = tmp_path / "store"
    assert cli("prepare", data, "-o", store, "--bundle", bundle_of_grid(tmp_path, QUICK_MM)).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    shutil.rmtree(data)

    done = train_quickly(tmp_path / "run", "--epochs", 1, "--fold", 1, data=store, slabs_per_epoch=4)

    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["excluded"] == {"liver_002": "none"}
    assert len(record["train"]) == 2
    assert not (tmp_path / "run" / "store").exists()
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_trainings_share_a_store_and_folds(phantom_dataset, tmp_path, train_quickly):
    folds = tmp_path / "folds.csv"
    folds.write_text("case_id,fold\nliver_000,0\nliver_001,1\nliver_002,0\nliver_003,1\n")

    for bundle in ("mobilenet", "resnet34"):
        options = ("--store", tmp_path / "store", "--folds", folds, "--fold", 1, "--bundle", bundle)
        done = train_quickly(tmp_path / bundle, "--epochs", 1, *options, slabs_per_epoch=4)
        assert done.exit_code == 0, done.output
        record = json.loads((tmp_path / bundle / "record.json").read_text())
        assert record["validation"] == ["liver_001", "liver_003"]

    assert len(list((tmp_path / "store").glob("*/liver_*"))) == 4


# Equal images


def add_mirrored(data):
    """A fifth case: the first one's image and label the other way round along an axis, in another file type."""
    for folder in ("imagesTr", "labelsTr"):
        image = nib.load(data / folder / "liver_000.nii.gz")
        voxels = np.asanyarray(image.dataobj)[::-1]
        nib.save(nib.Nifti1Image(voxels, image.affine), data / folder / "renamed.nii")
    listing = json.loads((data / "dataset.json").read_text())
    listing["training"].append({"image": "./imagesTr/renamed.nii", "label": "./labelsTr/renamed.nii"})
    listing["numTraining"] = 5
    (data / "dataset.json").write_text(json.dumps(listing))


def test_an_image_and_its_mirror_image_are_never_separated(data, tmp_path):
    add_mirrored(data)
    quietly(data, tmp_path / "store")
    rows = [line.split(",") for line in (tmp_path / "store" / "folds.csv").read_text().splitlines()]
    by_case = {case_id: (patient_id, fold) for case_id, patient_id, fold, _ in rows}
    folds = tmp_path / "folds.csv"
    folds.write_text("case_id,fold\nliver_000,0\nliver_001,1\nliver_002,0\nliver_003,1\nrenamed,1\n")

    assert by_case["renamed"] == by_case["liver_000"]
    assert len({fold for _, fold in by_case.values()}) == 5  # four folds and the title
    for source in (data, tmp_path / "store"):
        with pytest.raises(InputError, match=r"folds.csv: 'liver_000' and 'renamed' show the same image"):
            split_dataset(source, spec=COARSE, store=tmp_path / "store", folds=folds)
        with pytest.raises(InputError, match=r"'liver_000' and 'renamed' show the same image, but are in training and"):
            split_named(
                source, spec=COARSE, store=tmp_path / "store", train=["liver_000", "liver_001"], validation=["renamed"]
            )


def test_a_benchmark_keeps_equal_images_together_or_says_that_it_cannot(data, tmp_path):
    """Before a data set is prepared nobody knows its images; a store does."""
    add_mirrored(data)
    quietly(data, tmp_path / "store")

    def trials(source):
        plan = Plan(data=source, out=tmp_path / "out", n_folds=4, seed=0, overrides={})
        return [Trial(plan=plan, name="b", bundle=tmp_path, spec=COARSE, fold=fold) for fold in range(4)]

    for trial in trials(tmp_path / "store"):
        parts = [{case.case_id for case in part} for part in vars(trial.partition()).values()]
        assert sum({"liver_000", "renamed"} <= part for part in parts) == 1
    (apart, *_) = [
        trial for trial in trials(data) for part in [trial.partition().test]
        if len({"liver_000", "renamed"} & {case.case_id for case in part}) == 1
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"'(liver_000|renamed)' and '(liver_000|renamed)' show the same"):
        run_trial(apart, say=lambda _: None)
    assert not apart.folder.exists()


# Changed files


def test_what_was_made_of_files_before_they_changed_is_removed_by_prepare_alone(data, tmp_path):
    store = tmp_path / "store"
    quietly(data, store)
    before = {path.name for path in store.glob("*/*")}
    changed, other = find_cases(data)[:2]
    reader = open_case(changed, spec=COARSE, folder=store)
    borrowed = replace(other, image=shutil.copy(other.image, tmp_path), source="of another data set")
    build_store([replace(borrowed, image=Path(borrowed.image))], spec=COARSE, folder=store)
    label = nib.load(changed.label)
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj) * 0, label.affine), changed.label)

    split_dataset(data, spec=COARSE, store=store)
    assert reader.label().any()  # a training goes on with what it began with
    quietly(data, store)

    now = {path.name for path in store.glob("*/*")}
    assert before - now == {reader.folder.name}
    assert len(now) == len(before) + 1  # the one borrowed by another data set
    assert not open_case(changed, spec=COARSE, folder=store).label().any()
    with pytest.raises(InputError, match=r"label.b2nd: is no longer there; .* go on with --resume"):
        reader.label()


# Killed


def start_preparing(data, store, *options):
    command = [sys.executable, "-c", "from liver_monai.cli import main; main()", "prepare", str(data), "-o", str(store)]
    return subprocess.Popen([*command, *map(str, options)], stderr=subprocess.PIPE, text=True)


def until_it_begins(process):
    """The first line is the licence; what comes then is the work."""
    assert process.stderr.readline().startswith("licence: ")


def is_right(case, spec, store, expected):
    """Whether a case is there; if it is, it must be what was prepared undisturbed."""
    try:
        stored = open_case(case, spec=spec, folder=store)
    except InputError:
        return False
    whole = open_case(case, spec=spec, folder=expected)
    np.testing.assert_array_equal(stored.image(), whole.image())
    np.testing.assert_array_equal(stored.label(), whole.label())
    np.testing.assert_array_equal(stored.reference().numpy(), whole.reference().numpy())
    assert stored.lesions == whole.lesions
    return True


def run_length_s(data, store, *options):
    """Seconds from the first line to the end of an undisturbed run."""
    process = start_preparing(data, store, *options)
    until_it_begins(process)
    began = time.perf_counter()
    process.communicate()
    assert process.returncode == 0
    return time.perf_counter() - began


def kill_and_check(data, store, expected, *, bundle, n_kills, longest_s, seed):
    """Kill at random moments; whatever can be opened must be whole and right.

    Returns, for each kill, the second it came in, how many cases were found after it, and whether the run had ended.
    """
    rng, spec, cases = random.Random(seed), read_spec(bundle), find_cases(data)
    kills = []
    for _ in range(n_kills):
        process = start_preparing(data, store, "--bundle", bundle, "--jobs", rng.choice([1, 2]))
        until_it_begins(process)
        moment_s = rng.uniform(0, longest_s)
        time.sleep(moment_s)
        has_ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        found = [case for case in cases if is_right(case, spec, store, expected)]
        kills.append((moment_s, len(found), has_ended))
        if is_store(store):
            assert len(open_dataset(store).cases) == len(found) == len(cases)
            (store / "store.json").unlink()
        for case in found[: rng.randrange(len(found) + 1)]:  # so that there is always something left to do
            shutil.rmtree(case_folder(case, spec=spec, folder=store))
    return kills


def check_kills(folder, data, *, spacing_mm, n_kills, seed=0):
    store, expected, bundle = folder / "store", folder / "expected", bundle_of_grid(folder, spacing_mm)
    longest_s = run_length_s(data, expected, "--bundle", bundle, "--jobs", 1)

    kills = kill_and_check(data, store, expected, bundle=bundle, n_kills=n_kills, longest_s=longest_s, seed=seed)

    run_length_s(data, store, "--bundle", bundle)
    assert all(is_right(case, read_spec(bundle), store, expected) for case in find_cases(data))
    assert not list(store.rglob("*.writing"))
    return kills


@pytest.mark.slow
def test_a_store_whose_writer_is_killed_never_reads_wrong(tmp_path):
    write_phantoms(tmp_path / "data", n_cases=6, shape=(96, 96, 24))

    kills = check_kills(tmp_path, tmp_path / "data", spacing_mm=[3, 3, 5], n_kills=4)

    assert max(n_found for _, n_found, _ in kills) > 0


# As long and as awry as real data


def write_lits_like(folder, headers, *, n_cases, in_plane=64):
    """LiTS pairs with the affines of real headers, coarser in-plane: an ellipsoid of liver with a tumour in noise."""
    for number in range(n_cases):
        header = headers[number % len(headers)]
        n_slices, affine = header["shape"][2], np.array(header["affine"])
        affine[:3, :2] *= header["shape"][0] / in_plane
        image = np.random.default_rng(number).integers(-1000, 200, (in_plane, in_plane, n_slices), dtype=np.int16)
        x, y, z = np.ogrid[-1 : 1 : in_plane * 1j, -1 : 1 : in_plane * 1j, -1 : 1 : n_slices * 1j]
        label = np.where(x**2 + y**2 + z**2 < 0.3, LIVER, 0).astype(np.uint8)
        if number % 10:  # one in ten has no tumour
            label[(x - 0.1) ** 2 + y**2 + z**2 < 0.002 + 0.0005 * number] = TUMOR
        for name, voxels in (("volume", image), ("segmentation", label)):
            nib.save(nib.Nifti1Image(voxels, affine), folder / f"{name}-{number}.nii")


@pytest.mark.slow
def test_a_data_set_as_large_as_lits_is_interrupted_resumed_and_finished(real_data, tmp_path):
    headers = json.loads((real_data / "awkward" / "msd_task03_118_headers.json").read_text())
    data, store, bundle = tmp_path / "data", tmp_path / "store", bundle_of_grid(tmp_path, [6, 6, 5])
    data.mkdir()
    write_lits_like(data, headers, n_cases=131)
    lying = [number for number in range(131) if np.allclose(headers[number % len(headers)]["zooms"], 1)]
    rows = ["case_id,x,y,z", *(f"{number},6,6,1.6" for number in lying)]
    (data / "spacing_overrides.csv").write_text("\n".join(rows))

    for end in (signal.SIGINT, signal.SIGKILL):
        process = start_preparing(data, store, "--bundle", bundle, "--jobs", 2)
        until_it_begins(process)
        for _ in range(10):
            process.stderr.readline()
        process.send_signal(end)
        process.communicate()
        assert not is_store(store)
    n_before = len([*store.glob("*/[0-9]*")])
    process = start_preparing(data, store, "--bundle", bundle)
    said = process.communicate()[1]

    assert process.returncode == 0, said
    assert n_before >= 20
    assert said.count(": prepared") == 131 - n_before
    cases = open_dataset(store).cases
    assert len(cases) == 131
    assert len(lying) >= 15
    assert [int(case.case_id) for case in cases if case.spacing_mm] == lying
    stored = [open_case(case, spec=read_spec(bundle), folder=store) for case in cases]
    assert sum(not case.tumor_ml for case in stored) == 14
    for case in stored:
        assert case.label().any(axis=(1, 2)).nonzero()[0].tolist() == case.slices_with[LIVER].tolist()
