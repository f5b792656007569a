"""The store: cases on the model grid, compressed a slice at a time, so that a slab is read without its volume.

A case is a folder whose name holds a hash of its source files and of the grid. It appears whole, by one rename, and
never changes: readers need no lock, and whoever is killed while writing leaves nothing that could be read. What was
made of a case's files before they changed is removed only by ``prepare``: a training that reads it would fail.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import distributed
from tqdm import tqdm

from liver_monai.data.arrays import DAMAGED, LZ4, ZSTD, write_array
from liver_monai.data.cases import Case
from liver_monai.data.checks.content import measure_content
from liver_monai.data.stored_case import IMAGE, LABEL, REFERENCE, Lesion, StoredCase, find_lesions
from liver_monai.data.transforms import ORIENTATION, LoadImageVolumed, to_grid
from liver_monai.errors import InputError, one_line
from liver_monai.io.files import read_json
from liver_monai.io.volumes import Source, files_of, last_axis_first, voxel_ml
from liver_monai.processes import Pool, processes_for
from liver_monai.spec import LABELS, LIVER, TUMOR, ModelSpec

logger = logging.getLogger(__name__)

FORMAT = 2
"""Counts up when the same files and grid would be stored otherwise; what is stored is then made anew."""

NEEDED = frozenset(("shape", "class_counts", "lesions", "content_hash", "liver_ml", "tumor_ml", "geometry"))
"""Of a case's facts; one that lacks any is made anew."""
FACTS = "case.json"
ARRAYS = (IMAGE, LABEL, REFERENCE)
LOCK = "store.lock"

GEOMETRY = ("affine", "original_affine", "oriented_affine", "oriented_shape")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What became of one case: ``error`` is empty where it is in the store, ``is_kept`` says that it was before."""

    case: Case
    is_kept: bool = False
    error: str = ""


def build_store(cases: Sequence[Case], *, spec: ModelSpec, folder: str | Path) -> list[StoredCase]:
    """Bring every case to the model grid once; what is stored already under the same grid and source is kept.

    Of processes that train together the first does the work, and the others wait for it.

    Raises:
        InputError: cases that cannot be stored; the others are.
    """
    rank, n_processes = process_rank()
    if rank == 0:
        stream = store_cases(cases, spec=spec, folder=folder)
        failed = [done for done in stream if done.error]
        if failed:
            others = f" ({len(failed) - 1} other cases failed, too)" if len(failed) > 1 else ""
            raise InputError(f"{failed[0].error}{others}; leave a case out with a line in excludes.csv beside the data")
    if n_processes > 1:
        distributed.barrier()
    return [open_case(case, spec=spec, folder=folder) for case in cases]


def store_cases(
    cases: Sequence[Case], *, spec: ModelSpec, folder: str | Path, pool: Pool | None = None
) -> Iterator[Preparation]:
    """Bring cases to the model grid, yielding what became of each; one that fails never stops the others.

    Another process that writes to the same store is waited for; what it has stored is kept.

    Args:
        cases: with labels.
        spec: its grid counts: spacing_mm.
        folder: of the store.
        pool: who does it; each holds a CT and its copy on the model grid, up to 2 GB. By default processes by cores
            and cases, few cases in this process.
    """
    folder = Path(folder)
    tasks = []
    for case in cases:
        if _is_stored(case, spec, folder):
            yield Preparation(case=case, is_kept=True)
        else:
            tasks.append((case, spec, folder))
    if not tasks:
        return
    pool = pool or processes_for(len(tasks), cases_a_process=4)
    with _writing(folder):
        results = pool.results(_try_case, tasks, killed=_killed)
        yield from tqdm(results, total=len(tasks), desc="preparing", unit="case", disable=None)


def open_case(case: Case, *, spec: ModelSpec, folder: str | Path) -> StoredCase:
    """A case of the store; no voxel is read.

    Raises:
        InputError: it is not stored, or what is known of it is damaged.
    """
    place = case_folder(case, spec=spec, folder=Path(folder))
    facts = _read_facts(place)
    if facts is None:
        raise InputError(f"{folder}: does not hold case '{case.case_id}' on the grid {grid_name(spec)}; prepare it")
    try:
        return _stored(case, place, facts)
    except DAMAGED as error:
        raise InputError(
            f"{place / FACTS}: is damaged ({one_line(error)}); remove its folder and prepare the data again"
        ) from error


def _stored(case: Case, place: Path, facts: Mapping[str, Any]) -> StoredCase:
    n_slices, height, width = (int(size) for size in facts["shape"])
    class_counts = np.asarray(facts["class_counts"], dtype=np.int64).reshape(n_slices, len(LABELS))
    return StoredCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        folder=place,
        shape=(n_slices, height, width),
        class_counts=class_counts,
        lesions=tuple(Lesion(**{**lesion, "centre": tuple(lesion["centre"])}) for lesion in facts["lesions"]),
        content_hash=facts["content_hash"],
        liver_ml=float(facts["liver_ml"]),
        tumor_ml=float(facts["tumor_ml"]),
        geometry=facts["geometry"],
    )


def process_rank() -> tuple[int, int]:
    """Which of how many training processes this is; ``(0, 1)`` when it is alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def grid_name(spec: ModelSpec) -> str:
    """What of a spec decides on the stored arrays, as a folder's name: ``1.5x1.5x3mm-RAS``."""
    return f"{'x'.join(f'{mm:.6g}' for mm in spec.spacing_mm)}mm-{ORIENTATION}"


def case_folder(case: Case, *, spec: ModelSpec, folder: Path) -> Path:
    """Where a case lies; the name changes whenever the stored arrays would: other files, other grid."""
    identity = (FORMAT, case.source or source_of(case), case.spacing_mm, spec.spacing_mm, ORIENTATION)
    key = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    return folder / grid_name(spec) / f"{case.case_id}.{key}"


