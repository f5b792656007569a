"""How much longer does a prediction take than its network alone?

Both are timed in one process, in turn, on the same slabs, and given as a ratio: absolute times differ between machines
and from minute to minute, the ratio does not. The network's own time is the limit: a ratio of 1 would mean that
reading, resampling, bringing back and writing cost nothing.

    python benchmarks/predict_overhead.py                       # a synthetic CT of 512 x 512 x 120 voxels
    python benchmarks/predict_overhead.py --ct CT.nii.gz --encoder resnet34
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from monai.data.utils import collate_meta_tensor_fn

from liver_monai.data.phantom import write_phantoms
from liver_monai.data.slabs import slab_view
from liver_monai.data.transforms import preprocessing
from liver_monai.engine.device import find_device, keep_freed_memory
from liver_monai.engine.inferer import SlabInferer
from liver_monai.engine.postprocess import postprocessing
from liver_monai.model.network import build_network
from liver_monai.spec import OUTPUT_STRIDE, ModelSpec

BATCH = 4


@click.command()
@click.option("--ct", type=click.Path(exists=True, path_type=Path), help="A CT; by default a synthetic one.")
@click.option("--encoder", default="mobilenet_v2", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(ct: Path | None, encoder: str, device: str, repeats: int) -> None:
    """Print the ratio of a whole prediction to the bare forward passes, and where the difference goes."""
    keep_freed_memory()
    target = find_device(device)
    spec = ModelSpec(encoder=encoder)
    network = build_network(spec).eval().to(target)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        if ct is None:
            write_phantoms(Path(folder) / "data", n_cases=1, shape=(512, 512, 120))
            ct = Path(folder) / "data" / "imagesTr" / "liver_000.nii.gz"
        runs = [_timed_run(ct, spec, network, target, Path(folder) / "masks") for _ in range(repeats)]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for name, seconds in medians.items():
        print(f"{name:32} {seconds:8.2f} s   {seconds / medians['network alone']:6.3f} of the network alone")
    ratios = [(sum(run.values()) - run["network alone"]) / run["network alone"] for run in runs]
    print(f"whole prediction / network alone {statistics.median(ratios):.3f}  ({min(ratios):.3f}-{max(ratios):.3f})")


def _timed_run(
    ct: Path, spec: ModelSpec, network: torch.nn.Module, device: torch.device, out: Path
) -> dict[str, float]:
    times = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        if device.type == "cuda":
            torch.cuda.synchronize()
        times[name] = time.perf_counter() - started
        started = time.perf_counter()

    volume = preprocessing(spec)({"image": str(ct)})["image"]
    lap("read, resample, window")
    mask = SlabInferer(spec, sw_batch_size=BATCH)(collate_meta_tensor_fn([volume]).to(device), network)
    lap("network, bring back, argmax")
    postprocessing(output_dir=out)({"pred": mask[0]})
    lap("write")
    slabs = slab_view(_padded(volume.as_tensor()[0]), spec.slab_size)
    for start in range(0, len(slabs), BATCH):
        network(slabs[start : start + BATCH].to(device))
    lap("network alone")
    return times


def _padded(volume: torch.Tensor) -> torch.Tensor:
    """In-plane sizes as the inferer gives them to the network."""
    missing = [-size % OUTPUT_STRIDE for size in volume.shape[:2]]
    return torch.nn.functional.pad(volume, (0, 0, 0, missing[1], 0, missing[0]))


if __name__ == "__main__":
    main()
