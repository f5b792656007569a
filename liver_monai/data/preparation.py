"""A data set made ready: its cases in a store, which says itself what it holds and how it is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from filelock import FileLock

from liver_monai.data.cases import Case, unique
from liver_monai.data.curation import CuratedCases, curated_cases
from liver_monai.data.folds import assign_folds, join_patients, read_folds, write_folds
from liver_monai.data.layouts import licence_note
from liver_monai.data.store import (
    Preparation,
    build_store,
    grid_name,
    open_case,
    process_rank,
    remove_outdated,
    source_of,
    store_cases,
)
from liver_monai.data.stored_case import StoredCase
from liver_monai.errors import InputError
from liver_monai.io.files import read_json, write_json
from liver_monai.processes import Pool
from liver_monai.spec import ModelSpec

INDEX, FOLDS = "store.json", "folds.csv"
INDEX_LOCK = "index.lock"
"""Of its own, so that whoever finds all cases stored waits for nobody who prepares others."""
INDEX_SCHEMA = {
    "type": "object",
    "required": ["dataset", "cases", "excluded"],
    "properties": {
        "dataset": {"type": "string"},
        "excluded": {"type": "object"},
        "cases": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["case_id", "patient_id", "image", "label", "spacing_mm", "source", "liver_ml", "tumor_ml"],
                "properties": {
                    **{name: {"type": "string"} for name in ("case_id", "patient_id", "image", "source")},
                    **{name: {"type": "number"} for name in ("liver_ml", "tumor_ml")},
                    "label": {"type": ["string", "null"]},
                    "spacing_mm": {
                        "type": ["array", "null"],
                        "items": {"type": "number", "exclusiveMinimum": 0},
                        "minItems": 3,
                        "maxItems": 3,
                    },
                },
            },
        },
    },
}
WEIGHTS_INHERIT = "Weights inherit the terms of the data they are trained on; read them before you publish any."


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The cases of a data set, all stored; ``folds``, and ``content``, hashes of their images, by case_id.

    Cases of equal images are of one patient.
    """

    cases: list[Case]
    folds: dict[str, int]
    content: dict[str, str]
    excluded: dict[str, str]


def is_store(path: str | Path) -> bool:
    """Whether a folder is a store that was prepared to its end."""
    return bool(str(path)) and (Path(path).expanduser() / INDEX).is_file()


def store_folder(dataset_dir: str | Path, store_dir: str | Path) -> str:
    """Where the cases of a data set are kept: in itself where it is a store, else in ``store_dir``."""
    return str(dataset_dir if is_store(dataset_dir) else store_dir)


def open_dataset(dataset_dir: str | Path) -> CuratedCases:
    """The cases of a data set in any layout, or of a store.

    Raises:
        InputError: as ``curated_cases``, or a store whose index cannot be read.
    """
    return _read_index(Path(dataset_dir).expanduser()) if is_store(dataset_dir) else curated_cases(dataset_dir)


def licence_of(dataset_dir: str | Path) -> str:
    """What is known of the licence of a data set, or of that which a store was prepared from."""
    if not is_store(dataset_dir):
        return licence_note(dataset_dir)
    return str(_index(Path(dataset_dir).expanduser()).get("licence", ""))


def known_burden(dataset_dir: str | Path) -> dict[str, float]:
    """The tumours' share of the liver by case_id: known of a store, and of nothing else without reading its masks."""
    if not is_store(dataset_dir):
        return {}
    rows = _index(Path(dataset_dir).expanduser())["cases"]
    return {row["case_id"]: row["tumor_ml"] / row["liver_ml"] if row["liver_ml"] else 0.0 for row in rows}


def prepare_for_training(dataset_dir: str | Path, *, spec: ModelSpec, store: str | Path) -> PreparedData:
    """Every case of a data set on the model grid; what is there already stays, the folds too.

    Raises:
        InputError: no data set, or a case that cannot be prepared.
    """
    data = open_dataset(dataset_dir)
    folder = Path(store).expanduser()
    stored = build_store(data.cases, spec=spec, folder=folder)
    return _finish(folder, dataset_dir, data=data, stored=stored, cases=data.cases)


