"""What MONAI's own tools, MONAI Label and MONAI Deploy ask of a bundle, for all that ship."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, load, onnx_export, run, verify_net_in_out
from monai.bundle.utils import DEFAULT_HANDLERS_ID
from monai.data import MetaTensor
from monai.transforms import Compose, SaveImaged

from liver_monai.data.layouts import find_cases
from liver_monai.data.transforms import preprocessing
from liver_monai.engine.postprocess import postprocessing
from liver_monai.errors import InputError, root_cause
from liver_monai.model.bundle import copy_bundle, find_bundle, list_bundles
from liver_monai.model.network import build_network
from liver_monai.model.weights import load_weights, save_weights
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec

BUNDLES = list_bundles()
COARSE = {"spec#spacing_mm": [8, 8, 8], "spec#roi_size": [64, 64], "slabs_per_epoch": 4, "batch_size": 2}
"""Makes phantoms small, so that MONAI's workflows run in a moment."""

SIZES = [(3, 96, 160), (1, 160, 128)]
"""Batch, height and width, none of which is that of the example an exporter is given."""
EXAMPLE = (2, 64, 96)

MAX_LOGIT_DIFFERENCE = 1e-3
"""Of an exported network, where logits span about 3: ONNX Runtime adds in another order than torch, measured 3e-6
(EfficientNet) to 5e-4 (ResNet-50); a trained MobileNetV2 differs by 2e-5 where its logits span 24."""
SAME_KERNELS = 1e-5
"""The same for TorchScript and torch.export, which run torch's own kernels; measured 0."""

security_note = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
"""MONAI says before it reads any config that configs run code."""


def spec_of(bundle):
    values = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))["spec"]
    return ModelSpec(**{name: value for name, value in values.items() if name != "_target_"})


def network_of(bundle):
    spec = spec_of(bundle)
    network = build_network(spec)
    load_weights(network, bundle / "models" / "model.pt", spec=spec)
    return network.eval()


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request, tmp_path_factory):
    """A copy of a bundle with weights that nobody trained but whose logits depend on the input."""
    folder = tmp_path_factory.mktemp("bundles") / request.param
    copy_bundle(find_bundle(request.param), folder, COARSE)
    spec = spec_of(folder)
    torch.manual_seed(0)
    network = build_network(spec)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics of the next batch alone; those of a new network are of no data
    with torch.no_grad():
        network.train()(torch.rand(4, spec.slab_size, 160, 160))
    save_weights(network, folder / "models" / "model.pt", spec=spec)
    return folder


def slabs(bundle, size, seed=0):
    batch, height, width = size
    return torch.rand(batch, spec_of(bundle).slab_size, height, width, generator=torch.Generator().manual_seed(seed))


def files(bundle):
    """The arguments by which MONAI's exporters find a network and its weights."""
    return {
        "net_id": "network_def",
        "ckpt_file": str(bundle / "models" / "model.pt"),
        "meta_file": str(bundle / "configs" / "metadata.json"),
        "config_file": str(bundle / "configs" / "inference.json"),
    }


def assert_same_logits(bundle, exported, *, tolerance):
    network = network_of(bundle)
    for size in SIZES:
        image = slabs(bundle, size)
        with torch.inference_mode():
            logits = network(image)
            difference = (exported(image) - logits).abs().max()
        assert logits.std() > 0.1  # else the figure would say nothing
        assert difference <= tolerance, size


# MONAI's own tools


@pytest.mark.parametrize("config", ["train", "inference"])
def test_monai_verifies_input_and_output(bundle, config):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / f"{config}.json"),
        device="cpu",
        n=4,
    )


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("inference", "infer")])
def test_monai_misses_no_property(bundle, phantom_dataset, config, kind):
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / f"{config}.json"),
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(phantom_dataset),
    )
    workflow.initialize()

    assert workflow.check_properties() == []


@security_note
@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network_with_its_weights(bundle, kind):
    handlers = list(logging.root.handlers)

    network = load(bundle.name, bundle_dir=bundle.parent, workflow_type=kind, device="cpu").eval()

    logging.root.handlers[:] = handlers  # it sets up logging as the bundle says

    image = slabs(bundle, EXAMPLE)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network_of(bundle)(image), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # MONAI Deploy still takes nothing else
def test_torchscript_gives_the_same_logits(bundle, tmp_path):
    ckpt_export(filepath=str(tmp_path / "model.ts"), **files(bundle))

    assert_same_logits(bundle, torch.jit.load(tmp_path / "model.ts").eval(), tolerance=SAME_KERNELS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own, dozens
def test_onnx_gives_the_same_logits(bundle, tmp_path):
    import onnxruntime

    axes = {0: "batch", 2: "height", 3: "width"}
    onnx_export(
        filepath=str(tmp_path / "model.onnx"),
        input_shape=list(slabs(bundle, EXAMPLE).shape),
        converter_kwargs={
            "input_names": ["image"],
            "output_names": ["pred"],
            "dynamic_axes": {"image": axes, "pred": axes},
        },
        **files(bundle),
    )

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert_same_logits(
        bundle,
        lambda image: torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0]),
        tolerance=MAX_LOGIT_DIFFERENCE,
    )


@pytest.mark.slow
def test_torch_export_gives_the_same_logits(bundle):
    batch, height, width = (torch.export.Dim(name, min=least) for name, least in (("b", 1), ("h", 2), ("w", 2)))

    program = torch.export.export(
        network_of(bundle),
        (slabs(bundle, EXAMPLE),),
        dynamic_shapes=({0: batch, 2: OUTPUT_STRIDE * height, 3: OUTPUT_STRIDE * width},),
    )

    assert_same_logits(bundle, program.module(), tolerance=SAME_KERNELS)


