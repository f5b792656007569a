"""Prediction: CTs become masks on their own grids, one after the other; one bad CT never stops the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.utils import collate_meta_tensor_fn

from liver_monai.data.cases import Case
from liver_monai.engine.device import find_device, keep_freed_memory
from liver_monai.engine.postprocess import mask_path
from liver_monai.engine.runtime import choose_runtime
from liver_monai.errors import InputError, one_line
from liver_monai.io.volumes import Source, read_mask
from liver_monai.model.bundle import find_bundle, read_config, read_spec, refusing_values
from liver_monai.model.weights import load_weights
from liver_monai.spec import LIVER, TUMOR, ModelSpec

PARTS = ("weights", "network_def", "preprocessing", "inferer", "postprocessing")
"""What ``Model`` takes from ``inference.json``, beside the spec."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained bundle, ready to segment: its parts are those its ``inference.json`` declares."""

    spec: ModelSpec
    network: Callable[[torch.Tensor], torch.Tensor]
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    inferer: Callable[..., MetaTensor]
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    device: torch.device

    def segment(self, ct: Source) -> MetaTensor:
        """``(1, X, Y, Z)`` uint8 mask on the grid of a CT; written too if the model was loaded with an output_dir."""
        volume = self.preprocessing({"image": str(ct) if isinstance(ct, Path) else ct})["image"]
        with torch.inference_mode():
            masks = self.inferer(collate_meta_tensor_fn([volume]).to(self.device), self.network)
        mask: MetaTensor = self.postprocessing({"pred": masks[0]})["pred"]
        return mask


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of one CT: a mask and its volumes, or the error why there is none.

    ``is_kept``: the mask was there before; its volumes are those of its voxels.
    """

    case: Case
    mask: Path | None = None
    liver_ml: float | None = None
    tumor_ml: float | None = None
    seconds: float = 0.0
    error: str = ""
    is_kept: bool = False

    @property
    def status(self) -> str:
        """``done``, ``kept`` or ``failed``."""
        if self.error:
            return "failed"
        return "kept" if self.is_kept else "done"


def load_model(
    bundle: str | Path, *, device: str = "auto", runtime: str = "auto", output_dir: Path | None = None
) -> Model:
    """Build the network of a trained bundle and load its weights.

    Args:
        bundle: a run's folder.
        device: ``"auto"``, or torch's name of a device.
        runtime: ``"auto"``, ``"torch"`` or ``"onnx"``, as ``choose_runtime`` takes them.
        output_dir: where ``Model.segment`` writes masks; ``None`` writes none.

    Raises:
        InputError: no such bundle or device, no weights, or weights of another spec.
    """
    folder = find_bundle(bundle)
    path = folder / "configs" / "inference.json"
    parser = ConfigParser(_read_inference(path))
    parser["bundle_root"] = str(folder)
    parser["output_dir"] = output_dir
    spec = read_spec(folder)
    with refusing_values(path):
        weights, network, *transforms = (parser.get_parsed_content(name) for name in PARTS)
    load_weights(network, weights, spec=spec)
    keep_freed_memory()
    target = find_device(device)
    preprocessing, inferer, postprocessing = transforms
    return Model(
        spec=spec,
        network=choose_runtime(
            network.eval(), weights=Path(weights), slab_size=spec.slab_size, device=target, runtime=runtime
        ),
        preprocessing=preprocessing,
        inferer=inferer,
        postprocessing=postprocessing,
        device=target,
    )


def _read_inference(path: Path) -> dict[str, Any]:
    config = read_config(path)
    missing = [name for name in PARTS if name not in config]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; bring the file back from the bundle it is from, or take another"
        )
    return config


def predict(
    cases: Sequence[Case],
    *,
    bundle: str | Path,
    out: str | Path,
    device: str = "auto",
    runtime: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Prediction]:
    """Segment CTs one by one, yielding each result as it is there.

    Args:
        cases: CTs, of distinct names.
        bundle: a run's folder.
        out: where the masks go, named like their CTs.
        device: ``"auto"``, or torch's name of a device.
        runtime: ``"auto"``, ``"torch"`` or ``"onnx"``, as ``choose_runtime`` takes them.
        overwrite: replace masks that are there.
        resume: keep masks that are there and go on with the others.

    Raises:
        InputError: no usable bundle, or masks are there and neither ``overwrite`` nor ``resume`` is given. What is
            wrong with a single CT is yielded as its error instead.
    """
    output_dir = Path(out).expanduser()
    masks = [mask_path(case.image, output_dir) for case in cases]
    present = [mask for mask in masks if mask.exists()]
    if present and not (overwrite or resume):
        raise InputError(
            f"{present[0]}: is there already ({len(present)} of {len(masks)}); give --overwrite or --resume"
        )
    model = load_model(bundle, device=device, runtime=runtime, output_dir=output_dir)
    for case, mask in zip(cases, masks, strict=True):
        is_kept = resume and not overwrite and mask.exists()
        yield _keep_case(case, mask) if is_kept else _predict_case(model, case, mask)


def _predict_case(model: Model, case: Case, mask: Path) -> Prediction:
    started_s = time.monotonic()
    try:
        labels = model.segment(case.image)
    except (InputError, OSError, RuntimeError, MemoryError) as error:  # MONAI wraps what a transform raises
        return Prediction(case=case, error=one_line(error))
    liver_ml, tumor_ml = _volumes_ml(labels)
    seconds = time.monotonic() - started_s
    return Prediction(case=case, mask=mask, liver_ml=liver_ml, tumor_ml=tumor_ml, seconds=seconds)


def _keep_case(case: Case, mask: Path) -> Prediction:
    try:
        liver_ml, tumor_ml = _volumes_ml(read_mask(mask))
    except (InputError, OSError) as error:
        return Prediction(case=case, error=f"{one_line(error)}; --overwrite predicts it anew")
    return Prediction(case=case, mask=mask, liver_ml=liver_ml, tumor_ml=tumor_ml, is_kept=True)


def _volumes_ml(mask: MetaTensor) -> tuple[float, float]:
    """Liver and tumour of a mask ``(1, X, Y, Z)``; a tumour is part of the liver."""
    counts = np.bincount(mask.numpy().ravel(), minlength=TUMOR + 1)
    voxel_ml = abs(np.linalg.det(np.asarray(mask.affine)[:3, :3])) / 1000
    return float(counts[LIVER:].sum() * voxel_ml), float(counts[TUMOR] * voxel_ml)


def segment(ct: Source, *, bundle: str | Path, device: str = "auto") -> MetaTensor:
    """Segment one CT.

    Args:
        ct: a volume's file, or a folder or zip with one DICOM volume.
        bundle: a trained run's folder.
        device: ``"auto"``, or torch's name of a device.

    Returns:
        ``(1, X, Y, Z)`` uint8 mask, 0 background, 1 liver, 2 tumour, on the CT's own grid (``.affine`` is the CT's).

    Raises:
        InputError: a CT or bundle that cannot be used.
    """
    return load_model(bundle, device=device).segment(ct)
