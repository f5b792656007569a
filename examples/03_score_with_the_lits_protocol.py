"""Score one mask by several protocols: the same mask, other numbers.

python examples/03_score_with_the_lits_protocol.py
"""

from __future__ import annotations

import numpy as np

from liver_monai.data.phantom import make_phantom
from liver_monai.scoring.protocols import score_case, summarize

SPACING_MM = (4.0, 4.0, 6.0)


def imperfect(reference: np.ndarray) -> np.ndarray:
    """A prediction: all of it a voxel off, and a tumour where there is none."""
    prediction = np.roll(reference, 1, axis=0)
    liver = np.argwhere(prediction == 1)
    x, y, z = liver[len(liver) // 8]
    prediction[x : x + 2, y : y + 2, z] = 2
    return prediction


def main() -> None:
    """Print Dice by protocol, and how many lesions are found."""
    phantom = make_phantom(seed=3, shape=(80, 80, 32), spacing_mm=SPACING_MM, orientation="RAS", n_tumors=4)
    reference = phantom.label
    prediction = imperfect(reference)
    for protocol in ("lits", "lits-2017", "msd"):
        case = score_case(prediction, reference, spacing_mm=SPACING_MM, protocol=protocol)
        scores = "  ".join(f"{name} {values['dice']:.3f}" for name, values in case.values.items())
        print(f"{protocol:10} Dice  {scores}")

    lits = score_case(prediction, reference, spacing_mm=SPACING_MM)
    found = summarize([lits])["lesion_detection"]["iou_50"]  # of a data set: a list of all cases
    print(f"lesions found {found['tp']} of {found['n_references']}, false positives {found['fp']}")
    print(f"surfaces lie {lits.values['liver']['assd_mm']:.2f} mm apart on average")

    seed = score_case(prediction, reference, spacing_mm=SPACING_MM, protocol="seed")
    accuracy, iou = seed.slices.mean(axis=0)
    print(f"a slice at a time: pixel accuracy {accuracy:.3f}, IoU {iou:.3f}")


if __name__ == "__main__":
    main()
