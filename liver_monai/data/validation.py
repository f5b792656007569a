"""Whole cases of the store, for validating while a network is trained."""

from __future__ import annotations

from pathlib import Path

from monai.data import MetaTensor

from liver_monai.data.cases import Case
from liver_monai.data.store import open_case
from liver_monai.data.transforms import hu_window
from liver_monai.spec import ModelSpec


class StoredVolume:
    """From a case to what ``preprocessing`` makes of its CT, up to the store's rounding to whole HU.

    The label stays on the CT's own grid: that is where a prediction is scored.

    Args:
        spec: grid and window.
        store: folder of the store.
    """

    def __init__(self, spec: ModelSpec, *, store: str | Path) -> None:
        self.spec = spec
        self.store = Path(store)
        self.window = hu_window(spec)

    def __call__(self, case: Case) -> dict[str, str | MetaTensor]:
        """``image`` ``(1, H, W, D)``, air 0 and dense bone 1, and ``label`` ``(1, X, Y, Z)``."""
        stored = open_case(case, spec=self.spec, folder=self.store)
        image = self.window({"image": stored.volume()})["image"]
        return {"case_id": case.case_id, "image": image, "label": stored.reference()}
