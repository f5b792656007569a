"""Checks of one CT: its header, its Hounsfield units, its extent."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from liver_monai.data.checks.findings import Observed
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.data.checks.measures import AIR_HU, HU_LIMIT, METAL_HU
from liver_monai.io.volumes import AFFINE_TOLERANCE_MM, corners_apart_mm
from liver_monai.spec import ModelSpec

SANE_SPACING_MM = (0.1, 12.0)
"""Scanners reconstruct 0.3 to 10 mm; what lies outside is a unit other than millimetres, or a slip."""
THICK_MM = 5.0
"""The thickest slices of LiTS; small lesions vanish in thicker ones."""
SPACING_TOLERANCE = 0.01
"""Relative: single precision and rounding of headers stay far below."""
ORTHOGONAL_DEGREES = 0.1
"""Direction cosines of three decimals, as headers round them, turn an axis by less."""
LEAST_EXTENT_MM = 100.0
"""A liver is 120 to 200 mm high."""

LEAST_RANGE_HU = 200.0
"""Air, fat and soft tissue lie 1000 HU apart; clipped to any liver window still 200."""
HIGHEST_HU = 31_743.0
"""Top of the extended Hounsfield scale in 16 bits; beyond it are unsigned values that wrapped round."""
LEAST_PADDING = 0.001
"""Of all voxels; the corners outside of a scanner's circle are a fifth of them, single voxels are no padding."""
SATURATED_SHARE = 0.001
"""Of all voxels: noise spreads what is not cut over many values."""
ABOVE_AIR_HU = -1000
"""The HU of air; a lowest value there or below is where the scale ends, not where it was cut."""
LEAST_STEPS = 0.4
"""Share of the whole Hounsfield units of the model's window that occur at all: all of them in a CT of 12 bits."""


def unreadable_image(case: LoadedCase) -> Iterator[Observed]:
    """The file is missing, damaged, not 3-D, colour, not finite, or has an affine that places nothing."""
    if case.image_error:
        yield Observed(text=case.image_error)


def header_spacing(case: LoadedCase) -> Iterator[Observed]:
    """NIfTI's ``pixdim`` against the spacing that its affine gives."""
    if case.header is None or case.image_error:
        return
    pixdim_mm = np.array(case.header.pixdim_mm)
    affine_mm = np.linalg.norm(case.stored_affine[:3, :3], axis=0)
    if not np.allclose(pixdim_mm, affine_mm, rtol=SPACING_TOLERANCE):
        yield Observed(
            text=f"the header's pixdim says {_mm(pixdim_mm)}, its affine {_mm(affine_mm)}; they must agree to 1 %",
            figures={"pixdim_mm": _rounded(pixdim_mm), "affine_mm": _rounded(affine_mm)},
        )


def header_affines(case: LoadedCase) -> Iterator[Observed]:
    """NIfTI's qform against its sform."""
    header = case.header
    if header is None or header.qform is None or header.sform is None or case.image_error:
        return
    apart_mm = corners_apart_mm(header.qform, header.sform, case.image.shape)
    if apart_mm > AFFINE_TOLERANCE_MM:
        yield Observed(
            text=f"qform and sform lie up to {apart_mm:.4g} mm apart, more than {AFFINE_TOLERANCE_MM} mm; "
            "this package believes the sform, other readers the qform",
            figures={"apart_mm": round(apart_mm, 3)},
        )


def header_unit(case: LoadedCase) -> Iterator[Observed]:
    """The header's unit of length."""
    if case.header is not None and case.header.unit not in ("mm", "unknown"):
        yield Observed(text=f"the header gives spacings in {case.header.unit}; they are read as millimetres")


def unknown_spacing(case: LoadedCase) -> Iterator[Observed]:
    """Spacing exactly (1, 1, 1) mm with an identity affine: what writers fill in when they know neither."""
    if case.case.spacing_mm is None and np.array_equal(case.stored_affine, np.eye(4)):
        yield Observed(text="spacing (1, 1, 1) mm and an identity affine: what a writer fills in that knows neither")


def overridden_spacing(case: LoadedCase) -> Iterator[Observed]:
    """A spacing override is in force."""
    if case.case.spacing_mm is not None:
        stored_mm = np.linalg.norm(case.stored_affine[:3, :3], axis=0)
        yield Observed(
            text=f"a spacing override is in force: {_mm(case.spacing_mm)} instead of the header's {_mm(stored_mm)}",
            figures={"spacing_mm": _rounded(case.spacing_mm), "header_mm": _rounded(stored_mm)},
        )


def odd_spacing(case: LoadedCase) -> Iterator[Observed]:
    """Spacing outside of what scanners make."""
    low, high = SANE_SPACING_MM
    if case.spacing_mm.min() < low or case.spacing_mm.max() > high:
        yield Observed(
            text=f"spacing {_mm(case.spacing_mm)}; scanners make {low:g} to {high:g} mm",
            figures={"spacing_mm": _rounded(case.spacing_mm)},
        )


def thick_slices(case: LoadedCase) -> Iterator[Observed]:
    """Slices so far apart that small lesions vanish."""
    slice_mm = float(case.spacing_mm[case.slice_axis])
    if slice_mm > THICK_MM:
        yield Observed(
            text=f"slices lie {slice_mm:.3g} mm apart, more than {THICK_MM:g} mm", figures={"slice_mm": slice_mm}
        )


