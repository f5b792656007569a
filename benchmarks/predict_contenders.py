"""Who takes part in ``predict.py`` beside the command itself: functions that segment a CT and time themselves.

python benchmarks/predict_contenders.py NAME JOB    # a job as JSON; prints figures as JSON
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Whatever is heavy is imported where it is used: the peak memory of a process begins with that of the one it came from.

BATCH = 4
"""As in the bundles."""
NOTEBOOK_SIZE = (256, 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The CT, the bundle with the weights, and where the mask goes."""

    ct: Path
    bundle: Path
    out: Path


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Seconds of a case, on the clock and of the processor."""
    figures: dict[str, float] = {}
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    yield figures
    figures["case_s"] = time.perf_counter() - started_s
    figures["case_cpu_s"] = time.process_time() - started_cpu_s


def run_network(job: Job, *, runtime: str = "torch") -> dict[str, float]:
    """A prediction, from file to mask, shows which slabs there are; then the network has them again, alone."""
    import torch

    from liver_monai.engine.inference import Choices, load_model

    model = load_model(job.bundle, choices=Choices(device="cpu", runtime=runtime), output_dir=job.out)
    seen: list[torch.Tensor] = []

    def witness(slabs: torch.Tensor) -> torch.Tensor:
        seen.append(slabs.clone())
        return model.network(slabs)

    with stopwatch() as prediction:
        mask = dataclasses.replace(model, network=witness).segment(job.ct)
    with torch.inference_mode(), stopwatch() as figures:
        for slabs in seen:
            model.network(slabs)
    n_passes = sum(len(slabs) for slabs in seen)
    return {
        **figures,
        "prediction_s": prediction["case_s"],
        "prediction_cpu_s": prediction["case_cpu_s"],
        "n_passes": n_passes,
        "n_liver": _slabs_of_liver(mask.meta["searched"], job) or n_passes,
    }


def run_network_onnx(job: Job) -> dict[str, float]:
    """The graph that was kept beside the weights."""
    return run_network(job, runtime="onnx")


def _slabs_of_liver(searched: str, job: Job) -> int:
    """Slices of the model grid between the ends that a search says it found; 0 where it looked at all."""
    from liver_monai.io.volumes import read_header
    from liver_monai.model.bundle import read_spec

    found = re.match(r"slices (\d+)-(\d+)", searched)
    if found is None:
        return 0
    header = read_header(job.ct)
    axis = next(axis for axis, code in enumerate(header.axis_codes) if code in "SI")
    n_native = int(found[2]) - int(found[1]) + 1
    return round(n_native * header.spacing_mm[axis] / read_spec(job.bundle).spacing_mm[2])


def run_monai(job: Job) -> dict[str, float]:
    """MONAI as its tutorials have it: the inverse of the transforms brings probabilities back, of the whole volume."""
    import monai.transforms as mt

    spec, network = _load_network(job)
    low, high = spec.hu_window
    before = mt.Compose(
        [
            mt.LoadImaged("image"),
            mt.EnsureChannelFirstd("image"),
            mt.Orientationd("image", axcodes="RAS", labels=None),
            mt.Spacingd("image", pixdim=spec.spacing_mm, mode="bilinear"),
            mt.ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True),
        ]
    )
    after = mt.Compose(
        [
            mt.Activationsd("pred", softmax=True),
            mt.Invertd("pred", transform=before, orig_keys="image", nearest_interp=False),
            mt.AsDiscreted("pred", argmax=True),
            _saving(job),
        ]
    )
    with stopwatch() as figures:
        item = before({"image": str(job.ct)})
        item["pred"] = _whole_logits(item["image"], spec, network)
        after(item)
    return {**figures, "n_passes": item["image"].shape[-1]}


def run_monai_grid(job: Job) -> dict[str, float]:
    """Ours before the network; MONAI from there on."""
    import monai.transforms as mt

    from liver_monai.data.transforms import preprocessing

    spec, network = _load_network(job)
    after = mt.Compose(
        [mt.ResampleToMatchd("pred", "ct", mode="bilinear"), mt.AsDiscreted("pred", argmax=True), _saving(job)]
    )
    with stopwatch() as figures:
        image = preprocessing(spec)({"image": str(job.ct)})["image"]
        ct = mt.Compose([mt.LoadImage(), mt.EnsureChannelFirst()])(str(job.ct))
        after({"pred": _whole_logits(image, spec, network), "ct": ct})
    return {**figures, "n_passes": image.shape[-1]}


def _whole_logits(image: Any, spec: Any, network: Any) -> Any:
    """``(3, H, W, D)`` of ``(1, H, W, D)``: each slice with its neighbours as channels, one window a slice."""
    import torch
    from monai.data import MetaTensor
    from monai.inferers import SliceInferer

    from liver_monai.data.slabs import slab_view
    from liver_monai.spec import OUTPUT_STRIDE

    slabs = slab_view(image.as_tensor()[0], spec.slab_size).permute(1, 2, 3, 0)[None]
    window = [-(-size // OUTPUT_STRIDE) * OUTPUT_STRIDE for size in image.shape[1:3]]
    with torch.no_grad():
        logits = SliceInferer(spatial_dim=2, roi_size=window, sw_batch_size=BATCH)(slabs, network)
    return MetaTensor(logits[0], meta=image.meta)


def _saving(job: Job) -> Any:
    import monai.transforms as mt
    import numpy as np

    return mt.SaveImaged(
        "pred", output_dir=job.out, output_postfix="", separate_folder=False, output_dtype=np.uint8, print_log=False
    )


def run_notebook(job: Job) -> dict[str, float]:
    """The loop of a 2-D notebook, with the neighbours that this network wants to see."""
    import nibabel as nib
    import numpy as np
    import torch
    from torch.nn.functional import interpolate

    from liver_monai.data.slabs import slab_indices

    spec, network = _load_network(job)
    low, high = spec.hu_window
    with stopwatch() as figures:
        ct = nib.load(job.ct)
        image = ct.get_fdata()
        image = (np.clip(image, low, high) - low) / (high - low)
        mask = np.zeros(image.shape, np.uint8)
        for z in range(image.shape[2]):
            slab = image[:, :, slab_indices(z, n_slices=image.shape[2], slab_size=spec.slab_size)]
            slices = torch.from_numpy(slab.transpose(2, 0, 1)).float()[None]
            with torch.no_grad():
                logits = network(interpolate(slices, NOTEBOOK_SIZE, mode="bilinear"))
            labels = logits.argmax(dim=1, keepdim=True).float()
            mask[:, :, z] = interpolate(labels, image.shape[:2], mode="nearest")[0, 0].numpy()
        job.out.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(mask, ct.affine), job.out / "mask.nii.gz")
    return {**figures, "n_passes": image.shape[2]}


def _load_network(job: Job) -> tuple[Any, Any]:
    """The same weights, without what ours does to the process."""
    from liver_monai.model.bundle import read_spec
    from liver_monai.model.network import build_network
    from liver_monai.model.weights import load_weights

    spec = read_spec(job.bundle)
    network = build_network(spec)
    load_weights(network, job.bundle / "models" / "model.pt", spec=spec)
    return spec, network.eval()


def run_nnunet(job: Job, *, mirroring: bool = True) -> dict[str, float]:
    """nnU-Net as its plans for 2-D make it; it leaves the slices of the CT as they are."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from liver_monai.model.bundle import read_spec

    plans = PlansManager(nnunet_plans(read_spec(job.bundle)))
    configuration = plans.get_configuration("2d")
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        3,
        deep_supervision=False,
    ).eval()
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumor": 2},
        "file_ending": ".nii.gz",
    }
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], dataset, "nnUNetTrainer", (0, 1)
    )
    job.out.mkdir(parents=True, exist_ok=True)
    with stopwatch() as figures:
        predictor.predict_from_files_sequential([[str(job.ct)]], [str(job.out / "mask")])
    return dict(figures)


