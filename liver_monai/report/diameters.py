"""Diameters of a lesion as they are taken on a screen: straight lines from edge to edge, in millimetres.

An edge lies midway between a voxel inside and its neighbour outside, where the meshes of the Image Biomarker
Standardisation Initiative have theirs (Zwanenburg et al., Radiology 295, 2020): a single voxel is one voxel wide, and
the diameter of a drawn ball is neither too small by a voxel, as between centres, nor too large, as between corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform


@dataclass(frozen=True, kw_only=True)
class Diameter:
    """A line: its length, and its two ends in voxels, ``(2, 2)`` on a slice or ``(2, 3)``."""

    length_mm: float
    ends: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AxialDiameters:
    """The longest diameter on any axial slice, and the longest one that crosses it there at a right angle."""

    slice_index: int
    longest: Diameter
    perpendicular: Diameter


def edge_points(mask: np.ndarray) -> np.ndarray:
    """``(n, mask.ndim)`` points in voxels, one between every voxel of a bool mask and each neighbour outside."""
    points = []
    for axis in range(mask.ndim):
        crossings = np.argwhere(np.diff(mask.astype(np.int8), axis=axis, prepend=0, append=0)).astype(np.float64)
        crossings[:, axis] -= 0.5
        points.append(crossings)
    return np.concatenate(points)


def axial_diameters(mask: np.ndarray, affine: np.ndarray) -> AxialDiameters:
    """Of the slice ``mask[:, :, z]`` where the longest line is longest.

    Where a slice cuts a lesion into several parts, the line may run from one to another.

    Args:
        mask: ``(X, Y, Z)`` bool, not empty, slices last.
        affine: voxels to millimetres, ``(4, 4)``; only distances on a slice count, so that tilt does no harm.
    """
    to_mm = _plane_mm(affine)
    best: tuple[int, Diameter, np.ndarray] | None = None
    for z in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        points = edge_points(mask[:, :, z])
        points_mm = points @ to_mm.T
        if best is not None and np.linalg.norm(np.ptp(points_mm, axis=0)) <= best[1].length_mm:
            continue
        hull = ConvexHull(points_mm).vertices
        longest = _longest(points[hull], points_mm[hull])
        if best is None or longest.length_mm > best[1].length_mm:
            best = z, longest, points_mm[hull]
    if best is None:
        raise ValueError("an empty mask has no diameter")
    z, longest, outline_mm = best
    return AxialDiameters(
        slice_index=z, longest=longest, perpendicular=_perpendicular(outline_mm, longest=longest, to_mm=to_mm)
    )


def maximum_diameter(mask: np.ndarray, affine: np.ndarray) -> Diameter:
    """The longest line in any direction of a bool mask ``(X, Y, Z)`` that is not empty."""
    points = edge_points(mask)
    points_mm = points @ affine[:3, :3].T
    hull = ConvexHull(points_mm).vertices
    return _longest(points[hull], points_mm[hull])


def _plane_mm(affine: np.ndarray) -> np.ndarray:
    """``(2, 2)``: voxels of a slice to millimetres in its plane, whatever way it lies in space."""
    to_mm: np.ndarray = np.linalg.qr(affine[:3, :2], mode="r")
    return to_mm


def _longest(points: np.ndarray, points_mm: np.ndarray) -> Diameter:
    distances = squareform(pdist(points_mm))
    first, second = np.unravel_index(distances.argmax(), distances.shape)
    return Diameter(length_mm=float(distances[first, second]), ends=points[[first, second]])


def _perpendicular(outline_mm: np.ndarray, *, longest: Diameter, to_mm: np.ndarray) -> Diameter:
    """The longest chord of a convex outline, in the order of its corners, across its longest diameter."""
    start, end = longest.ends @ to_mm.T
    along = (end - start) / longest.length_mm
    axes = np.array([along, [-along[1], along[0]]])
    corners = outline_mm @ axes.T
    positions = np.unique(corners[:, 0])
    upper, lower = (_side(corners, positions, is_upper=is_upper) for is_upper in (True, False))
    widest = int((upper - lower).argmax())
    ends = np.array([[positions[widest], upper[widest]], [positions[widest], lower[widest]]])
    return Diameter(length_mm=float(upper[widest] - lower[widest]), ends=np.linalg.solve(to_mm, (ends @ axes).T).T)


def _side(corners: np.ndarray, positions: np.ndarray, *, is_upper: bool) -> np.ndarray:
    """Height of the upper or lower side of a convex outline at positions along its first axis."""
    first, last = corners[:, 0].argmin(), corners[:, 0].argmax()
    base = np.interp(positions, corners[[first, last], 0], corners[[first, last], 1])
    chord = np.interp(corners[:, 0], corners[[first, last], 0], corners[[first, last], 1])
    side = corners[(corners[:, 1] >= chord) if is_upper else (corners[:, 1] <= chord)]
    side = side[np.argsort(side[:, 0], kind="stable")]
    heights = np.interp(positions, side[:, 0], side[:, 1])
    beyond: np.ndarray = np.maximum(heights, base) if is_upper else np.minimum(heights, base)
    return beyond
