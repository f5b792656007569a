"""The page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liver_monai.report.page import Figure, Table, structure_word, write_page

TITLES = {"dice": "Dice", "nsd": "NSD", "assd_mm": "ASSD (mm)", "hd95_mm": "HD95 (mm)"}
TITLES |= {f"iou_50_{name}": f"{title} at IoU > 0.5"
           for name, title in (("recall", "recall"), ("precision", "precision"), ("f1", "F1"))}  # fmt: skip
TITLES |= {"pixel_accuracy": "pixel accuracy", "iou": "IoU"}


def write_comparison_report(
    path: Path, *, comparison: Mapping[str, Any], forest_png: bytes, provenance: Mapping[str, str]
) -> None:
    """Differences of every measure as a table and as a forest plot.

    Args:
        comparison: what ``comparison.json`` holds.
        forest_png: of the same rows.
    """
    rows = comparison["rows"]
    clear = [row for row in rows if row["p_holm"] is not None and row["p_holm"] < 0.05]
    said = "; ".join(f"{title_of(row['measure'])} of {row['second']} {row['difference']:+.3f}" for row in clear)
    write_page(
        path,
        title=f"Comparison with {comparison['first']}",
        summary=[("cases", str(comparison["n"])), ("protocol", comparison["protocol"]), ("clear", str(len(clear)))],
        tables=[_difference_table(comparison), *_missing_table(comparison)],
        figures=[Figure(title="Differences", png=forest_png, alt=f"p below 0.05: {said or 'none'}")],
        provenance=provenance,
    )


def title_of(measure: str) -> str:
    """``tumor_dice`` -> ``tumour Dice``."""
    structure, _, name = measure.partition("_")
    return f"{structure_word(structure)} {TITLES.get(name, name)}".strip()


def _difference_table(comparison: Mapping[str, Any]) -> Table:
    keys = ("n", "n_undefined", "mean_first", "mean_second", "difference", "low", "high", "p", "p_holm")
    return Table(
        title="Differences",
        columns=["measure", "evaluation", "n", "left out", "mean of first", "mean", "difference", "95 % from", "to",
                 "p", "p, Holm"],
        rows=[[title_of(row["measure"]), row["second"], *(row[key] for key in keys)] for row in comparison["rows"]],
        note=(
            f"Against {comparison['first']}, on the same cases. Interval: bootstrap over cases, percentiles. p: "
            "Wilcoxon's signed-rank test, two-sided; Holm's correction is for all rows. Left out: cases in which one "
            "of the two has no value, as its structure is missing; read the table below beside it."
        ),
    )  # fmt: skip


def _missing_table(comparison: Mapping[str, Any]) -> list[Table]:
    rows = [
        [name, structure_word(structure), counts["n_missing"], counts["n_spurious"]]
        for name, structures in comparison["missing"].items()
        for structure, counts in structures.items()
    ]
    note = "Missing: in the reference, not predicted; spurious: the reverse. Their Dice is 0; they have no distance."
    columns = ["evaluation", "structure", "missing", "spurious"]
    return [Table(title="Missed structures", columns=columns, rows=rows, note=note)] if rows else []
