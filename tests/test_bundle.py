"""Bundles: found by name, copied with their overrides or not at all, and complete for MONAI's own tools."""

from __future__ import annotations

import ast
import builtins
import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser, ConfigWorkflow

from liver_monai.data.layouts import find_cases
from liver_monai.data.slabs import slab_view
from liver_monai.data.transforms import preprocessing
from liver_monai.engine.inference import segment
from liver_monai.errors import InputError
from liver_monai.io.volumes import read_mask
from liver_monai.model.authoring import verify_bundle
from liver_monai.model.bundle import copy_bundle, find_bundle, list_bundles, override_bundle, parse_override
from liver_monai.model.network import build_network
from liver_monai.model.weights import save_weights
from liver_monai.scoring.overlap import score
from liver_monai.spec import LABELS, ModelSpec

BUNDLES = list_bundles()
COARSE = {"spec#spacing_mm": [8, 8, 8], "spec#roi_size": [64, 64]}
"""Makes phantoms small, so that MONAI's workflows run in a moment."""


def config(bundle, name):
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Finding


@pytest.mark.parametrize("name", BUNDLES)
def test_a_shipped_bundle_is_found_by_name_and_any_by_folder(name, tmp_path):
    assert find_bundle(name).name == name

    copy_bundle(find_bundle(name), tmp_path / "run", {})

    assert find_bundle(tmp_path / "run") == tmp_path / "run"
    assert find_bundle(str(tmp_path / "run")) == tmp_path / "run"


def test_a_shipped_name_goes_before_a_folder_and_a_path_is_a_folder(tmp_path, monkeypatch):
    shipped = find_bundle("resnet50")
    copy_bundle(shipped, tmp_path / "resnet50", {})
    monkeypatch.chdir(tmp_path)

    assert find_bundle("resnet50") == shipped
    for folder in ("./resnet50", "resnet50/", str(tmp_path / "resnet50"), Path("resnet50")):
        assert find_bundle(folder) == tmp_path / "resnet50"


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"resnet43: no such bundle or folder; .*did you mean 'resnet34'\?"):
        find_bundle("resnet43")


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(InputError, match=f"no such bundle or folder; the shipped bundles are {', '.join(BUNDLES)}$"):
        find_bundle("qqq")


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no bundle, it holds no configs/inference.json"):
        find_bundle(tmp_path)


# Copying


def test_a_copy_without_overrides_says_the_same(tmp_path):
    source = find_bundle("resnet34")

    copy_bundle(source, tmp_path / "run", {})

    assert contents(tmp_path / "run").keys() == contents(source).keys()
    for path in (source / "configs").glob("*.json"):
        assert config(tmp_path / "run", path.stem) == config(source, path.stem)


def test_an_override_is_written_into_every_config_that_has_the_id(tmp_path):
    source, run = find_bundle("resnet34"), tmp_path / "run"
    before = contents(source)

    copy_bundle(source, run, {"spec#slab_size": 3, "max_epochs": 7, "validate#evaluator#amp": False})

    train, inference = config(run, "train"), config(run, "inference")
    assert train["spec"]["slab_size"] == inference["spec"]["slab_size"] == 3
    assert train["spec"] == inference["spec"]
    assert (train["max_epochs"], train["validate"]["evaluator"]["amp"]) == (7, False)
    assert "max_epochs" not in inference
    assert contents(source) == before


def test_metadata_tell_the_channels_of_several_slices(tmp_path):
    copy_bundle(find_bundle("resnet34"), tmp_path / "run", {"spec#output_slices": 3})

    pred = config(tmp_path / "run", "metadata")["network_data_format"]["outputs"]["pred"]
    assert pred["num_channels"] == 9
    assert list(pred["channel_def"].values())[2:4] == ["tumor of slice -1", "background of slice +0"]
    assert not any(check.error for check in verify_bundle(tmp_path / "run"))