def prepare(
    dataset_dir: str | Path,
    *,
    spec: ModelSpec,
    out: Path,
    excludes: Path | None = None,
    spacing_overrides: Path | None = None,
    pool: Pool | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Prepare a data set, go on where an earlier run was interrupted, and tell what became of each case.

    Args:
        dataset_dir: a data set in any layout.
        spec: its grid counts.
        out: the store.
        excludes, spacing_overrides: see ``curated_cases``.
        pool: who does it, as ``store_cases`` takes it.
        seed: of the folds.
        say: takes a line for people.

    Returns:
        JSON types: store, grid, licence, numbers of cases, excluded and failed ones with their reasons.

    Raises:
        InputError: no data set, or a store of another one.
    """
    data = curated_cases(dataset_dir, excludes=excludes, spacing_overrides=spacing_overrides)
    _require_own(out, dataset_dir)
    licence = licence_note(dataset_dir)
    say(f"licence: {licence}. {WEIGHTS_INHERIT}")
    done = [_told(result, say=say) for result in store_cases(data.cases, spec=spec, folder=out, pool=pool)]
    failed = {result.case.case_id: result.error for result in done if result.error}
    cases = [case for case in data.cases if case.case_id not in failed]
    if cases:
        stored = [open_case(case, spec=spec, folder=out) for case in cases]
        _finish(out, dataset_dir, data=data, stored=stored, cases=cases, failed=failed, licence=licence, seed=seed)
        for place in remove_outdated(cases, spec=spec, folder=out):
            say(f"{place.name}: removed, its files have changed")
    return {
        "store": str(out),
        "grid": grid_name(spec),
        "licence": licence,
        "n": len(cases),
        "n_kept": sum(result.is_kept for result in done),
        "n_failed": len(failed),
        "failed": failed,
        "excluded": data.excluded,
    }


def _told(result: Preparation, *, say: Callable[[str], None]) -> Preparation:
    """A result itself, which people have been told of unless it is an old one."""
    if not result.is_kept:
        say(f"{result.case.case_id}: {'failed: ' + result.error if result.error else 'prepared'}")
    return result


def _require_own(folder: Path, dataset_dir: str | Path) -> None:
    other = _other_data(folder, dataset_dir)
    if other is not None:
        raise InputError(f"{folder}: is the store of {other}; give {dataset_dir} one of its own")


def _other_data(folder: Path, dataset_dir: str | Path) -> Path | None:
    """The data set that a store was prepared from, if it is another one and still is where it was."""
    if not is_store(folder) or folder.resolve() == _resolved(dataset_dir):
        return None
    other = Path(_index(folder)["dataset"])
    return other if other.exists() and other != _resolved(dataset_dir) else None


def _finish(
    folder: Path,
    dataset_dir: str | Path,
    *,
    data: CuratedCases,
    stored: Sequence[StoredCase],
    cases: Sequence[Case],
    failed: Mapping[str, str] | None = None,
    licence: str = "",
    seed: int = 0,
) -> PreparedData:
    """Write folds and index, the index last: where it is, the store is whole.

    A store that is only used, or used for another data set's cases, too, stays as it is.
    """
    burden = {case.case_id: case.burden for case in stored}
    content = {case.case_id: case.content_hash for case in stored}
    cases = join_patients(cases, content=content)
    is_own = _other_data(folder, dataset_dir) is None
    path = folder / FOLDS if is_own else None
    if is_own and not is_store(dataset_dir) and process_rank()[0] == 0:
        with FileLock(folder / INDEX_LOCK):  # two that come at once must not deal the folds twice
            folds = _stable_folds(path, cases, content=content, burden=burden, seed=seed)
            write_folds(folder / FOLDS, cases, folds, burden=burden)
            write_json(
                folder / INDEX,
                {
                    "dataset": str(_resolved(dataset_dir)),
                    "licence": licence or licence_note(dataset_dir),
                    "cases": [_index_row(case, each) for case, each in zip(cases, stored, strict=True)],
                    "excluded": data.excluded,
                    "failed": dict(failed or {}),
                },
            )
    else:
        folds = _stable_folds(path, cases, content=content, burden=burden, seed=seed)
    return PreparedData(cases=cases, folds=folds, content=content, excluded=data.excluded)


def _stable_folds(
    path: Path | None, cases: Sequence[Case], *, content: Mapping[str, str], burden: Mapping[str, float], seed: int
) -> dict[str, int]:
    """Patients stay in the fold they are in; new ones are dealt out."""
    known = read_folds(path, cases, content=content) if path is not None and path.is_file() else {}
    if len(known) == len(cases):
        return known
    kept = {case.patient_id: known[case.case_id] for case in cases if case.case_id in known}
    return assign_folds(cases, burden=burden, seed=seed, kept=kept)


def _index_row(case: Case, stored: StoredCase) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "image": str((case.image if isinstance(case.image, Path) else case.image.path).resolve()),
        "label": str(case.label.resolve()) if case.label else None,
        "spacing_mm": case.spacing_mm,
        "source": source_of(case),
        "liver_ml": round(stored.liver_ml, 3),
        "tumor_ml": round(stored.tumor_ml, 3),
    }


def _read_index(folder: Path) -> CuratedCases:
    index = _index(folder)
    cases = [
        Case(
            case_id=row["case_id"],
            image=Path(row["image"]),
            label=Path(row["label"]) if row["label"] else None,
            patient_id=row["patient_id"],
            spacing_mm=tuple(row["spacing_mm"]) if row["spacing_mm"] else None,
            source=row["source"],
        )
        for row in index["cases"]
    ]
    return CuratedCases(cases=unique(cases), excluded=index["excluded"])


def _index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = read_json(folder / INDEX)
        jsonschema.validate(index, INDEX_SCHEMA)
    except jsonschema.ValidationError as error:
        raise InputError(
            f"{folder / INDEX}: is no index of a store ({error.json_path}: {error.message[:200]}); prepare the "
            "data set again"
        ) from error
    except InputError as error:
        raise InputError(f"{error}; prepare the data set again") from error
    return index


def _resolved(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()
