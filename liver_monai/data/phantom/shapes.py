"""Solid shapes as signed distances in millimetres (negative inside), and smooth random functions of position.

Everything is a function of patient coordinates, never of voxel indices: that is why a phantom is the same anatomy on
every grid it is sampled on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.floating[Any]]
Vector = tuple[float, float, float]
Axes = tuple[FloatArray, FloatArray, FloatArray]
Box = tuple[slice, slice, slice]

SPLINE_SD = (151 / 315) ** 1.5
"""Standard deviation of a 3-D cubic B-spline with independent unit coefficients, averaged over a lattice cell."""


@dataclass(frozen=True)
class Points:
    """Sample points: ``axes`` are their world coordinates, ``x, y, z`` (``(X, Y, Z)`` each) those in the template.

    World and template differ by the patient's size, roll and a smooth warp. Both are in mm, RAS.
    """

    axes: Axes
    x: FloatArray
    y: FloatArray
    z: FloatArray

    def __getitem__(self, box: Box) -> Points:
        right, anterior, superior = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return Points((right, anterior, superior), self.x[box], self.y[box], self.z[box])

    def box(self, low: FloatArray, high: FloatArray) -> Box:
        """The part of the grid between two corners in world mm."""
        starts = [int(np.searchsorted(axis, bound)) for axis, bound in zip(self.axes, low, strict=True)]
        stops = [int(np.searchsorted(axis, bound)) for axis, bound in zip(self.axes, high, strict=True)]
        x, y, z = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        return x, y, z


class SmoothField:
    """A smooth random function of world position with zero mean and unit variance.

    A cubic B-spline whose random coefficients sit on a periodic lattice of ``pitch_mm``; features are about twice as
    wide as that. It is evaluated exactly at any point, so its values do not depend on the grid.
    """

    def __init__(self, rng: np.random.Generator, *, pitch_mm: float, period_mm: float = 480.0) -> None:
        self.pitch_mm = pitch_mm
        count = max(4, round(period_mm / pitch_mm))
        self.coefficients = rng.standard_normal((count, count, count), dtype=np.float32) / np.float32(SPLINE_SD)

    def on(self, axes: Axes) -> FloatArray:
        """Values on the grid spanned by three axes in world mm, ``(X, Y, Z)`` float32."""
        values: FloatArray = self.coefficients
        for dim in (2, 1, 0):
            values = _interpolate(values, axes[dim] / self.pitch_mm, dim)
        return values


def _interpolate(values: FloatArray, positions: FloatArray, dim: int) -> FloatArray:
    """Cubic B-spline interpolation of a periodic lattice along one dimension, at positions in lattice units."""
    cells = np.floor(positions).astype(np.intp)
    t = positions - cells
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    column = [1, 1, 1]
    column[dim] = -1
    total: FloatArray = np.zeros((), dtype=np.float32)
    for tap, weight in enumerate(weights):
        taken = np.take(values, cells + (tap - 1), axis=dim, mode="wrap")
        taken *= (weight / 6).astype(np.float32).reshape(column)
        total = taken if tap == 0 else np.add(total, taken, out=total)
    return total


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid at ``centre_mm`` with semi-axes ``radii_mm``, turned by ``turn_deg`` about x, y and z."""

    centre_mm: Vector
    radii_mm: Vector
    turn_deg: Vector = (0.0, 0.0, 0.0)

    def varied(self, rng: np.random.Generator, *, shift_mm: float, stretch: float) -> Ellipsoid:
        """A random neighbour: centre moved by about ``shift_mm``, radii scaled by up to ``1 ± stretch``."""
        centre = np.asarray(self.centre_mm) + rng.uniform(-shift_mm, shift_mm, 3)
        radii = np.asarray(self.radii_mm) * rng.uniform(1 - stretch, 1 + stretch, 3)
        turn = np.asarray(self.turn_deg) + rng.uniform(-6, 6, 3)
        return Ellipsoid(as_vector(centre), as_vector(radii), as_vector(turn))

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """First-order distance to the surface at template or world coordinates; exact for a ball."""
        offsets = [axis - centre for axis, centre in zip((x, y, z), self.centre_mm, strict=True)]
        scaled: FloatArray = np.zeros(1, dtype=np.float32)
        steep: FloatArray = np.zeros(1, dtype=np.float32)
        for direction, radius in zip(self._axes, self.radii_mm, strict=True):
            along = sum(float(part) * offset for part, offset in zip(direction, offsets, strict=True)) / radius
            scaled = scaled + along**2
            steep = steep + (along / radius) ** 2
        norm = np.sqrt(scaled)
        return np.asarray(norm * (norm - 1) / np.sqrt(steep + np.float32(1e-9)))

    @cached_property
    def _axes(self) -> NDArray[np.float64]:
        return np.asarray(Rotation.from_euler("xyz", self.turn_deg, degrees=True).as_matrix().T)

    @property
    def corners(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and the highest corner of a box that holds it in any turn."""
        reach = max(self.radii_mm)
        return np.asarray(self.centre_mm) - reach, np.asarray(self.centre_mm) + reach


@dataclass(frozen=True)
class Segment:
    """A piece of tube from ``start_mm`` to ``end_mm`` whose radius changes evenly, with round ends."""

    start_mm: Vector
    end_mm: Vector
    radii_mm: tuple[float, float]

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Distance to the surface."""
        axis = np.asarray(self.end_mm) - np.asarray(self.start_mm)
        offsets = [coordinate - start for coordinate, start in zip((x, y, z), self.start_mm, strict=True)]
        length_squared = float(axis @ axis)
        along = sum(float(part) * offset for part, offset in zip(axis, offsets, strict=True)) / length_squared
        along = np.clip(along, 0, 1)
        squared = sum((offset - float(part) * along) ** 2 for part, offset in zip(axis, offsets, strict=True))
        radius = self.radii_mm[0] + (self.radii_mm[1] - self.radii_mm[0]) * along
        return np.asarray(np.sqrt(squared) - radius)

    @property
    def corners(self) -> tuple[FloatArray, FloatArray]:
        """The lowest and the highest corner of a box that holds it."""
        ends = np.asarray([self.start_mm, self.end_mm])
        return ends.min(axis=0) - max(self.radii_mm), ends.max(axis=0) + max(self.radii_mm)


def as_vector(values: FloatArray) -> Vector:
    """Three numbers as a tuple of Python floats (which, unlike NumPy's, leave float32 arrays float32)."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def union(first: FloatArray, second: FloatArray, *, blend_mm: float = 0.0) -> FloatArray:
    """What is in either shape, the crease between them rounded over ``blend_mm``."""
    if blend_mm == 0:
        return np.minimum(first, second)
    overlap = np.maximum(blend_mm - np.abs(first - second), 0)
    return np.asarray(np.minimum(first, second) - overlap**2 / (4 * blend_mm))


def intersection(first: FloatArray, second: FloatArray, *, blend_mm: float = 0.0) -> FloatArray:
    """What is in both shapes, the edge rounded over ``blend_mm``."""
    return -union(-first, -second, blend_mm=blend_mm)


def coverage(distance: FloatArray, *, edge_mm: float = 2.0) -> FloatArray:
    """How much of a voxel a shape fills, from 0 to 1, as an edge ``edge_mm`` wide."""
    return np.asarray(np.clip(0.5 - distance / edge_mm, 0, 1))
