"""Is a mask plausible, and was its CT one? What ``check`` looks for in data sets, asked of a prediction."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from monai.data import MetaTensor

from liver_monai.data.cases import Case
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.data.checks.measures import Blocks
from liver_monai.data.checks.table import check_case
from liver_monai.io.volumes import last_axis_first

OF_VALUES = frozenset(("not-hu", "clipped", "coarse-steps"))
OF_HEADER = frozenset(("unknown-spacing", "odd-spacing", "short-scan", "turned", "back-to-front", "upside-down"))
OF_MASK = frozenset(("empty-label", "liver-volume", "liver-parts", "liver-cut", "mirrored"))
"""Names in ``data.checks.table``: where one of these finds something, the mask may be wrong without a sign."""


class Plausibility:
    """What is doubtful about a CT; its voxels are not kept.

    Args:
        volume: ``(1, X, Y, Z)`` HU as they were stored; of one that is on the model grid already nothing is said.
        case: of the CT.
    """

    def __init__(self, volume: MetaTensor, case: Case) -> None:
        self._case = case
        self._affine = np.asarray(volume.meta["original_affine"], dtype=np.float64)
        self._blocks: Blocks | None = None
        self._warnings: list[str] = []
        if "oriented_shape" not in volume.meta:
            loaded = LoadedCase.of_arrays(case, last_axis_first(volume[0].as_tensor().numpy()), affine=self._affine)
            self._warnings = _warnings(loaded, OF_VALUES | OF_HEADER)
            self._blocks = loaded.blocks

    def warnings(self, mask: MetaTensor) -> tuple[str, ...]:
        """``"name: what was seen"`` of the CT and of its mask ``(1, X, Y, Z)``, which lies on its grid."""
        return (*self._warnings, *warnings_of_mask(mask, self._case, blocks=self._blocks))


def warnings_of_mask(mask: MetaTensor, case: Case, *, blocks: Blocks | None = None) -> list[str]:
    """What is doubtful about a mask alone and, where the ``blocks`` of its CT are known, about their fit."""
    labels = last_axis_first(mask[0].as_tensor().numpy())
    loaded = LoadedCase.of_arrays(case, labels, affine=np.asarray(mask.affine, dtype=np.float64), label=labels)
    if blocks is None:
        return _warnings(loaded, OF_MASK - {"mirrored"})
    loaded.blocks = blocks.with_mask(labels, affine=loaded.affine)
    return _warnings(loaded, OF_MASK)


def _warnings(loaded: LoadedCase, names: Iterable[str]) -> list[str]:
    return [f"{finding.check}: {finding.message}" for finding in check_case(loaded, only=names)]
