"""What does a slab cost: from our store, from MONAI's data sets, from the file itself? And what share of a step is it?

Every way of reading has a process of its own and reads the same random slabs of one noisy CT. Ratios hold between
machines, milliseconds do not. Then the sampler and the augmentation are timed beside the training step that they feed.
Memory is read from /proc: Linux only.

    python benchmarks/store.py                              # 512 x 512 x 400 voxels, the step of resnet34
    python benchmarks/store.py --shape 256,256,100 --threads 1 --encoder mobilenet_v2
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset, PersistentDataset
from monai.losses import DiceCELoss

from liver_monai.data.cases import Case
from liver_monai.data.draws import SlabDataset
from liver_monai.data.store import build_store
from liver_monai.data.transforms import augmentation, model_grid
from liver_monai.engine.device import keep_freed_memory
from liver_monai.model.network import build_network
from liver_monai.spec import LIVER, TUMOR, ModelSpec

SLAB = 5
BATCH = 16
"""As in the bundles."""
SPACING_MM = (0.75, 0.75, 1.5)
N_CASES = 500
"""Cases that the sampler draws from; more than any public data set has."""

Reader = Callable[[int], np.ndarray]


@click.command()
@click.option("--shape", default="512,512,400", show_default=True, metavar="X,Y,Z")
@click.option("--reads", default=100, show_default=True, help="Random slabs; slow ways of reading get a tenth.")
@click.option("--encoder", default="resnet34", show_default=True)
@click.option("--threads", default=2, show_default=True, help="Of the training step.")
@click.option("--steps", default=3, show_default=True, help="Training steps timed.")
def main(shape: str, reads: int, encoder: str, threads: int, steps: int) -> None:
    """Print the cost of random slabs by way of reading, and the sampler's share of a training step."""
    x, y, z = (int(size) for size in shape.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_ct(folder, (x, y, z))
        print(f"random slabs of {SLAB} slices, {x} x {y} x {z} voxels, int16")
        print(f"{'':28}{'ms':>9}{'time':>9}{'on disk':>9}{'peak MB':>9}   (of the store's, of .nii's, beside Python)")
        results = {name: in_own_process(time_reader, name, folder, z, reads) for name in READERS}
        for name, (ms, size, peak_mb) in results.items():
            ratios = ms / results["store (blosc2 LZ4)"][0], size / (2 * x * y * z)
            print(f"{name:28}{ms:9.2f}{ratios[0]:9.2f}{ratios[1]:9.2f}{peak_mb:9.0f}")
        print()
        for line in in_own_process(time_training, folder, encoder, threads, steps):
            print(line)


def write_ct(folder: Path, shape: tuple[int, int, int]) -> None:
    """A body of noise with a liver and a tumour; noise is what compresses worst."""
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    image = np.where(x**2 + (1.3 * y) ** 2 < 0.8, np.int16(50), np.int16(-1000)) + np.zeros_like(z, dtype=np.int16)
    for plane in range(shape[2]):
        image[:, :, plane] += rng.normal(0, 20, shape[:2]).astype(np.int16)
    label = np.where((x - 0.3) ** 2 + y**2 + z**2 < 0.2, LIVER, 0).astype(np.uint8)
    label[(x - 0.4) ** 2 + y**2 + z**2 < 0.01] = TUMOR
    affine = np.diag([*SPACING_MM, 1])
    nib.save(nib.Nifti1Image(image, affine), folder / "ct.nii")
    nib.save(nib.Nifti1Image(image, affine), folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(label, affine), folder / "mask.nii.gz")


def the_case(folder: Path) -> Case:
    """The CT and its mask."""
    return Case(case_id="ct", image=folder / "ct.nii", label=folder / "mask.nii.gz")


def native_spec(**values: Any) -> ModelSpec:
    """The grid of the CT, so that the store holds all of its voxels."""
    return ModelSpec(**{"encoder": "resnet34", "spacing_mm": SPACING_MM, "slab_size": SLAB, **values})


def from_store(folder: Path) -> tuple[Reader, Path]:
    """Ours."""
    (stored,) = build_store([the_case(folder)], spec=native_spec(), folder=folder / "store")
    return lambda z: stored.slab(z, slab_size=SLAB), stored.folder / "image.b2nd"


def from_npy(folder: Path) -> tuple[Reader, Path]:
    """A memory map, slices first."""
    path = folder / "ct.npy"
    if not path.exists():
        np.save(path, np.ascontiguousarray(np.asanyarray(nib.load(folder / "ct.nii").dataobj).transpose(2, 0, 1)))
    slices = np.load(path, mmap_mode="r")
    return lambda z: np.array(slices[z - SLAB // 2 : z + SLAB // 2 + 1]), path


def from_nifti(name: str) -> Callable[[Path], tuple[Reader, Path]]:
    """The file, opened and read for each slab, as a transform would."""

    def read(folder: Path, z: int) -> np.ndarray:
        return np.asarray(nib.load(folder / name).dataobj[:, :, z - SLAB // 2 : z + SLAB // 2 + 1])

    return lambda folder: (lambda z: read(folder, z), folder / name)


def from_monai(dataset_type: type, **options: Any) -> Callable[[Path], tuple[Reader, Path]]:
    """MONAI's data sets give whole volumes; the slab is cut from them."""

    def begin(folder: Path) -> tuple[Reader, Path]:
        extra = {"cache_dir": folder / "persistent"} if dataset_type is PersistentDataset else {}
        items = [the_case(folder).to_item()]
        dataset = dataset_type(items, transform=model_grid(native_spec()), **options, **extra)
        dataset[0]
        files = list((folder / "persistent").glob("*")) if extra else []

        def read(z: int) -> np.ndarray:
            slab: np.ndarray = np.array(dataset[0]["image"][0, :, :, z - SLAB // 2 : z + SLAB // 2 + 1])
            return slab

        return read, files[0] if files else folder / "nothing"

    return begin


READERS: dict[str, Callable[[Path], tuple[Reader, Path]]] = {
    "store (blosc2 LZ4)": from_store,
    ".npy memory map": from_npy,
    ".nii": from_nifti("ct.nii"),
    ".nii.gz": from_nifti("ct.nii.gz"),
    "MONAI PersistentDataset": from_monai(PersistentDataset),
    "MONAI CacheDataset": from_monai(CacheDataset, progress=False),
}
SLOW = (".nii.gz", "MONAI PersistentDataset")


def in_own_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """So that no way of reading profits from, or pays for, another's memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def time_reader(name: str, folder: Path, n_slices: int, reads: int) -> tuple[float, int, float]:
    """Median milliseconds, bytes on disk, and the peak of memory while reading, what is made before left out."""
    in_own_process(make, name, folder)  # what is written once is written by another process
    torch.set_num_threads(1)
    before_mb = peak_memory_mb()
    read, path = READERS[name](folder)
    n_reads = max(3, reads // 10) if name in SLOW else reads
    times = []
    for z in np.random.default_rng(1).integers(SLAB, n_slices - SLAB, n_reads):
        started = time.perf_counter()
        read(int(z))
        times.append(time.perf_counter() - started)
    size = path.stat().st_size if path.exists() else 0
    return 1000 * statistics.median(times), size, peak_memory_mb() - before_mb


def make(name: str, folder: Path) -> None:
    """Leave on disk what a way of reading needs; a cache in memory leaves nothing."""
    if name != "MONAI CacheDataset":
        READERS[name](folder)


def peak_memory_mb() -> float:
    """Of this process, up to now. ``getrusage`` would count what the parent had when it started this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def time_training(folder: Path, encoder: str, threads: int, steps: int) -> list[str]:
    """The sampler's and the augmentation's time for a batch as shares of the step that takes it."""
    spec = native_spec(encoder=encoder)
    keep_freed_memory()
    torch.set_num_threads(threads)
    before_mb = peak_memory_mb()
    dataset = SlabDataset(
        [the_case(folder)], spec=spec, folder=folder / "store", n_samples=1, transform=lambda item: item
    )
    dataset.cases = [copy.deepcopy(dataset.cases[0]) for _ in range(N_CASES)]
    drawn = [timed(lambda number=number: dataset[number]) for number in range(4 * BATCH)]
    sampler_mb = peak_memory_mb() - before_mb
    augment = augmentation(spec)
    augmented = [timed(lambda item=item: augment(copy.copy(item))) for _, item in drawn]
    stored = dataset.cases[0]
    centres = np.random.default_rng(0).integers(stored.shape[0], size=4 * BATCH).tolist()
    parts = {
        "  its slab, read and decompressed": [timed(lambda z=z: stored.slab(z, slab_size=SLAB))[0] for z in centres],
        "  its label": [timed(lambda z=z: stored.label(z, z + 1))[0] for z in centres],
    }
    step_s = time_step(spec, [item for _, item in augmented[:BATCH]], steps)
    rows = {
        f"step, {encoder}, {threads} threads": step_s,
        "sampler": BATCH * statistics.median(seconds for seconds, _ in drawn),
        **{name: BATCH * statistics.median(seconds) for name, seconds in parts.items()},
        "augmentation": BATCH * statistics.median(seconds for seconds, _ in augmented),
    }
    lines = [f"a batch of {BATCH} slabs of {SLAB} x {spec.roi_size[0]} x {spec.roi_size[1]}"]
    lines += [
        f"{name:36}{1000 * seconds:10.0f} ms{seconds / step_s:9.1%} of the step" for name, seconds in rows.items()
    ]
    return [*lines, f"the sampler of {N_CASES} cases took {sampler_mb:.0f} MB beside Python's own {before_mb:.0f} MB"]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what the call returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def time_step(spec: ModelSpec, items: list[dict[str, torch.Tensor]], steps: int) -> float:
    """Median seconds of a training step, the first left out: it warms up."""
    network = build_network(spec).train()
    optimizer = torch.optim.AdamW(network.parameters())
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    image, label = (torch.stack([item[name] for item in items]) for name in ("image", "label"))

    def step() -> None:
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()

    return statistics.median([timed(step)[0] for _ in range(steps + 1)][1:])


if __name__ == "__main__":
    main()
