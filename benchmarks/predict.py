"""How long does a CT take from its file to its mask, here and elsewhere, and in how much memory?

Each contender is a process of its own. They take turns, and a ratio is the median over the turns: seconds differ
between machines and from minute to minute, ratios hardly do. "process" is all of it, imports included; "case" is what
comes once the network is loaded; CPU seconds count little of whatever else runs on the machine. The contenders:

    ours, ours-onnx        liver-monai predict, with PyTorch and with --runtime onnx
    network, network-onnx  nothing but the network, on the slabs that ours showed it: the limit
    ours-whole             ours without the search for the liver, so that all look at the same slices
    monai                  MONAI's own transforms and SliceInferer, the same weights, logits of the whole volume
    monai-allocator        that, with the settings of the C library that ours makes for itself
    monai-grid             that, on the grid that ours makes and with logits brought back, as ours does: the same mask
    notebook               a slice at a time, resized to 256 x 256, the same weights
    nnunet                 nnU-Net v2, 2-D, random weights, the same spacing in plane; it takes part where it is
                           installed, without its worker processes, which one CT gains nothing from
    nnunet-once            that, without its mirroring

    python benchmarks/predict.py CT.nii.gz --bundle RUN
    python benchmarks/predict.py --contender monai --contender notebook    # a phantom of 512 x 512 x 1000 voxels

Masks are not cleaned, so that they can be compared. Ours is what the bundles that ship declare, whatever the run
declared when it was trained. Linux only.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

# Whatever is heavy is imported where it is used: the peak memory of a process begins with that of the one it came from.

COMMAND = "from liver_monai.cli import main; main()"
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
"""What ``keep_freed_memory`` sets, as glibc reads it from the environment."""
BATCH = 4
"""As in the bundles."""
NOTEBOOK_SIZE = (256, 256)
PHANTOM_MM = (0.75, 0.75, 1.0)
SHARE_OF_MEMORY = 0.75
"""Of what is free; who needs more fails alone instead of being one of those whom the kernel chooses from."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a contender gets: the files, and what it may take."""

    ct: Path
    bundle: Path
    out: Path
    threads: int
    limit_s: float
    limit_bytes: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a contender took, or why there is no mask.

    ``case_s`` and ``case_cpu_s`` begin when the network is loaded, which took ``loading_cpu_s``. ``n_passes`` is how
    many slabs a network was shown, ``n_liver`` how many of them between the ends of the liver. Where a contender does
    not tell, they are 0.
    """

    process_s: float
    cpu_s: float
    peak_mib: float
    case_s: float = 0.0
    case_cpu_s: float = 0.0
    loading_cpu_s: float = 0.0
    n_passes: int = 0
    n_liver: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Ours is the command that people type, with ``options``; of the others ``measure`` does the work and times it."""

    measure: Callable[[Job], dict[str, float]] | None = None
    options: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)