def test_nothing_but_the_overridden_values_changes(tmp_path):
    source, run = find_bundle("mobilenet"), tmp_path / "run"

    copy_bundle(source, run, {"fold": None})

    expected = {**config(source, "train"), "fold": None}
    assert config(run, "train") == expected
    assert config(run, "metadata") == config(source, "metadata")


def test_items_of_lists_and_ids_written_in_one_key_can_be_set(tmp_path):
    """evaluate.json replaces a part of train.json under a key that holds the separator: ``"validate#handlers"``."""
    copy_bundle(
        find_bundle("mobilenet"), tmp_path / "run", {"spec#roi_size#1": 128, "validate#handlers#0#load_path": "w.pt"}
    )

    assert config(tmp_path / "run", "train")["spec"]["roi_size"] == [256, 128]
    assert config(tmp_path / "run", "evaluate")["validate#handlers"][0]["load_path"] == "w.pt"


def test_weights_and_store_stay_behind(tmp_path):
    run = tmp_path / "run"
    copy_bundle(find_bundle("mobilenet"), run, {})
    for name in ("models/model.pt", "models/checkpoint.pth", "store/7.image.npy"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).touch()

    copy_bundle(run, tmp_path / "other", {})

    assert contents(tmp_path / "other").keys() == contents(find_bundle("mobilenet")).keys()


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        ({"max_epoch": 3}, r"--set max_epoch: the bundle has no such id, did you mean 'max_epochs'\?"),
        ({"max_epochs": 3, "spec#slabsize": 1}, r"--set spec#slabsize: .*did you mean 'spec#slab_size'\?"),
        ({"spec#_target_": "os.system"}, r"--set spec#_target_: the bundle has no such id"),
        ({"version": "9"}, r"--set version: the bundle has no such id"),  # metadata is no setting
        ({"qqqqqq": 1}, r"--set qqqqqq: the bundle has no such id$"),
        ({"learning_rate": "fast"}, r"--set learning_rate=fast: expected a number such as 0\.\d+"),
        ({"spec#slab_size": "five"}, r"--set spec#slab_size=five: expected a number such as 5"),
        ({"spec": 3}, r'--set spec=3: expected an object with a "_target_"; .* set as in spec#encoder='),
        (
            {"spec": {"encoder": "resnet18"}},
            r'--set spec={"encoder": "resnet18"}: expected an object with a "_target_"',
        ),
        ({"spec": {"_target_": "liver_monai.spec.ModelSpec"}}, r"inference\.json: its spec cannot be read .*'encoder'"),
        ({"spec#roi_size": 128}, r"--set spec#roi_size=128: expected a list such as \[256, 256\]"),
        ({"train#trainer": "none"}, r"--set train#trainer=none: expected an object"),
        ({"seed": -1}, r"--set seed=-1: expected a whole number of at least 0"),
        ({"max_epochs": 1.5}, r"--set max_epochs=1\.5: expected a whole number of at least 1"),
        ({"max_epochs": True}, r"--set max_epochs=true: expected a whole number of at least 1"),
        ({"batch_size": "many"}, r"--set batch_size=many: expected a whole number of at least 1"),
        ({"fold": -1}, r"--set fold=-1: expected a whole number of at least 0"),
    ],
)
def test_an_override_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, overrides, rule):
    with pytest.raises(InputError, match=rule):
        copy_bundle(find_bundle("mobilenet"), tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()

    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {})
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match=rule):
        override_bundle(tmp_path / "run", overrides)
    assert contents(tmp_path / "run") == before


def test_an_expression_may_stand_for_a_number(tmp_path):
    copy_bundle(
        find_bundle("mobilenet"), tmp_path / "run", {"learning_rate": "$1e-3 * 2", "batch_size": "@num_workers"}
    )

    assert config(tmp_path / "run", "train")["learning_rate"] == "$1e-3 * 2"


