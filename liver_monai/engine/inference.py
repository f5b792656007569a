"""Prediction: CTs become masks on their own grids, one after the other; one bad CT never stops the others."""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from liver_monai.data.cases import Case
from liver_monai.engine.device import find_device, keep_freed_memory
from liver_monai.engine.ensemble import Ensemble
from liver_monai.engine.exported import exported_parts
from liver_monai.engine.inferer import batch_of_one
from liver_monai.engine.plausibility import Plausibility, warnings_of_mask
from liver_monai.engine.postprocess import mask_path
from liver_monai.engine.read_ahead import read_ahead
from liver_monai.engine.runtime import choose_runtime
from liver_monai.errors import InputError, one_line
from liver_monai.io.probabilities import probability_file, write_map
from liver_monai.io.volumes import Source, read_mask, voxel_ml
from liver_monai.model.bundle import (
    find_bundle,
    find_members,
    override_config,
    read_config,
    read_spec,
    refusing_values,
)
from liver_monai.model.formats import is_exported
from liver_monai.model.network import Logits
from liver_monai.model.trust import OF_PREDICTION, require_trusted
from liver_monai.model.weights import load_weights
from liver_monai.processes import Pool
from liver_monai.spec import LIVER, TUMOR, ModelSpec

Bundles = str | Path | Sequence[str | Path]

PARTS = ("weights", "network_def", "preprocessing", "inferer", "postprocessing")
"""What ``Model`` takes from ``inference.json``, beside the spec."""

PROBABILITIES = "probabilities"
"""Folder of maps, beside the masks: what lies there is no mask."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How to predict: on what, and where that is another way than a bundle's own.

    Attributes:
        device: ``"auto"``, or torch's name of a device.
        runtime: ``"auto"``, ``"torch"`` or ``"onnx"``, as ``choose_runtime`` takes them.
        search: ``"liver"`` or ``"whole"``, as ``SlabInferer`` takes it; ``None`` as the bundle says.
        maps: names in ``io.probabilities.MAPS``, written beside the masks; before any cleaning.
        max_memory_gb: of the process; then no CT is read ahead either.
        overrides: other values of ``inference.json`` by their ids.
        trust_bundle: run whatever a bundle names, see ``require_trusted``.
    """

    device: str = "auto"
    runtime: str = "auto"
    search: str | None = None
    maps: tuple[str, ...] = ()
    max_memory_gb: float | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    trust_bundle: bool = False

    def of_inferer(self) -> dict[str, Any]:
        """What is chosen for ``SlabInferer``, of those that were always there or not."""
        chosen = {"search": self.search, "maps": list(self.maps), "max_memory_gb": self.max_memory_gb}
        return {name: value for name, value in chosen.items() if value}


AS_BUNDLED = Choices()


@dataclass(frozen=True, kw_only=True)
class Model:
    """One or more trained bundles, ready to segment: its parts are those that ``inference.json`` declares."""

    spec: ModelSpec
    network: Logits
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    inferer: Callable[..., MetaTensor]
    postprocessing: Callable[[dict[str, Any]], dict[str, Any]]
    device: torch.device

    def segment(self, ct: Source) -> MetaTensor:
        """``(1, X, Y, Z)`` uint8 mask on the grid of a CT; written too if the model was loaded with an output_dir."""
        return self.finish(self.infer(self.read(ct)))

    def read(self, ct: Source) -> MetaTensor:
        """A CT as the inferer takes it."""
        volume: MetaTensor = self.preprocessing({"image": str(ct) if isinstance(ct, Path) else ct})["image"]
        return volume

    def infer(self, volume: MetaTensor) -> MetaTensor:
        """``(1 + n, X, Y, Z)``: the network's mask, and the n maps that were chosen."""
        with torch.inference_mode():
            return self.inferer(batch_of_one(volume).to(self.device), self.network)[0]

    def finish(self, inferred: MetaTensor) -> MetaTensor:
        """The mask alone, cleaned, and written if there is an output_dir."""
        mask: MetaTensor = self.postprocessing({"pred": inferred[:1]})["pred"]
        return mask


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of one CT: a mask and its volumes, or the error why there is none.

    ``is_kept``: the mask was there before; its volumes are those of its voxels. ``searched``: which slices the network
    saw, and why if it had to see all. ``warnings``: what is doubtful, ``"name: sentence"`` each.
    """

    case: Case
    mask: Path | None = None
    liver_ml: float | None = None
    tumor_ml: float | None = None
    seconds: float = 0.0
    error: str = ""
    is_kept: bool = False
    searched: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``done``, ``kept`` or ``failed``."""
        if self.error:
            return "failed"
        return "kept" if self.is_kept else "done"


