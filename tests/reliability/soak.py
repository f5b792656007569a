"""Many CTs in one process: ``PYTHONPATH=.:tests python tests/reliability/soak.py -n 500 -o soak.csv``.

Small phantoms of several shapes in every format, one in six broken, go through ``predict`` one after the other.
Resident memory and open file descriptors after each are written to ``-o``; their course is told on standard output.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from dicom_export import export
from mutation import mutated

from liver_monai.data.cases import Case, find_images
from liver_monai.data.phantom import make_phantom
from liver_monai.engine.inference import Choices, predict
from liver_monai.errors import InputError
from liver_monai.io.itk import build_itk, write_itk
from liver_monai.io.nifti import build_nifti
from liver_monai.io.tables import write_table
from liver_monai.model.bundle import copy_bundle, find_bundle, read_spec
from liver_monai.model.network import build_network
from liver_monai.model.weights import save_weights

COARSE = {"spec#slab_size": 3, "spec#spacing_mm": [5, 5, 10], "spec#roi_size": [48, 48]}
SHAPES = ((48, 40, 16), (64, 64, 12), (56, 64, 24), (80, 64, 20))
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", "", ".zip")
"""Without one it is a folder of DICOM files."""
BROKEN_EVERY = 6
WARM_UP = 20
"""Predictions before which libraries are still being loaded."""


def soak(folder: Path, *, n: int, seed: int = 0, bundle: Path | None = None) -> list[tuple[str, int, int]]:
    """For each CT what became of it, resident memory in bytes and open file descriptors after it."""
    cases = write_cts(folder / "cts", n=n, seed=seed)
    bundle = bundle or untrained_bundle(folder / "bundle")
    rows = []
    for done in predict(cases, bundle=bundle, out=folder / "out", choices=Choices(device="cpu")):
        rows.append((done.status, resident_bytes(), len([*Path("/proc/self/fd").iterdir()])))
        if done.mask is not None:
            done.mask.unlink()
    return rows


def write_cts(folder: Path, *, n: int, seed: int) -> list[Case]:
    """CTs of distinct names; a broken one may be no CT already when it is looked for."""
    folder.mkdir(parents=True)
    cases: list[Case] = []
    for path in _written(folder, n=n, rng=random.Random(seed)):
        try:
            cases += find_images([path])
        except InputError:
            cases.append(Case(case_id=path.name.partition(".")[0], image=path))
    return cases


def _written(folder: Path, *, n: int, rng: random.Random) -> Iterator[Path]:
    phantoms = [make_phantom(seed=number, shape=shape) for number, shape in enumerate(SHAPES)]
    for index in range(n):
        phantom, suffix = rng.choice(phantoms), SUFFIXES[index % len(SUFFIXES)]
        path = folder / f"ct{index:05d}{suffix}"
        write_ct(path, np.asarray(phantom.image), phantom.affine)
        if rng.randrange(BROKEN_EVERY) == 0:
            file = rng.choice(sorted(path.iterdir())) if path.is_dir() else path
            file.write_bytes(mutated(file.read_bytes(), rng, name=file.name))
        yield path


def write_ct(path: Path, hu: np.ndarray, affine: np.ndarray) -> None:
    """In the format of its suffix."""
    import nibabel as nib

    if ".nii" in path.name:
        nib.save(build_nifti(hu, affine), path)
    elif path.suffix in (".nrrd", ".mha"):
        write_itk(build_itk(hu, affine), path)
    elif not path.suffix:
        export(path, hu, affine)
    else:
        series = path.with_suffix("")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in export(series, hu, affine).iterdir():
                archive.write(file, file.name)
        shutil.rmtree(series)


def untrained_bundle(folder: Path) -> Path:
    """Of a small network on a coarse grid: what it marks is of no matter here."""
    copy_bundle(find_bundle("mobilenet"), folder, COARSE)
    spec = read_spec(folder)
    save_weights(build_network(spec), folder / "models" / "model.pt", spec=spec)
    return folder


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def course(rows: Sequence[tuple[str, int, int]]) -> dict[str, float]:
    """How memory and descriptors went: growth by least squares over the second half, in KB a prediction."""
    half = rows[len(rows) // 2 :]
    resident_kb = np.array([n_bytes / 1024 for _, n_bytes, _ in half])
    after_start = [n_open for _, _, n_open in rows[min(WARM_UP, len(rows) // 2) :]]
    return {
        "n": len(rows),
        "done": sum(status == "done" for status, _, _ in rows),
        "failed": sum(status == "failed" for status, _, _ in rows),
        "kb_a_prediction": round(float(np.polyfit(np.arange(len(half)), resident_kb, 1)[0]), 2),
        "half_mb": round(resident_kb[0] / 1024, 1),
        "end_mb": round(resident_kb[-1] / 1024, 1),
        "least_descriptors": min(after_start),
        "most_descriptors": max(after_start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="CTs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", type=Path, help="a trained run; by default a network with random weights")
    parser.add_argument("-o", "--out", type=Path, default=Path("soak.csv"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder), n=options.n, seed=options.seed, bundle=options.bundle)
    write_table(options.out, rows, columns=("status", "resident_bytes", "descriptors"))
    sys.stdout.write(json.dumps({**course(rows), "seconds": round(time.monotonic() - started_s)}) + "\n")


if __name__ == "__main__":
    main()