def test_a_run_can_be_overridden_again(tmp_path):
    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {"max_epochs": 3})

    override_bundle(tmp_path / "run", {"max_epochs": 5, "minutes": 1.5})

    assert (config(tmp_path / "run", "train")["max_epochs"], config(tmp_path / "run", "train")["minutes"]) == (5, 1.5)


def test_a_component_may_take_the_place_of_another(tmp_path):
    loss = {"_target_": "DiceFocalLoss", "softmax": True}

    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {"loss": loss, "spec#hu_window#0": -150.5, "minutes": 0.5})

    assert config(tmp_path / "run", "train")["loss"] == loss
    assert config(tmp_path / "run", "inference")["spec"]["hu_window"] == [-150.5, 250]


@pytest.mark.parametrize("name", ["inference", "metadata"])
def test_a_config_that_lacks_what_others_build_on_is_named(tmp_path, name):
    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {})
    (tmp_path / "run" / "configs" / f"{name}.json").write_text("{}")

    with pytest.raises(InputError, match=rf"configs/{name}\.json:? holds no"):
        copy_bundle(tmp_path / "run", tmp_path / "copy", {})


def test_metadata_whose_input_is_none_are_named(tmp_path):
    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {})
    path = tmp_path / "run" / "configs" / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["network_data_format"]["inputs"]["image"] = 3
    path.write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(InputError, match="holds no network_data_format"):
        override_bundle(tmp_path / "run", {"max_epochs": 3})


@pytest.mark.parametrize("broken", ["{", "[]"])
def test_a_config_that_is_no_config_is_named(tmp_path, broken):
    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {})
    (tmp_path / "run" / "configs" / "train.json").write_text(broken)

    with pytest.raises(InputError, match=r"train\.json: (is not JSON|holds a list)"):
        override_bundle(tmp_path / "run", {"max_epochs": 3})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
IDS = st.from_regex(r"[a-z_]{1,9}(#[a-z0-9_]{1,9}){0,2}", fullmatch=True)


@given(config_id=IDS, value=JSON_VALUES)
def test_a_json_value_comes_through_the_command_line_as_it_is(config_id, value):
    assert parse_override(f"{config_id}={json.dumps(value)}") == (config_id, value)


@given(config_id=IDS, text=st.from_regex(r"[$@/.][a-zA-Z0-9 =/']*", fullmatch=True))
def test_what_is_no_json_is_text(config_id, text):
    assert parse_override(f"{config_id}={text}") == (config_id, text)


@pytest.mark.parametrize("text", ["max_epochs", "=3", ""])
def test_an_override_without_id_or_value_is_refused(text):
    with pytest.raises(InputError, match="expected id=value"):
        parse_override(text)


# What ships

REQUIRED_METADATA = {
    "schema": str,
    "version": str,
    "monai_version": str,
    "pytorch_version": str,
    "numpy_version": str,
    "required_packages_version": dict,
    "task": str,
    "description": str,
    "authors": str,
    "copyright": str,
    "network_data_format": dict,
}
"""Required by MONAI's metadata schema of 2024-07-25."""
OPTIONAL_METADATA = {
    "name": str,
    "changelog": dict,
    "data_source": str,
    "data_type": str,
    "image_classes": str,
    "label_classes": str,
    "pred_classes": str,
    "eval_metrics": dict,
    "intended_use": str,
    "references": list,
    "supported_apps": dict,
}
REQUIRED_TENSOR = {
    "type": str,
    "format": str,
    "num_channels": int,
    "spatial_shape": list,
    "dtype": str,
    "value_range": list,
}


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_are_what_the_schema_asks_for(name):
    metadata = config(find_bundle(name), "metadata")

    for key, kind in REQUIRED_METADATA.items():
        assert isinstance(metadata[key], kind), key
    for key, value in metadata.items():
        assert isinstance(value, {**REQUIRED_METADATA, **OPTIONAL_METADATA}[key]), key
    assert metadata["version"] in metadata["changelog"]
    assert all(isinstance(reference, str) for reference in metadata["references"])
    tensors = [metadata["network_data_format"][side][key] for side, key in (("inputs", "image"), ("outputs", "pred"))]
    for tensor in tensors:
        for key, kind in REQUIRED_TENSOR.items():
            assert isinstance(tensor[key], kind), key
        assert all(isinstance(bound, (int, float)) for bound in tensor["value_range"])


