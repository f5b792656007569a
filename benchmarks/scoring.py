"""How much faster is the whole LiTS protocol here than the same figures from other libraries, and in how much memory?

Every library gets the same masks of 512 x 512 x 600 voxels, and computes what it can of: Dice of liver and tumour;
ASSD, Hausdorff distance and its 95th percentile of the liver; the lesions found at IoU > 0.5, and the same figures of
each. Each runs in a process of its own, which measures its processor time, so that whatever else runs on the machine
counts little, and the memory it needs beyond the masks; the ratios come from one run. MONAI, MedPy and surface-distance
know no lesions: to them goes the box around each one that SciPy finds. Who does not finish in time is at least so many
times slower. "read" reads both masks once and does nothing else: no scorer can be faster.

    python benchmarks/scoring.py                                              # minutes
    python benchmarks/scoring.py --library monai --lesions 10 --limit-s 3600  # one of them, with more patience

Run it with OMP_NUM_THREADS=1 for ratios of one core. panoptica needs NumPy below 2.3, and takes part where it is there.
What it computes (2.1.7) agrees with ours to rounding where the definition is the same: Dice, IoU, Hausdorff distance
with the surface of the six neighbours; its ASSD is the mean of the two directions' means, its HD95 the percentile of
both directions together, its RVD relative to the reference, and its lesions are 26-connected and never merged.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

SHAPE = (512, 512, 600)
BOX = (slice(100, 400), slice(130, 390), slice(200, 420))
SPACING_MM = (0.75, 0.75, 1.0)
LIBRARIES = ("read", "surface-distance", "medpy", "monai", "panoptica")
N_OURS = 3
"""Ours is short enough to run several times; the fastest counts, as whatever else runs only slows it down."""
PREPARATION_S = 30.0
"""To import a library and to draw the masks; it comes on top of the limit."""


@click.command()
@click.option("--lesions", "n_lesions", multiple=True, type=int, default=(1, 10, 200), show_default=True)
@click.option("--library", "libraries", multiple=True, type=click.Choice(LIBRARIES), default=LIBRARIES)
@click.option("--limit-s", default=120.0, show_default=True, help="Seconds that each library may take.")
def main(n_lesions: Sequence[int], libraries: Sequence[str], limit_s: float) -> None:
    """Print seconds and memory of each library, and how they compare with ours."""
    for n in n_lesions:
        ours = min((_run_apart("ours", n, limit_s=limit_s) for _ in range(N_OURS)), key=lambda run: run["seconds"])
        print(f"{n:4} lesions  {'ours':17} {_figures(ours)}", flush=True)
        for library in libraries:
            print(f"{n:4} lesions  {library:17} {_compare(_run_apart(library, n, limit_s=limit_s), ours)}", flush=True)


def _run_apart(library: str, n_lesions: int, *, limit_s: float) -> dict[str, Any]:
    """What the process said; its time starts when masks are drawn and code is loaded, and so does its limit."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--measure", library, str(n_lesions)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s + PREPARATION_S)
    except subprocess.TimeoutExpired:
        return {"limit_s": limit_s}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _figures(run: dict[str, Any]) -> str:
    return (
        f"{run['seconds']:8.2f} s  {run['bytes_per_voxel']:6.1f} bytes a voxel of the box"
        f"  liver Dice {run['dice']:.4f}, ASSD {run['assd_mm']:.3f} mm"
    )


def _compare(run: dict[str, Any], ours: dict[str, Any]) -> str:
    if "error" in run:
        return str(run["error"])
    if "limit_s" in run:
        ratio = run["limit_s"] / ours["seconds"]
        return f"not finished in {run['limit_s']:.0f} s: at least {ratio:.0f} times slower"
    ratios = [run[key] / ours[key] for key in ("seconds", "bytes_per_voxel")]
    return f"{_figures(run)}  ({ratios[0]:.2f} and {ratios[1]:.1f} times ours)"


def _measure(library: str, n_lesions: int) -> None:
    warnings.simplefilter("ignore")
    compute = _importer(library)()
    prediction, reference = draw_masks(n_lesions)
    if library == "ours":  # page in the code, as the others do with their imports
        compute(prediction[:4, :4, :4], reference[:4, :4, :4])
    before = _peak_bytes()
    started = time.process_time()
    dice, assd_mm = compute(prediction, reference)
    seconds = time.process_time() - started
    n_voxels = np.prod([axis.stop - axis.start for axis in BOX])
    said = {
        "seconds": seconds,
        "bytes_per_voxel": float((_peak_bytes() - before) / n_voxels),
        "dice": float(dice),
        "assd_mm": float(assd_mm),
    }
    print(json.dumps(said))


def _peak_bytes() -> int:
    """Most memory this process has held so far; drawing the masks below takes no more than the masks."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def draw_masks(n_lesions: int) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with lesions of 4 to 12 voxels, the prediction shifted and resized a little."""
    masks = [np.zeros(SHAPE, dtype=np.uint8) for _ in range(2)]
    for mask in masks:
        mask[...] = 0  # touch every page now
    generator = np.random.default_rng(0)
    size = np.array([axis.stop - axis.start for axis in BOX])
    centres = _spots(generator, n_lesions, size)
    radii = generator.uniform(2, 6, (n_lesions, 3))
    for mask, shift, scale in zip(masks, (1.0, 0.0), (0.98, 1.0), strict=True):
        liver = mask[BOX]
        _fill(liver, size / 2 + shift, (size / 2 - 3) * scale, 1)
        for centre, radius in zip(centres, radii, strict=True):
            _fill(liver, centre + shift, radius * scale, 2)
    return masks[0], masks[1]


