"""Exported files: the masks of their run without the run, and never a guess at what a file does not say."""

from __future__ import annotations

import ast
import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from liver_monai.data.phantom import make_phantom
from liver_monai.engine.parity import LEAST_DICE, Parity, require_parity
from liver_monai.errors import InputError
from liver_monai.io.nifti import build_nifti
from liver_monai.model.bundle import SHIPPED, copy_bundle, override_bundle, read_spec
from liver_monai.model.formats import FORMATS, read_exported
from liver_monai.model.recipe import Recipe, read_recipe
from liver_monai.model.torchscript import RECIPE_FILE, torchscript
from liver_monai.model.weights import save_weights
from liver_monai.spec import ModelSpec

CPU = torch.device("cpu")
COARSE = {"spec#slab_size": 3, "spec#spacing_mm": [5, 5, 10], "spec#roi_size": [48, 48]}
NOT_CLEANED = {"largest_component": False, "fill_holes": False}
EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_consumer.py"


@pytest.fixture(params=sorted(FORMATS))
def file_format(request):
    """Every format that can be written here."""
    if request.param == "openvino":
        need_openvino()
    return request.param


def need_openvino():
    """An extra for those who serve with it, which tests are not installed with; where it is there, they use it.

    It is looked for and not imported: that is for the code to do, in its own way.
    """
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is an extra that is not installed here")


def brightness_network(output_slices=1):
    """Exported in a second; calls what is as bright as a liver liver, and what is brighter tumour."""
    layer = torch.nn.Conv2d(3, 3 * output_slices, 3, padding=1)
    slopes, thresholds = torch.tensor([0.0, 20.0, 60.0]), torch.tensor([0.0, 0.6, 0.68])
    slopes, thresholds = (values.repeat(output_slices) for values in (slopes, thresholds))
    with torch.no_grad():
        layer.weight.copy_((slopes / layer.weight[0].numel())[:, None, None, None].expand_as(layer.weight))
        layer.bias.copy_(-slopes * thresholds)
    return layer.eval()


