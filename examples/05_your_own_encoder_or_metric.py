"""Two things that are yours to add without a change of the package: an encoder, and a measure.

python examples/05_your_own_encoder_or_metric.py OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from liver_monai.model.authoring import new_bundle, verify_bundle
from liver_monai.scoring.measures import MEASURES, MaskPair, Measure, measure


def volumetric_similarity(pair: MaskPair) -> float:
    """1 - ||P| - |R|| / (|P| + |R|) (Taha and Hanbury, BMC Medical Imaging 15, 2015)."""
    return 1 - abs(pair.n_prediction - pair.n_reference) / (pair.n_prediction + pair.n_reference)


def main(out: str) -> None:
    """Make a bundle in ``OUT``, and measure two masks."""
    bundle = new_bundle("mine", encoder="tu-mobilenetv3_small_050", folder=Path(out))
    for check in verify_bundle(bundle):
        print(f"{check.name}: {check.error or 'ok'}")

    MEASURES["vs"] = Measure(
        name="vs",
        title="volumetric similarity",
        unit="",
        best=1,
        worst=0,
        both_empty=1,
        one_empty=0,
        of=volumetric_similarity,
    )
    prediction, reference = (np.arange(10).reshape(1, 1, 10) < n for n in (6, 4))
    print(measure(MaskPair(prediction=prediction, reference=reference, spacing_mm=(1, 1, 1)), ["dice", "vs"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
