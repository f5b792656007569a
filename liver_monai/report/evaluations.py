"""The page of an evaluation: scores, their summary, and the worst cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from liver_monai.io.probabilities import STRUCTURES
from liver_monai.io.volumes import read_mask, read_volume
from liver_monai.report.cases import MAX_STAMPS, STAMP_NOTE, CasePicture, table_of
from liver_monai.report.overlays import draw_overlays, draw_stamp
from liver_monai.report.page import CasePanel, Figure, Table, structure_word, three_decimals, write_page
from liver_monai.report.plots import LESION_KINDS, draw_lesion_plot, draw_reliability_plot, draw_score_plot
from liver_monai.scoring.measures import MEASURES

MAX_PANELS = 4
"""Half a megabyte a contact sheet."""

MAX_LESIONS = 200
"""A degenerate mask may hold thousands of specks; the page stays readable, the CSV file has them all."""


def write_evaluation_report(
    path: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    lesions: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    pictures: Sequence[CasePicture],
    provenance: Mapping[str, str],
) -> None:
    """Scores of every case with a small picture, their summary, and large pictures of the worst cases.

    Args:
        rows: those of ``cases.csv``.
        lesions: those of ``lesions.csv``.
        summary: that of ``summary.json``.
        pictures: worst case first.
    """
    scored = [row for row in rows if not row["error"]]
    structures = [name for name in STRUCTURES if name in summary]
    tables = [_summary_table(summary, structures)] if structures else []
    figures = [_score_figure(scored)] if structures and scored else []
    if "lesion_detection" in summary:
        tables += [_detection_table(summary), _size_table(summary), _lesion_measure_table(summary)]
    if lesions:
        figures.append(_lesion_figure(lesions))
    if "calibration" in summary:
        tables.append(_calibration_table(summary["calibration"]))
        figures.append(_reliability_figure(summary["calibration"]))
    if "slices" in summary:
        tables.append(_slice_table(summary["slices"]))
    drawn = _drawn(pictures)
    write_page(
        path,
        title=f"Evaluation by protocol {summary['protocol']}",
        summary=_cards(summary),
        tables=[*tables, _case_table(rows, drawn.stamps), *([_lesion_table(lesions)] if lesions else [])],
        figures=figures,
        panels=drawn.panels,
        provenance=provenance,
    )


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    cards = [("cases scored", str(summary["n"])), ("not scored", str(summary["n_failed"]))]
    scores = [
        (f"{structure_word(name)} Dice per case", three_decimals(summary[name]["dice_per_case"]))
        for name in STRUCTURES
        if name in summary
    ]
    if "lesion_detection" in summary:
        found = summary["lesion_detection"]["iou_50"]
        scores.append(("lesions found", f"{found['tp']} of {found['n_references']}"))
    return [*scores, *cards]


COUNTS = {"n_missing": "missing", "n_spurious": "spurious", "n_both_empty": "in neither", "n_measured": "measured"}


def _summary_table(summary: Mapping[str, Any], structures: Sequence[str]) -> Table:
    pools = [(name, pool) for name in ("dice", "iou") for pool in ("per_case", "global")]
    overlap = {f"{name}_{pool}": f"{MEASURES[name].title} {pool.replace('_', ' ')}" for name, pool in pools}
    measures = {name: each.title + (f" ({each.unit})" if each.unit else "") for name, each in MEASURES.items()}
    titles = {**overlap, **measures, **COUNTS}
    columns = {key: title for key, title in titles.items() if any(key in summary[name] for name in structures)}
    holds_tumor = "includes its tumours" if summary["protocol"] != "msd" else "is label 1 alone, without its tumours"
    return Table(
        title="Structures",
        columns=["structure", *columns.values()],
        rows=[[structure_word(name), *(summary[name].get(column) for column in columns)] for name in structures],
        note=(
            f"Protocol {summary['protocol']}. The liver {holds_tumor}. Per case: mean over cases; global: all voxels "
            f"pooled. NSD at a tolerance of {summary['tolerance_mm']:g} mm. Missing: in the reference, not predicted; "
            "spurious: the reverse; measured: in both. Distances are means over the measured cases only, so read them "
            f"beside the missing ones. Pixel accuracy {summary['pixel_accuracy']['per_case']:.4f} per case; it is "
            "high for an empty mask too."
        ),
    )


def _detection_table(summary: Mapping[str, Any]) -> Table:
    columns = ("n_references", "tp", "fp", "fn", "precision", "recall", "f1")
    titles = {"overlap": "any overlap", "iou_50": "IoU above 0.5"}
    return Table(
        title="Lesions found",
        columns=["criterion", "lesions", "TP", "FP", "FN", "precision", "recall", "F1"],
        rows=[[titles[name], *(each[key] for key in columns)] for name, each in summary["lesion_detection"].items()],
        note="A lesion is a tumour connected by faces. Counts are pooled over the cases, after merging as LiTS does.",
    )


def _size_table(summary: Mapping[str, Any]) -> Table:
    columns = ("n_references", "recall_overlap", "recall_iou_50", "n_false_positives")
    return Table(
        title="Lesions by size",
        columns=["equivalent diameter", "lesions", "recall, any overlap", "recall, IoU above 0.5", "false positives"],
        rows=[[size, *(each[key] for key in columns)] for size, each in summary["lesion_detection_by_size"].items()],
        note="Diameter of the sphere of the lesion's volume; of false positives, their own.",
    )


def _lesion_measure_table(summary: Mapping[str, Any]) -> Table:
    values = {name: value for name, value in summary["lesion_segmentation"].items() if name in MEASURES}
    rows = [[MEASURES[name].title, MEASURES[name].unit, value] for name, value in values.items()]
    burden = summary["tumor_burden"]
    rows += [["tumour burden, RMSE", "", burden["rmse"]], ["tumour burden, largest difference", "", burden["max"]]]
    return Table(
        title="Detected lesions",
        columns=["measure", "unit", "mean"],
        rows=rows,
        note=(
            f"Means over {summary['lesion_segmentation']['n_objects']} lesions found at IoU above 0.5, merged ones as "
            f"one. Burden: tumour over liver; not defined in {burden['n_undefined']} cases."
        ),
    )


def _lesion_table(lesions: Sequence[Mapping[str, Any]]) -> Table:
    """Every false positive and the lesions not found come first, as they are what one looks for."""
    columns = {
        "case": "case_id",
        "mask": "mask",
        "lesion": "lesion",
        "diameter (mm)": "diameter_mm",
        "volume (mL)": "volume_ml",
        "found": "found",
        "Dice": "dice",
        "ASSD (mm)": "assd_mm",
        "MSD (mm)": "msd_mm",
    }
    rows = [{**row, "found": _found(row)} for row in lesions]
    rows.sort(key=lambda row: (row["found"] == "IoU above 0.5", -float(row["diameter_mm"])))
    note = "Worst first." if len(rows) <= MAX_LESIONS else f"The first {MAX_LESIONS} of {len(rows)}; all: lesions.csv."
    return table_of("Lesions", rows[:MAX_LESIONS], columns, note=note)


def _found(lesion: Mapping[str, Any]) -> str:
    if lesion["mask"] == "prediction":
        return "false positive"
    if lesion["detected_iou_50"]:
        return "IoU above 0.5"
    return "overlap" if lesion["detected_overlap"] else "no"


def _lesion_figure(lesions: Sequence[Mapping[str, Any]]) -> Figure:
    counts = {kind: sum(_found(row) == kind for row in lesions) for kind in LESION_KINDS}
    return Figure(
        title="Lesions by size",
        png=draw_lesion_plot([(float(row["diameter_mm"]), _found(row), row.get("dice")) for row in lesions]),
        alt="Lesions: " + ", ".join(f"{kind} {n}" for kind, n in counts.items()),
    )


def _calibration_table(calibration: Mapping[str, Any]) -> Table:
    columns = {f"{error}_{pool}": f"{error.upper()} {pool.replace('_', ' ')}"
               for error in ("ece", "ace", "mce") for pool in ("per_case", "global")}  # fmt: skip
    return Table(
        title="Calibration",
        columns=["structure", *columns.values()],
        rows=[[structure_word(name), *(each[column] for column in columns)] for name, each in calibration.items()],
        note=(
            "How far probabilities are from the share of voxels that are true, in bins of equal width. ECE: mean over "
            "voxels, small in every CT, as most of it is sure background; ACE: mean over bins; MCE: the worst bin. The "
            "liver includes its tumours under every protocol."
        ),
    )


def _reliability_figure(calibration: Mapping[str, Any]) -> Figure:
    by_word = {structure_word(name): each for name, each in calibration.items()}
    said = ", ".join(f"ACE of the {word} {each['ace_global']:.3f}" for word, each in by_word.items())
    curves = {word: each["bins"] for word, each in by_word.items()}
    return Figure(title="Reliability", png=draw_reliability_plot(curves), alt=f"Reliability of all voxels: {said}")


def _slice_table(scores: Mapping[str, Any]) -> Table:
    return Table(
        title="Slices",
        columns=["structure", "slices", "pixel accuracy", "IoU"],
        rows=[["liver with tumours", scores["n_slices"], scores["pixel_accuracy"], scores["iou"]]],
        note=(
            "Means over the slices whose reference holds liver and background; IoU is the mean of the two classes. "
            "These figures flatter: they say nothing of slices without liver, nor of tumours. A loss needs "
            "probabilities, which masks do not hold."
        ),
    )


def _case_table(rows: Sequence[Mapping[str, Any]], stamps: Mapping[str, bytes]) -> Table:
    columns = {"case": "case_id"}
    for name in STRUCTURES:
        columns |= {
            f"{structure_word(name)} Dice": f"{name}_dice",
            f"{structure_word(name)} IoU": f"{name}_iou",
            f"{structure_word(name)} ASSD (mm)": f"{name}_assd_mm",
            f"{structure_word(name)} HD95 (mm)": f"{name}_hd95_mm",
            f"{structure_word(name)} NSD": f"{name}_nsd",
            f"{structure_word(name)} predicted (mL)": f"{name}_prediction_ml",
            f"{structure_word(name)} reference (mL)": f"{name}_reference_ml",
        }
    columns |= {"lesions TP": "lesions_iou_50_tp", "FP": "lesions_iou_50_fp", "FN": "lesions_iou_50_fn"}
    columns |= {"slices": "n_slices", "pixel accuracy": "slice_pixel_accuracy", "IoU": "slice_iou"}
    note = f"{STAMP_NOTE} White: the reference." if stamps else ""
    return table_of("Cases", rows, {**columns, "error": "error"}, note=note, pictures=stamps)


def _score_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    defined = {name: [row[f"{name}_dice"] for row in rows if row[f"{name}_dice"] is not None] for name in STRUCTURES}
    said = ", ".join(f"mean {structure_word(name)} Dice {np.mean(dice):.3f}" for name, dice in defined.items() if dice)
    return Figure(title="Dice per case", png=draw_score_plot(rows), alt=f"Dice of {len(rows)} cases; {said}")


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Small pictures by case, and large ones of the first cases."""

    stamps: Mapping[str, bytes]
    panels: Sequence[CasePanel]


def _drawn(pictures: Sequence[CasePicture]) -> _Drawn:
    stamps: dict[str, bytes] = {}
    panels: list[CasePanel] = []
    for picture in tqdm(pictures[:MAX_STAMPS], desc="drawing", unit="case", disable=None):
        volume = read_volume(picture.image)
        image, affine = volume[0].numpy(), np.asarray(volume.affine)
        masks = {name: read_mask(path)[0].numpy() for name, path in picture.masks.items()}
        stamps[picture.case_id] = draw_stamp(image, masks, affine=affine)
        if len(panels) < MAX_PANELS:
            png = draw_overlays(image, masks, affine=affine)
            panels.append(CasePanel(case_id=picture.case_id, picture_png=png, facts=picture.facts))
    return _Drawn(stamps=stamps, panels=panels)
