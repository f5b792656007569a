"""The store: cases on the model grid, kept as memory maps so that a slab is read without its volume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import distributed
from tqdm import tqdm

from liver_monai.data.cases import Case
from liver_monai.data.transforms import model_grid
from liver_monai.io.files import whole_file, write_json
from liver_monai.io.volumes import files_of
from liver_monai.spec import LIVER, TUMOR, ModelSpec


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """One case of the store: int16 HU and uint8 labels, both ``(D, H, W)`` memory maps, slices first."""

    case_id: str
    image: np.ndarray
    label: np.ndarray
    slices_with: dict[int, np.ndarray]


def build_store(cases: Sequence[Case], *, spec: ModelSpec, folder: str | Path) -> list[StoredCase]:
    """Bring every case to the model grid once; what is stored already under the same grid and source is kept.

    Processes that train together share the work and wait for each other.
    """
    folder = Path(folder)
    rank, n_processes = process_rank()
    to_grid = model_grid(spec)
    for case in tqdm(cases[rank::n_processes], desc="preparing", unit="case", disable=None):
        key = _key(case, spec)
        if not _is_stored(folder, case, key):
            _write_case(folder, case, key, to_grid(case.to_item()))
    if n_processes > 1:
        distributed.barrier()
    return [_open_case(folder, case) for case in cases]


def process_rank() -> tuple[int, int]:
    """Which of how many training processes this is; ``(0, 1)`` when it is alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _key(case: Case, spec: ModelSpec) -> str:
    """Changes whenever the stored arrays would: other files, other grid."""
    paths = [path for source in (case.image, case.label) if source for path in files_of(source)]
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr((files, spec.spacing_mm)).encode()).hexdigest()


def _is_stored(folder: Path, case: Case, key: str) -> bool:
    listing = folder / f"{case.case_id}.json"
    return listing.is_file() and json.loads(listing.read_text(encoding="utf-8"))["key"] == key


def _write_case(folder: Path, case: Case, key: str, item: dict[str, np.ndarray]) -> None:
    """The listing goes first and comes last: a case is stored when it is there, and then all of it is of one grid."""
    listing = folder / f"{case.case_id}.json"
    listing.unlink(missing_ok=True)
    limits = np.iinfo(np.int16)
    image = np.asarray(item["image"])[0].transpose(2, 0, 1)
    label = np.asarray(item["label"])[0].transpose(2, 0, 1)
    arrays = {"image": image.round().clip(limits.min, limits.max).astype(np.int16), "label": label}
    for name, array in arrays.items():
        with whole_file(folder / f"{case.case_id}.{name}.npy") as temporary:
            np.save(temporary, np.ascontiguousarray(array))
    slices_with = {value: np.flatnonzero((label == value).any(axis=(1, 2))).tolist() for value in (LIVER, TUMOR)}
    write_json(listing, {"key": key, "slices_with": slices_with})


def _open_case(folder: Path, case: Case) -> StoredCase:
    listing = json.loads((folder / f"{case.case_id}.json").read_text(encoding="utf-8"))
    return StoredCase(
        case_id=case.case_id,
        image=np.load(folder / f"{case.case_id}.image.npy", mmap_mode="r"),
        label=np.load(folder / f"{case.case_id}.label.npy", mmap_mode="r"),
        slices_with={int(value): np.asarray(slices) for value, slices in listing["slices_with"].items()},
    )
