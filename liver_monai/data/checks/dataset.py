"""Checks of all cases together: duplicates, patients, and what differs between the cases."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from liver_monai.data.checks.content import Match, find_matches
from liver_monai.data.checks.findings import CaseReport, Observed
from liver_monai.spec import ModelSpec

MOST_NAMES = 12
"""Case ids in one message; the figures have them all."""

ODD_LIVER_HU = 40.0
"""From the median of the data set: contrast moves a liver by 30 to 60 HU, noise and fat by less."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Everything that was checked: one data set, or two that are compared.

    Args:
        folders: as given.
        reports: of all cases that were not excluded.
        excluded: reasons by case_id.
    """

    folders: Sequence[Path]
    reports: Sequence[CaseReport]
    excluded: Mapping[str, str] = field(default_factory=dict)

    def figures(self, name: str) -> dict[str, float]:
        """One figure by case_id, where it is known."""
        return {report.case_id: report.figures[name] for report in self.reports if name in report.figures}


def duplicates(data: DataSet) -> Iterator[Observed]:
    """The same voxels twice, however they are flipped, stored or padded."""
    for first, second, match in _matches(data):
        if match.kind == "same":
            yield Observed(
                case_id=second.case_id,
                text=f"the same image as {first.case_id}, found by its voxels",
                figures={"other": first.case_id, "content": second.content.digest if second.content else ""},
            )


def shared_slices(data: DataSet) -> Iterator[Observed]:
    """One scan is a part of another."""
    for first, second, match in _matches(data):
        if match.kind == "part":
            yield Observed(
                case_id=second.case_id,
                text=f"shares {match.n_shared} slices with {first.case_id}: one scan, cut differently",
                figures={"other": first.case_id, "n_shared": match.n_shared},
            )


def similar(data: DataSet) -> Iterator[Observed]:
    """Other voxels, but the same body: another reconstruction, rounding or resampling of one scan."""
    for first, second, match in _matches(data):
        if match.kind == "similar":
            yield Observed(
                case_id=second.case_id,
                text=f"looks like {first.case_id}: mean HU along all axes differs by {match.difference_hu:.2g} HU only",
                figures={"other": first.case_id, "difference_hu": round(match.difference_hu, 3)},
            )


def no_tumor(data: DataSet) -> Iterator[Observed]:
    """Cases without a tumour, which folds must share out."""
    n_lesions = data.figures("n_lesions")
    without = [case_id for case_id, count in n_lesions.items() if count == 0]
    if without:
        yield Observed(
            text=f"{len(without)} of {len(n_lesions)} cases have no tumour: {_names(without)}",
            figures={"case_ids": without},
        )


def mixed_spacing(data: DataSet) -> Iterator[Observed]:
    """How far apart slices lie in the data set and on the model grid."""
    slices_mm = list(data.figures("slice_mm").values())
    if len(slices_mm) < 2 or min(slices_mm) == max(slices_mm):
        return
    model_mm = ModelSpec.spacing_mm[2]
    yield Observed(
        text=f"slices lie {min(slices_mm):.3g} to {max(slices_mm):.3g} mm apart, median {np.median(slices_mm):.3g} mm; "
        f"neighbours of a slab lie {model_mm:g} mm apart by default",
        figures={"least_mm": min(slices_mm), "most_mm": max(slices_mm), "median_mm": float(np.median(slices_mm))},
    )


def mixed_orientation(data: DataSet) -> Iterator[Observed]:
    """Several stored orientations."""
    counts = Counter(str(report.figures["orientation"]) for report in data.reports if "orientation" in report.figures)
    if len(counts) > 1:
        said = ", ".join(f"{code} {count}" for code, count in counts.most_common())
        yield Observed(text=f"stored orientations: {said}", figures=dict(counts))


def odd_contrast(data: DataSet) -> Iterator[Observed]:
    """Livers much brighter or darker than the others."""
    livers_hu = data.figures("liver_hu")
    if len(livers_hu) < 3:
        return
    median_hu = float(np.median(list(livers_hu.values())))
    for case_id, liver_hu in livers_hu.items():
        if abs(liver_hu - median_hu) > ODD_LIVER_HU:
            yield Observed(
                case_id=case_id,
                text=f"the liver has {liver_hu:.0f} HU, the median of all cases is {median_hu:.0f} HU",
                figures={"liver_hu": liver_hu, "median_hu": median_hu},
            )


def several_scans(data: DataSet) -> Iterator[Observed]:
    """Patients with more than one scan."""
    scans: dict[str, list[str]] = defaultdict(list)
    for report in data.reports:
        if report.patient_id:
            scans[report.patient_id].append(report.case_id)
    for patient_id, case_ids in scans.items():
        if len(case_ids) > 1:
            yield Observed(
                text=f"patient {patient_id} has {len(case_ids)} scans: {_names(case_ids)}",
                figures={"patient_id": patient_id, "case_ids": case_ids},
            )


def licence(data: DataSet) -> Iterator[Observed]:
    """What the data set says of its licence."""
    for folder in data.folders:
        stated = _stated_licence(folder)
        if stated:
            yield Observed(text=f"{folder} is under the licence {stated}", figures={"licence": stated})
        elif folder.is_dir():
            yield Observed(text=f"{folder} states no licence", figures={"licence": None})


def excluded(data: DataSet) -> Iterator[Observed]:
    """Cases left out, each with the reason that the list gives."""
    for case_id, reason in data.excluded.items():
        yield Observed(case_id=case_id, text=f"excluded and not checked: {reason}", figures={"reason": reason})


def _matches(data: DataSet) -> Iterator[tuple[CaseReport, CaseReport, Match]]:
    reports = [report for report in data.reports if report.content is not None]
    for match in find_matches([report.content for report in reports if report.content is not None]):
        yield reports[match.first], reports[match.second], match


def _stated_licence(folder: Path) -> str:
    """The field of MSD's ``dataset.json``, in either spelling."""
    listing = folder / "dataset.json"
    if not listing.is_file():
        return ""
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
    except ValueError:
        return ""
    return str(content.get("licence") or content.get("license") or "") if isinstance(content, dict) else ""


def _names(case_ids: Sequence[str]) -> str:
    shown = ", ".join(case_ids[:MOST_NAMES])
    return shown if len(case_ids) <= MOST_NAMES else f"{shown} and {len(case_ids) - MOST_NAMES} more"
