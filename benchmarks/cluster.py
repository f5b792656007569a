"""What does a cluster cost, how does it scale, and what breaks first when cases are many?

All of it runs on one machine: a scheduler and its workers are processes. Random weights, since time does not depend on
them, on one thread each.

    scaling   the same phantoms by this process, by one worker and by two; what starting takes is not counted
    overhead  tiny CTs by this process and by one worker: what a case costs beside its prediction, the worker being idle
              while its result is told and the next case is sent; and tasks that do nothing at all
    limits    a file written whole into a folder of ever more files, and a table written whole with ever more rows

    python benchmarks/cluster.py
    python benchmarks/cluster.py --part overhead --tiny 10000
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import psutil

from liver_monai.cluster import open_cluster
from liver_monai.cohort import predict_cohort
from liver_monai.data.cases import Case, find_images
from liver_monai.data.phantom import write_phantoms
from liver_monai.engine.inference import Choices, predict
from liver_monai.io.files import whole_file
from liver_monai.io.tables import write_rows
from liver_monai.model.bundle import copy_bundle, find_bundle, read_spec
from liver_monai.model.network import build_network
from liver_monai.model.weights import save_weights
from liver_monai.processes import Pool

PARTS = ("scaling", "overhead", "limits")
ON_CPU = Choices(device="cpu")
TINY, TINY_MM = (16, 16, 8), (20.0, 20.0, 10.0)
TINY_GRID = {"spec#roi_size": [32, 32], "spec#slab_size": 1, "spec#spacing_mm": list(TINY_MM)}
"""The CTs' own, or a thumb's breadth in a CT would be hundreds of windows."""


@click.command()
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Repeatable.  [default: all]")
@click.option("--cases", default=12, show_default=True, help="Phantoms of the part scaling.")
@click.option("--shape", default="256,256,80", show_default=True, metavar="X,Y,Z", help="Voxels of each.")
@click.option("--tiny", default=1000, show_default=True, help="CTs of the part overhead.")
@click.option("--files", default=100_000, show_default=True, help="At most, of the part limits.")
def main(parts: Sequence[str], cases: int, shape: str, tiny: int, files: int) -> None:
    """Print seconds; ratios hold between machines, seconds do not."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before this began")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not parts or "scaling" in parts:
            time_scaling(folder / "scaling", n=cases, shape=tuple(int(size) for size in shape.split(",")))
        if not parts or "overhead" in parts:
            time_overhead(folder / "overhead", n=tiny)
        if not parts or "limits" in parts:
            time_limits(folder / "limits", n_most=files)


def time_scaling(folder: Path, *, n: int, shape: tuple[int, ...]) -> None:
    """How much faster two workers are than one."""
    write_phantoms(folder / "cts", n_cases=n, shape=shape, seed=0)
    cases = find_images([folder / "cts"])
    bundle = make_bundle(folder / "bundle", {})
    costs = {"this process": cost_of_predicting(cases, bundle, folder / "alone", None)}
    for n_workers in (1, 2):
        with open_cluster(f"local:{n_workers}") as cluster:
            warm_up(cluster, n_workers, cases, bundle, folder)
            costs[f"workers: {n_workers}"] = cost_of_predicting(cases, bundle, folder / f"by{n_workers}", cluster)
    print(f"scaling: {n} phantoms of {' x '.join(map(str, shape))} voxels, mobilenet")
    for name, cost in costs.items():
        print(f"  {name:14}{cost}, {costs['workers: 1'].wall_ms / cost.wall_ms:5.2f} times as fast as one worker")


