"""Draw the README's picture from a finished ``liver-monai demo``: ``python docs/overview.py demo-run CASE_ID``."""

from __future__ import annotations

import sys
from pathlib import Path

from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.report.overlays import draw_overlays

run, case_id = Path(sys.argv[1]), sys.argv[2]
ct = read_volume(run / "test" / "imagesTr" / f"{case_id}.nii.gz")
folders = {"reference": run / "test" / "labelsTr", "prediction": run / "masks"}
masks = {name: read_mask(folder / f"{case_id}.nii.gz")[0].numpy() for name, folder in folders.items()}
picture = draw_overlays(ct[0].numpy(), masks, affine=ct.affine.numpy(), n_slices=3)
Path(__file__).with_name("overview.png").write_bytes(picture)
