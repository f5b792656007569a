"""Checks of all cases together: duplicates, patients, and what differs between the cases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from liver_monai.data.checks.content import Match, find_matches
from liver_monai.data.checks.findings import CaseReport, Observed
from liver_monai.data.folds import FoldRow
from liver_monai.errors import some
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
        folds: what each file of folds says, by case_id.
        licences: what is known of the licence of each data set.
    """

    folders: Sequence[Path]
    reports: Sequence[CaseReport]
    excluded: Mapping[str, str] = field(default_factory=dict)
    folds: Mapping[Path, Mapping[str, FoldRow]] = field(default_factory=dict)
    licences: Mapping[Path, str] = field(default_factory=dict)

    @cached_property
    def matches(self) -> list[tuple[CaseReport, CaseReport, Match]]:
        """Pairs of cases that show the same."""
        reports = [report for report in self.reports if report.content is not None]
        found = find_matches([report.content for report in reports if report.content is not None])
        return [(reports[match.first], reports[match.second], match) for match in found]

    def matches_of(self, kind: str) -> Iterator[tuple[CaseReport, CaseReport, Match]]:
        """Those of ``Match``'s kind: ``same``, ``part`` or ``similar``."""
        return (found for found in self.matches if found[2].kind == kind)

    def figures(self, name: str) -> dict[str, float]:
        """One figure by case_id, where it is known."""
        return {report.case_id: report.figures[name] for report in self.reports if name in report.figures}


def duplicates(data: DataSet) -> Iterator[Observed]:
    """The same voxels twice, however they are flipped, stored or padded."""
    for first, second, _ in data.matches_of("same"):
        yield Observed(
            case_id=second.case_id,
            text=f"the same image as {first.case_id}, found by its voxels",
            figures={"other": first.case_id, "content": second.content.digest if second.content else ""},
        )


def shared_slices(data: DataSet) -> Iterator[Observed]:
    """One scan is a part of another."""
    for first, second, match in data.matches_of("part"):
        yield Observed(
            case_id=second.case_id,
            text=f"shares {match.n_shared} slices with {first.case_id}: one scan, cut differently",
            figures={"other": first.case_id, "n_shared": match.n_shared},
        )


def similar(data: DataSet) -> Iterator[Observed]:
    """Other voxels, but the same body: another reconstruction, rounding or resampling of one scan."""
    for first, second, match in data.matches_of("similar"):
        yield Observed(
            case_id=second.case_id,
            text=f"looks like {first.case_id}: mean HU along all axes differs by {match.difference_hu:.2g} HU only",
            figures={"other": first.case_id, "difference_hu": round(match.difference_hu, 3)},
        )


def split_duplicates(data: DataSet) -> Iterator[Observed]:
    """Cases of the same image, or with shared slices, in different folds."""
    for first, second, match in data.matches:
        if match.kind == "similar":
            continue
        for file, rows in data.folds.items():
            folds = [rows[report.case_id].fold for report in (first, second) if report.case_id in rows]
            if len(set(folds)) > 1:
                yield Observed(
                    case_id=second.case_id,
                    text=f"shows what {first.case_id} shows, but {file} puts it into fold {folds[1]} and the other "
                    f"into fold {folds[0]}",
                    figures={"other": first.case_id, "folds": folds, "file": str(file)},
                )


def split_patients(data: DataSet) -> Iterator[Observed]:
    """Scans of one patient in different folds; who the patient is, the file of folds may know better."""
    for file, rows in data.folds.items():
        scans: dict[str, dict[str, int]] = defaultdict(dict)
        for report in data.reports:
            if report.case_id in rows:
                fold, patient_id = rows[report.case_id]
                for each in {patient_id, report.patient_id} - {""}:
                    scans[each][report.case_id] = fold
        for patient_id, folds in scans.items():
            if len(set(folds.values())) > 1:
                said = ", ".join(f"{case_id} in {fold}" for case_id, fold in folds.items())
                yield Observed(
                    text=f"{file} puts scans of the patient '{patient_id}' into different folds: {said}",
                    figures={"patient_id": patient_id, "folds": folds, "file": str(file)},
                )


def no_tumor(data: DataSet) -> Iterator[Observed]:
    """Cases without a tumour, which folds must share out."""
    n_lesions = data.figures("n_lesions")
    without = [case_id for case_id, count in n_lesions.items() if count == 0]
    if without:
        yield Observed(
            text=f"{len(without)} of {len(n_lesions)} cases have no tumour: {some(without, most=MOST_NAMES)}",
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
    """Livers much brighter or darker than the others, those left out whose values are no Hounsfield units."""
    not_hu = {finding.case_id for report in data.reports for finding in report.findings if finding.check == "not-hu"}
    livers_hu = {case_id: hu for case_id, hu in data.figures("liver_hu").items() if case_id not in not_hu}
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
                text=f"{len(case_ids)} scans of the patient '{patient_id}': {some(case_ids, most=MOST_NAMES)}",
                figures={"patient_id": patient_id, "case_ids": case_ids},
            )


def licence(data: DataSet) -> Iterator[Observed]:
    """What the data set says of its licence."""
    for folder, note in data.licences.items():
        yield Observed(text=f"{folder}: {note}", figures={"licence": note})


def excluded(data: DataSet) -> Iterator[Observed]:
    """Cases left out, each with the reason that the list gives."""
    for case_id, reason in data.excluded.items():
        yield Observed(case_id=case_id, text=f"excluded and not checked: {reason}", figures={"reason": reason})
