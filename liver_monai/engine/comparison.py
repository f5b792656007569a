"""Comparison of evaluations of the same cases: every other one against the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError
from liver_monai.io.files import read_json, write_json
from liver_monai.io.tables import read_table, write_rows
from liver_monai.scoring.compare import holm, paired_difference
from liver_monai.scoring.measures import MEASURES

COMPARED = ("dice", "nsd", "assd_mm", "hd95_mm")
"""One overlap and one robust distance say what the others would repeat; each further test costs the others power."""

BEST = {f"{name}_{measure}": MEASURES[measure].best for name in ("liver", "tumor") for measure in COMPARED}
BEST |= {f"lesions_iou_50_{name}": 1 for name in ("recall", "precision", "f1")}
BEST |= {"slice_pixel_accuracy": 1, "slice_iou": 1}
"""Columns of ``cases.csv`` that are compared, with the best value of each."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation as ``evaluate`` left it: rows of its scored cases by case_id, and its summary."""

    name: str
    folder: Path
    rows: dict[str, dict[str, str]]
    summary: dict[str, Any]


def read_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    """Read evaluations, at least two, of the same cases by the same protocol.

    Raises:
        InputError: a folder holds none, or two differ in their cases, protocol or tolerance.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} evaluation given; a comparison needs at least two")
    names = [folder.resolve().name for folder in folders]
    are_unique = len(set(names)) == len(names)
    found = [_read(folder, name if are_unique else str(folder)) for folder, name in zip(folders, names, strict=True)]
    if len({each.name for each in found}) < len(found):
        raise InputError("the same evaluation is given twice; a comparison needs different ones")
    for each in found[1:]:
        _require_comparable(found[0], each)
    return found


def compare(evaluations: Sequence[Evaluation], *, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each measure and each evaluation after the first; ``None`` where a figure is not defined.

    ``difference`` is that evaluation minus the first, ``low`` and ``high`` its 95 % interval, ``p_holm`` the p-value
    after correction for all rows.
    """
    first, *others = evaluations
    names = [name for name in BEST if all(name in row for each in evaluations for row in each.rows.values())]
    rows = [_compare_pair(first, other, name, seed=seed) for name in names for other in others]
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return [{key: None if isinstance(v, float) and isnan(v) else v for key, v in row.items()} for row in rows]


def write_comparison(rows: Sequence[dict[str, Any]], evaluations: Sequence[Evaluation], out: Path) -> dict[str, Any]:
    """Write ``comparison.csv`` and ``comparison.json`` and return what the latter holds."""
    write_rows(out / "comparison.csv", rows)
    first = evaluations[0]
    content = {
        "first": first.name,
        "evaluations": {each.name: str(each.folder) for each in evaluations},
        "protocol": first.summary["protocol"],
        "n": len(first.rows),
        "missing": {each.name: _counts(each) for each in evaluations},
        "rows": list(rows),
    }
    write_json(out / "comparison.json", content)
    return content


def _read(folder: Path, name: str) -> Evaluation:
    try:
        summary = read_json(folder / "summary.json")
        cases = read_table(folder / "cases.csv", columns=("case_id", "error"))
        rows = {row["case_id"]: row for row in cases if not row["error"]}
        protocol = summary["protocol"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: holds no evaluation ({error}); give a folder that 'evaluate' wrote") from error
    if not rows:
        raise InputError(f"{folder}: holds no scored case of protocol '{protocol}'")
    return Evaluation(name=name, folder=folder, rows=rows, summary=summary)


def _require_comparable(first: Evaluation, other: Evaluation) -> None:
    for key in ("protocol", "tolerance_mm"):
        values = [each.summary.get(key) for each in (first, other)]
        if values[0] != values[1]:
            raise InputError(
                f"{first.folder} has the {key} {values[0]}, {other.folder} {values[1]}; evaluate both the same way"
            )
    only = [sorted(a.rows.keys() - b.rows.keys()) for a, b in ((first, other), (other, first))]
    if any(only):
        said = [f"only {each.folder} scored {', '.join(ids[:5])}{' ...' if len(ids) > 5 else ''}"
                for each, ids in zip((first, other), only, strict=True) if ids]  # fmt: skip
        raise InputError(f"different cases: {'; '.join(said)}; only the same cases can be compared")


def _compare_pair(first: Evaluation, other: Evaluation, name: str, *, seed: int) -> dict[str, Any]:
    columns = [[float(each.rows[case_id][name] or nan) for case_id in first.rows] for each in (first, other)]
    found = paired_difference(*columns, seed=seed)
    return {
        "measure": name,
        "best": BEST[name],
        "first": first.name,
        "second": other.name,
        "n": found.n,
        "n_undefined": found.n_undefined,
        "mean_first": found.mean_first,
        "mean_second": found.mean_second,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
    }


def _counts(evaluation: Evaluation) -> dict[str, dict[str, int]]:
    structures = {name: evaluation.summary[name] for name in ("liver", "tumor") if name in evaluation.summary}
    return {name: {key: each[key] for key in ("n_missing", "n_spurious")} for name, each in structures.items()}
