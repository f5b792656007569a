"""Synthetic CT of the upper abdomen with a liver and its tumors, for tests, demonstrations and rehearsals.

A phantom is anatomy in millimetres (``anatomy``), contrast (``tissue``) and tumors
(``tumors``), sampled on the grid of a scan and given noise. The same seed is the same patient on every grid.
Nothing in it comes from a real scan, and nothing learnt from it holds for patients.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from tqdm import tqdm

from liver_monai.data.phantom.anatomy import draw_anatomy
from liver_monai.data.phantom.scan import ORIENTATIONS, Scan, acquire, draw_scan, is_orientation
from liver_monai.data.phantom.shapes import FloatArray
from liver_monai.data.phantom.tissue import draw_tissues, paint_patient
from liver_monai.data.phantom.tumors import Tumor, draw_tumors, paint_tumors
from liver_monai.io.files import whole_file, write_json
from liver_monai.processes import open_pool
from liver_monai.spec import LABELS, LIVER, TUMOR


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """A synthetic CT and what is known about it.

    Args:
        image: Hounsfield units, ``(X, Y, Z)`` int16 in the stored orientation.
        label: 0 background, 1 liver, 2 tumor, ``(X, Y, Z)`` uint8.
        affine: voxel indices to RAS world mm, ``(4, 4)`` float64.
        truth: JSON types: ``seed, phase, spacing_mm, orientation, liver_ml`` (tumors included) and ``tumors``, each
            with ``center_mm`` (RAS world), ``radius_mm`` (of the ball of its volume), ``volume_ml`` and
            ``contrast_hu`` (its mean less that of the liver, without noise), all measured on the drawn label.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    truth: dict[str, Any]


def make_phantom(
    *,
    seed: int,
    shape: tuple[int, int, int] = (192, 192, 64),
    spacing_mm: tuple[float, float, float] | None = None,
    orientation: str | None = None,
    n_tumors: int | None = None,
) -> Phantom:
    """A synthetic CT; equal arguments give equal bits.

    Args:
        seed: decides on the patient; another shape, spacing or orientation shows the same patient.
        shape: voxels along the patient's left-right, front-back and foot-head axis.
        spacing_mm: along the same axes; ``None`` draws one that shows the whole body and the whole liver.
        orientation: any of NIfTI's axis codes, such as ``"LPS"``; ``None`` draws RAS, LAS or LPS.
        n_tumors: ``None`` draws 0 to 6. Fewer are drawn where the liver has no room for more.

    Raises:
        ValueError: a negative seed or count, a size or spacing that is not positive, or an unknown orientation.
    """
    _check(seed=seed, shape=shape, spacing_mm=spacing_mm, orientation=orientation, n_tumors=n_tumors)
    # One stream per concern: what is asked of the scan must not change the patient.
    patient, lesions, scanner, noise = (np.random.default_rng([seed, stream]) for stream in range(4))
    anatomy, tissues = draw_anatomy(patient), draw_tissues(patient)
    tumors = draw_tumors(lesions, anatomy, phase=tissues.phase, count=n_tumors)
    code = orientation or str(scanner.choice(ORIENTATIONS))
    scan = draw_scan(scanner, anatomy, shape=shape, spacing_mm=spacing_mm)

    canvas = paint_patient(anatomy, tissues, anatomy.points(scan.axes))
    numbers = paint_tumors(canvas, tumors, liver_hu=tissues.hu["liver"], texture=tissues.clouds)
    label = np.where(numbers > 0, TUMOR, np.where(canvas.liver > 0.5, LIVER, 0)).astype(np.uint8)
    truth = {
        "seed": seed,
        "phase": tissues.phase,
        "spacing_mm": list(scan.spacing_mm),
        "orientation": code,
        "liver_ml": _volume_ml(label > 0, scan),
        "tumors": _describe_tumors(tumors, numbers, label=label, hu=canvas.hu, scan=scan),
    }
    image = acquire(scanner, noise, canvas.hu, scan)
    return Phantom(
        image=scan.stored(image, code), label=scan.stored(label, code), affine=scan.affine(code), truth=truth
    )


