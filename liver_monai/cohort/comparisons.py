"""Whole comparisons of evaluations: tables, figure, record and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from liver_monai.engine.comparison import compare, read_evaluations, write_comparison
from liver_monai.errors import InputError
from liver_monai.io.files import whole_file
from liver_monai.io.record import provenance, write_record
from liver_monai.report.comparison import title_of, write_comparison_report
from liver_monai.report.intervals import ForestRow, draw_forest_plot


def compare_cohorts(
    evaluations: Sequence[Path],
    *,
    out: Path,
    seed: int = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compare evaluations of the same cases with the first of them; returns what ``comparison.json`` holds.

    Args:
        evaluations: folders that ``evaluate_cohort`` wrote, two or more.
        out: gets ``comparison.csv``, ``comparison.json``, ``forest.png`` and ``report.html``.
        seed: of the bootstrap.
        overwrite: replace a comparison that is there.
        say: takes a line for people.

    Raises:
        InputError: as ``read_evaluations``, or a comparison that is there.
    """
    if (out / "comparison.json").exists() and not overwrite:
        raise InputError(f"{out}: holds a comparison already; give --overwrite or another -o")
    found = read_evaluations(evaluations)
    comparison = write_comparison(compare(found, seed=seed), found, out)
    picture = draw_forest_plot([_forest_row(row) for row in comparison["rows"]])
    with whole_file(out / "forest.png") as temporary:
        temporary.write_bytes(picture)
    record = write_record(out / "record.json", inputs=[each.folder / "cases.csv" for each in found])
    write_comparison_report(
        out / "report.html", comparison=comparison, forest_png=picture, provenance=provenance(record)
    )
    say(f"report: {out / 'report.html'}")
    return comparison


def _forest_row(row: dict[str, Any]) -> ForestRow:
    return ForestRow(
        label=f"{row['second']}: {title_of(row['measure'])}",
        unit="mm" if row["measure"].endswith("_mm") else "",
        difference=row["difference"],
        low=row["low"],
        high=row["high"],
        is_larger_better=row["best"] == 1,
    )
