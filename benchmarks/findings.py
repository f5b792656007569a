"""How long do the findings of a large scan take, beside what it takes just to read its mask?

The mask has 512 x 512 x 600 voxels, a liver and lesions of 4 to 12 voxels, as in ``scoring.py``; it is read from a
compressed NIfTI file. Seconds are processor time, and the ratios come from one run.

    OMP_NUM_THREADS=1 python benchmarks/findings.py --lesions 200
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import nibabel as nib
import numpy as np
from scoring import SHAPE, SPACING_MM, draw_masks

from liver_monai.io.volumes import read_mask
from liver_monai.report.measurement import find_findings


@click.command()
@click.option("--lesions", "n_lesions", default=200, show_default=True)
def main(n_lesions: int) -> None:
    """Print seconds without and with a CT, and how they compare with reading."""
    _, mask = draw_masks(n_lesions)
    affine = np.diag([*SPACING_MM, 1.0])
    image = np.full(SHAPE, 100, dtype=np.int16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii.gz"
        nib.save(nib.Nifti1Image(mask, affine), path)
        read_s = _seconds(lambda: read_mask(path))
    print(f"read the mask        {read_s:6.2f} s")
    for name, given in (("findings", None), ("findings with a CT", image)):
        seconds = _seconds(lambda given=given: find_findings(mask, affine, image=given))
        print(f"{name:20} {seconds:6.2f} s, {seconds / read_s:.2f} times")


def _seconds(compute: Callable[[], object]) -> float:
    started = time.process_time()
    compute()
    return time.process_time() - started


if __name__ == "__main__":
    main()
