"""Reports of many cases: what a prediction run made, and how an evaluation went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from liver_monai.io.probabilities import STRUCTURES
from liver_monai.io.volumes import Source, read_mask, read_volume
from liver_monai.report.findings import Findings
from liver_monai.report.mask import write_scan
from liver_monai.report.overlays import draw_overlays, draw_stamp
from liver_monai.report.page import CasePanel, Figure, Table, structure_word, three_decimals, write_page
from liver_monai.report.plots import LESION_KINDS, draw_lesion_plot, draw_reliability_plot, draw_score_plot
from liver_monai.report.scan import read_scan
from liver_monai.scoring.measures import MEASURES

MAX_PANELS = 4
"""Half a megabyte a contact sheet."""
MAX_STAMPS = 300
"""15 kB a small picture as it stands in a page: they take less than 5 MB, however many cases there are."""

MAX_LESIONS = 200
"""A degenerate mask may hold thousands of specks; the page stays readable, the CSV file has them all."""

STAMP_NOTE = "Pictures: the slice with most tumour, or the middle of the liver; blue the liver, orange tumours."


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """What to draw of one case: its CT, masks by name (``"prediction"``, ``"reference"``), and facts to print.

    ``input_name`` is what the record calls its CT.
    """

    case_id: str
    image: Source
    masks: Mapping[str, Path]
    facts: Mapping[str, str]
    input_name: str = ""


def write_prediction_report(
    path: Path,
    *,
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[CasePicture],
    provenance: Mapping[str, str],
    with_patient: bool = False,
) -> None:
    """Volumes of every case with a small picture and a link to its findings, which are written beside.

    Args:
        rows: ``case_id``, ``status``, ``liver_ml``, ``tumor_ml``, ``seconds`` and ``error`` a case.
        pictures: of every case that has a mask, named ``"prediction"``; more of each goes to ``findings/<case_id>/``.
        with_patient: whether a case's own page shows the name and ID that its DICOM headers have.
    """
    found = [
        _write_case(path.parent, picture, provenance=_own(provenance, picture, pictures), with_patient=with_patient)
        for picture in tqdm(pictures, desc="drawing", unit="case", disable=None)
    ]
    figures_of = {each.case_id: each.figures for each in found}
    done = [row for row in rows if row["status"] != "failed"]
    pages = {each.case_id: each.page for each in found}
    cases = _table(
        "Cases",
        [{**row, **figures_of.get(row["case_id"], {}), "n_remarks": len(_remarks(row)) or None} for row in rows],
        PREDICTION_COLUMNS,
        note=f"The liver includes its tumours. The name of a case leads to its findings. {STAMP_NOTE}",
        links=pages,
        pictures={each.case_id: each.stamp for each in found[:MAX_STAMPS]},
    )
    remarks = [{"case_id": row["case_id"], "remark": remark} for row in rows for remark in _remarks(row)]
    write_page(
        path,
        title="Predicted masks",
        summary=[("cases", str(len(rows))), ("masks", str(len(done))), ("failed", str(len(rows) - len(done)))],
        tables=[cases, *([_table("Remarks", remarks, REMARK_COLUMNS, links=pages)] if remarks else [])],
        provenance=provenance,
    )


PREDICTION_COLUMNS = {
    "case": "case_id",
    "status": "status",
    "liver (mL)": "liver_ml",
    "tumour (mL)": "tumor_ml",
    "burden (%)": "burden",
    "lesions": "n_lesions",
    "longest (mm)": "longest_mm",
    "time (s)": "seconds",
    "remarks": "n_remarks",
}
REMARK_COLUMNS = {"case": "case_id", "remark": "remark"}


def _remarks(row: Mapping[str, Any]) -> list[str]:
    """What is said of a case in words: too long for a column among figures."""
    failed = [f"failed: {row['error']}"] if row["error"] else []
    objects = [f"no DICOM objects: {row['dicom_error']}"] if row.get("dicom_error") else []
    warnings = row.get("warnings") or ""
    return [*failed, *objects, *(warnings.split(" | ") if warnings else [])]


@dataclass(frozen=True, kw_only=True)
class _CaseFound:
    """What the page of a cohort says of one case: where its own page is, figures of its findings, a small picture."""

    case_id: str
    page: str
    figures: Mapping[str, Any]
    stamp: bytes


def _write_case(folder: Path, picture: CasePicture, *, provenance: Mapping[str, str], with_patient: bool) -> _CaseFound:
    """Write the findings of a case and its page; its CT is in memory only here."""
    scan = read_scan(picture.masks["prediction"], image=picture.image)
    if scan.image is None:
        raise ValueError(f"case {picture.case_id} has no CT to draw")
    found = scan.findings()
    own = Path("findings") / picture.case_id
    patient = scan.patient() if with_patient else None
    write_scan(scan, found, folder / own, provenance=provenance, patient=patient)
    return _CaseFound(
        case_id=picture.case_id,
        page=(own / "report.html").as_posix(),
        figures=_figures(found),
        stamp=draw_stamp(scan.image, {"prediction": scan.mask}, affine=scan.affine),
    )


def _own(provenance: Mapping[str, str], picture: CasePicture, pictures: Sequence[CasePicture]) -> dict[str, str]:
    """Without the hashes of other cases, which would make the pages of a large cohort larger with each case."""
    others = {f"SHA-256 of {other.input_name}" for other in pictures} - {f"SHA-256 of {picture.input_name}"}
    return {label: text for label, text in provenance.items() if label not in others}


def _figures(found: Findings) -> dict[str, Any]:
    longest_mm = max((lesion.longest.length_mm for lesion in found.lesions), default=None)
    burden = None if found.burden is None else 100 * found.burden
    return {"burden": burden, "n_lesions": len(found.lesions), "longest_mm": longest_mm}


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
    return _table("Lesions", rows[:MAX_LESIONS], columns, note=note)


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
    return _table("Cases", rows, {**columns, "error": "error"}, note=note, pictures=stamps)


def _score_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    defined = {name: [row[f"{name}_dice"] for row in rows if row[f"{name}_dice"] is not None] for name in STRUCTURES}
    said = ", ".join(f"mean {structure_word(name)} Dice {np.mean(dice):.3f}" for name, dice in defined.items() if dice)
    return Figure(title="Dice per case", png=draw_score_plot(rows), alt=f"Dice of {len(rows)} cases; {said}")


def _table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    note: str = "",
    links: Mapping[str, str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Table:
    """Columns that no row fills are left out."""
    filled = {head: key for head, key in columns.items() if any(row.get(key) not in (None, "") for row in rows)}
    return Table(
        title=title,
        columns=list(filled),
        rows=[[row.get(key) for key in filled.values()] for row in rows],
        note=note,
        links=links or {},
        pictures=pictures or {},
    )


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