def _check(
    *,
    seed: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] | None,
    orientation: str | None,
    n_tumors: int | None,
) -> None:
    rules = (
        ("seed", seed, seed >= 0, "0 or more"),
        ("shape", shape, len(shape) == 3 and min(shape) > 0, "three positive numbers of voxels"),
        ("spacing_mm", spacing_mm, spacing_mm is None or (len(spacing_mm) == 3 and min(spacing_mm) > 0), "positive"),
        ("n_tumors", n_tumors, n_tumors is None or n_tumors >= 0, "0 or more"),
        ("orientation", orientation, orientation is None or is_orientation(orientation), "three axis codes like LPS"),
    )
    for name, value, holds, rule in rules:
        if not holds:
            raise ValueError(f"{name} is {value!r}; it must be {rule}")


def _volume_ml(mask: NDArray[np.bool_], scan: Scan) -> float:
    return round(float(mask.sum()) * float(np.prod(scan.spacing_mm)) / 1000, 3)


def _describe_tumors(
    tumors: list[Tumor], numbers: NDArray[np.uint8], *, label: NDArray[np.uint8], hu: FloatArray, scan: Scan
) -> list[dict[str, Any]]:
    """Measurements of the tumors that own at least one voxel."""
    liver_hu = float(hu[label == LIVER].mean()) if (label == LIVER).any() else 0.0
    described = []
    for number in range(1, len(tumors) + 1):
        mask = numbers == number
        if not mask.any():
            continue
        volume_ml = _volume_ml(mask, scan)
        centre = apply_affine(scan.affine("RAS"), np.argwhere(mask).mean(axis=0))
        described.append(
            {
                "center_mm": [round(float(value), 2) for value in centre],
                "radius_mm": round((3000 * volume_ml / (4 * np.pi)) ** (1 / 3), 2),
                "volume_ml": volume_ml,
                "contrast_hu": round(float(hu[mask].mean()) - liver_hu, 1),
            }
        )
    return described


def write_phantoms(out: Path, *, n_cases: int, shape: tuple[int, int, int] = (192, 192, 64), seed: int = 0) -> Path:
    """Write a dataset of phantoms in the Medical Segmentation Decathlon's layout.

    Args:
        out: folder; gets ``imagesTr``, ``labelsTr``, ``phantoms.json`` (the truths by case) and ``dataset.json``.
        n_cases: how many.
        shape: of every volume.
        seed: of the first; case ``i`` has ``seed + i``.

    Returns:
        ``dataset.json``, which is written last: where it is, the dataset is whole.
    """
    names = [f"liver_{number:03d}" for number in range(n_cases)]
    write = partial(_write_case, out, seed=seed, shape=shape)
    workers = min(os.cpu_count() or 1, n_cases)
    with open_pool(workers) as pool:
        truths = list(tqdm(pool.map(write, names, range(n_cases)), total=n_cases, desc="drawing", disable=None))
    write_json(out / "phantoms.json", dict(zip(names, truths, strict=True)))
    write_json(out / "dataset.json", _dataset(names))
    return out / "dataset.json"


def _write_case(out: Path, name: str, number: int, *, seed: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    phantom = make_phantom(seed=seed + number, shape=shape)
    _write_volume(out / "imagesTr" / f"{name}.nii.gz", phantom.image, phantom.affine)
    _write_volume(out / "labelsTr" / f"{name}.nii.gz", phantom.label, phantom.affine)
    return phantom.truth


def _write_volume(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    with whole_file(path) as temporary:
        nib.save(image, temporary)


def _dataset(names: list[str]) -> dict[str, Any]:
    return {
        "name": "Synthetic liver",
        "description": "Computer-generated phantoms of the abdomen with liver and liver tumours; no patient data",
        "licence": "CC0-1.0",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(value): name for value, name in LABELS.items()},
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
