"""Draw the README's picture from a finished demo: ``python docs/overview.py demo-run CASE_ID docs/overview.png``."""

from __future__ import annotations

import sys
from pathlib import Path

from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.report.canvas import figure_png
from liver_monai.report.overlays import overlay_figure

run, case_id, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
ct = read_volume(run / "test" / "imagesTr" / f"{case_id}.nii.gz")
folders = {"reference": run / "test" / "labelsTr", "prediction": run / "masks"}
masks = {name: read_mask(folder / f"{case_id}.nii.gz")[0].numpy() for name, folder in folders.items()}
out.write_bytes(figure_png(overlay_figure(ct[0].numpy(), masks, affine=ct.affine.numpy(), n_slices=3)))