def load_model(bundle: Bundles, *, choices: Choices = AS_BUNDLED, output_dir: Path | None = None) -> Model:
    """Build the network of a trained bundle and load its weights; or those of several, which are then one.

    Args:
        bundle: a run's folder or a file that ``export`` made; or several, whose probabilities are averaged. What is
            not a network's own, such as the cleaning of masks, is taken from the first.
        choices: where and how.
        output_dir: where ``Model.segment`` writes masks; ``None`` writes none.

    Raises:
        InputError: no such bundle or device, a bundle that names what is not known, no weights, weights of another
            spec, or bundles of different specs.
    """
    keep_freed_memory()
    first, *others = [_load_one(each, choices=choices, output_dir=output_dir) for each in bundles_of(bundle)]
    for number, other in enumerate(others, start=1):
        _require_same_input(first.spec, other.spec, names=(bundles_of(bundle)[0], bundles_of(bundle)[number]))
    if not others:
        return first
    return replace(first, network=Ensemble([first.network, *(other.network for other in others)]))


def _load_one(bundle: str | Path, *, choices: Choices, output_dir: Path | None) -> Model:
    if not is_exported(bundle):
        return _load_bundle(bundle, choices=choices, output_dir=output_dir)
    parts = exported_parts(
        Path(bundle).expanduser(),
        device_name=choices.device,
        runtime=choices.runtime,
        inferer=choices.of_inferer(),
        overrides=choices.overrides,
        output_dir=output_dir,
    )
    return Model(**parts)


def _load_bundle(bundle: str | Path, *, choices: Choices, output_dir: Path | None) -> Model:
    device = find_device(choices.device)
    folder = find_bundle(bundle)
    path = folder / "configs" / "inference.json"
    if not choices.trust_bundle:
        require_trusted(folder, OF_PREDICTION)
    config = _read_inference(path)
    override_config(config, choices.overrides)
    config["inferer"] |= choices.of_inferer()
    parser = ConfigParser(config)
    parser["bundle_root"] = str(folder)
    parser["output_dir"] = output_dir
    spec = read_spec(folder)
    with refusing_values(path):
        weights, network, *transforms = (parser.get_parsed_content(name) for name in PARTS)
    load_weights(network, weights, spec=spec)
    preprocessing, inferer, postprocessing = transforms
    return Model(
        spec=spec,
        network=choose_runtime(
            network.eval(), weights=Path(weights), slab_size=spec.slab_size, device=device, runtime=choices.runtime
        ),
        preprocessing=preprocessing,
        inferer=inferer,
        postprocessing=postprocessing,
        device=device,
    )


def bundles_of(bundle: Bundles) -> list[str | Path]:
    """One or several, as a list; a folder of trained folds is all of them."""
    given = [bundle] if isinstance(bundle, str | Path) else bundle
    return [member for each in given for member in find_members(each)]


def _require_same_input(first: ModelSpec, other: ModelSpec, *, names: tuple[str | Path, str | Path]) -> None:
    differences = first.differences(other)
    differences.pop("encoder", None)
    if differences:
        values = "; ".join(f"{name} {mine} and {its}" for name, (mine, its) in differences.items())
        raise InputError(
            f"{names[0]}, {names[1]}: see different slabs ({values}); only bundles of one grid are averaged"
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
    bundle: Bundles,
    out: str | Path,
    choices: Choices = AS_BUNDLED,
    pool: Pool | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Prediction]:
    """Segment CTs, yielding each result, in their order, as it is there.

    Args:
        cases: CTs, of distinct names.
        bundle: a run's folder, or several, as ``load_model`` takes them.
        out: where the masks go, named like their CTs or as a case's ``result_name``, and into its folder
            ``probabilities`` the maps.
        choices: where and how.
        pool: who does it, each with a model of its own; by default this process does, and reads the next CT meanwhile.
        overwrite: replace masks that are there.
        resume: keep masks that are there and go on with the others.

    Raises:
        InputError: no usable bundle, or masks are there and neither ``overwrite`` nor ``resume`` is given. What is
            wrong with a single CT is yielded as its error instead.
    """
    output_dir = Path(out).expanduser()
    tasks = _plan(cases, output_dir, maps=choices.maps, keeps=resume and not overwrite)
    present = [task.mask for task in tasks if task.mask.exists()]
    if present and not (overwrite or resume):
        raise InputError(
            f"{present[0]}: is there already ({len(present)} of {len(tasks)}); give --overwrite or --resume"
        )
    if pool is not None:
        recipe = pickle.dumps((bundles_of(bundle), choices, output_dir, uuid.uuid4()))
        yield from pool.results(_predict_there, [(recipe, task) for task in tasks], killed=_killed)
        return
    model = load_model(bundle, choices=choices, output_dir=output_dir)
    to_read = [task.case.image for task in tasks if not task.is_kept]
    volumes = read_ahead(model.read, to_read, n=0 if choices.max_memory_gb else 1)
    for task in tasks:
        yield _keep_case(task) if task.is_kept else _predict_case(model, task, next(volumes))


