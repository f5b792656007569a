"""From a network's mask to the mask that is kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, SaveImaged

from liver_monai.engine.cleaning import clean_mask
from liver_monai.errors import InputError
from liver_monai.io.masks import write_mask
from liver_monai.io.volumes import Source, strip_suffix


class CleanMaskd(MapTransform):
    """``clean_mask`` for dictionaries of ``(1, X, Y, Z)`` masks; ``rules`` are its keyword arguments."""

    def __init__(self, keys: KeysCollection, **rules: Any) -> None:
        super().__init__(keys)
        self.rules = rules

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clean every key."""
        return {**data, **{key: self._clean(data[key]) for key in self.key_iterator(data)}}

    def _clean(self, mask: MetaTensor) -> MetaTensor:
        voxel_mm3 = abs(float(np.linalg.det(np.asarray(mask.affine)[:3, :3])))
        cleaned = clean_mask(mask[0].cpu().numpy(), voxel_mm3=voxel_mm3, **self.rules)
        return MetaTensor(torch.from_numpy(cleaned)[None], meta=mask.meta)


class SaveImageMaskd(SaveImaged):
    """Write masks as ``<name of the CT>.nii.gz``, or as their meta data's ``result_name``, with their CT's geometry.

    MONAI's own ``SaveImaged`` drops the header's units and codes and hides a writer's error in a traceback; nothing
    of it is used. Its type and its name are kept because MONAI Label, by the type, and MONAI Deploy, by the name, know
    the transform that their own writers take the place of.
    """

    def __init__(self, keys: KeysCollection, *, output_dir: str | Path) -> None:
        MapTransform.__init__(self, keys)
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Write every key; the data pass through."""
        for key in self.key_iterator(data):
            mask, meta = data[key], data[key].meta
            ct = meta["filename_or_obj"]
            path = mask_path(ct, self.output_dir, name=meta.get("result_name", ""))
            affine = np.asarray(mask.affine, dtype=np.float64)
            write_mask(mask[0].cpu().numpy(), path, ct=ct, affine=affine)
        return data


def mask_path(ct: Source, output_dir: Path, *, name: str = "") -> Path:
    """Where the mask of a CT goes, by the CT's own name if no other is given.

    Raises:
        InputError: it would take the place of the CT itself.
    """
    path = output_dir / f"{name or strip_suffix(Path(str(ct)).name)}.nii.gz"
    if path.resolve() == Path(str(ct)).resolve():
        raise InputError(f"{output_dir}: is the folder of {ct}, which its mask would replace; choose another -o")
    return path


def postprocessing(*, output_dir: str | Path | None, **rules: Any) -> Compose:
    """Clean the mask under ``pred`` by ``clean_mask``'s rules and save it to ``output_dir``, if one is given."""
    save = [] if output_dir is None else [SaveImageMaskd("pred", output_dir=output_dir)]
    return Compose([CleanMaskd("pred", **rules), *save])