def spec_of(bundle, name):
    return ModelSpec(**{key: value for key, value in config(bundle, name)["spec"].items() if key != "_target_"})


@pytest.mark.parametrize("name", BUNDLES)
def test_metadata_agree_with_the_spec(name):
    bundle = find_bundle(name)
    spec, data_format = spec_of(bundle, "train"), config(bundle, "metadata")["network_data_format"]
    image, pred = data_format["inputs"]["image"], data_format["outputs"]["pred"]

    assert image["num_channels"] == len(image["channel_def"]) == spec.slab_size
    assert pred["num_channels"] == len(pred["channel_def"]) == len(LABELS)
    assert pred["channel_def"] == {str(value): label for value, label in LABELS.items()}
    assert config(bundle, "metadata")["name"] == f"liver-monai {name}"
    low, high = spec.hu_window
    assert f"{low:g} to {high:g}" in config(bundle, "metadata")["image_classes"]


@pytest.mark.parametrize("name", BUNDLES)
def test_training_and_prediction_have_one_spec(name):
    bundle = find_bundle(name)

    assert spec_of(bundle, "train").differences(spec_of(bundle, "inference")) == {}
    assert config(bundle, "train")["spec"] == config(bundle, "inference")["spec"]


@pytest.mark.parametrize("name", BUNDLES)
def test_nothing_is_downloaded_and_no_weights_ship(name):
    bundle = find_bundle(name)

    assert spec_of(bundle, "train").encoder_weights is None
    assert not (bundle / "models").exists()


IN_IMAGE = "network_data_format#inputs#image"
DECLARED = ("name", "description", "references", "image_classes", f"{IN_IMAGE}#num_channels", f"{IN_IMAGE}#channel_def")
DECLARED += ("spec#encoder", "spec#slab_size")


def values_by_id(item, prefix=""):
    """The leaves of a config."""
    items = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    inner = [values_by_id(value, f"{prefix}#{key}" if prefix else str(key)) for key, value in items]
    return {config_id: value for values in inner for config_id, value in values.items()} or {prefix: item}


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_differ_in_nothing_but_what_they_declare(name):
    bundle, first = find_bundle(name), find_bundle(BUNDLES[0])

    assert contents(bundle).keys() == contents(first).keys()
    for path, content in contents(bundle).items():
        if path.endswith(".json"):
            own, other = (values_by_id(config(folder, Path(path).stem)) for folder in (bundle, first))
            different = {key for key in own | other if own.get(key, "-") != other.get(key, "-")}
            assert [key for key in different if not key.startswith(DECLARED)] == [], path
        elif Path(path).name != "README.md":
            assert content == contents(first)[path], path


# MONAI's own workflows


@pytest.fixture(scope="module")
def run(phantom_dataset, tmp_path_factory):
    """A copy of a bundle as a run has it, with weights that nobody trained but that give every class."""
    folder = tmp_path_factory.mktemp("bundle") / "run"
    copy_bundle(find_bundle("mobilenet"), folder, {**COARSE, "dataset_dir": str(phantom_dataset)})
    spec = spec_of(folder, "inference")
    torch.manual_seed(0)
    network = build_network(spec).eval()
    volume = preprocessing(spec)(find_cases(phantom_dataset)[0].to_item())["image"].as_tensor()[0]
    with torch.inference_mode():
        logits = network(slab_view(volume, spec.slab_size)[:, :, :32, :32])
        network.segmentation_head[0].bias -= logits.mean(dim=(0, 2, 3))
    save_weights(network, folder / "models" / "model.pt", spec=spec)
    return folder