def _spots(generator: np.random.Generator, n: int, size: np.ndarray) -> np.ndarray:
    """Places on a grid inside of the ellipsoid, at least 18 voxels apart, so that no two lesions touch."""
    grid = np.stack(np.meshgrid(*[np.arange(-0.5, 0.5, 18 / each) for each in size], indexing="ij"), -1).reshape(-1, 3)
    inside = grid[(grid**2).sum(axis=1) < 0.4**2]
    return np.asarray((generator.permutation(inside)[:n] + 0.5) * size)


def _fill(mask: np.ndarray, centre: np.ndarray, radii: np.ndarray, label: int) -> None:
    low = np.maximum(np.floor(centre - radii).astype(int), 0)
    high = np.minimum(np.ceil(centre + radii).astype(int) + 1, mask.shape)
    x, y, z = (((np.arange(a, b) - c) / r) ** 2 for a, b, c, r in zip(low, high, centre, radii, strict=True))
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    for index, distance in enumerate(x):  # a plane at a time, to need no memory
        part[index][distance + y[:, None] + z[None] <= 1] = label


Compute = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def _importer(library: str) -> Callable[[], Compute]:
    return {
        "ours": _ours,
        "read": _read,
        "medpy": _medpy,
        "surface-distance": _surface_distance,
        "monai": _monai,
        "panoptica": _panoptica,
    }[library]


def _ours() -> Compute:
    from liver_monai.scoring.protocols import score_case

    def compute(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        values = score_case(prediction, reference, spacing_mm=SPACING_MM).values["liver"]
        return values["dice"], values["assd_mm"]

    return compute


def _read() -> Compute:
    def compute(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        for mask in (prediction, reference):
            for plane in mask:
                plane.max()
        return np.nan, np.nan

    return compute


def _medpy() -> Compute:
    from medpy.metric import binary

    def figures(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        options = {"voxelspacing": SPACING_MM, "connectivity": 2}
        binary.hd(prediction, reference, **options)
        binary.hd95(prediction, reference, **options)
        return binary.dc(prediction, reference), binary.assd(prediction, reference, **options)

    return _with_lesions(figures, dice_of=lambda p, r: float(binary.dc(p, r)))


def _surface_distance() -> Compute:
    import surface_distance

    def figures(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        found = surface_distance.compute_surface_distances(reference, prediction, SPACING_MM)
        surface_distance.compute_robust_hausdorff(found, 95)
        surface_distance.compute_robust_hausdorff(found, 100)
        surface_distance.compute_surface_dice_at_tolerance(found, 2.0)
        assd_mm = np.mean(surface_distance.compute_average_surface_distance(found))
        return surface_distance.compute_dice_coefficient(reference, prediction), float(assd_mm)

    return _with_lesions(figures, dice_of=lambda p, r: float(surface_distance.compute_dice_coefficient(r, p)))


def _monai() -> Compute:
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric

    def figures(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        options = {"spacing": list(SPACING_MM)}
        HausdorffDistanceMetric()(*masks, **options)
        HausdorffDistanceMetric(percentile=95)(*masks, **options)
        SurfaceDiceMetric([2.0])(*masks, **options)
        assd_mm = SurfaceDistanceMetric(symmetric=True)(*masks, **options).item()
        return dice_of(prediction, reference), assd_mm

    def dice_of(prediction: np.ndarray, reference: np.ndarray) -> float:
        masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        return float(DiceMetric()(*masks).item())

    return _with_lesions(figures, dice_of=dice_of)


def _panoptica() -> Compute:
    from panoptica import ConnectedComponentsInstanceApproximator, InputType, NaiveThresholdMatching
    from panoptica import Panoptica_Evaluator as Evaluator

    def compute(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        matching = {
            "instance_approximator": ConnectedComponentsInstanceApproximator(),
            "instance_matcher": NaiveThresholdMatching(),
        }
        evaluator = Evaluator(expected_input=InputType.SEMANTIC, **matching)
        results = []
        for first in (1, 2):  # liver with its tumours, then the lesions
            masks = [(mask >= first).astype(np.uint8) for mask in (prediction, reference)]
            found = evaluator.evaluate(*masks, voxelspacing=SPACING_MM, verbose=False)["ungrouped"]
            results.append((found.sq_dsc, found.sq_assd))
        return results[0]

    return compute


def _with_lesions(figures: Compute, *, dice_of: Callable[[np.ndarray, np.ndarray], float]) -> Compute:
    """The liver's figures, then those of each lesion in a box of its own."""
    from scipy import ndimage

    def compute(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        result = figures(prediction >= 1, reference >= 1)
        lesions = [mask == 2 for mask in (prediction, reference)]
        dice_of(*lesions)
        labels, _ = ndimage.label(lesions[1])
        for box in ndimage.find_objects(labels):
            wider = tuple(slice(max(axis.start - 3, 0), axis.stop + 3) for axis in box)
            if lesions[0][wider].any():
                figures(lesions[0][wider], lesions[1][wider])
        return result

    return compute


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        _measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()