def run_nnunet_once(job: Job) -> dict[str, float]:
    """A quarter of the passes."""
    return run_nnunet(job, mirroring=False)


def nnunet_plans(spec: Any) -> dict[str, Any]:
    """What its planner writes for CTs that fit into one window of ``roi_size`` at the spacing of a spec."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    along_x, along_y, along_z = spec.spacing_mm
    _, strides, kernels, window, _ = get_pool_and_conv_props((along_y, along_x), spec.roi_size, 4, 999999)
    n_stages = len(strides)
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(512, 32 * 2**stage) for stage in range(n_stages)],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [list(kernel) for kernel in kernels],
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * n_stages,
            "n_conv_per_stage_decoder": [2] * (n_stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 12,
        "patch_size": [int(size) for size in window],
        "median_image_size_in_voxels": [int(size) for size in window],
        "spacing": [along_y, along_x],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": architecture,
        "batch_dice": True,
    }
    intensities = {"max": 250, "mean": 100, "median": 100, "min": -200, "percentile_00_5": -20, "percentile_99_5": 200}
    return {
        "dataset_name": "Dataset000_none",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [along_z, along_y, along_x],
        "original_median_shape_after_transp": [100, *(int(size) for size in window)],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {**intensities, "std": 40}},
    }


MEASURES: dict[str, Callable[[Job], dict[str, float]]] = {
    "network": run_network,
    "network-onnx": run_network_onnx,
    "monai": run_monai,
    "monai-allocator": run_monai,
    "monai-grid": run_monai_grid,
    "notebook": run_notebook,
    "nnunet": run_nnunet,
    "nnunet-once": run_nnunet_once,
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    job = Job(**{name: Path(path) for name, path in json.loads(sys.argv[2]).items()})
    print(json.dumps(MEASURES[sys.argv[1]](job)))
