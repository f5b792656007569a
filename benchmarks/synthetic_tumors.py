"""What do synthetic tumours look like, and what do they cost?

Tumours of several kinds are drawn into a phantom's liver, each shown in the five slices of a slab; then slabs with one
tumour each are timed by its radius.

    python benchmarks/synthetic_tumors.py -o docs/synthetic_tumors.png
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np

from liver_monai.data.phantom import make_phantom
from liver_monai.data.synthetic_tumors import RandLiverTumord
from liver_monai.spec import LIVER, TUMOR

SPACING_MM = (1.5, 1.5, 3.0)
SLAB = 5
"""As in the bundles."""
ROI_SIZE = (256, 256)
PHANTOM_SEED = 4
FIELD_MM = 105.0

KINDS_MM_HU = ((5, -60), (10, -28), (14, -60), (20, -80), (26, -55), (10, 40))
"""Radius, and contrast to the liver."""

Slab = dict[str, np.ndarray]


@click.command()
@click.option("-o", "out", default="docs/synthetic_tumors.png", show_default=True, type=click.Path(path_type=Path))
@click.option("--reads", default=40, show_default=True, help="Slabs timed for each radius.")
def main(out: Path, reads: int) -> None:
    """Draw the contact sheet and print the cost of a tumour."""
    slabs = phantom_slabs()
    draw_sheet(out, slabs)
    print(f"wrote {out}")
    print(f"one tumour in a slab of {SLAB} x {ROI_SIZE[0]} x {ROI_SIZE[1]}, ms of processor time")
    for radius_mm in (4, 8, 16, 32):
        times = time_slabs(slabs, radius_mm=radius_mm, reads=reads)
        print(f"  {radius_mm:3d} mm   median {statistics.median(times):5.1f}   most {max(times):5.1f}")


def phantom_slabs() -> list[Slab]:
    """Slabs through the liver of a phantom that has no tumour."""
    phantom = make_phantom(
        seed=PHANTOM_SEED, shape=(*ROI_SIZE, 72), spacing_mm=SPACING_MM, orientation="RAS", n_tumors=0
    )
    image, label = (array.transpose(2, 0, 1) for array in (phantom.image.astype(np.float32), phantom.label))
    middles = [z for z in range(SLAB // 2, len(label) - SLAB // 2) if np.count_nonzero(label[z] == LIVER) > 4000]
    around = [slice(z - SLAB // 2, z + SLAB // 2 + 1) for z in middles]
    return [{"image": image[part], "label": label[part]} for part in around]


def draw_sheet(out: Path, slabs: list[Slab]) -> None:
    """A row a kind of tumour: the slice before, the slab's slices after, and the label."""
    figure, axes = plt.subplots(
        len(KINDS_MM_HU), SLAB + 2, figsize=(2 * (SLAB + 2), 2 * len(KINDS_MM_HU)), layout="constrained"
    )
    titles = ("before", *(f"{(index - SLAB // 2) * SPACING_MM[2]:+.0f} mm" for index in range(SLAB)), "label")
    for column, title in zip(axes[0], titles, strict=True):
        column.set_title(title, fontsize=9)
    for row, (radius_mm, contrast_hu) in zip(axes, KINDS_MM_HU, strict=True):
        before, after = drawn(slabs, radius_mm=radius_mm, contrast_hu=contrast_hu)
        field = field_around(after["label"][SLAB // 2] == TUMOR)
        for column, plane in zip(row, (before["image"][SLAB // 2], *after["image"]), strict=False):
            column.imshow(plane[field].T, cmap="gray", vmin=0, vmax=200, origin="lower")
        row[-1].imshow(after["label"][SLAB // 2][field].T, cmap="gray", vmin=0, vmax=2, origin="lower")
        row[0].set_ylabel(f"{radius_mm} mm, {contrast_hu:+d} HU", fontsize=9)
    for column in axes.flat:
        column.set(xticks=[], yticks=[])
    figure.savefig(out, dpi=64, pil_kwargs={"optimize": True})


def drawn(slabs: list[Slab], *, radius_mm: float, contrast_hu: float) -> tuple[Slab, Slab]:
    """A slab and the same with a tumour as asked for: the first that chance gives."""
    strength = (abs(contrast_hu), abs(contrast_hu))
    tumors = RandLiverTumord(
        spacing_mm=SPACING_MM,
        prob=1.0,
        count=(1, 1),
        radius_mm=(radius_mm, radius_mm),
        darker_hu=strength,
        brighter_hu=strength,
    )
    rng = np.random.default_rng(radius_mm)
    while True:
        before = slabs[rng.integers(len(slabs))]
        after = tumors.set_random_state(int(rng.integers(2**32)))(before)
        is_tumor = after["label"] == TUMOR
        area_mm2 = np.count_nonzero(is_tumor[SLAB // 2]) * SPACING_MM[0] * SPACING_MM[1]
        if area_mm2 < 1.8 * radius_mm**2:
            continue
        if np.sign(np.mean((after["image"] - before["image"])[is_tumor])) == np.sign(contrast_hu):
            return before, after


def field_around(is_tumor: np.ndarray) -> tuple[slice, ...]:
    """``FIELD_MM`` of a slice with the tumour in the middle."""
    half = int(FIELD_MM / 2 / SPACING_MM[0])
    middles = (int(np.mean(index)) for index in np.nonzero(is_tumor))
    firsts = (min(max(middle - half, 0), size - 2 * half) for middle, size in zip(middles, ROI_SIZE, strict=True))
    return tuple(slice(first, first + 2 * half) for first in firsts)


def time_slabs(slabs: list[Slab], *, radius_mm: float, reads: int) -> list[float]:
    """Milliseconds that one tumour takes in each of several slabs."""
    tumors = RandLiverTumord(spacing_mm=SPACING_MM, prob=1.0, count=(1, 1), radius_mm=(radius_mm, radius_mm))
    tumors.set_random_state(0)(slabs[0])
    times = []
    for index in range(reads):
        started_s = time.process_time()
        tumors(slabs[index % len(slabs)])
        times.append(1000 * (time.process_time() - started_s))
    return times


if __name__ == "__main__":
    main()
