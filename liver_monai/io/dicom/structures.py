"""What a mask marks, as objects name and code it: the liver with its tumours, and these together or each alone.

Codes are those of SNOMED CT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from liver_monai.spec import LIVER, TUMOR

MAX_LESIONS = 20
"""With a name of their own, the largest first: libraries hold a volume for each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """A named part of a mask, and the voxels ``(X, Y, Z)`` that it has."""

    name: str
    marked: np.ndarray
    is_liver: bool = False

    @property
    def category(self) -> Code:
        """What kind of thing it is."""
        kind: Code = codes.SCT.Organ if self.is_liver else codes.SCT.MorphologicallyAbnormalStructure
        return kind

    @property
    def type(self) -> Code:
        """What it is."""
        what: Code = codes.SCT.Liver if self.is_liver else codes.SCT.Neoplasm
        return what


def structures(mask: np.ndarray, lesions: np.ndarray | None = None) -> Iterator[Structure]:
    """The liver, which includes its tumours, and all tumours or, by their numbers from 1, each of the first ones.

    Args:
        mask: ``(X, Y, Z)`` of ``LABELS``.
        lesions: ``(X, Y, Z)``, numbers from 1; what comes after ``MAX_LESIONS`` is one structure.
    """
    yield Structure(name="Liver", marked=mask >= LIVER, is_liver=True)
    if lesions is None:
        yield Structure(name="Tumour", marked=mask == TUMOR)
        return
    n_lesions = int(lesions.max(initial=0))
    for number in range(1, min(n_lesions, MAX_LESIONS) + 1):
        yield Structure(name=f"Tumour {number}", marked=lesions == number)
    if n_lesions > MAX_LESIONS:
        yield Structure(name="Further tumours", marked=lesions > MAX_LESIONS)