def source_of(case: Case) -> str:
    """A hash of the names, sizes and times of a case's files; where they lie does not matter.

    Raises:
        InputError: a file is not there.
    """
    files = [file for source in (case.image, case.label) if source for file in _existing_files(source)]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _existing_files(source: Source) -> list[Path]:
    if isinstance(source, Path) and not source.exists():
        raise InputError(f"{source}: no such file")
    return files_of(source)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """One writer at a time. The operating system gives the lock back when its holder dies, however it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process writes to %s; waiting for it", folder)
        lock.acquire()
    try:
        for leftover in folder.glob("*/.*.writing"):  # of a writer that was killed, or of what was being removed
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


def remove_outdated(cases: Sequence[Case], *, spec: ModelSpec, folder: Path) -> list[Path]:
    """Remove what was made of these cases' files before they changed, on this grid; returns where it lay.

    Whoever still reads it will fail, and can go on with what has taken its place. A case of the same case_id that was
    made of other files stays: it is another data set's.
    """
    current = {case_folder(case, spec=spec, folder=folder) for case in cases}
    origins = {(case.case_id, _origin(case)) for case in cases}
    outdated = [
        place
        for place in (folder / grid_name(spec)).glob("[!.]*")
        if place not in current and _said_origin(place) in origins
    ]
    for place in outdated:
        hidden = place.with_name(f".{place.name}.writing")  # at once, so that nobody finds half of it
        with suppress(FileNotFoundError):  # another process removed it
            place.replace(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return outdated


def _origin(case: Case) -> str:
    return str(Path(str(case.image)).resolve())


def _said_origin(place: Path) -> tuple[str, str]:
    facts = _read_facts(place) or {}
    return facts.get("case_id", ""), facts.get("origin", "")


def _killed(case: Case, *_: object) -> Preparation:
    return Preparation(case=case, error=f"{case.image}: its process was killed, perhaps for want of memory")


def _try_case(case: Case, spec: ModelSpec, folder: Path) -> Preparation:
    try:
        if not _is_stored(case, spec, folder):  # another writer, while this one waited
            _write_case(case, spec, folder)
    except (InputError, OSError, ValueError, RuntimeError, MemoryError) as error:
        text = one_line(error)
        return Preparation(case=case, error=text if case.case_id in text else f"case '{case.case_id}': {text}")
    return Preparation(case=case)


def _is_stored(case: Case, spec: ModelSpec, folder: Path) -> bool:
    try:
        return _read_facts(case_folder(case, spec=spec, folder=folder)) is not None
    except InputError:  # a file is not there; who reads it will say so
        return False


def _read_facts(place: Path) -> dict[str, Any] | None:
    """What is known of a stored case, or ``None`` where it is not whole: a power cut may lose what was written last."""
    try:
        facts = read_json(place / FACTS)
        sizes = {name: (place / name).stat().st_size for name in ARRAYS}
    except (FileNotFoundError, NotADirectoryError, InputError):
        return None
    is_whole = isinstance(facts, dict) and facts.get("sizes") == sizes and facts.keys() >= NEEDED
    return facts if is_whole else None


def _write_case(case: Case, spec: ModelSpec, folder: Path) -> None:
    """Into a folder of this process, which then gets its name."""
    place = case_folder(case, spec=spec, folder=folder)
    loaded = LoadImageVolumed(("image", "label"))({**case.to_item()})
    reference, content_hash = np.asarray(loaded["label"])[0], _content_hash(np.asarray(loaded["image"])[0])
    item = to_grid(spec)(loaded)
    temporary = place.with_name(f".{platform.node()}.{os.getpid()}.{place.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        facts = _write_arrays(temporary, item, reference=reference)
        sizes = {name: (temporary / name).stat().st_size for name in ARRAYS}
        facts = {
            "case_id": case.case_id,
            "origin": _origin(case),
            "content_hash": content_hash,
            **facts,
            "sizes": sizes,
        }
        (temporary / FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        if case_folder(case, spec=spec, folder=folder) != place:
            raise InputError(f"{case.image}: this file or its mask changed while it was read; prepare the case again")
        shutil.rmtree(place, ignore_errors=True)  # what is not whole
        temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _content_hash(image: np.ndarray) -> str:
    content = measure_content(last_axis_first(image))
    return content.digest if any(numbers.size for numbers in content.slices) else ""


def _write_arrays(folder: Path, item: dict[str, Any], *, reference: np.ndarray) -> dict[str, Any]:
    limits = np.iinfo(np.int16)
    image = np.asarray(item["image"])[0].transpose(2, 0, 1)
    label = np.ascontiguousarray(np.asarray(item["label"])[0].transpose(2, 0, 1))
    write_array(folder / IMAGE, image.round().clip(limits.min, limits.max).astype(np.int16), cparams=LZ4)
    write_array(folder / LABEL, label, cparams=LZ4)
    write_array(folder / REFERENCE, reference, cparams=ZSTD)
    meta = item["image"].meta
    geometry = {name: np.asarray(meta[name]).tolist() for name in GEOMETRY}
    counts = np.bincount(reference.ravel(), minlength=len(LABELS)) * voxel_ml(geometry["original_affine"])
    return {
        "shape": list(label.shape),
        "liver_ml": float(counts[LIVER:].sum()),
        "tumor_ml": float(counts[TUMOR]),
        "geometry": geometry,
        "class_counts": [np.bincount(plane.ravel(), minlength=len(LABELS)).tolist() for plane in label],
        "lesions": [asdict(lesion) for lesion in find_lesions(label, voxel_ml=voxel_ml(geometry["affine"]))],
    }
