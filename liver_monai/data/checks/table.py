"""The table of checks: a new one is a function and a row here, and a row in ``docs/checks.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from liver_monai.data.checks import anatomy, dataset, image, labels
from liver_monai.data.checks.dataset import DataSet
from liver_monai.data.checks.findings import Finding, Observed, Severity
from liver_monai.data.checks.loaded import LoadedCase

Checked = TypeVar("Checked", LoadedCase, DataSet)


@dataclass(frozen=True, kw_only=True)
class Check(Generic[Checked]):
    """A trap and how it is told.

    Args:
        looks_at: what is measured, and the rule.
        way_out: what the user can do; ends each message.
        find: yields what it saw; nothing where all is well.
        needs_image: whether it is left out where the CT could not be read.
    """

    name: str
    severity: Severity
    looks_at: str
    way_out: str
    find: Callable[[Checked], Iterable[Observed]]
    needs_image: bool = True


CASE_CHECKS: tuple[Check[LoadedCase], ...] = (
    Check(
        name="unreadable-image",
        severity="error",
        looks_at="the CT is there, whole, 3-D, grey, finite, and its affine places voxels",
        way_out="Fetch or convert the file anew, or exclude the case.",
        find=image.unreadable_image,
        needs_image=False,
    ),
    Check(
        name="not-hu",
        severity="error",
        looks_at="values span 200 or more, end below 31,743, and some lie between -1024 and 0, as air and fat do",
        way_out="Restore Hounsfield units from the original files.",
        find=image.not_hu,
    ),
    Check(
        name="clipped",
        severity="warning",
        looks_at="values reach both ends of the default window, -200 and 250 HU",
        way_out="Take the original files, or train with a window inside of these values.",
        find=image.clipped,
    ),
    Check(
        name="saturated",
        severity="note",
        looks_at="more than 0.1 % of the voxels at a highest value below 3000 HU, or at a lowest above -1000 HU",
        way_out="Nothing to do as long as the model's window lies inside of it.",
        find=image.saturated,
    ),
    Check(
        name="coarse-steps",
        severity="warning",
        looks_at="less than 40 % of the whole numbers from -200 to 250 HU occur",
        way_out="Take the original files: small contrasts of lesions are lost.",
        find=image.coarse_steps,
    ),
    Check(
        name="padding",
        severity="note",
        looks_at="more than 0.1 % of the voxels below -1024 HU",
        way_out="Nothing to do: models see it as air.",
        find=image.padding,
    ),
    Check(
        name="metal",
        severity="note",
        looks_at="voxels above 3000 HU",
        way_out="Look for streaks across the liver.",
        find=image.metal,
    ),
    Check(
        name="unknown-spacing",
        severity="warning",
        looks_at="spacing of exactly (1, 1, 1) mm with an identity affine",
        way_out="Give the true spacing in a list of spacing overrides; until then mL and mm are wrong.",
        find=image.unknown_spacing,
    ),
    Check(
        name="overridden-spacing",
        severity="note",
        looks_at="a case in the list of spacing overrides",
        way_out="Nothing to do: everything is measured with it.",
        find=image.overridden_spacing,
    ),
    Check(
        name="odd-spacing",
        severity="warning",
        looks_at="a spacing outside of 0.1 to 12 mm",
        way_out="Correct the header; mL and mm follow it.",
        find=image.odd_spacing,
    ),
    Check(
        name="thick-slices",
        severity="note",
        looks_at="slices more than 5 mm apart",
        way_out="Expect missed small lesions.",
        find=image.thick_slices,
    ),
    Check(
        name="short-scan",
        severity="warning",
        looks_at="less than 100 mm from foot to head",
        way_out="Make sure that the liver is in it as a whole before its volume is used.",
        find=image.short_scan,
    ),
    Check(
        name="sheared",
        severity="note",
        looks_at="axes that do not stand at right angles, as after a gantry tilt",
        way_out="Nothing to do: slices are kept and masks return on the same grid; other tools may drop the shear.",
        find=image.sheared,
    ),
    Check(
        name="header-spacing",
        severity="warning",
        looks_at="NIfTI's pixdim differs from the spacing of its affine by more than 1 %, or is not positive",
        way_out="Find out which one is true and rewrite the header.",
        find=image.header_spacing,
    ),
    Check(
        name="header-affines",
        severity="warning",
        looks_at="NIfTI's qform and sform lie more than 0.1 mm apart",
        way_out="Find out which one is true and store it as both.",
        find=image.header_affines,
    ),
    Check(
        name="header-unit",
        severity="warning",
        looks_at="a unit of length other than mm",
        way_out="Convert the spacing to millimetres.",
        find=image.header_unit,
    ),
    Check(
        name="turned",
        severity="warning",
        looks_at="the body fills both end planes of another axis than foot-head, and neither of that one",
        way_out="Compare with the original files and correct the affine.",
        find=anatomy.turned,
    ),
    Check(
        name="back-to-front",
        severity="warning",
        looks_at="bone lies before the middle of the body by more than 3 % of its depth",
        way_out="Compare with the original files and correct the affine.",
        find=anatomy.back_to_front,
    ),
    Check(
        name="upside-down",
        severity="warning",
        looks_at="150 mL of lung, its centre below that of the liver, or of the scan, by 15 % of the scan's height",
        way_out="Compare with the original files and correct the affine.",
        find=anatomy.upside_down,
    ),
    Check(
        name="mirrored",
        severity="warning",
        looks_at="the marked liver lies left of the middle of the body by more than 3 % of its width",
        way_out="Compare with the original files and correct the affine; rarely organs do lie mirrored.",
        find=anatomy.mirrored,
    ),
    Check(
        name="unreadable-label",
        severity="error",
        looks_at="as unreadable-image, for the mask",
        way_out="Fetch or convert the file anew, or exclude the case.",
        find=labels.unreadable_label,
        needs_image=False,
    ),
    Check(
        name="label-grid",
        severity="error",
        looks_at="mask and CT have one shape, and no corner lies more than 0.1 mm apart",
        way_out="Resample the mask to the CT's grid, or repair the header that is wrong.",
        find=labels.label_grid,
    ),
    Check(
        name="label-values",
        severity="error",
        looks_at="values other than 0, 1 and 2",
        way_out="Relabel the file.",
        find=labels.label_values,
        needs_image=False,
    ),
    Check(
        name="float-label",
        severity="note",
        looks_at="a mask stored as floating-point numbers",
        way_out="Nothing to do.",
        find=labels.float_label,
        needs_image=False,
    ),
    Check(
        name="empty-label",
        severity="error",
        looks_at="a mask that marks nothing",
        way_out="Label the case or exclude it.",
        find=labels.empty_label,
    ),
    Check(
        name="tumor-outside-liver",
        severity="warning",
        looks_at="lesions more than 5 mm from the marked liver",
        way_out="Look at the mask: a slip, or a tumour of another organ.",
        find=labels.tumor_outside_liver,
    ),
    Check(
        name="tiny-lesions",
        severity="note",
        looks_at="lesions smaller than a ball of 3 mm",
        way_out="Look at the mask; scores by lesion count them like large ones.",
        find=labels.tiny_lesions,
    ),
    Check(
        name="liver-volume",
        severity="warning",
        looks_at="a marked liver outside of 500 to 4000 mL",
        way_out="Look at mask and spacing.",
        find=labels.liver_volume,
    ),
    Check(
        name="liver-parts",
        severity="warning",
        looks_at="a second part of the marked liver larger than 1 % of it",
        way_out="Look at the mask.",
        find=labels.liver_parts,
    ),
    Check(
        name="liver-cut",
        severity="note",
        looks_at="the marked liver reaches the first or the last slice",
        way_out="Leave the case out of statistics of liver volume.",
        find=labels.liver_cut,
    ),
)

DATASET_CHECKS: tuple[Check[DataSet], ...] = (
    Check(
        name="duplicate",
        severity="error",
        looks_at="two cases with the same voxels between -150 and 200 HU, flipped, turned, padded or not",
        way_out="Exclude one of them; a test set that shares cases with the training set tests nothing.",
        find=dataset.duplicates,
    ),
    Check(
        name="shared-slices",
        severity="error",
        looks_at="half of the slices of the shorter scan occur in another one",
        way_out="Exclude one of them, or keep both in one fold.",
        find=dataset.shared_slices,
    ),
    Check(
        name="split-duplicate",
        severity="error",
        looks_at="two cases as in duplicate or shared-slices that a file of folds puts into different folds",
        way_out="Put both into one fold, or exclude one: scores would be those of a scan that the network has seen.",
        find=dataset.split_duplicates,
    ),
    Check(
        name="split-patient",
        severity="error",
        looks_at="scans of one patient that a file of folds puts into different folds",
        way_out="Put them into one fold: scores would be those of a patient that the network has seen.",
        find=dataset.split_patients,
    ),
    Check(
        name="similar",
        severity="warning",
        looks_at="mean HU along all three axes equal to 2 HU in other voxels",
        way_out="If they show one patient, keep them in one fold.",
        find=dataset.similar,
    ),
    Check(
        name="several-scans",
        severity="note",
        looks_at="patients with more than one case",
        way_out="Keep them in one fold.",
        find=dataset.several_scans,
    ),
    Check(
        name="no-tumor",
        severity="note",
        looks_at="labelled cases without a tumour",
        way_out="Share them out between the folds; a tumour's Dice is not defined in them.",
        find=dataset.no_tumor,
    ),
    Check(
        name="mixed-spacing",
        severity="note",
        looks_at="distances of slices, against those of the default model grid",
        way_out="Nothing to do: slabs are taken on the model grid.",
        find=dataset.mixed_spacing,
    ),
    Check(
        name="mixed-orientation",
        severity="note",
        looks_at="stored orientations",
        way_out="Nothing to do: the affine is followed.",
        find=dataset.mixed_orientation,
    ),
    Check(
        name="odd-contrast",
        severity="note",
        looks_at="a marked liver more than 40 HU from the median of all cases",
        way_out="Look at its phase.",
        find=dataset.odd_contrast,
    ),
    Check(
        name="licence",
        severity="note",
        looks_at="the licence that a data set states",
        way_out="Read it before you share the data, or weights made from it.",
        find=dataset.licence,
    ),
    Check(
        name="excluded",
        severity="note",
        looks_at="cases on the list of excluded ones, with their reasons",
        way_out="Take them off the list to have them checked.",
        find=dataset.excluded,
    ),
)


def check_case(case: LoadedCase, *, only: Iterable[str] | None = None) -> Iterator[Finding]:
    """What the checks of one case find; all of them, or ``only`` those of these names."""
    for check in CASE_CHECKS:
        if not (check.needs_image and case.image_error) and (only is None or check.name in only):
            yield from _run(check, case, case_id=case.case.case_id)


def check_dataset(data: DataSet) -> Iterator[Finding]:
    """What the checks of all cases together find."""
    for check in DATASET_CHECKS:
        yield from _run(check, data, case_id="")


def _run(check: Check[Checked], checked: Checked, *, case_id: str) -> Iterator[Finding]:
    for seen in check.find(checked):
        yield Finding(
            case_id=seen.case_id or case_id,
            check=check.name,
            severity=check.severity,
            message=f"{seen.text.rstrip('.')}. {check.way_out}",
            figures=seen.figures,
        )
