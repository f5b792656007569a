"""Bundles for others: make one for another encoder, check that it is whole, pack it into one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from liver_monai.errors import InputError, one_line
from liver_monai.io.files import read_json, whole_file
from liver_monai.model.bundle import SHIPPED, copy_bundle, read_spec
from liver_monai.model.network import build_network
from liver_monai.model.torchscript import torchscript
from liver_monai.model.trust import OF_PREDICTION, require_trusted
from liver_monai.model.weights import load_weights
from liver_monai.spec import LABELS, OUTPUT_STRIDE, ModelSpec

TEMPLATE = "resnet34"
"""The bundle that new ones are made from."""

FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/multi_gpu_train.json",
    "configs/multi_gpu_evaluate.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
"""What MONAI's model zoo expects of a bundle."""

METADATA = (
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)
"""The keys that MONAI's metadata schema of 2024-07-25 requires."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing a bundle must hold, and what is wrong with it, if anything."""

    name: str
    error: str = ""


def new_bundle(name: str, *, encoder: str, folder: Path) -> Path:
    """Make an untrained bundle for any encoder that can be dilated.

    Raises:
        InputError: the encoder cannot be used, or ``folder / name`` is there already.
    """
    bundle = folder / name
    if bundle.exists():
        raise InputError(f"{bundle}: is there already; choose another name or folder")
    spec = ModelSpec(encoder=encoder)
    _forward(build_network(spec), spec)
    copy_bundle(SHIPPED / TEMPLATE, bundle, {"spec#encoder": encoder})
    words = {"ResNet-34": encoder, TEMPLATE: name}  # the encoder's name last: it may hold the template's
    for file in (bundle / "docs" / "README.md", bundle / "configs" / "metadata.json"):
        text = file.read_text(encoding="utf-8")
        for old, new in words.items():
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    return bundle


def verify_bundle(bundle: Path, *, trust_bundle: bool = False) -> list[Check]:
    """Look at everything that others rely on; one fault never hides the next, but what is not trusted is not run."""
    trusted = _check("trusted", require_trusted, bundle)
    if trusted.error and not trust_bundle:
        return [trusted]
    return [_check(name, look, bundle) for name, look in CHECKS.items()]


def pack_bundle(bundle: Path, out: Path, *, torchscript: bool = False, trust_bundle: bool = False) -> Path:
    """Put a bundle into one zip file, as MONAI's tools load it: configs, documents and weights, no training data.

    Args:
        bundle: folder of a bundle or run.
        out: the zip file; appears whole or not at all.
        torchscript: add ``models/model.ts``, which MONAI Deploy takes.
        trust_bundle: run whatever it names for that, see ``require_trusted``.

    Raises:
        InputError: files that a bundle needs are missing, or it names what is not known.
    """
    _files(bundle)
    if torchscript and not trust_bundle:
        require_trusted(bundle, OF_PREDICTION)
    weights = [path for path in (bundle / "models" / "model.pt", bundle / "models" / "model.json") if path.is_file()]
    with whole_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [*(bundle / name for name in FILES), *weights]:
            archive.writestr(f"{bundle.name}/{path.relative_to(bundle).as_posix()}", _shareable(path))
        if torchscript:
            archive.writestr(f"{bundle.name}/models/model.ts", torchscript_of(bundle))
    return out


def _shareable(path: Path) -> bytes:
    """A file's content, without the place where the training data lay."""
    if path.name != "train.json":
        return path.read_bytes()
    return json.dumps({**read_json(path), "dataset_dir": ""}, indent=2).encode()


def torchscript_of(bundle: Path) -> bytes:
    """The trained network as a TorchScript file."""
    config = _inference(bundle)
    network, spec = config.get_parsed_content("network_def"), config.get_parsed_content("spec")
    load_weights(network, config.get_parsed_content("weights"), spec=spec)
    return torchscript(network.eval())


def _check(name: str, look: Callable[[Path], None], bundle: Path) -> Check:
    try:
        look(bundle)
    except Exception as error:  # whatever is broken is what we are here to tell
        return Check(name=name, error=one_line(error))
    return Check(name=name)


def _files(bundle: Path) -> None:
    missing = [name for name in FILES if not (bundle / name).is_file()]
    if missing:
        raise InputError(f"{bundle}: lacks {', '.join(missing)}")


def _metadata(bundle: Path) -> None:
    metadata = read_json(bundle / "configs" / "metadata.json")
    missing = [name for name in METADATA if name not in metadata]
    if missing:
        raise InputError(f"configs/metadata.json: lacks {', '.join(missing)}")
    spec = _inference(bundle).get_parsed_content("spec")
    formats = metadata["network_data_format"]
    found = (formats["inputs"]["image"]["num_channels"], formats["outputs"]["pred"]["num_channels"])
    expected = (spec.slab_size, spec.output_slices * len(LABELS))
    if found != expected:
        raise InputError(f"configs/metadata.json: has {found} channels in and out, the spec {expected}")


def _one_spec(bundle: Path) -> None:
    differences = read_spec(bundle, config="train.json").differences(read_spec(bundle))
    if differences:
        raise InputError(f"train.json and inference.json differ in spec: {differences}")


def _network(bundle: Path) -> None:
    config = _inference(bundle)
    _forward(config.get_parsed_content("network_def"), config.get_parsed_content("spec"))


def _weights(bundle: Path) -> None:
    """Weights fit, where there are any."""
    config = _inference(bundle)
    weights = Path(config.get_parsed_content("weights"))
    if weights.is_file():
        load_weights(config.get_parsed_content("network_def"), weights, spec=config.get_parsed_content("spec"))


CHECKS: dict[str, Callable[[Path], None]] = {
    "files": _files,
    "metadata": _metadata,
    "one spec": _one_spec,
    "forward pass": _network,
    "weights": _weights,
}


def _forward(network: torch.nn.Module, spec: ModelSpec) -> None:
    """A small slab goes through, and every class comes out at the slab's size."""
    height, width = 4 * OUTPUT_STRIDE, 6 * OUTPUT_STRIDE
    with torch.inference_mode():
        logits = network.eval()(torch.zeros(1, spec.slab_size, height, width))
    if tuple(logits.shape) != (1, spec.output_slices * len(LABELS), height, width):
        raise InputError(
            f"encoder '{spec.encoder}': logits of shape {tuple(logits.shape)} for slices of {height, width}"
        )


def _inference(bundle: Path) -> ConfigParser:
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.json"))
    config["bundle_root"] = str(bundle)
    return config