@click.command()
@click.argument("ct", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--bundle", default="mobilenet", show_default=True, help="A run, or a bundle: it gets random weights.")
@click.option("--shape", default="512,512,1000", show_default=True, metavar="X,Y,Z", help="Of the phantom.")
@click.option("--threads", default=os.cpu_count(), show_default="cores", help="Of each contender.")
@click.option("--repeats", default=3, show_default=True, help="Turns of each contender.")
@click.option("--contender", "wanted", multiple=True, help="Beside ours; repeatable.  [default: all that are here]")
@click.option("--limit-s", default=1800.0, show_default=True, help="Seconds that a contender may take.")
def main(
    ct: Path | None, bundle: str, shape: str, threads: int, repeats: int, wanted: Sequence[str], limit_s: float
) -> None:
    """Print seconds and memory of each contender, how they compare with ours, and whether the masks agree."""
    names = _choose(wanted)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if ct is None:
            ct = in_own_process(write_phantom, folder / "phantom.nii.gz", tuple(int(size) for size in shape.split(",")))
        network = in_own_process(copy_bundle, bundle, folder / "liver")
        in_own_process(copy_whole, folder / "liver", folder / "whole")
        limit_bytes = int(SHARE_OF_MEMORY * free_bytes())
        limits = {"threads": threads, "limit_s": limit_s, "limit_bytes": limit_bytes}
        bundles = {name: folder / ("whole" if name == WHOLE else "liver") for name in names}
        jobs = {name: Job(ct=ct, bundle=bundles[name], out=folder / "masks" / name, **limits) for name in names}
        print(f"{in_own_process(describe_ct, ct)}; {network}", flush=True)
        print(
            f"{threads} threads, {repeats} turns, at most {limit_bytes / 2**30:.1f} GiB each; load {os.getloadavg()[0]}"
        )
        runs = take_turns(jobs, repeats)
        for line in [*table(runs), *overheads(runs)]:
            print(line)
        for name in [name for name in names if name in COMPARED and not runs[name][-1].error]:
            print(f"Dice of {WHOLE} and {name}: {in_own_process(describe_dice, jobs[WHOLE].out, jobs[name].out)}")


def take_turns(jobs: dict[str, Job], repeats: int) -> dict[str, list[Run]]:
    """The runs of each; who failed once is not asked again."""
    if "ours-onnx" in jobs:
        run_apart("ours-onnx", jobs["ours-onnx"])  # makes the graph, which is kept beside the weights
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            if not any(run.error for run in runs[name]):
                runs[name].append(run_apart(name, job))
                print(f"  {name}: {runs[name][-1].process_s:.1f} s {runs[name][-1].error}", file=sys.stderr, flush=True)
    return runs


def run_apart(name: str, job: Job) -> Run:
    """Run a contender in a process, to its end or to its limits."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), **CONTENDERS[name].environment}
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(_command(name, job), stdout=stdout, stderr=stderr, env=environment)
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (job.limit_bytes, job.limit_bytes))
        alarm = threading.Timer(job.limit_s, process.kill)
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        used = {
            "process_s": time.perf_counter() - started,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024,
        }
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            is_late = used["process_s"] >= job.limit_s
            reason = "out of time" if is_late else (stderr.read().splitlines() or [f"code {process.returncode}"])[-1]
            return Run(**used, error=reason[:160])
        said = stdout.read()
    if CONTENDERS[name].measure is None:
        return Run(**used, case_s=json.loads(said)[0]["seconds"])
    return Run(**used, **json.loads(said.splitlines()[-1]))


def _command(name: str, job: Job) -> list[str]:
    contender = CONTENDERS[name]
    if contender.measure is not None:
        job_json = json.dumps(dataclasses.asdict(job), default=str)
        return [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--measure", name, job_json]
    paths = [str(job.ct), "--bundle", str(job.bundle), "-o", str(job.out)]
    return [
        sys.executable,
        "-c",
        COMMAND,
        "predict",
        *paths,
        "--device",
        "cpu",
        *contender.options,
        "--overwrite",
        "--json",
    ]


def in_own_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """So that this process stays small."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def free_bytes() -> int:
    """What the kernel could give without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


# What is printed


def table(runs: dict[str, list[Run]]) -> Iterator[str]:
    """A line a contender: medians, and ratios to ours in the same turn."""
    references = [name for name in OURS if name in runs and not runs[name][-1].error]
    heads = [f"of {name}: process, CPU" for name in references]
    yield f"{'':16}{'process s':>10}{'CPU s':>9}{'case s':>9}{'peak MiB':>10}{'passes':>8}  " + "".join(
        f"{head:>27}" for head in heads
    )
    for name, of_name in runs.items():
        last = of_name[-1]
        if last.error:
            yield f"{name:16}{last.error}; {last.peak_mib:.0f} MiB until then, {last.process_s:.0f} s"
            continue
        process_s, cpu_s, case_s, peak_mib = (
            statistics.median(getattr(run, figure) for run in of_name)
            for figure in ("process_s", "cpu_s", "case_s", "peak_mib")
        )
        ratios = "".join(
            f"{_ratio(of_name, runs[reference], 'process_s'):>20.2f}{_ratio(of_name, runs[reference], 'cpu_s'):7.2f}"
            for reference in references
        )
        passes = last.n_passes or ""
        yield f"{name:16}{process_s:10.1f}{cpu_s:9.1f}{case_s:9.1f}{peak_mib:10.0f}{passes:>8}  {ratios}"


def overheads(runs: dict[str, list[Run]]) -> Iterator[str]:
    """Ours against the limit: files and resampling count, imports and loading do not."""
    for name, limit in OURS.items():
        if limit in runs and not runs[name][-1].error and not runs[limit][-1].error:
            pairs = list(zip(runs[name], runs[limit], strict=True))
            by_case = [ours.case_s / network.case_s for ours, network in pairs]
            by_cpu = [(ours.cpu_s - network.loading_cpu_s) / network.case_cpu_s for ours, network in pairs]
            of_liver = pairs[0][1].n_passes / pairs[0][1].n_liver
            yield (
                f"{name} from file to mask / {limit}: {statistics.median(by_case):.2f} ({min(by_case):.2f} to "
                f"{max(by_case):.2f}), in CPU seconds {statistics.median(by_cpu):.2f}; / {limit} on the liver's "
                f"{pairs[0][1].n_liver} slabs alone: {statistics.median(by_case) * of_liver:.2f}, "
                f"{statistics.median(by_cpu) * of_liver:.2f}"
            )


def _ratio(runs: list[Run], references: list[Run], figure: str) -> float:
    pairs = zip(runs, references, strict=True)
    return statistics.median(getattr(run, figure) / getattr(reference, figure) for run, reference in pairs)


def describe_ct(ct: Path) -> str:
    """Size and spacing; all of it is read once, so that everybody finds it in the kernel's cache."""
    from liver_monai.io.files import file_hash
    from liver_monai.io.volumes import read_header

    file_hash(ct)
    header = read_header(ct)
    spacing = " x ".join(f"{mm:.2f}" for mm in header.spacing_mm)
    return f"{' x '.join(map(str, header.shape))} voxels of {spacing} mm"


def describe_dice(ours: Path, other: Path) -> str:
    """Of liver with tumours, and of tumours, and how many voxels differ."""
    import nibabel as nib
    import numpy as np

    masks = [np.asarray(nib.load(next(folder.glob("*.nii.gz"))).dataobj) for folder in (ours, other)]
    said = []
    for structure, label in (("liver", 1), ("tumour", 2)):
        a, b = (mask >= label for mask in masks)
        both = int(a.sum()) + int(b.sum())
        said.append(f"{structure} {2 * int((a & b).sum()) / both:.4f}" if both else f"no {structure} in either")
    return f"{', '.join(said)}; {int((masks[0] != masks[1]).sum())} voxels differ"


# What is segmented


def write_phantom(path: Path, shape: tuple[int, int, int]) -> Path:
    """A patient of few voxels, enlarged; noise as fresh for each slice as a scanner's, which compresses worst."""
    import nibabel as nib
    import numpy as np

    from liver_monai.data.phantom import make_phantom

    patient = make_phantom(seed=0, shape=(128, 128, 48), orientation="RAS")
    native_mm = np.linalg.norm(patient.affine[:3, :3], axis=0)
    x, y, z = (
        ((np.arange(size) - size / 2) * mm / own_mm + own / 2).astype(int).clip(0, own - 1)  # the ends go on
        for size, mm, own_mm, own in zip(shape, PHANTOM_MM, native_mm, patient.image.shape, strict=True)
    )
    generator = np.random.default_rng(0)
    voxels = np.empty(shape, np.int16, order="F")
    for plane, source in enumerate(z):
        noise = generator.normal(0, 20, shape[:2]).astype(np.int16)
        voxels[:, :, plane] = patient.image[:, :, source][np.ix_(x, y)] + noise
    nib.save(nib.Nifti1Image(voxels, np.diag([*PHANTOM_MM, 1.0])), path)
    return path


def copy_bundle(bundle: str, out: Path) -> str:
    """A bundle to try: no cleaning of masks, and weights, random ones if it has none. Says what it is."""
    import torch

    from liver_monai.io.files import write_json
    from liver_monai.model.bundle import find_bundle, read_config, read_spec
    from liver_monai.model.network import build_network
    from liver_monai.model.weights import save_weights

    shutil.copytree(find_bundle(bundle), out, ignore=shutil.ignore_patterns("store", "*.onnx"))
    path = out / "configs" / "inference.json"
    shipped = read_config(find_bundle("mobilenet") / "configs" / "inference.json")
    config = {**read_config(path), **{part: shipped[part] for part in ("preprocessing", "inferer", "postprocessing")}}
    rules = config["postprocessing"]
    config["postprocessing"] = {name: False if value is True else value for name, value in rules.items()}
    write_json(path, config)
    spec = read_spec(out)
    is_trained = (out / "models" / "model.pt").is_file()
    if not is_trained:
        torch.manual_seed(0)
        save_weights(build_network(spec), out / "models" / "model.pt", spec=spec)
    spacing = " x ".join(f"{mm:g}" for mm in spec.spacing_mm)
    return f"{spec.encoder}, slabs of {spec.slab_size} at {spacing} mm, {'trained' if is_trained else 'random'} weights"


def copy_whole(bundle: Path, out: Path) -> None:
    """The bundle without the search."""
    from liver_monai.model.bundle import override_bundle

    shutil.copytree(bundle, out)
    override_bundle(out, {"inferer#search": "whole"})


# Contenders


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Times a case: what came before was loading."""
    figures: dict[str, float] = {"loading_cpu_s": time.process_time()}
    started = time.perf_counter()
    yield figures
    figures["case_s"] = time.perf_counter() - started
    figures["case_cpu_s"] = time.process_time() - figures["loading_cpu_s"]


def run_network(job: Job, *, runtime: str = "torch") -> dict[str, float]:
    """A prediction shows which slabs there are; then the network has them again, alone and timed."""
    import torch

    from liver_monai.cohort import predict_cohort  # noqa: F401  # what the command loads counts as loading
    from liver_monai.engine.inference import load_model

    model = load_model(job.bundle, device="cpu", runtime=runtime)
    loading_cpu_s = time.process_time()
    seen: list[torch.Tensor] = []

    def witness(slabs: torch.Tensor) -> torch.Tensor:
        seen.append(slabs.clone())
        return model.network(slabs)

    mask = dataclasses.replace(model, network=witness).segment(job.ct)
    with torch.inference_mode(), stopwatch() as figures:
        for slabs in seen:
            model.network(slabs)
    n_passes = sum(len(slabs) for slabs in seen)
    n_liver = _slabs_of_liver(mask.meta["searched"], job) or n_passes
    return {**figures, "loading_cpu_s": loading_cpu_s, "n_passes": n_passes, "n_liver": n_liver}


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


CONTENDERS = {
    "ours": Contender(options=("--runtime", "torch")),
    "network": Contender(measure=run_network),
    "ours-onnx": Contender(options=("--runtime", "onnx")),
    "network-onnx": Contender(measure=run_network_onnx),
    "ours-whole": Contender(options=("--runtime", "torch")),
    "monai": Contender(measure=run_monai),
    "monai-allocator": Contender(measure=run_monai, environment=ALLOCATOR),
    "monai-grid": Contender(measure=run_monai_grid),
    "notebook": Contender(measure=run_notebook),
    "nnunet": Contender(measure=run_nnunet),
    "nnunet-once": Contender(measure=run_nnunet_once),
}
OURS = {"ours": "network", "ours-onnx": "network-onnx"}
"""And the limit of each."""
WHOLE = "ours-whole"
COMPARED = ("ours", "ours-onnx", "monai", "monai-grid")
"""Whose masks come from the same weights at the same spacing."""


def _choose(wanted: Sequence[str]) -> list[str]:
    here = [name for name in CONTENDERS if _is_here(name)]
    missing = [name for name in wanted if name not in here]
    if missing:
        raise click.UsageError(f"--contender {missing[0]}: is not here; here are {', '.join(here)}")
    return [name for name in here if name in ("ours", WHOLE) or not wanted or name in wanted]


def _is_here(name: str) -> bool:
    if name.startswith("nnunet"):
        return importlib.util.find_spec("nnunetv2") is not None
    if name.endswith("onnx"):
        return importlib.util.find_spec("onnxruntime") is not None
    return True


def _measure(name: str, job_json: str) -> None:
    warnings.simplefilter("ignore")
    said = json.loads(job_json)
    paths = {key: Path(said[key]) for key in ("ct", "bundle", "out")}
    measure = CONTENDERS[name].measure
    if measure is None:
        raise ValueError(f"{name} is a command")
    print(json.dumps(measure(Job(**{**said, **paths}))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        _measure(sys.argv[2], sys.argv[3])
    else:
        main()