def bundle_of(network, folder, *, output_slices=1, **config):
    """A trained bundle of this network; ``config`` takes the place of entries in inference.json."""
    copy_bundle(SHIPPED / "mobilenet", folder, {**COARSE, "spec#output_slices": output_slices})
    path = folder / "configs" / "inference.json"
    out = 3 * output_slices
    layer = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": out, "kernel_size": 3, "padding": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), "network_def": layer, **config}))
    save_weights(network, folder / "models" / "model.pt", spec=read_spec(folder))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return bundle_of(brightness_network(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def cts(tmp_path_factory):
    """A patient in two orientations, one of them with slices that are not the last axis."""
    folder = tmp_path_factory.mktemp("cts")
    for orientation in ("LPS", "PIR"):
        phantom = make_phantom(seed=0, shape=(96, 96, 24), orientation=orientation)
        nib.save(build_nifti(phantom.image, phantom.affine), folder / f"{orientation}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def graph(cli, run, cts, tmp_path_factory):
    """The run as ONNX."""
    return exported(cli, run, cts, tmp_path_factory.mktemp("graph") / "liver.onnx")


def exported(cli, run, cts, out, *options):
    done = cli("export", run, "-o", out, "--ct", cts / "LPS.nii.gz", *options)
    assert done.exit_code == 0, done.output
    return out


def masks(cli, cts, bundle, out, *options, labels=(0, 1, 2)):
    done = cli("predict", cts, "--bundle", bundle, "-o", out, *options)
    assert done.exit_code == 0, done.output
    found = {path.name: np.asarray(nib.load(path).dataobj) for path in sorted(out.glob("*.nii.gz"))}
    assert len(found) == 2
    assert all(set(labels) <= set(np.unique(mask)) for mask in found.values())
    return found


def as_settings(rules):
    return [text for name, value in rules.items() for text in ("--set", f"postprocessing#{name}={json.dumps(value)}")]


def test_a_file_gives_the_masks_of_its_run_without_the_run(cli, run, cts, tmp_path, file_format):
    moved = shutil.copytree(run, tmp_path / "run")
    suffix = FORMATS[file_format].suffix
    out = exported(cli, moved, cts, tmp_path / f"liver{suffix}", "--to", file_format)
    expected = masks(cli, cts, moved, tmp_path / "by-run")
    shutil.rmtree(moved)

    found = masks(cli, cts, out, tmp_path / "by-file")

    for name, mask in expected.items():
        assert np.count_nonzero(found[name] != mask) <= (0 if file_format == "torchscript" else 5)
    record = json.loads((tmp_path / "by-file" / "record.json").read_text())
    assert out.name in record["inputs_sha256"]


def test_any_batch_height_and_width_goes_through(cli, run, cts, tmp_path, file_format):
    out = exported(cli, run, cts, tmp_path / f"liver{FORMATS[file_format].suffix}")
    network, _ = read_exported(out, device=CPU)
    for shape in ((1, 3, 16, 48), (5, 3, 64, 32), (3, 3, 320, 16)):
        slabs = torch.rand(shape)
        with torch.inference_mode():
            torch.testing.assert_close(network(slabs), brightness_network()(slabs), rtol=0, atol=1e-4)


def test_the_report_says_how_alike_how_fast_and_how_large(cli, run, tmp_path):
    out = tmp_path / "liver.ts"
    done = cli("export", run, "-o", out, "--json")  # on a phantom
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["size_bytes"] == out.stat().st_size
    assert report["parity"]["dice"] == {"liver": 1.0, "tumor": 1.0}
    assert report["parity"]["max_logit_difference"] == 0
    assert report["parity"]["voxels"]["liver"] > report["parity"]["voxels"]["tumor"] > 0
    assert report["parity"]["speed"] > 0
    assert report["recipe"]["preprocessing"]["spacing_mm"] == [5, 5, 10]
    beside = json.loads((tmp_path / "liver.ts.json").read_text())
    assert {key: beside[key] for key in report} == report


def test_what_inference_json_sets_is_in_the_recipe_and_can_be_set_again(cli, run, cts, tmp_path):
    """Cleaning that is off in the run is off in the file, and ``--set`` has the ids of a bundle."""
    changed = shutil.copytree(run, tmp_path / "run")
    override_bundle(changed, {f"postprocessing#{name}": value for name, value in NOT_CLEANED.items()})
    raw, clean = (exported(cli, each, cts, tmp_path / f"{each.name}{n}.ts") for n, each in enumerate((changed, run)))

    by_recipe = masks(cli, cts, raw, tmp_path / "recipe")
    by_setting = masks(cli, cts, clean, tmp_path / "set", "--search", "whole", *as_settings(NOT_CLEANED))
    cleaned = masks(cli, cts, clean, tmp_path / "clean")

    for name, mask in by_setting.items():
        np.testing.assert_array_equal(mask, by_recipe[name])
        assert np.count_nonzero(mask) > np.count_nonzero(cleaned[name])
    refused = cli("predict", cts, "--bundle", clean, "-o", tmp_path / "x", "--set", "postprocessing#fill_hole=true")
    assert "did you mean 'postprocessing#fill_holes'" in refused.output


def test_a_file_and_its_run_are_an_ensemble(cli, run, cts, graph, tmp_path):
    expected = masks(cli, cts, run, tmp_path / "run")
    found = masks(cli, cts, graph, tmp_path / "both", "--bundle", run)
    assert all(np.count_nonzero(found[name] != mask) <= 5 for name, mask in expected.items())


def test_openvino_does_not_report_that_it_is_used():
    need_openvino()
    script = (
        "import sys; from liver_monai.model.openvino import import_openvino; import_openvino()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry') and sys.modules[name]])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The consumer that knows nothing of this package


def consumer():
    spec = importlib.util.spec_from_file_location("onnx_consumer", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_consumer_agrees(cli, graph, cts, folder, *, labels=(0, 1, 2)):
    options = ("--search", "whole", *as_settings(NOT_CLEANED))
    expected = masks(cli, cts, graph, folder / "masks", *options, labels=labels)
    for name, mask in expected.items():
        consumer().segment(graph, cts / name, folder / name)
        found = nib.load(folder / name)
        assert np.count_nonzero(np.asarray(found.dataobj) != mask) == 0
        np.testing.assert_array_equal(found.affine, nib.load(cts / name).affine)


def test_the_consumers_mask_is_that_of_predict(cli, cts, graph, tmp_path):
    """Every voxel, in both orientations, before cleaning."""
    assert_consumer_agrees(cli, graph, cts, tmp_path)


def test_the_consumer_takes_several_slices_a_pass(cli, cts, tmp_path):
    run = bundle_of(brightness_network(3), tmp_path / "run", output_slices=3)

    assert_consumer_agrees(cli, exported(cli, run, cts, tmp_path / "liver.onnx"), cts, tmp_path)


def test_the_consumer_needs_three_libraries():
    nodes = list(ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"nibabel", "numpy", "onnxruntime"}


@pytest.mark.slow
def test_a_trained_network_is_exported_with_its_masks(cli, trained_run, cts, tmp_path):
    graph = exported(cli, trained_run, cts, tmp_path / "liver.onnx")
    done = cli("predict", cts, "--bundle", graph, "-o", tmp_path / "out", "--json")
    assert all(row["liver_ml"] > 100 for row in json.loads(done.stdout))
    assert_consumer_agrees(cli, graph, cts, tmp_path, labels=(0, 1))  # two epochs teach it no tumour


@pytest.mark.slow
def test_a_run_is_held_against_its_graph_on_a_real_ct(cli, trained_run, real_data, tmp_path):
    ct = real_data / "ircadb17" / "ircadb17_ct.nii.gz"
    done = cli("export", trained_run, "-o", tmp_path / "liver.onnx", "--ct", ct, "--json")
    assert done.exit_code == 0, done.output
    assert min(json.loads(done.stdout)["parity"]["dice"].values()) >= LEAST_DICE


# What is refused


def recipe(**spec):
    return Recipe(
        spec=ModelSpec(encoder="resnet34", **spec),
        inferer={"sw_batch_size": 4, "overlap": 0.25, "search": "liver"},
        cleaning={"largest_component": True, "fill_holes": True, "min_lesion_mm3": 0.0},
        weights_sha256="0" * 64,
        made_by={"liver-monai": "0.1.0"},
    )


NUMBERS = st.floats(0.1, 10, allow_nan=False)


@given(
    slab_size=st.integers(0, 5).map(lambda margin: 2 * margin + 1),
    spacing_mm=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    hu_window=st.tuples(st.floats(-1000, -1), st.floats(0, 3000)),
    roi_size=st.tuples(*[st.integers(1, 40).map(lambda n: 16 * n)] * 2),
)
def test_a_recipe_is_read_as_it_was_written(slab_size, spacing_mm, hu_window, roi_size):
    written = recipe(slab_size=slab_size, spacing_mm=spacing_mm, hu_window=hu_window, roi_size=roi_size)
    assert read_recipe(written.dumps(), Path("liver.onnx")) == written


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("recipe", 1),
        ("network.encoder", "$__import__('os').getpid()"),
        ("network.size_multiple", 32),
        ("labels", {"0": "background", "1": "tumor", "2": "liver"}),
        ("preprocessing.axes.height", "left"),
        ("preprocessing.interpolation", "cubic"),
        ("preprocessing.spacing_mm", [1.5, 1.5, -3]),
        ("preprocessing.hu_window", [250, -200]),
        ("preprocessing.slab_offsets", [-4, -3, -2, -1, 0]),
        ("inference.output_offsets", [0, 1, 2]),
        ("inference.roi_size", [100, 100]),
        ("postprocessing.output_dir", "elsewhere"),
    ],
)
def test_a_recipe_that_says_anything_else_is_refused(place, value):
    content = recipe().to_json()
    *parents, last = place.split(".")
    holder = content
    for name in parents:
        holder = holder[name]
    holder[last] = value
    with pytest.raises(InputError, match=r"liver\.ts: its recipe cannot be followed .*export the network anew"):
        read_recipe(json.dumps(content), Path("liver.ts"))


def torchscript_without_recipe(path):
    path.write_bytes(torchscript(brightness_network()))


def onnx_without_recipe(path):
    from liver_monai.model.onnx import write_onnx

    write_onnx(brightness_network(), path, slab_size=3, metadata={})


def other_xml(path):
    path.write_text("<net name='other'/>")


def no_file_of_its_format(path):
    path.write_bytes(b"nothing of the kind")


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("foreign.ts", torchscript_without_recipe, "liver-monai export RUN"),
        ("foreign.onnx", onnx_without_recipe, "liver-monai export RUN"),
        ("foreign.xml", other_xml, "liver-monai export RUN"),
        ("broken.ts", no_file_of_its_format, "is no TorchScript file"),
        ("broken.onnx", no_file_of_its_format, "is no graph that ONNX Runtime can read"),
        ("broken.xml", no_file_of_its_format, "is no OpenVINO graph"),
        ("model.pt", no_file_of_its_format, "a bundle is a folder"),
    ],
)
def test_foreign_files_are_named_with_the_way_out(cli, cts, tmp_path, name, write, says):
    write(tmp_path / name)
    done = cli("predict", cts, "--bundle", tmp_path / name, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert name in done.stderr
    assert says in done.stderr


class Evil:
    """Unpickled by Python, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("victim", ["data.pkl", "constants.pkl"])
def test_no_pickle_of_a_file_is_run(cli, cts, tmp_path, victim):
    whole, evil = tmp_path / "whole.ts", tmp_path / "evil.ts"
    whole.write_bytes(torchscript(brightness_network(), extra_files={RECIPE_FILE: recipe(slab_size=3).dumps()}))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(evil, "w") as target:
        for entry in source.infolist():
            is_victim = entry.filename.endswith(f"/{victim}")
            target.writestr(entry, pickle.dumps(Evil(tmp_path / "touched")) if is_victim else source.read(entry))
    done = cli("predict", cts, "--bundle", evil, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "is no TorchScript that torch can read" in done.stderr
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("liver.pt", (), "end its name in"),
        ("liver.onnx", ("--to", "torchscript"), "ends in .ts"),
        ("there.ts", (), "--overwrite"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(cli, run, tmp_path, name, options, says):
    (tmp_path / "there.ts").write_bytes(b"precious")
    done = cli("export", run, "-o", tmp_path / name, *options)
    assert done.exit_code == 1
    assert says in done.stderr
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("there.ts", b"precious")]


def test_what_a_recipe_cannot_tell_is_not_exported(cli, tmp_path):
    inferer = {"_target_": "SliceInferer", "roi_size": [48, 48]}
    bundle = bundle_of(brightness_network(), tmp_path / "run", inferer=inferer)
    done = cli("export", bundle, "-o", tmp_path / "liver.ts")
    assert done.exit_code == 1
    assert "its inferer is SliceInferer" in done.stderr
    assert not (tmp_path / "liver.ts").exists()


def test_untrained_bundles_and_several_runs_are_refused(cli, run, tmp_path):
    untrained = cli("export", "mobilenet", "-o", tmp_path / "liver.ts")
    assert "train the bundle first" in untrained.stderr
    for fold in ("fold0", "fold1"):
        shutil.copytree(run, tmp_path / "folds" / fold)
    several = cli("export", tmp_path / "folds", "-o", tmp_path / "liver.ts")
    assert "holds 2 runs; export one of them" in several.stderr


def test_another_runtime_is_refused(cli, cts, graph, tmp_path):
    done = cli("predict", cts, "--bundle", graph, "-o", tmp_path / "out", "--runtime", "torch")
    assert "runs with onnx; leave --runtime out" in done.stderr


def test_a_file_that_gives_another_mask_is_not_kept():
    parity = Parity(
        ct="ct.nii.gz",
        shape=(2, 2, 2),
        n_slabs=2,
        dice={"liver": 1.0, "tumor": LEAST_DICE - 1e-6},
        voxels={"liver": 8, "tumor": 4},
        voxels_that_differ=1,
        max_logit_difference=0.1,
        logit_span=10.0,
        speed=1.0,
    )
    with pytest.raises(InputError, match=r"liver\.onnx: gives another mask of ct\.nii\.gz .*tumor"):
        require_parity(parity, Path("liver.onnx"))
