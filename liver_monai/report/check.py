"""The page of a check: what was found, how the cases differ, and each case on a stamp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from liver_monai.errors import some
from liver_monai.report.overlays import draw_thumbnail
from liver_monai.report.page import CaseRow, Figure, Remark, Table, write_page
from liver_monai.report.plots import draw_dot_rows

SEVERITIES = ("error", "warning", "note")
TIMES = " \N{MULTIPLICATION SIGN} "
MOST_NAMES = 8
"""Case ids in a cell of a table; the cases below have them all."""

QUANTITIES = {
    "slices": "n_slices",
    "slice distance (mm)": "slice_mm",
    "in-plane spacing (mm)": "in_plane_mm",
    "1st percentile (HU)": "p1_hu",
    "median (HU)": "p50_hu",
    "99th percentile (HU)": "p99_hu",
    "liver (HU)": "liver_hu",
    "liver (mL)": "liver_ml",
    "tumour (mL)": "tumor_ml",
    "lesions": "n_lesions",
}


def write_check_report(
    path: Path,
    *,
    summary: Mapping[str, Any],
    thumbnails: Mapping[str, tuple[Any, Any]],
    provenance: Mapping[str, str],
) -> None:
    """Findings by check, those of the data set, fingerprints of the cases, and every case, the worst first.

    Args:
        summary: what ``check.json`` holds: ``cases``, ``findings`` and their numbers.
        thumbnails: by case_id grey values and labels, ``(H, W)`` uint8; a case may lack one.
    """
    cases, findings = summary["cases"], summary["findings"]
    of_all = [finding for finding in findings if not finding["case_id"]]
    tables = [_check_table(findings)] if findings else []
    tables += [_dataset_table(of_all)] if of_all else []
    spreads = _spreads(cases)
    tables += [_fingerprint_table(spreads)] if spreads else []
    write_page(
        path,
        title="Data check",
        summary=_cards(summary),
        tables=tables,
        figures=[_spread_figure(spreads)] if spreads else [],
        rows=[_case_row(case, findings, thumbnails.get(case["case_id"])) for case in _worst_first(cases, findings)],
        provenance=provenance,
    )


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    cards = [("cases", str(summary["n"]))]
    cards += [("excluded", str(summary["n_excluded"]))] if summary["n_excluded"] else []
    return cards + [(f"{severity}s", str(summary["n_findings"][severity])) for severity in SEVERITIES]


def _check_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    names = {finding["check"]: finding["severity"] for finding in findings}
    rows = []
    for name, severity in sorted(names.items(), key=lambda item: (SEVERITIES.index(item[1]), item[0])):
        found = [finding["case_id"] for finding in findings if finding["check"] == name]
        rows.append([name, severity, len(found), some(list(dict.fromkeys(filter(None, found))), most=MOST_NAMES)])
    return Table(
        title="Findings by check",
        columns=["check", "severity", "findings", "cases"],
        rows=rows,
        text_columns=["cases"],
        note="An error makes results wrong, or prevents them, until it is mended or the case excluded. A warning makes "
        "a case or its figures doubtful. A note is worth knowing.",
    )


def _dataset_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[finding["check"], finding["severity"], finding["message"]] for finding in findings]
    return Table(title="All cases together", columns=["check", "severity", "finding"], rows=rows)


def _fingerprint_table(spreads: Mapping[str, Sequence[float]]) -> Table:
    return Table(
        title="Fingerprint",
        columns=["quantity", "smallest", "median", "largest", "cases"],
        rows=[
            [title, *(f"{figure:.4g}" for figure in (min(values), median(values), max(values))), len(values)]
            for title, values in spreads.items()
        ],
        note="The liver includes its tumours; a liver's HU are those of its inside.",
    )


def _figures_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case's figures, those that are lists or tables spread out."""
    figures = dict(case["figures"])
    if not figures:
        return figures
    spacing_mm, percentiles = figures["spacing_mm"], figures["percentiles_hu"]
    figures["spacing"] = TIMES.join(f"{value:.3g}" for value in spacing_mm)
    figures |= {f"p{percent}_hu": value for percent, value in percentiles.items()}
    figures |= {key: f"{round(figures[key], 2):g}" for key in ("low_hu", "high_hu")}
    return figures


def _spreads(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Values of all cases by quantity, those that fewer than two cases have left out."""
    figures = [_figures_of(case) for case in cases]
    spreads = {title: [float(each[key]) for each in figures if key in each] for title, key in QUANTITIES.items()}
    return {title: values for title, values in spreads.items() if len(values) > 1}


def _spread_figure(spreads: Mapping[str, Sequence[float]]) -> Figure:
    said = "; ".join(f"{title} {min(values):.4g} to {max(values):.4g}" for title, values in spreads.items())
    return Figure(title="How the cases differ, one dot a case", png=draw_dot_rows(spreads), alt=said)


def _worst_first(cases: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    def rank(case: Mapping[str, Any]) -> int:
        ranks = [SEVERITIES.index(each["severity"]) for each in findings if each["case_id"] == case["case_id"]]
        return min(ranks, default=len(SEVERITIES))

    return sorted(cases, key=rank)


def _case_row(
    case: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], thumbnail: tuple[Any, Any] | None
) -> CaseRow:
    own = [finding for finding in findings if finding["case_id"] == case["case_id"]]
    own.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
    return CaseRow(
        case_id=case["case_id"],
        picture_jpeg=None if thumbnail is None else draw_thumbnail(*thumbnail),
        facts=_facts(_figures_of(case)),
        remarks=[Remark(severity=each["severity"], title=each["check"], text=each["message"]) for each in own],
    )


def _facts(figures: Mapping[str, Any]) -> dict[str, str]:
    if not figures:
        return {}
    facts = {
        "voxels": TIMES.join(str(size) for size in figures["shape"]),
        "spacing": f"{figures['spacing']} mm",
        "orientation": figures["orientation"],
        "range": f"{figures['low_hu']} to {figures['high_hu']} HU".replace("-", "\N{MINUS SIGN}"),
    }
    if "liver_ml" in figures:
        facts |= {"liver": f"{figures['liver_ml']:.0f} mL", "tumour": f"{figures['tumor_ml']:.1f} mL"}
    names = {"liver": "liver_hu", "soft tissue": "soft_tissue_hu", "brightest": "brightest_hu"}
    contrast = [f"{name} {figures[key]}" for name, key in names.items() if key in figures]
    return facts | ({"contrast (HU)": ", ".join(contrast)} if contrast else {})
