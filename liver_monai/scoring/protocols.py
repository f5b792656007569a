"""Protocols: what a number stands for. This is the door to the scores of one case and of all of them together.

``lits`` is the rule of the LiTS challenge as it was meant, ``lits-2017`` its public scorer with its faults, ``msd`` the
classes of the Medical Segmentation Decathlon, ``seed`` the slice-level scores of 2D notebooks.
"""

from liver_monai.scoring.case import CaseScore, Counts, score_case
from liver_monai.scoring.rules import OVERLAP, PROTOCOLS, SEGMENTATION, THRESHOLDS, Protocol
from liver_monai.scoring.summary import mean_of_defined, summarize

__all__ = [
    "OVERLAP",
    "PROTOCOLS",
    "SEGMENTATION",
    "THRESHOLDS",
    "CaseScore",
    "Counts",
    "Protocol",
    "mean_of_defined",
    "score_case",
    "summarize",
]
