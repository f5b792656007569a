"""Segment a CT with an exported network, by ONNX Runtime, NumPy and nibabel alone.

    liver-monai export RUN -o liver.onnx
    python onnx_consumer.py liver.onnx ct.nii.gz mask.nii.gz      # 0 background, 1 liver, 2 tumour

Everything that depends on the network is read from the recipe in the file's metadata, so this program serves any run.
The mask is what ``liver-monai predict`` gives before it is cleaned:

    liver-monai predict ct.nii.gz --bundle liver.onnx -o OUT --search whole \\
        --set postprocessing#largest_component=false --set postprocessing#fill_holes=false

Cleaning needs connected components, which these three libraries lack; docs/export.md says what it does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnxruntime

RECIPE_KEY, VERSION = "liver_monai_recipe", 2


def segment(network: Path, ct: Path, out: Path) -> None:
    """Write the mask of a CT on the CT's own grid."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    recipe = json.loads(session.get_modelmeta().custom_metadata_map[RECIPE_KEY])
    if recipe["recipe"] != VERSION:
        raise SystemExit(f"{network}: has a recipe of version {recipe['recipe']}, this program knows {VERSION}")
    image = nib.load(ct)
    ras = nib.as_closest_canonical(image)  # axes right, anterior, superior; nothing is rotated
    hu = np.asarray(ras.dataobj, dtype=np.float32)
    spacing_mm = np.linalg.norm(ras.affine[:3, :3], axis=0)
    step = np.asarray(recipe["preprocessing"]["spacing_mm"]) / spacing_mm
    size = [max(1, round(n / s)) for n, s in zip(hu.shape, step, strict=True)]

    slices = window(resampled(hu, size, step), recipe["preprocessing"]["hu_window"])
    logits = np.concatenate([run(session, slab, recipe) for slab in slabs(slices, recipe)])[: slices.shape[2]]
    mask = labels_on_ct(np.moveaxis(logits, 0, -1), hu.shape, 1 / step)

    to_stored = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(image.affine))
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    nib.save(nib.Nifti1Image(nib.apply_orientation(mask, to_stored), image.affine, header), out)


def interpolation(n_out: int, n_in: int, step: float) -> np.ndarray:
    """Weights ``(n_out, n_in)`` of linear interpolation between grids of one centre, box-averaged where coarser.

    ``step`` is the spacing of the output in voxels of the input. The box is as wide as makes a voxel of the input as
    wide as one of the output: variances of boxes add up.
    """
    centres = (np.arange(n_out) - (n_out - 1) / 2) * step + (n_in - 1) / 2
    offsets = centres.clip(0, n_in - 1)[:, None] - np.arange(n_in)
    box = max(step**2 - 1, 0) ** 0.5
    if box > 1e-3:
        weights = hat_integral(offsets + box / 2) - hat_integral(offsets - box / 2)
    else:
        weights = (1 - abs(offsets)).clip(0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def hat_integral(x: np.ndarray) -> np.ndarray:
    """The integral up to ``x`` of the triangle from -1 over 0 to 1."""
    x = x.clip(-1, 1)
    return 0.5 + x - 0.5 * x * abs(x)


def resampled(volume: np.ndarray, size: list[int], step: np.ndarray) -> np.ndarray:
    """``(X, Y, Z)`` on the grid of the network: an axis after the other, the slices' first."""
    x, y, z = (interpolation(*sizes) for sizes in zip(size, volume.shape, step.tolist(), strict=True))
    return np.stack([x @ (volume @ weights) @ y.T for weights in z], axis=-1)


def window(hu: np.ndarray, limits: list[float]) -> np.ndarray:
    """HU -> 0 to 1."""
    low, high = limits
    return ((hu - low) / (high - low)).clip(0, 1).astype(np.float32)


def slabs(slices: np.ndarray, recipe: dict[str, Any]) -> Any:
    """``(slab, height, width)`` of each pass; the first and the last slice stand in for those beyond them."""
    outputs = recipe["inference"]["output_offsets"]
    for centre in range(-outputs[0], slices.shape[2] - outputs[0], len(outputs)):
        indices = np.clip(
            [centre + offset for offset in recipe["preprocessing"]["slab_offsets"]], 0, slices.shape[2] - 1
        )
        yield np.moveaxis(slices[:, :, indices], 2, 0)


def run(session: Any, slab: np.ndarray, recipe: dict[str, Any]) -> np.ndarray:
    """Logits ``(slice, label, height, width)`` of the slices in the slab's middle."""
    height, width = slab.shape[1:]
    multiple, limits = recipe["network"]["size_multiple"], recipe["inference"]["roi_size"]
    if any(size > 2 * limit for size, limit in zip((height, width), limits, strict=True)):
        raise SystemExit(f"slices of {height} x {width} voxels need overlapping windows; use liver-monai predict")
    missing = [-size % multiple for size in (height, width)]
    (above, below), (left, right) = ((each // 2, each - each // 2) for each in missing)
    padded = np.pad(slab, ((0, 0), (above, below), (left, right)))
    (logits,) = session.run(["pred"], {"image": padded[None]})
    cropped = logits[0, :, above : above + height, left : left + width]
    return cropped.reshape(-1, len(recipe["labels"]), height, width)


def labels_on_ct(logits: np.ndarray, shape: tuple[int, ...], step: np.ndarray) -> np.ndarray:
    """Logits ``(label, height, width, slices)`` -> labels ``(X, Y, Z)`` of the CT, a slice at a time."""
    x, y, z = (interpolation(*sizes) for sizes in zip(shape, logits.shape[1:], step.tolist(), strict=True))
    mask = np.zeros(shape, dtype=np.uint8)
    for index, weights in enumerate(z):
        mask[:, :, index] = (x @ (logits @ weights) @ y.T).argmax(axis=0)
    return mask


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python onnx_consumer.py NETWORK.onnx CT.nii.gz MASK.nii.gz")
    segment(*map(Path, sys.argv[1:]))
