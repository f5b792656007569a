"""Reports of many cases: what a prediction run made, and how an evaluation went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.report.page import CasePanel, Figure, Table, write_page
from liver_monai.report.pictures import draw_overlays, draw_score_plot

MAX_PANELS = 16
"""Half a megabyte a contact sheet: more of them make a page that browsers open slowly."""

STRUCTURES = ("liver", "tumor")


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """What to draw of one case: its CT, masks by name (``"prediction"``, ``"reference"``), and facts to print."""

    case_id: str
    image: Path
    masks: Mapping[str, Path]
    facts: Mapping[str, str]


def write_prediction_report(
    path: Path, *, rows: Sequence[Mapping[str, Any]], pictures: Sequence[CasePicture], provenance: Mapping[str, str]
) -> None:
    """Volumes of every case and pictures of the first ones.

    Args:
        rows: ``case_id``, ``status``, ``liver_ml``, ``tumor_ml``, ``seconds`` and ``error`` a case.
    """
    columns = {
        "case": "case_id",
        "status": "status",
        "liver (mL)": "liver_ml",
        "tumour (mL)": "tumor_ml",
        "time (s)": "seconds",
        "error": "error",
    }
    done = [row for row in rows if row["status"] != "failed"]
    write_page(
        path,
        title="Predicted masks",
        summary=[("cases", str(len(rows))), ("masks", str(len(done))), ("failed", str(len(rows) - len(done)))],
        tables=[_table("Cases", rows, columns, note="The liver includes its tumours.")],
        figures=[],
        panels=_panels(pictures),
        provenance=provenance,
    )


def write_evaluation_report(
    path: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    pictures: Sequence[CasePicture],
    provenance: Mapping[str, str],
) -> None:
    """Scores of every case, their summary, and pictures of the worst cases.

    Args:
        rows: those of ``cases.csv``.
        summary: that of ``summary.json``.
        pictures: worst case first.
    """
    scored = [row for row in rows if not row["error"]]
    write_page(
        path,
        title="Evaluation",
        summary=_cards(summary),
        tables=[_summary_table(summary), _case_table(rows)] if scored else [_case_table(rows)],
        figures=[_score_figure(scored)] if scored else [],
        panels=_panels(pictures),
        provenance=provenance,
    )


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    cards = [("cases scored", str(summary["n"])), ("not scored", str(summary["n_failed"]))]
    scores = [
        (f"{_word(name)} Dice per case", f"{summary[name]['dice_per_case']:.3f}")
        for name in STRUCTURES
        if name in summary
    ]
    return [*scores, *cards]


def _summary_table(summary: Mapping[str, Any]) -> Table:
    columns = ("dice_per_case", "dice_global", "iou_per_case", "iou_global", "n_missing", "n_spurious")
    titles = ("Dice per case", "Dice global", "IoU per case", "IoU global", "missing", "spurious")
    return Table(
        title="Overlap",
        columns=["structure", *titles],
        rows=[[_word(name), *(summary[name][column] for column in columns)] for name in STRUCTURES],
        note=(
            "The liver includes its tumours. Per case: mean over cases; global: all voxels pooled. A case where both "
            "masks lack the structure scores 1, where one lacks it 0. Missing: in the reference, not predicted; "
            f"spurious: the reverse. Pixel accuracy {summary['pixel_accuracy']['per_case']:.4f} per case; it is high "
            "for an empty mask too."
        ),
    )


def _case_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = {"case": "case_id"}
    for name in STRUCTURES:
        columns |= {
            f"{_word(name)} Dice": f"{name}_dice",
            f"{_word(name)} IoU": f"{name}_iou",
            f"{_word(name)} predicted (mL)": f"{name}_prediction_ml",
            f"{_word(name)} reference (mL)": f"{name}_reference_ml",
        }
    return _table("Cases", rows, {**columns, "error": "error"})


def _score_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    means = {name: np.mean([row[f"{name}_dice"] for row in rows]) for name in STRUCTURES}
    said = ", ".join(f"mean {_word(name)} Dice {mean:.3f}" for name, mean in means.items())
    return Figure(title="Dice per case", png=draw_score_plot(rows), alt=f"Dice of {len(rows)} cases; {said}")


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], note: str = "") -> Table:
    """Columns that no row fills are left out."""
    filled = {head: key for head, key in columns.items() if any(row.get(key) not in (None, "") for row in rows)}
    return Table(
        title=title, columns=list(filled), rows=[[row.get(key) for key in filled.values()] for row in rows], note=note
    )


def _panels(pictures: Iterable[CasePicture]) -> list[CasePanel]:
    shown = list(pictures)[:MAX_PANELS]
    return [_panel(picture) for picture in tqdm(shown, desc="drawing", unit="case", disable=None)]


def _panel(picture: CasePicture) -> CasePanel:
    volume = read_volume(picture.image)
    masks = {name: read_mask(path)[0].numpy() for name, path in picture.masks.items()}
    png = draw_overlays(volume[0].numpy(), masks, affine=np.asarray(volume.affine))
    return CasePanel(case_id=picture.case_id, picture_png=png, facts=picture.facts)


def _word(structure: str) -> str:
    return {"tumor": "tumour"}.get(structure, structure)