# MONAI Label and MONAI Deploy: each brings its own reading and writing


@pytest.mark.parametrize("slab_size", [1, 5])
def test_another_loader_takes_the_place_of_ours(phantom_dataset, slab_size):
    """MONAI Deploy drops transforms by the name LoadImage and gives ``(X, Y, Z)`` arrays."""
    spec = ModelSpec(encoder="resnet34", slab_size=slab_size, spacing_mm=(8, 8, 8))
    case = find_cases(phantom_dataset)[0]
    transforms = preprocessing(spec).transforms
    others = [transform for transform in transforms if "LoadImage" not in type(transform).__name__]
    assert len(others) == len(transforms) - 1
    ct = nib.load(case.image)
    meta = {"affine": ct.affine, "original_affine": ct.affine, "original_channel_dim": "no_channel"}

    image = Compose(others)({"image": MetaTensor(torch.from_numpy(np.asarray(ct.dataobj)), meta=meta)})["image"]

    expected = preprocessing(spec)({"image": str(case.image)})["image"]
    np.testing.assert_array_equal(image.numpy(), expected.numpy())
    np.testing.assert_array_equal(image.affine, expected.affine)
    for name in ("original_affine", "oriented_affine", "oriented_shape"):
        np.testing.assert_array_equal(np.asarray(image.meta[name]), np.asarray(expected.meta[name]))


def test_another_writer_takes_the_place_of_ours(tmp_path):
    """MONAI Label knows a writer by its type, MONAI Deploy by its name."""
    transforms = postprocessing(output_dir=tmp_path).transforms

    assert all(
        isinstance(transform, SaveImaged) and "SaveImage" in type(transform).__name__ for transform in transforms
    )


def test_a_run_offers_one_model(trained_run):
    """MONAI Label lets a user choose among all ``models/*.pt``, and takes one that does not fit without a word."""
    assert [file.name for file in (trained_run / "models").glob("*.pt")] == ["model.pt"]
    assert (trained_run / "models" / "checkpoint.pth").is_file()


def test_trackers_that_follow_monais_convention_see_every_loss(tmp_path, phantom_dataset):
    """``--tracking mlflow`` adds a handler that reads the loss by ``from_engine(['loss'], first=True)``."""
    copy_bundle(find_bundle("mobilenet"), tmp_path / "run", {**COARSE, "fold": None, "max_epochs": 2})
    tracker = {
        "_target_": "MetricLogger",
        "loss_transform": "$monai.handlers.from_engine(['loss'], first=True)",
        "metric_transform": "$lambda _: None",
    }
    workflow = ConfigWorkflow(
        config_file=str(tmp_path / "run" / "configs" / "train.json"),
        workflow_type="train",
        logging_file=False,
        bundle_root=str(tmp_path / "run"),
        dataset_dir=str(phantom_dataset),
        tracking={"handlers_id": DEFAULT_HANDLERS_ID, "configs": {"trainer": tracker}},
    )
    workflow.initialize()

    workflow.run()

    losses = [loss for _, loss in workflow.parser.get_parsed_content("train#handlers")[-1].loss]
    assert len(losses) == 2 * COARSE["slabs_per_epoch"] // COARSE["batch_size"]
    assert all(isinstance(loss, float) for loss in losses)


# What MONAI's entrance takes without a word, the bundles refuse


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained") / "mobilenet"
    copy_bundle(find_bundle("mobilenet"), folder, COARSE)
    return folder


def refusal(untrained, *names, **arguments):
    """What ``monai.bundle.run`` ends with."""
    arguments = {"config_file": [str(untrained / "configs" / f"{name}.json") for name in names], **arguments}
    with pytest.raises(RuntimeError) as caught:
        run(bundle_root=str(untrained), logging_file=False, **arguments)
    cause = root_cause(caught.value)
    assert isinstance(cause, InputError), cause
    return str(cause)


UNKNOWN = [
    (("train",), "max_epoch", "max_epochs"),
    (("train",), "spec#slabsize", "spec#slab_size"),
    (("train", "evaluate"), "output_dirs", "output_dir"),
    (("inference",), "dataset_dri", "dataset_dir"),
    (("inference",), "max_epochs", None),  # of train.json
]


@security_note
@pytest.mark.parametrize(("names", "override", "meant"), UNKNOWN)
def test_an_unknown_override_is_refused(untrained, names, override, meant):
    message = refusal(untrained, *names, **{override: 3})

    assert message.startswith(f"--{override}: the configs have no such id")
    assert meant is None or f"did you mean '{meant}'?" in message


@security_note
def test_an_unknown_override_in_an_arguments_file_is_refused(untrained, tmp_path):
    (tmp_path / "args.json").write_text(json.dumps({"max_epoch": 3}))

    assert refusal(untrained, "train", args_file=str(tmp_path / "args.json")).startswith("--max_epoch: ")


@security_note
@pytest.mark.parametrize(
    "known",
    [
        {"max_epochs": 3, "spec#slab_size": 3, "train#handlers#0#_disabled_": True},
        {"_meta_#version": "9", "workflow_type": "train"},
    ],
)
def test_what_is_known_goes_on_to_the_next_refusal(untrained, known):
    """Which is that of an empty dataset_dir."""
    assert refusal(untrained, "train", **known).startswith("dataset_dir is empty")


def test_the_command_line_of_monai_fails(untrained, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(untrained / "configs" / "train.json")]

    done = subprocess.run(
        [*command, "--max_epoch", "3"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode != 0
    assert "InputError: --max_epoch: the configs have no such id, did you mean 'max_epochs'?" in done.stderr
    assert list(tmp_path.iterdir()) == []