def sheared(case: LoadedCase) -> Iterator[Observed]:
    """Axes that do not stand at right angles: a gantry tilt that the affine keeps."""
    axes = case.affine[:3, :3] / np.linalg.norm(case.affine[:3, :3], axis=0)
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    degrees = float(np.degrees(np.arcsin(min(1.0, cosine))))
    if degrees > ORTHOGONAL_DEGREES:
        yield Observed(
            text=f"axes {90 - degrees:.1f} degrees apart instead of 90: sheared by {degrees:.1f} degrees",
            figures={"shear_degrees": round(degrees, 2)},
        )


def short_scan(case: LoadedCase) -> Iterator[Observed]:
    """Less height than a liver."""
    n_slices = case.image.shape[case.slice_axis]
    extent_mm = n_slices * float(case.spacing_mm[case.slice_axis])
    if extent_mm < LEAST_EXTENT_MM:
        yield Observed(
            text=f"{n_slices} slices cover {extent_mm:.0f} mm from foot to head, less than {LEAST_EXTENT_MM:g} mm",
            figures={"extent_mm": round(extent_mm, 1), "n_slices": n_slices},
        )


def not_hu(case: LoadedCase) -> Iterator[Observed]:
    """Values that cannot be Hounsfield units."""
    low, high = case.histogram.low, case.histogram.high
    reason = _why_not_hu(case)
    if reason:
        yield Observed(text=f"values {low:g} to {high:g}: {reason}", figures={"low": low, "high": high})


def _why_not_hu(case: LoadedCase) -> str:
    low, high = case.histogram.low, case.histogram.high
    above_padding = np.flatnonzero(case.histogram.between(AIR_HU, int(HIGHEST_HU)))
    lowest = AIR_HU + int(above_padding[0]) if above_padding.size else AIR_HU
    if low == high:
        return "all voxels are equal"
    if high - low < LEAST_RANGE_HU:
        return f"a range below {LEAST_RANGE_HU:g}; this looks normalized"
    if high > HIGHEST_HU:
        return f"above {HIGHEST_HU:g}, the end of the scale; unsigned values have wrapped round"
    if lowest >= 0:
        scale = "8-bit grey values" if high <= 255 else "stored values whose intercept of -1024 was left out"
        return f"nothing between {AIR_HU} and 0, where air and fat lie; these may be {scale}"
    return ""


def padding(case: LoadedCase) -> Iterator[Observed]:
    """Values below air, which scanners write outside of the circle that they reconstruct."""
    share = case.histogram.padding_share
    if share > LEAST_PADDING:
        value = case.histogram.padding_hu
        yield Observed(
            text=f"{share:.1%} of the voxels lie below {AIR_HU} HU, most of them at {value} HU: padding",
            figures={"padding_hu": value, "share": round(share, 5)},
        )


def metal(case: LoadedCase) -> Iterator[Observed]:
    """Implants and clips."""
    n_voxels = int(case.histogram.between(int(METAL_HU) + 1, HU_LIMIT - 1).sum())
    if n_voxels:
        volume_ml = n_voxels * case.voxel_ml
        yield Observed(
            text=f"{volume_ml:.2g} mL above {METAL_HU:g} HU, up to {case.histogram.high:g} HU: metal, perhaps streaks",
            figures={"metal_ml": round(volume_ml, 4), "high_hu": case.histogram.high},
        )


def clipped(case: LoadedCase) -> Iterator[Observed]:
    """Cut at values that the model's window still tells apart."""
    low, high = ModelSpec.hu_window
    if _why_not_hu(case):
        return
    if case.histogram.low > low or case.histogram.high < high:
        yield Observed(
            text=f"values end at {case.histogram.low:g} and {case.histogram.high:g} HU, inside of the default window "
            f"{low:g} to {high:g} HU",
            figures={"low_hu": case.histogram.low, "high_hu": case.histogram.high},
        )


def saturated(case: LoadedCase) -> Iterator[Observed]:
    """Many voxels at the highest value, or at a lowest one above air: the range was cut."""
    hist = case.histogram
    shares = {
        "low": hist.n_at(hist.low) / hist.total if hist.low > ABOVE_AIR_HU else 0.0,
        "high": hist.n_at(hist.high) / hist.total if hist.high < METAL_HU else 0.0,
    }
    for end, share in shares.items():
        value = hist.low if end == "low" else hist.high
        if share > SATURATED_SHARE and not _why_not_hu(case):
            yield Observed(
                text=f"{share:.1%} of the voxels lie at {value:g} HU, the {end}est value: the range was cut there",
                figures={f"{end}_hu": value, "share": round(share, 5)},
            )


def coarse_steps(case: LoadedCase) -> Iterator[Observed]:
    """Few different values: stored in 8 bits, or rounded."""
    low, high = ModelSpec.hu_window
    counts = case.histogram.between(int(low), int(high))
    share = float(np.count_nonzero(counts) / len(counts))
    if share < LEAST_STEPS and not _why_not_hu(case):
        yield Observed(
            text=f"only {np.count_nonzero(counts)} of the {len(counts)} values from {low:g} to {high:g} HU occur, "
            f"less than {LEAST_STEPS:.0%}: 8 bits, or rounded",
            figures={"n_values": int(np.count_nonzero(counts))},
        )


def _mm(spacing_mm: np.ndarray) -> str:
    return f"({', '.join(f'{value:.4g}' for value in spacing_mm)}) mm"


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
