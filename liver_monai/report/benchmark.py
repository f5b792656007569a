"""The tables and plots of a benchmark: what 2D notebooks report, what patients see, and what a split by slice hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liver_monai.report.intervals import Interval, IntervalPanel, draw_interval_plot
from liver_monai.report.page import Figure, Table, three_decimals, write_markdown, write_page

Row = Mapping[str, Any]

TITLE = "Benchmark"
LEAKING = {"iou": "IoU", "tumor_dice": "tumour Dice"}
DICE = {
    "liver_dice_per_case": "liver Dice per case",
    "liver_dice_global": "liver Dice global",
    "tumor_dice_per_case": "tumour Dice per case",
    "tumor_dice_global": "tumour Dice global",
}
LESIONS = {"lesion_recall_iou_50": "lesion recall", "lesion_precision_iou_50": "lesion precision"}
DISTANCES = {"liver_assd_mm": "liver ASSD (mm)"}
PLOTTED = {name: DICE[name] for name in ("liver_dice_per_case", "tumor_dice_per_case")} | LESIONS
SPLITS = {"by_patient": "split by patient", "by_slice": "split by slice (leaks)"}

SLICES_NOTE = (
    "Protocol seed: means over the slices that hold liver and background, tumours merged into the liver. PA is the "
    "pixel accuracy, about 0.99 for an empty mask; IoU is the mean of background and liver; the loss is the "
    "cross-entropy of the two on the model grid. Time is that of one training. These columns are kept because "
    "notebooks report them: they say nothing of tumours, nor of slices without liver."
)
PATIENTS_NOTE = (
    "Protocol lits, on patients that the network has not seen. Brackets: 95 % interval, bootstrap over cases. Per "
    "case: mean over cases; global: all voxels pooled. The liver includes its tumours."
)
LESIONS_NOTE = (
    "Lesions are found at IoU above 0.5, their counts pooled over the cases. ASSD: mean over the cases in which both "
    "masks hold a liver. Missed: cases with the structure in the reference and none predicted; false: the reverse."
)
LEAK_NOTE = (
    "Not a result, but a warning: both networks of a row are scored on the same slices, and on neither's training "
    "slices. Split by slice, other slices of these patients were trained on, as many slices in all and under the same "
    "budget. Difference: of the IoU, split by slice minus split by patient. A network for new patients is as good as "
    "the split by patient says."
)


def benchmark_tables(content: Row) -> list[Table]:
    """Every table of a benchmark, as Markdown and page show them.

    Args:
        content: what ``benchmark.json`` holds.
    """
    tables = []
    if content["slices"]:
        tables = [_slice_table(content["slices"]), *_patient_tables(content["patients"])]
    if content["leak"]:
        tables.append(_leak_table(content["leak"]))
    if content["failed"]:
        tables.append(_failure_table(content["failed"]))
    return tables


def draw_benchmark(content: Row) -> dict[str, Figure]:
    """The plots by file name."""
    figures = {}
    patients, leak = content["patients"], content["leak"]
    if patients:
        panels = [_patient_panel(patients, name, title) for name, title in PLOTTED.items()]
        figures["patients.png"] = Figure(
            title="Patients never seen", png=draw_interval_plot(panels), alt=_said(patients, PLOTTED)
        )
    if leak:
        panels = [_leak_panel(leak, name, title) for name, title in LEAKING.items()]
        figures["leak.png"] = Figure(
            title="The leak: the same slices, scored after either split",
            png=draw_interval_plot(panels),
            alt=_said(leak, {f"{split}_iou": f"IoU, {title}" for split, title in SPLITS.items()}),
        )
    return figures


def write_benchmark_markdown(path: Path, content: Row) -> str:
    """The tables for a README or a paper; returns the text."""
    summary = [f"{label}: {value}" for label, value in _cards(content)]
    paragraphs = ["; ".join(summary) + ". Research use only."]
    return write_markdown(path, title=TITLE, paragraphs=paragraphs, tables=benchmark_tables(content))


def write_benchmark_report(
    path: Path, content: Row, *, figures: Sequence[Figure], provenance: Mapping[str, str]
) -> None:
    """The same tables and the plots as a page."""
    write_page(
        path,
        title=TITLE,
        summary=_cards(content),
        tables=benchmark_tables(content),
        figures=figures,
        provenance=provenance,
    )


def _cards(content: Row) -> list[tuple[str, str]]:
    tested = ", ".join(str(fold) for fold in content["folds"])
    return [
        ("cases", str(content["n"])),
        ("folds", f"{content['n_folds']}, tested: {tested}"),
        ("budget", content["budget"]),
        ("seed", str(content["seed"])),
        *([("failed", str(len(content["failed"])))] if content["failed"] else []),
    ]


def _slice_table(rows: Sequence[Row]) -> Table:
    names = {"loss": "loss", "pixel_accuracy": "PA", "iou": "IoU"}
    parts = {"train": "train", "validation": "val.", "test": "test"}
    columns = {f"{part}_{name}": f"{word} {title}" for part, word in parts.items() for name, title in names.items()}
    return Table(
        title="As 2D notebooks report it: slices",
        columns=["bundle", "train min", *columns.values()],
        rows=[[row["bundle"], row["minutes"], *(row[name] for name in columns)] for row in rows],
        note=SLICES_NOTE,
    )


def _patient_tables(rows: Sequence[Row]) -> list[Table]:
    figures = {**LESIONS, **DISTANCES}
    return [
        Table(
            title="Patients never seen: overlap",
            columns=["bundle", "cases", *DICE.values()],
            rows=[[row["bundle"], row["n"], *(_text(row, name) for name in DICE)] for row in rows],
            note=PATIENTS_NOTE,
        ),
        Table(
            title="Patients never seen: lesions and distances",
            columns=["bundle", *figures.values(), "missed liver / tumour", "false liver / tumour", "not scored"],
            rows=[
                [
                    row["bundle"],
                    *(_text(row, name) for name in figures),
                    *(_counts(row, key) for key in ("missing", "spurious")),
                    row["n_failed"],
                ]
                for row in rows
            ],
            note=LESIONS_NOTE,
        ),
    ]


def _leak_table(rows: Sequence[Row]) -> Table:
    figures = [(split, name) for name in LEAKING for split in SPLITS]
    return Table(
        title="The leak of a split by slice (no result)",
        columns=[
            "bundle",
            "slices",
            *(f"{LEAKING[name]}, {SPLITS[split]}" for split, name in figures),
            "IoU difference",
        ],
        rows=[
            [
                row["bundle"],
                row["n_slices"],
                *(three_decimals(row[f"{split}_{name}"]) for split, name in figures),
                _text(row, "iou_difference"),
            ]
            for row in rows
        ],
        note=LEAK_NOTE,
    )


def _failure_table(rows: Sequence[Row]) -> Table:
    return Table(
        title="Failed",
        columns=["bundle", "fold", "case", "reason"],
        rows=[[row["bundle"], row["fold"], row["case_id"] or "all", row["error"]] for row in rows],
        note="The other figures stand without them; compare bundles on the same number of cases only.",
    )


def _patient_panel(rows: Sequence[Row], name: str, title: str) -> IntervalPanel:
    return IntervalPanel(title=title, rows={row["bundle"]: {"": _interval(row, name)} for row in rows})


def _leak_panel(rows: Sequence[Row], name: str, title: str) -> IntervalPanel:
    marks = {
        row["bundle"]: {words: _interval(row, f"{split}_{name}") for split, words in SPLITS.items()} for row in rows
    }
    return IntervalPanel(title=f"{title} on held-out slices", rows=marks)


def _interval(row: Row, name: str) -> Interval:
    return Interval(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"])


def _counts(row: Row, key: str) -> str:
    return f"{row[f'liver_n_{key}']} / {row[f'tumor_n_{key}']}"


def _text(row: Row, name: str) -> str:
    if row[name] is None or row[f"{name}_low"] is None:
        return three_decimals(row[name])
    return f"{three_decimals(row[name])} [{three_decimals(row[f'{name}_low'])}, {three_decimals(row[f'{name}_high'])}]"


def _said(rows: Sequence[Row], names: Mapping[str, str]) -> str:
    said = [f"{row['bundle']}: " + ", ".join(f"{title} {three_decimals(row[name])}" for name, title in names.items())
            for row in rows]  # fmt: skip
    return "; ".join(said)
