"""The store: cases on the model grid, kept as memory maps so that a slab is read without its volume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from monai.utils import get_seed
from torch.utils.data import Dataset
from tqdm import tqdm

from liver_monai.data.cases import Case
from liver_monai.data.slabs import slab_indices
from liver_monai.data.transforms import augmentation, model_grid
from liver_monai.io.files import whole_file, write_json
from liver_monai.spec import LIVER, TUMOR, ModelSpec

CENTRED_ON = {TUMOR: 0.5, LIVER: 0.35, None: 0.15}
"""How often a slab is centred on a tumour voxel, on a liver voxel, or anywhere: half on lesions as H-DenseUNet
(Li, IEEE TMI 2018), and slices without liver so that false positives are seen in training."""


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """One case of the store: int16 HU and uint8 labels, both ``(D, H, W)`` memory maps, slices first."""

    case_id: str
    image: np.ndarray
    label: np.ndarray
    slices_with: dict[int, np.ndarray]


def build_store(cases: Sequence[Case], *, spec: ModelSpec, folder: str | Path) -> list[StoredCase]:
    """Bring every case to the model grid once; what is stored already under the same grid and source is kept."""
    folder = Path(folder)
    to_grid = model_grid(spec)
    stored = []
    for case in tqdm(cases, desc="preparing", unit="case", disable=None):
        key = _key(case, spec)
        if not _is_stored(folder, case, key):
            _write_case(folder, case, key, to_grid(case.to_item()))
        stored.append(_open_case(folder, case))
    return stored


def _key(case: Case, spec: ModelSpec) -> str:
    """Changes whenever the stored arrays would: other files, other grid."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (case.image, case.label) if path]
    return hashlib.sha256(repr((files, spec.spacing_mm)).encode()).hexdigest()


def _is_stored(folder: Path, case: Case, key: str) -> bool:
    listing = folder / f"{case.case_id}.json"
    return listing.is_file() and json.loads(listing.read_text(encoding="utf-8"))["key"] == key


def _write_case(folder: Path, case: Case, key: str, item: dict[str, np.ndarray]) -> None:
    """The listing is written last: a case is stored when it is there."""
    limits = np.iinfo(np.int16)
    image = np.asarray(item["image"])[0].transpose(2, 0, 1)
    label = np.asarray(item["label"])[0].transpose(2, 0, 1)
    arrays = {"image": image.round().clip(limits.min, limits.max).astype(np.int16), "label": label}
    for name, array in arrays.items():
        with whole_file(folder / f"{case.case_id}.{name}.npy") as temporary:
            np.save(temporary, np.ascontiguousarray(array))
    slices_with = {value: np.flatnonzero((label == value).any(axis=(1, 2))).tolist() for value in (LIVER, TUMOR)}
    write_json(folder / f"{case.case_id}.json", {"key": key, "slices_with": slices_with})


def _open_case(folder: Path, case: Case) -> StoredCase:
    listing = json.loads((folder / f"{case.case_id}.json").read_text(encoding="utf-8"))
    return StoredCase(
        case_id=case.case_id,
        image=np.load(folder / f"{case.case_id}.image.npy", mmap_mode="r"),
        label=np.load(folder / f"{case.case_id}.label.npy", mmap_mode="r"),
        slices_with={int(value): np.asarray(slices) for value, slices in listing["slices_with"].items()},
    )


class SlabDataset(Dataset[dict[str, torch.Tensor]], Randomizable):  # type: ignore[misc]  # MONAI is untyped
    """Random slabs of a store: ``image`` ``(slab_size, H, W)`` and the centre slice's ``label`` ``(1, H, W)``.

    Args:
        data: cases to draw from, each equally often.
        spec: slab_size and roi_size.
        transform: applied to each slab; by default ``augmentation(spec)``.
        n_samples: slabs an epoch.
    """

    def __init__(
        self,
        data: Sequence[Case],
        *,
        spec: ModelSpec,
        folder: str | Path,
        n_samples: int,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.spec = spec
        self.cases = build_store(data, spec=spec, folder=folder)
        self.transform = augmentation(spec) if transform is None else transform
        self.n_samples = n_samples
        self.set_random_state(seed=get_seed())

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        case = self.cases[self.R.randint(len(self.cases))]
        value, z = self._draw_slice(case)
        label = np.asarray(case.label[z])
        corner = self._draw_corner(label, value)
        slices = slab_indices(z, n_slices=len(case.image), slab_size=self.spec.slab_size)
        slab = np.stack([_crop(case.image[source], corner, self.spec.roi_size, fill=-1024) for source in slices])
        label = _crop(label, corner, self.spec.roi_size, fill=0)
        item: dict[str, torch.Tensor] = self.transform({"image": slab.astype(np.float32), "label": label[None]})
        return item

    def _draw_slice(self, case: StoredCase) -> tuple[int | None, int]:
        """The class to centre on and a slice that holds it; where the case lacks the class, any slice."""
        value = list(CENTRED_ON)[self.R.choice(len(CENTRED_ON), p=list(CENTRED_ON.values()))]
        slices = case.slices_with.get(value, np.empty(0, dtype=int)) if value is not None else np.empty(0, dtype=int)
        if len(slices) == 0:
            return None, int(self.R.randint(len(case.image)))
        return value, int(self.R.choice(slices))

    def _draw_corner(self, label: np.ndarray, value: int | None) -> tuple[int, int]:
        """First voxel of the crop: around a voxel of the class, inside of the slice where the slice is large enough."""
        if value is None:
            centre = [int(self.R.randint(size)) for size in label.shape]
        else:
            voxels = np.argwhere(label == value)
            centre = [int(position) for position in voxels[self.R.randint(len(voxels))]]
        corner = [c - roi // 2 for c, roi in zip(centre, self.spec.roi_size, strict=True)]
        x, y = (
            min(max(c, 0), size - roi) if size >= roi else (size - roi) // 2
            for c, size, roi in zip(corner, label.shape, self.spec.roi_size, strict=True)
        )
        return x, y


def _crop(plane: np.ndarray, corner: tuple[int, int], roi_size: tuple[int, int], *, fill: int) -> np.ndarray:
    """``roi_size`` of a slice from ``corner`` on, ``fill`` where the slice does not reach."""
    cropped = np.full(roi_size, fill, dtype=plane.dtype)
    inside = [slice(max(c, 0), min(c + roi, size)) for c, roi, size in zip(corner, roi_size, plane.shape, strict=True)]
    target = [slice(s.start - c, s.stop - c) for s, c in zip(inside, corner, strict=True)]
    cropped[tuple(target)] = plane[tuple(inside)]
    return cropped
