"""Measure every lesion of a mask, whoever made it, and write the page of one case.

python examples/04_findings_and_report.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from liver_monai import findings
from liver_monai.data.phantom import write_phantoms
from liver_monai.report.mask import report_mask


def main(out: str) -> None:
    """Leave ``OUT/findings/report.html``, and the same as JSON, CSV and text."""
    folder = Path(out)
    write_phantoms(folder / "data", n_cases=1, shape=(96, 96, 24), seed=1)
    ct, mask = (folder / "data" / kind / "liver_000.nii.gz" for kind in ("imagesTr", "labelsTr"))

    found = findings(mask, image=ct)
    for lesion in found.lesions:
        print(
            f"lesion {lesion.lesion_id}: {lesion.volume_ml:.1f} mL, "
            f"{lesion.longest.length_mm:.0f} x {lesion.perpendicular.length_mm:.0f} mm, "
            f"{lesion.contrast_hu or 0:+.0f} HU against the liver around it"
        )
    print(f"{len(found.lesions)} lesions in {found.liver_ml:.0f} mL of liver")

    report_mask(mask, image=ct, out=folder / "findings")


if __name__ == "__main__":
    main(*sys.argv[1:])