def workflow(run, *names, kind, **overrides):
    files = [str(run / "configs" / f"{name}.json") for name in names]
    return ConfigWorkflow(config_file=files, workflow_type=kind, bundle_root=str(run), logging_file=False, **overrides)


@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("inference", "infer")])
def test_monai_finds_every_property_it_asks_for(run, name, kind):
    bundle = workflow(run, name, kind=kind)
    bundle.initialize()

    assert bundle.check_properties() == []


def test_monai_and_the_package_predict_the_same_mask(run, phantom_dataset, tmp_path):
    case = find_cases(phantom_dataset)[0]
    bundle = workflow(run, "inference", kind="infer", dataset_dir=str(case.image), output_dir=str(tmp_path))
    bundle.initialize()

    bundle.run()

    (mask,) = tmp_path.iterdir()
    assert mask.name == case.image.name
    ours = segment(case.image, bundle=run, device="cpu")
    np.testing.assert_array_equal(nib.load(mask).get_fdata(), ours[0])
    np.testing.assert_array_equal(nib.load(mask).affine, nib.load(case.image).affine)
    assert set(ours.unique().tolist()) == set(LABELS)


def test_monai_and_the_package_give_the_same_scores(run, tmp_path):
    """Of the network's own masks: validation judges the network, not the cleaning after it."""
    uncleaned = tmp_path / "run"
    shutil.copytree(run, uncleaned)
    override_bundle(uncleaned, {"postprocessing#largest_component": False, "postprocessing#fill_holes": False})
    bundle = workflow(run, "train", "evaluate", kind="train")
    bundle.initialize()

    bundle.run()

    lines = (run / "evaluation" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    metrics = {name: float(value) for name, value in (line.split(",") for line in lines)}
    (case,) = bundle.parser.get_parsed_content("split").validation
    mask = segment(case.image, bundle=uncleaned, device="cpu")
    scores = score(mask[0].numpy(), read_mask(case.label)[0].numpy(), spacing_mm=(1, 1, 1))
    assert metrics["val_liver_dice"] == pytest.approx(scores["liver_dice"], abs=1e-4)
    assert metrics["val_tumor_dice"] == pytest.approx(scores["tumor_dice"], abs=1e-4)
    assert metrics["val_mean_dice"] == pytest.approx((scores["liver_dice"] + scores["tumor_dice"]) / 2, abs=1e-4)
    assert scores["liver_dice"] > 0


def free_names(expression):
    """What a Python expression needs to be bound, references to other ids apart."""
    nodes = list(ast.walk(ast.parse(re.sub(r"@[\w#]+", "reference", expression), mode="eval")))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names} - own - set(dir(builtins)) - {"reference"}


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize(
    "names",
    [
        ("inference",),
        ("train", "evaluate"),
        ("train", "multi_gpu_train"),
        ("train", "evaluate", "multi_gpu_evaluate"),
    ],
)
def test_every_name_that_an_expression_uses_is_imported(name, names):
    """A later config replaces the imports of an earlier one, and MONAI binds ``import a.b`` to no name at all."""
    parser = ConfigParser()
    parser.read_config([str(find_bundle(name) / "configs" / f"{part}.json") for part in names])
    values = values_by_id(parser.config).values()
    expressions = {value[1:] for value in values if isinstance(value, str) and value.startswith("$")}
    imports = {expression for expression in expressions if re.match(r"import |from ", expression)}

    bound = {statement.split()[-1] for statement in imports} | {"monai", "np", "numpy", "torch"}  # the last by default
    used = set().union(*map(free_names, expressions - imports))

    assert used <= bound


def test_a_spec_that_breaks_a_rule_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="slab_size is 4"):
        copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {"spec#slab_size": 4})

    assert not (tmp_path / "run").exists()
