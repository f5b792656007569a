"""What a protocol is made of: which structures, which measures, how lesions are found, what empty masks give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

from liver_monai.scoring import lits_2017
from liver_monai.scoring.lesions import Detection, OverlapTable, detect
from liver_monai.scoring.measures import MEASURES
from liver_monai.scoring.overlap import CLASSES

OVERLAP = ("dice", "iou")
SEGMENTATION = tuple(MEASURES)
"""Of the liver and of each lesion that is found."""
THRESHOLDS = {"overlap": 0.0, "iou_50": 0.5}
"""Name and IoU that the merged objects must exceed."""
SEGMENTED_AT = "iou_50"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a number stands for.

    Args:
        structures: labels of each structure.
        measures: of each structure, a case at a time.
        detect: rule by which lesions are found; ``None``: not looked for.
        undefined: what stands for a measure that is not defined; NaN is left out of means and counted.
        drops_empty: a case where both masks lack a structure says nothing about it, instead of being perfect.
        is_faulty: with the faults of the public LiTS scorer.
    """

    name: str
    structures: dict[str, tuple[int, ...]]
    measures: dict[str, tuple[str, ...]]
    detect: Callable[[OverlapTable, float], Detection] | None = None
    undefined: float = nan
    drops_empty: bool = False
    is_faulty: bool = False


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="lits",
            structures=CLASSES,
            measures={"liver": SEGMENTATION, "tumor": OVERLAP},
            detect=detect,
        ),
        Protocol(
            name="lits-2017",
            structures=CLASSES,
            measures={"liver": SEGMENTATION, "tumor": OVERLAP},
            detect=lits_2017.detect,
            undefined=lits_2017.UNDEFINED,
            is_faulty=True,
        ),
        Protocol(
            name="msd",
            structures={"liver": (1,), "tumor": (2,)},
            measures={"liver": ("dice", "nsd"), "tumor": ("dice", "nsd")},
            drops_empty=True,
        ),
        Protocol(name="seed", structures={}, measures={}),
    )
}