def time_overhead(folder: Path, *, n: int) -> None:
    """What a case costs beside its prediction."""
    write_tiny(folder / "cts", n)
    cases = find_images([folder / "cts"])
    bundle = make_bundle(folder / "bundle", TINY_GRID)
    print(f"overhead: {n} CTs of {' x '.join(map(str, TINY))} voxels")
    print(f"  this process            {cost_of_predicting(cases, bundle, folder / 'alone', None)}")
    with open_cluster("local:1") as cluster:
        warm_up(cluster, 1, cases, bundle, folder)
        print(f"  one worker              {cost_of_predicting(cases, bundle, folder / 'by1', cluster)}")
        out = folder / "cohort"
        with_files = cost(lambda: predict_cohort(cases, bundle=bundle, out=out, pool=cluster, say=len), n)
        print(f"  and cases.csv, record   {with_files}")
        tasks = [(number,) for number in range(n)]
        print(f"  tasks that do nothing   {cost(lambda: list(cluster.results(abs, tasks, killed=abs)), n)}")


def time_limits(folder: Path, *, n_most: int) -> None:
    """What grows with the number of cases, in this process alone."""
    print("limits: milliseconds")
    print(f"  {'cases':>9}{'a whole file':>16}{'cases.csv':>16}")
    n, there = 100, 0
    folder.mkdir()
    while n <= n_most:
        for number in range(there, n):
            (folder / f"{number}.nii.gz").touch()
        there = n
        rows = [{"case_id": f"liver_{number}", "status": "done", "mask": f"{number}.nii.gz"} for number in range(n)]
        costs = [
            median_ms(lambda: write_one(folder)),
            median_ms(lambda rows=rows: write_rows(folder / "cases.csv", rows)),
        ]
        print(f"  {n:9}{costs[0]:16.2f}{costs[1]:16.2f}")
        n *= 10


def write_one(folder: Path) -> None:
    """As a mask is."""
    with whole_file(folder / "0.nii.gz") as temporary:
        temporary.touch()


def median_ms(call: Callable[[], None]) -> float:
    """Of five calls."""
    times = []
    for _ in range(5):
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return 1000 * statistics.median(times)


def make_bundle(folder: Path, settings: dict[str, object]) -> Path:
    """The bundle mobilenet with random weights."""
    copy_bundle(find_bundle("mobilenet"), folder, settings)
    spec = read_spec(folder)
    save_weights(build_network(spec), folder / "models" / "model.pt", spec=spec, epoch=0)
    return folder


def write_tiny(folder: Path, n: int) -> None:
    """CTs that differ in nothing but their names."""
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(-1000, 1000, TINY).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([*TINY_MM, 1.0])), folder / "0.nii.gz")
    for number in range(1, n):
        shutil.copy(folder / "0.nii.gz", folder / f"{number}.nii.gz")


def warm_up(cluster: Pool, n_workers: int, cases: Sequence[Case], bundle: Path, folder: Path) -> None:
    """Let every worker import and load; a few cases more than workers, lest one does all."""
    some = cases[: 4 * n_workers]
    list(predict(some, bundle=bundle, out=folder / f"warm{n_workers}", choices=ON_CPU, pool=cluster))


def cost_of_predicting(cases: Sequence[Case], bundle: Path, out: Path, pool: Pool | None) -> Cost:
    """From the first result to the last, so that neither imports nor loading count."""
    stream = predict(cases, bundle=bundle, out=out, choices=ON_CPU, pool=pool)
    failed = [next(stream).error]
    found = cost(lambda: failed.extend(prediction.error for prediction in stream), len(cases) - 1)
    if any(failed):
        raise SystemExit(f"failed: {max(failed)}")
    return found


@dataclass(frozen=True)
class Cost:
    """Of a case: wall time, and processor time of all processes, which a busy machine changes less."""

    wall_ms: float
    cpu_ms: float

    def __str__(self) -> str:
        return f"{self.wall_ms:9.1f} ms a case, {self.cpu_ms:9.1f} ms of processors"


def cost(call: Callable[[], object], n: int) -> Cost:
    """Of one of ``n`` cases."""
    wall_s, cpu_s = time.perf_counter(), processor_s()
    call()
    return Cost(1000 * (time.perf_counter() - wall_s) / n, 1000 * (processor_s() - cpu_s) / n)


def processor_s() -> float:
    """Of this process and those that it has started."""
    times = [process.cpu_times() for process in (psutil.Process(), *psutil.Process().children(recursive=True))]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
