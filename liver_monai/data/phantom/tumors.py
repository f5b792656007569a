"""Synthetic liver tumors: uneven, soft-edged, textured, darker or brighter than the liver, and always inside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from liver_monai.data.phantom import anatomy as body
from liver_monai.data.phantom.anatomy import Anatomy
from liver_monai.data.phantom.shapes import Ellipsoid, FloatArray, SmoothField, Vector, as_vector, coverage
from liver_monai.data.phantom.tissue import Canvas

COUNTS = (0.125, 0.25, 0.21, 0.165, 0.11, 0.08, 0.06)
"""Probability of 0, 1, ... 6 tumors: one phantom in eight has none."""

BRIGHT = {"non-contrast": 0.0, "arterial": 0.5, "portal-venous": 0.12}
"""Probability that a tumor is brighter than the liver; it takes contrast in the blood, most of all early."""

LEAST_RADIUS_MM = 5.0
SMALL_MM = 12.0
"""Below this radius a tumor is sharper and differs more, or soft edges and noise would leave nothing to see."""

GAP_MM = 4.0
"""Between tumors, lest two become one lesion."""
SEARCH_MM = 4.0
"""Spacing of the grid on which room for tumors is looked for; it is not the grid of the image."""


@dataclass(frozen=True)
class Tumor:
    """One tumor in world mm; ``core_hu`` and ``rim_hu`` come on top of its own contrast."""

    shape: Ellipsoid
    surface: SmoothField
    contrast_hu: float
    core_hu: float
    rim_hu: float
    edge_mm: float

    @property
    def radius_mm(self) -> float:
        """Radius of the ball of the same volume."""
        return float(np.prod(self.shape.radii_mm) ** (1 / 3))


def draw_tumors(rng: np.random.Generator, anatomy: Anatomy, *, phase: str, count: int | None) -> list[Tumor]:
    """Random tumors that lie inside the liver and do not touch each other.

    A liver without room for the next one gets a smaller one, and at last none: a small liver may hold fewer than
    ``count``.
    """
    wanted = int(rng.choice(len(COUNTS), p=COUNTS)) if count is None else count
    sites, depths = liver_sites(anatomy)
    tumors: list[Tumor] = []
    for number in range(wanted):
        radius = rng.uniform(15, 34) if number == 0 else _draw_radius(rng)
        for tumor in tumors:
            distances = np.linalg.norm(sites - np.asarray(tumor.shape.centre_mm), axis=1)
            depths = np.minimum(depths, distances - 1.3 * tumor.radius_mm - GAP_MM)
        radius = max(LEAST_RADIUS_MM, min(radius, 1.1 * float(depths.max())))
        roomy = np.flatnonzero(depths >= 0.85 * radius)
        if len(roomy) > 0:
            tumors.append(_draw_tumor(rng, as_vector(sites[rng.choice(roomy)]), radius, phase))
    return tumors


def _draw_radius(rng: np.random.Generator) -> float:
    low, high = ((5.0, 11.0), (11.0, 22.0), (22.0, 40.0))[int(rng.choice(3, p=(0.4, 0.42, 0.18)))]
    return rng.uniform(low, high)


def liver_sites(anatomy: Anatomy) -> tuple[FloatArray, FloatArray]:
    """Places inside the liver, ``(N, 3)`` world mm, and how deep each lies, ``(N,)`` mm."""
    spans = ((-110.0, 150.0), (-120.0, 120.0), (-110.0, 125.0))
    axes = tuple(np.arange(low, high, SEARCH_MM, dtype=np.float32) for low, high in spans)
    points = anatomy.points((axes[0], axes[1], axes[2]))
    distance = body.liver(anatomy, points, inner=body.cavity(points), dome=body.diaphragm(anatomy, points))
    inside = np.nonzero(distance < 0)
    return np.stack([axis[index] for axis, index in zip(axes, inside, strict=True)], axis=1), -distance[inside]


def _draw_tumor(rng: np.random.Generator, centre: Vector, radius_mm: float, phase: str) -> Tumor:
    stretch = np.exp(rng.uniform(-0.22, 0.22, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    bright = rng.random() < BRIGHT[phase]
    strength = rng.uniform(38, 60) if radius_mm < SMALL_MM else rng.uniform(28, 48 if bright else 58)
    necrotic = radius_mm > 12 and rng.random() < 0.4
    haloed = not bright and radius_mm > SMALL_MM and rng.random() < 0.35
    return Tumor(
        shape=Ellipsoid(centre, as_vector(radius_mm * stretch), as_vector(rng.uniform(-180, 180, 3))),
        surface=SmoothField(rng, pitch_mm=max(5.0, 0.7 * radius_mm)),
        contrast_hu=strength if bright else -strength,
        core_hu=-rng.uniform(10, 28) if necrotic else 0.0,
        rim_hu=rng.uniform(10, 26) if haloed else 0.0,
        edge_mm=rng.uniform(2, 3 if radius_mm < SMALL_MM else 5),
    )


def paint_tumors(canvas: Canvas, tumors: list[Tumor], *, liver_hu: float, texture: SmoothField) -> NDArray[np.uint8]:
    """Paint tumors into the liver of a canvas.

    Returns:
        For each voxel the number of the tumor that fills most of it, counted from 1, or 0.
    """
    numbers = np.zeros(canvas.hu.shape, dtype=np.uint8)
    for number, tumor in enumerate(tumors, start=1):
        low, high = tumor.shape.corners
        box = canvas.points.box(low - 0.6 * tumor.radius_mm, high + 0.6 * tumor.radius_mm)
        axes = canvas.points[box].axes
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        distance = tumor.shape.distance(x, y, z) + 0.13 * tumor.radius_mm * tumor.surface.on(axes)
        grain = texture.on(axes)
        hu = liver_hu + tumor.contrast_hu + 5 * grain
        hu += tumor.core_hu * coverage(distance + 0.45 * tumor.radius_mm + 2 * grain, edge_mm=5)
        hu += tumor.rim_hu * coverage(np.abs(distance + 2.5) - 1.5)
        share = coverage(distance, edge_mm=tumor.edge_mm)
        canvas.hu[box] += share * canvas.liver[box] * (hu - canvas.hu[box])
        numbers[box][(share > 0.5) & (canvas.liver[box] > 0.5)] = number
    return numbers
