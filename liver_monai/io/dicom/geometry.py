"""Where the slices of a volume lie: one affine for all of them, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from liver_monai.errors import InputError
from liver_monai.io.dicom.frames import Frame, Plane
from liver_monai.io.limits import require_place

SLICE_TOLERANCE_MM = 0.1
"""A slice may lie this far from its place on the regular grid: positions are rounded in headers, and a tenth of a
millimetre is what two grids may differ by, too. Slices closer than this are at one position."""
GAP_FACTOR = 1.5
"""A gap this many times as wide as the usual one has lost a slice; by less, the spacing is uneven."""
COSINE_TOLERANCE = 1e-3
"""Direction cosines are written with three decimals or more."""
MAX_TILT_DEGREES = 45.0
"""Gantries tilt by 30 degrees at most; slices that run away sideways by more are not stacked on each other."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_same_plane(one: Plane, other: Plane) -> bool:
    """Whether two slices can belong to one volume: same size, orientation and pixel spacing."""
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    own, others = ((*plane.orientation, *plane.spacing_mm) for plane in (one, other))
    return len(own) == len(others) and np.allclose(own, others, rtol=0, atol=COSINE_TOLERANCE)


def position_key(frame: Frame) -> tuple[int, ...]:
    """Equal for frames at one position, give or take ``SLICE_TOLERANCE_MM``."""
    return tuple(round(value / SLICE_TOLERANCE_MM) for value in frame.position_mm)


def do_overlap(stacks: Sequence[Sequence[Frame]]) -> bool:
    """Whether all of several stacks of one plane share a range of positions, as phases of one region do."""
    if len(stacks) < 2 or not all(frame.position_mm for stack in stacks for frame in stack):
        return False
    orientation = stacks[0][0].plane.orientation
    if not orientation:
        return False
    normal = np.cross(orientation[:3], orientation[3:])
    ends = [sorted(float(np.dot(frame.position_mm, normal)) for frame in stack) for stack in stacks]
    return max(stack[0] for stack in ends) < min(stack[-1] for stack in ends)


def stack_shape(frames: Sequence[Frame]) -> tuple[int, int, int]:
    """``(columns, rows, slices)`` of the volume that frames of one plane make."""
    return frames[0].plane.columns, frames[0].plane.rows, len(frames)


def place_slices(frames: Sequence[Frame], *, name: str) -> tuple[list[Frame], np.ndarray, float]:
    """Order slices and give the affine of their volume.

    Args:
        frames: two or more of one plane.
        name: of the volume, for errors.

    Returns:
        The frames along the normal of their plane, the ``(4, 4)`` affine from ``(column, row, slice)`` to RAS+
        millimetres (PS3.3, C.7.6.2.1.1), and the angle in degrees by which the stack leans: a gantry's tilt, which
        the affine keeps as shear.

    Raises:
        InputError: no position, duplicate or missing slices, uneven spacing, directions that are none.
    """
    row, column = _directions(frames[0].plane, name)
    if not all(frame.position_mm for frame in frames):
        raise InputError(f"{name}: {_first(frames)} has no ImagePositionPatient, so its slices cannot be placed")
    normal = np.cross(row, column)
    ordered = sorted(frames, key=lambda frame: float(np.dot(frame.position_mm, normal)))
    positions = np.array([frame.position_mm for frame in ordered])
    _check_positions(positions, normal, name)
    _check_acquisitions(ordered, name)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    tilt_degrees = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if tilt_degrees > MAX_TILT_DEGREES:
        raise InputError(
            f"{name}: its slices lean by {tilt_degrees:.1f} degrees, more than {MAX_TILT_DEGREES:g}: they are not "
            "stacked on each other"
        )
    affine = np.eye(4)
    between_rows_mm, between_columns_mm = frames[0].plane.spacing_mm
    affine[:3] = np.column_stack([row * between_columns_mm, column * between_rows_mm, step, positions[0]])
    affine = LPS_TO_RAS @ affine
    require_place(name, (frames[0].plane.columns, frames[0].plane.rows, len(frames)), affine)
    leans = np.linalg.norm(np.cross(step, normal)) * (len(positions) - 1) > SLICE_TOLERANCE_MM
    return ordered, affine, tilt_degrees if leans else 0.0


