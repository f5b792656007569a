"""Cases checked one after the other, in this process or others, each of which holds one case at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from liver_monai.data.cases import Case
from liver_monai.data.checks.anatomy import contrast_figures, liver_offset, lung_offset_mm, spine_offset
from liver_monai.data.checks.content import measure_content
from liver_monai.data.checks.findings import CaseReport, Finding
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.data.checks.table import check_case
from liver_monai.data.checks.thumbnail import make_thumbnail
from liver_monai.errors import one_line
from liver_monai.processes import ALONE, Pool


def examine(cases: Sequence[Case], *, pool: Pool = ALONE) -> Iterator[CaseReport]:
    """Check cases, yielding each as it is there, in order; a case that fails is reported and stops no other.

    Args:
        pool: who checks them.
    """
    yield from pool.results(examine_case, [(case,) for case in cases], killed=_killed)


def examine_case(case: Case) -> CaseReport:
    """Check one case; whatever goes wrong becomes a finding."""
    try:
        return _examine(LoadedCase(case))
    except (OSError, ValueError, MemoryError) as error:
        return _failed(case, f"could not be checked ({one_line(error)})")


def _examine(loaded: LoadedCase) -> CaseReport:
    report = _report(loaded.case, check_case(loaded))
    if loaded.image_error:
        return report
    return replace(
        report,
        figures=_fingerprint(loaded),
        content=measure_content(loaded.image),
        thumbnail=make_thumbnail(loaded.image, loaded.mask, affine=loaded.affine),
    )


def _report(case: Case, findings: Iterable[Finding]) -> CaseReport:
    """What is found of a case, before anything of it is measured."""
    return CaseReport(
        case_id=case.case_id,
        image=str(case.image),
        label=None if case.label is None else str(case.label),
        patient_id=case.patient_id,
        findings=tuple(findings),
    )


def _fingerprint(loaded: LoadedCase) -> dict[str, object]:
    """What a case is like, whether or not anything is wrong with it."""
    hist, blocks = loaded.histogram, loaded.blocks
    offsets = {"liver_offset": liver_offset(blocks), "spine_offset": spine_offset(blocks)}
    offsets["lung_offset_mm"] = lung_offset_mm(blocks)
    in_plane_mm = np.delete(loaded.spacing_mm, loaded.slice_axis)
    figures: dict[str, object] = {
        "shape": list(loaded.image.shape),
        "spacing_mm": [round(float(value), 5) for value in loaded.spacing_mm],
        "orientation": loaded.orientation,
        "n_slices": loaded.image.shape[loaded.slice_axis],
        "slice_mm": round(float(loaded.spacing_mm[loaded.slice_axis]), 5),
        "in_plane_mm": round(float(in_plane_mm.max()), 5),
        "stored_dtype": str(loaded.header.dtype) if loaded.header else str(loaded.image.dtype),
        "low_hu": hist.low,
        "high_hu": hist.high,
        "percentiles_hu": {str(percent): hist.percentile(percent) for percent in (1, 25, 50, 75, 99)},
        "padding_share": round(hist.padding_share, 5),
        **contrast_figures(blocks),
        **{name: round(value, 3) for name, value in offsets.items() if value is not None},
    }
    if loaded.mask is not None:
        figures |= {
            "liver_ml": round(loaded.liver_ml, 1),
            "tumor_ml": round(float(np.sum(loaded.lesions_ml)), 2),
            "n_lesions": len(loaded.lesions_ml),
        }
    return figures


def _failed(case: Case, message: str) -> CaseReport:
    return _report(case, [Finding(case_id=case.case_id, check="unreadable-image", severity="error", message=message)])


def _killed(case: Case) -> CaseReport:
    return _failed(case, f"{case.image}: its process was killed, perhaps for want of memory. Give it more memory.")