class _Task(NamedTuple):
    """A CT, where its mask and its maps go, and whether they are there and stay."""

    case: Case
    mask: Path
    maps: Mapping[str, Path]
    is_kept: bool


def _plan(cases: Sequence[Case], output_dir: Path, *, maps: Sequence[str], keeps: bool) -> list[_Task]:
    tasks = []
    for case in cases:
        mask = mask_path(case.image, output_dir, name=case.result_name)
        files = {name: probability_file(output_dir / PROBABILITIES, case.case_id, name) for name in maps}
        is_kept = keeps and all(file.exists() for file in (mask, *files.values()))
        tasks.append(_Task(case, mask, files, is_kept))
    return tasks


def _predict_there(recipe: bytes, task: _Task) -> Prediction:
    """In a process of a pool."""
    if task.is_kept:
        return _keep_case(task)
    model = _model_of(recipe)
    return _predict_case(model, task, partial(model.read, task.case.image))


@lru_cache(maxsize=1)
def _model_of(recipe: bytes) -> Model:
    """The model of one call of ``predict``: a process of a cluster outlives it, and a bundle may be trained anew."""
    bundle, choices, output_dir, _ = pickle.loads(recipe)
    return load_model(bundle, choices=choices, output_dir=output_dir)


def _killed(_: bytes, task: _Task) -> Prediction:
    return Prediction(
        case=task.case,
        error=f"{task.case.image}: every worker that took it was killed, perhaps for want of memory; give each more, "
        "or set a limit with --max-memory, and go on with --resume",
    )


def _predict_case(model: Model, task: _Task, read: Callable[[], MetaTensor]) -> Prediction:
    started_s, case = time.monotonic(), task.case
    try:
        volume = read()
        plausibility = Plausibility(volume, case)
        inferred = model.infer(volume)
        del read, volume
        for values, path in zip(inferred[1:].numpy(), task.maps.values(), strict=True):
            write_map(values, path, ct=case.image, affine=np.asarray(inferred.affine, dtype=np.float64))
        inferred.meta["result_name"] = case.result_name
        labels = model.finish(inferred)  # which writes the mask, last
        warnings = plausibility.warnings(labels)
    except (InputError, OSError, RuntimeError, MemoryError) as error:  # MONAI wraps what a transform raises
        return Prediction(case=case, error=one_line(error))
    liver_ml, tumor_ml = _volumes_ml(labels)
    return Prediction(
        case=case,
        mask=task.mask,
        liver_ml=liver_ml,
        tumor_ml=tumor_ml,
        seconds=time.monotonic() - started_s,
        searched=str(inferred.meta.get("searched", "")),
        warnings=warnings,
    )


def _keep_case(task: _Task) -> Prediction:
    case, mask = task.case, task.mask
    try:
        labels = read_mask(mask)
        liver_ml, tumor_ml = _volumes_ml(labels)
        warnings = tuple(warnings_of_mask(labels, case))
    except (InputError, OSError) as error:
        return Prediction(case=case, error=f"{one_line(error)}; --overwrite predicts it anew")
    return Prediction(case=case, mask=mask, liver_ml=liver_ml, tumor_ml=tumor_ml, is_kept=True, warnings=warnings)


def _volumes_ml(mask: MetaTensor) -> tuple[float, float]:
    """Liver and tumour of a mask ``(1, X, Y, Z)``; a tumour is part of the liver."""
    n_liver, n_tumor = (int(torch.count_nonzero(mask.as_tensor() >= label)) for label in (LIVER, TUMOR))
    return n_liver * voxel_ml(mask.affine), n_tumor * voxel_ml(mask.affine)


def segment(ct: Source, *, bundle: Bundles, device: str = "auto", trust_bundle: bool = False) -> MetaTensor:
    """Segment one CT.

    Args:
        ct: a volume's file, or a folder or zip with one DICOM volume.
        bundle: a trained run's folder or a file that ``export`` made; or several, whose probabilities are averaged.
        device: ``"auto"``, or torch's name of a device.
        trust_bundle: run whatever a bundle names, see ``require_trusted``.

    Returns:
        ``(1, X, Y, Z)`` uint8 mask, 0 background, 1 liver, 2 tumour, on the CT's own grid (``.affine`` is the CT's).

    Raises:
        InputError: a CT or bundle that cannot be used.
    """
    return load_model(bundle, choices=Choices(device=device, trust_bundle=trust_bundle)).segment(ct)