def _directions(plane: Plane, name: str) -> tuple[np.ndarray, np.ndarray]:
    if not plane.orientation or not plane.spacing_mm:
        lacking = "PixelSpacing" if plane.orientation else "ImageOrientationPatient"
        raise InputError(f"{name}: its slices have no {lacking}, so nobody can tell where they lie")
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if not (np.abs(lengths - 1) < COSINE_TOLERANCE).all() or not abs(row @ column) < COSINE_TOLERANCE:
        raise InputError(f"{name}: its ImageOrientationPatient {list(plane.orientation)} is no pair of directions")
    if not min(plane.spacing_mm) > 0:
        raise InputError(f"{name}: its PixelSpacing {list(plane.spacing_mm)} must be above 0 mm")
    return row / lengths[0], column / lengths[1]


def _check_positions(positions: np.ndarray, normal: np.ndarray, name: str) -> None:
    """Slices must lie on a line, evenly: ``positions`` ``(n, 3)`` are in order."""
    gaps_mm = np.diff(positions @ normal)
    axis = int(np.abs(normal).argmax())
    along = positions[:, axis]
    same = np.flatnonzero(gaps_mm < SLICE_TOLERANCE_MM)
    if same.size:
        raise InputError(
            f"{name}: holds more than one slice at {_at(along[same], axis)}; remove the duplicates, or give each "
            "phase a series of its own"
        )
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])  # the lower of two: a gap never makes itself usual
    wide = np.flatnonzero(gaps_mm > GAP_FACTOR * usual_mm)
    if wide.size:
        missing = [place for gap in wide for place in _between(along[gap : gap + 2], gaps_mm[gap] / usual_mm)]
        raise InputError(
            f"{name}: slices are missing at {_at(missing, axis)}, where the others lie {usual_mm:.4g} mm apart; "
            "fetch the series anew"
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    off_mm = np.linalg.norm(positions - even, axis=1)
    if off_mm.max() > SLICE_TOLERANCE_MM:
        worst = int(off_mm.argmax())
        raise InputError(
            f"{name}: its slices lie {gaps_mm.min():.4g} to {gaps_mm.max():.4g} mm apart, and the one at "
            f"{_at(along[[worst]], axis)} is {off_mm[worst]:.3g} mm off an even stack, more than "
            f"{SLICE_TOLERANCE_MM} mm; resample it to even spacing first"
        )


def _check_acquisitions(ordered: Sequence[Frame], name: str) -> None:
    """Acquisitions may follow each other along the patient, as the table steps, but not take turns."""
    numbers = [frame.stamps[0] for frame in ordered]
    changes = sum(one != next_one for one, next_one in pairwise(numbers))
    if changes >= len(set(numbers)):
        raise InputError(
            f"{name}: slices of {len(set(numbers))} acquisitions take turns, so they are no single scan; export each "
            "acquisition as a series of its own"
        )


def _between(ends: np.ndarray, gaps: float) -> list[float]:
    count = max(2, round(gaps))
    return [float(place) for place in np.linspace(ends[0], ends[1], count + 1)[1:-1]]


MAX_NAMED = 6
"""Positions that an error names; the rest is counted."""


def _at(places: Sequence[float] | np.ndarray, axis: int) -> str:
    named = ", ".join(f"{place:.6g}" for place in places[:MAX_NAMED])
    more = f" and {len(places) - MAX_NAMED} more" if len(places) > MAX_NAMED else ""
    return f"{'xyz'[axis]} = {named} mm{more}"


def _first(frames: Sequence[Frame]) -> str:
    return next(frame.file for frame in frames if not frame.position_mm)
