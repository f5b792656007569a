"""Trees of vessels in the liver: portal veins fan out from the hilum, hepatic veins run to the vena cava."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liver_monai.data.phantom.shapes import FloatArray, Segment, Vector, as_vector

HILUM_MM = (24.0, 2.0, 2.0)
"""Where the portal vein enters the liver."""
CONFLUENCE_MM = (21.0, -20.0, 66.0)
"""Where the hepatic veins enter the vena cava, under the diaphragm."""


@dataclass(frozen=True)
class Branch:
    """How a tree grows from here: every fork makes vessels ``0.8`` times as long, and thinner."""

    length_mm: float
    radius_mm: float
    forks: int


def draw_portal_tree(rng: np.random.Generator) -> tuple[Segment, ...]:
    """The right and the left portal vein, in template mm."""
    hilum = np.asarray(HILUM_MM)
    right = _grow(rng, hilum, np.array([1.0, 0.05, 0.15]), Branch(30, 6, 4))
    left = _grow(rng, hilum, np.array([-0.6, 0.75, 0.7]), Branch(28, 4.8, 3))
    return (*right, *left)


def draw_hepatic_tree(rng: np.random.Generator) -> tuple[Segment, ...]:
    """The right, the middle and the left hepatic vein, in template mm."""
    directions: tuple[Vector, ...] = ((0.9, -0.15, -0.45), (0.45, 0.7, -0.55), (-0.45, 0.8, -0.25))
    start = np.asarray(CONFLUENCE_MM)
    veins = [_grow(rng, start, np.array(direction), Branch(38, 5.2, 3)) for direction in directions]
    return tuple(segment for vein in veins for segment in vein)


def _grow(rng: np.random.Generator, start: FloatArray, direction: FloatArray, branch: Branch) -> list[Segment]:
    direction = direction / np.linalg.norm(direction)
    end = start + direction * branch.length_mm * rng.uniform(0.8, 1.2)
    stem = Segment(as_vector(start), as_vector(end), (branch.radius_mm, 0.85 * branch.radius_mm))
    if branch.forks == 0:
        return [stem]
    sideways = np.cross(direction, rng.normal(size=3))
    sideways *= np.tan(np.deg2rad(rng.uniform(25, 45))) / np.linalg.norm(sideways)
    major = Branch(0.8 * branch.length_mm, 0.78 * branch.radius_mm, branch.forks - 1)
    minor = Branch(0.8 * branch.length_mm, 0.66 * branch.radius_mm, branch.forks - 1)
    return [stem, *_grow(rng, end, direction + sideways, major), *_grow(rng, end, direction - sideways, minor)]
