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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from predict_contenders import MEASURES, Job

# Whatever is heavy is imported where it is used: the peak memory of a process begins with that of the one it came from.

COMMAND = "from liver_monai.cli import main; main()"
OURS = {
    "ours": ("--runtime", "torch"),
    "ours-onnx": ("--runtime", "onnx"),
    "ours-whole": ("--runtime", "torch", "--search", "whole"),
}
"""Options of the command."""
WHOLE = "ours-whole"
LIMITS = ("network", "network-onnx")
COMPARED = ("ours", "ours-onnx", "monai", "monai-grid")
"""Whose masks come from the same weights at the same spacing."""
CONTENDERS = (*OURS, *MEASURES)
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
"""What ``keep_freed_memory`` sets, as glibc reads it from the environment."""
PHANTOM_MM = (0.75, 0.75, 1.0)
SHARE_OF_MEMORY = 0.75
"""Of what is free; who needs more fails alone instead of being one of those whom the kernel chooses from."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a contender took, or why there is no mask. What a contender does not tell is 0.

    ``case_s`` and ``case_cpu_s`` begin when the network is loaded. A bare network tells ``n_passes``, how many slabs it
    was shown, ``n_liver``, how many of them between the ends of the liver, and what the prediction took, from file to
    mask and in the same process, that showed them to it.
    """

    process_s: float
    cpu_s: float
    peak_mib: float
    case_s: float = 0.0
    case_cpu_s: float = 0.0
    prediction_s: float = 0.0
    prediction_cpu_s: float = 0.0
    n_passes: int = 0
    n_liver: int = 0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a contender may take."""

    threads: int
    seconds: float
    n_bytes: int


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
        network = in_own_process(copy_bundle, bundle, folder / "bundle")
        limits = Limits(threads=threads, seconds=limit_s, n_bytes=int(SHARE_OF_MEMORY * free_bytes()))
        jobs = {name: Job(ct=ct, bundle=folder / "bundle", out=folder / "masks" / name) for name in names}
        print(f"{in_own_process(describe_ct, ct)}; {network}", flush=True)
        print(
            f"{threads} threads, {repeats} turns, {limits.n_bytes / 2**30:.1f} GiB each; load {os.getloadavg()[0]:.1f}"
        )
        runs = take_turns(jobs, repeats, limits)
        for line in [*table(runs), *overheads(runs)]:
            print(line)
        for name in [name for name in names if name in COMPARED and not runs[name][-1].error]:
            print(f"Dice of {WHOLE} and {name}: {in_own_process(describe_dice, jobs[WHOLE].out, jobs[name].out)}")


def take_turns(jobs: dict[str, Job], repeats: int, limits: Limits) -> dict[str, list[Run]]:
    """The runs of each; who failed once is not asked again."""
    if "ours-onnx" in jobs:
        run_apart("ours-onnx", jobs["ours-onnx"], limits)  # makes the graph, which is kept beside the weights
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            if not any(run.error for run in runs[name]):
                runs[name].append(run_apart(name, job, limits))
                print(f"  {name}: {runs[name][-1].process_s:.1f} s {runs[name][-1].error}", file=sys.stderr, flush=True)
    return runs


def run_apart(name: str, job: Job, limits: Limits) -> Run:
    """Run a contender in a process, to its end or to its limits."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(limits.threads),
        **(ALLOCATOR if name == "monai-allocator" else {}),
    }
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(_command(name, job), stdout=stdout, stderr=stderr, env=environment)
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (limits.n_bytes, limits.n_bytes))
        alarm = threading.Timer(limits.seconds, process.kill)
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
            is_late = used["process_s"] >= limits.seconds
            return Run(**used, error="out of time" if is_late else _first_error(stderr.read()))
        said = stdout.read()
    if name in OURS:
        return Run(**used, case_s=json.loads(said)[0]["seconds"])
    return Run(**used, **json.loads(said.splitlines()[-1]))


def _first_error(complaint: str) -> str:
    """What was raised first; what is printed last is what libraries have wrapped around it."""
    lines = complaint.splitlines() or ["ended without a word, maybe by the kernel for want of memory"]
    return next((line for line in lines if re.match(r"\w+Error: ", line)), lines[-1])[:160]


def _command(name: str, job: Job) -> list[str]:
    if name not in OURS:
        script = str(Path(__file__).with_name("predict_contenders.py").resolve())
        return [sys.executable, "-W", "ignore", script, name, json.dumps(dataclasses.asdict(job), default=str)]
    paths = [str(job.ct), "--bundle", str(job.bundle), "-o", str(job.out)]
    return [sys.executable, "-c", COMMAND, "predict", *paths, *OURS[name], "--device", "cpu", "--overwrite", "--json"]


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
    references = [name for name in ("ours", "ours-onnx") if name in runs and not runs[name][-1].error]
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
    for name in [name for name in LIMITS if name in runs and not runs[name][-1].error]:
        last = runs[name][-1]
        by_clock = statistics.median(run.prediction_s / run.case_s for run in runs[name])
        by_cpu = statistics.median(run.prediction_cpu_s / run.case_cpu_s for run in runs[name])
        share = last.n_liver / last.n_passes
        yield (
            f"from file to mask / {name}: {by_clock:.2f}, in CPU seconds {by_cpu:.2f}; if it saw nothing but the "
            f"{last.n_liver} slabs of the liver: {by_clock / share:.2f}, {by_cpu / share:.2f}"
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


if __name__ == "__main__":
    main()
