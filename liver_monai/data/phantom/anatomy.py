"""A random patient: where the organs of the upper abdomen lie, as signed distances (negative inside).

The template is an average torso in mm, RAS: x to the patient's right, y anterior, z superior, origin in mid-liver.
A patient is the template scaled, rolled and smoothly warped, with each organ moved and stretched a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liver_monai.data.phantom.shapes import (
    Axes,
    Box,
    Ellipsoid,
    FloatArray,
    Points,
    Segment,
    SmoothField,
    Vector,
    as_vector,
    intersection,
    union,
)
from liver_monai.data.phantom.vessels import draw_hepatic_tree, draw_portal_tree

TEMPLATE = {
    "right_lobe": Ellipsoid((60, -4, 6), (64, 76, 82), (0, 0, 0)),
    "left_lobe": Ellipsoid((-10, 42, 42), (76, 38, 36), (0, 10, 14)),
    "visceral_hollow": Ellipsoid((0, 0, -52), (52, 80, 62)),
    "fissure": Ellipsoid((8, 70, 14), (2.5, 28, 30), (0, 0, 12)),
    "gallbladder": Ellipsoid((40, 34, -42), (14, 17, 27), (30, 0, 0)),
    "spleen": Ellipsoid((-94, -36, 26), (25, 42, 50), (0, 10, 0)),
    "stomach": Ellipsoid((-60, 14, 16), (38, 40, 54), (0, 14, 0)),
    "right_kidney": Ellipsoid((58, -52, -56), (25, 25, 52), (0, 8, -20)),
    "left_kidney": Ellipsoid((-58, -52, -34), (25, 25, 52), (0, -8, 20)),
    "heart": Ellipsoid((-26, 34, 114), (62, 50, 46), (0, 15, 0)),
}
CAVITY_MM = (125.0, 88.0)
"""Half the width and half the depth of the chest's inside."""
WARP_MM = 9.0
"""How far the warp moves a point along an axis at most."""
WARP_PITCH_MM = 55.0
BOX_MARGIN_MM = 22.0
"""How far warp and roll can move a template point, with room for soft edges."""

VERTEBRA_MM = 31.0
RIB_MM = 27.0
"""From one to the next, along the body."""
CARTILAGE_RAD = 2.25
"""How far round the chest, from the spine, ribs are bone."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """One patient's parameters; the functions below turn them into shapes."""

    scale: Vector
    roll_rad: float
    fat_mm: float
    muscle_mm: float
    dome_mm: tuple[float, float]
    spine_phase_mm: float
    organs: dict[str, Ellipsoid]
    warp: tuple[SmoothField, SmoothField, SmoothField]
    bumps: SmoothField
    bowel: SmoothField
    portal_tree: tuple[Segment, ...]
    hepatic_tree: tuple[Segment, ...]

    @property
    def half_width_mm(self) -> float:
        """Half the width of the body, warp included."""
        return self.scale[0] * (CAVITY_MM[0] + self.muscle_mm + self.fat_mm) + 6

    @property
    def back_mm(self) -> float:
        """Where the table lies, just behind the skin of the back, along the anterior axis."""
        return -self.scale[1] * (116 + self.fat_mm) - 5

    def points(self, axes: Axes) -> Points:
        """The template coordinates of a grid given by its world axes."""
        x, y, z = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij", sparse=True)
        moved = [axis + WARP_MM * np.tanh(field.on(axes) / 2) for axis, field in zip((x, y, z), self.warp, strict=True)]
        cosine, sine = float(np.cos(self.roll_rad)), float(np.sin(self.roll_rad))
        right = (cosine * moved[0] + sine * moved[1]) / self.scale[0]
        anterior = (cosine * moved[1] - sine * moved[0]) / self.scale[1]
        return Points(axes, right, anterior, moved[2] / self.scale[2])

    def box(self, points: Points, shape: Ellipsoid | Segment, *, margin_mm: float = 0.0) -> Box:
        """The part of a grid that can hold a shape of the template."""
        low, high = shape.corners
        scale = np.asarray(self.scale)
        margin = BOX_MARGIN_MM + margin_mm
        return points.box(low * scale - margin, high * scale + margin)

    def organ(self, name: str, points: Points) -> FloatArray:
        """Distance to an organ that is one ellipsoid, its surface made uneven."""
        return self.organs[name].distance(points.x, points.y, points.z) + 2.0 * self.bumps.on(points.axes)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random patient."""
    return Anatomy(
        scale=as_vector(rng.uniform(0.92, 1.06) * rng.uniform(0.97, 1.03, 3)),
        roll_rad=float(np.deg2rad(rng.uniform(-4, 4))),
        fat_mm=rng.uniform(8, 30),
        muscle_mm=rng.uniform(9, 14),
        dome_mm=(rng.uniform(80, 92), rng.uniform(66, 78)),
        spine_phase_mm=rng.uniform(0, VERTEBRA_MM),
        organs={name: organ.varied(rng, shift_mm=4, stretch=0.1) for name, organ in TEMPLATE.items()},
        warp=(_warp(rng), _warp(rng), _warp(rng)),
        bumps=SmoothField(rng, pitch_mm=22),
        bowel=SmoothField(rng, pitch_mm=19),
        portal_tree=draw_portal_tree(rng),
        hepatic_tree=draw_hepatic_tree(rng),
    )


def _warp(rng: np.random.Generator) -> SmoothField:
    return SmoothField(rng, pitch_mm=WARP_PITCH_MM)


def _superellipse(
    x: FloatArray, y: FloatArray, half_width: FloatArray | float, half_depth: FloatArray | float
) -> FloatArray:
    """Distance to the curve |x/a|^2.5 + |y/b|^2.5 = 1, rounder than a box and squarer than an ellipse."""
    u, v = np.abs(x) / half_width, np.abs(y) / half_depth
    norm = (u**2 * np.sqrt(u) + v**2 * np.sqrt(v)) ** np.float32(0.4) + np.float32(1e-4)
    u, v = u / norm, v / norm
    slope = np.sqrt((u * np.sqrt(u) / half_width) ** 2 + (v * np.sqrt(v) / half_depth) ** 2)
    return np.asarray((norm - 1) / (slope + np.float32(1e-4)))


def cavity(p: Points) -> FloatArray:
    """The inside of the chest and abdominal wall; it narrows upwards."""
    narrowing = 1 - 0.0009 * np.maximum(p.z - 20, 0)
    return _superellipse(p.x, p.y, CAVITY_MM[0] * narrowing, CAVITY_MM[1] * narrowing)


def trunk(anatomy: Anatomy, p: Points, inner: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The muscular wall and the skin, given the cavity: ``(muscle, skin)``."""
    back = union(*(_rod(p.x - side, p.y + 95, (31, 21)) for side in (-33, 33)), blend_mm=10)
    muscle = union(inner - anatomy.muscle_mm, back, blend_mm=14)
    return muscle, union(inner - anatomy.muscle_mm, back, blend_mm=40) - anatomy.fat_mm


def _rod(x: FloatArray, y: FloatArray, radii: tuple[float, float]) -> FloatArray:
    """An upright cylinder with elliptic section."""
    u, v = x / radii[0], y / radii[1]
    norm = np.sqrt(u**2 + v**2)
    return np.asarray(norm * (norm - 1) / np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + np.float32(1e-9)))


def psoas(p: Points) -> FloatArray:
    """The muscles on both sides of the lumbar spine and the crura of the diaphragm."""
    flanks = union(*(_rod(p.x - side, p.y + 60, (15, 17)) for side in (-36, 36)))
    crura = union(*(_rod(p.x - side, p.y + 40, (5, 15)) for side in (-22, 10)))
    return union(np.maximum(flanks, p.z + 20), np.maximum(crura, p.z - 45), blend_mm=4)


def diaphragm(anatomy: Anatomy, p: Points) -> FloatArray:
    """The abdomen under the two domes (negative below them)."""
    right = _dome(p, centre=(56, 2), radii=(70, 80), height=anatomy.dome_mm[0])
    left = _dome(p, centre=(-60, 4), radii=(66, 80), height=anatomy.dome_mm[1])
    return union(right, left, blend_mm=16)


def _dome(p: Points, *, centre: tuple[float, float], radii: tuple[float, float], height: float) -> FloatArray:
    squared = ((p.x - centre[0]) / radii[0]) ** 2 + ((p.y - centre[1]) / radii[1]) ** 2
    top = height - 46 * squared * np.sqrt(squared)
    slope = 138 / 75 * squared  # of `top`, with 75 mm for both radii
    return np.asarray((p.z - top) / np.sqrt(1 + slope**2))


def mediastinum(anatomy: Anatomy, p: Points) -> FloatArray:
    """What lies between the lungs: heart with its fat, great vessels, oesophagus, spine."""
    column = _rod(p.x + 3, p.y + 48, (29, 44))
    heart = anatomy.organs["heart"].distance(p.x, p.y, p.z) - 7
    front = _rod(p.x + 6, p.y - 70, (26, 40))
    return union(union(column, heart, blend_mm=10), front, blend_mm=10)


HOLLOWS = (
    # what presses into the liver: distance it keeps (negative: it yields itself), rounding of the edge
    ("visceral_hollow", 0.0, 16.0),
    ("right_kidney", 6.0, 6.0),
    ("stomach", -8.0, 8.0),
    ("fissure", 0.0, 3.0),
    ("gallbladder", 0.0, 2.0),
)


def liver(anatomy: Anatomy, p: Points, *, inner: FloatArray, dome: FloatArray) -> FloatArray:
    """Right and left lobe under the dome, hollowed where stomach, kidney and hilum lie; vessels are part of it."""
    organs = anatomy.organs
    lobes = union(
        organs["right_lobe"].distance(p.x, p.y, p.z), organs["left_lobe"].distance(p.x, p.y, p.z), blend_mm=22
    )
    lobes = lobes + 3.5 * anatomy.bumps.on(p.axes)
    for name, clearance_mm, blend_mm in HOLLOWS:
        box = anatomy.box(p, organs[name], margin_mm=blend_mm)
        hollow = organs[name].distance(p.x[box], p.y[box], p.z[box])
        lobes[box] = intersection(lobes[box], clearance_mm - hollow, blend_mm=blend_mm)
    lobes = intersection(lobes, -vena_cava(p))
    return intersection(intersection(lobes, inner + 1.5, blend_mm=6), dome + 2.5, blend_mm=6)


def aorta(p: Points) -> FloatArray:
    """In front and left of the spine."""
    return _rod(p.x + 10 + 0.00025 * p.z**2, p.y + 34, (11.5, 11.5))


def vena_cava(p: Points) -> FloatArray:
    """Right of the aorta, moving forward to the heart."""
    return intersection(_rod(p.x - 19, p.y + 28 - 0.0011 * np.maximum(p.z, 0) ** 2, (13, 10)), p.z - 98)


def vertebrae(anatomy: Anatomy, p: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bone, discs and spinal canal."""
    level = np.mod(p.z + anatomy.spine_phase_mm, VERTEBRA_MM) - VERTEBRA_MM / 2
    column = _rod(p.x, p.y + 62, (22, 16.5))
    body = intersection(column, np.abs(level) - 11.5, blend_mm=2)
    canal = _rod(p.x, p.y + 86, (10, 8))
    arch = intersection(canal - 5, np.abs(level) - 12)
    spinous = np.maximum(np.maximum(np.abs(p.x) - 3.2, np.abs(p.y + 106) - 12), np.abs(level + 3) - 9)
    transverse = np.maximum(np.maximum(np.abs(p.x) - 36, np.abs(p.y + 88) - 4.5), np.abs(level - 3) - 6)
    bone = union(union(body, arch, blend_mm=3), union(spinous, transverse), blend_mm=3)
    return intersection(bone, -canal), column + 1, canal


def ribs(anatomy: Anatomy, p: Points, inner: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ribs and their cartilage ``(bone, cartilage)``: bands in the chest wall down to the costal margin.

    Seen from the spine a rib runs round the chest downwards, and its cartilage upwards again to the sternum.
    """
    around = np.arctan2(np.abs(p.x), -p.y)
    fall_mm = 46 * np.minimum(around, CARTILAGE_RAD) - 60 * np.maximum(around - CARTILAGE_RAD, 0)
    level = np.mod(p.z + fall_mm + anatomy.spine_phase_mm, RIB_MM) - RIB_MM / 2
    band = np.sqrt(((inner - 5) / 4.5) ** 2 + (level / 6) ** 2)
    costal_margin = -75 + 75 * np.maximum(around - 1.2, 0)
    bands = intersection(np.asarray((band - 1) * 4.5), np.maximum(costal_margin - p.z, 14 - np.abs(p.x)))
    past_bone = (around - CARTILAGE_RAD) * 100
    sternum = np.maximum(np.maximum(np.abs(p.x) - 15, np.abs(inner - 5) - 5), np.maximum(62 - p.z, -p.y))
    return union(np.maximum(bands, past_bone), sternum), np.maximum(bands, -past_bone)


def bowel(anatomy: Anatomy, p: Points, inner: FloatArray) -> FloatArray:
    """Loops in the lower abdomen: blobs of a random field; what other organs leave of them is seen."""
    loops = (0.25 - anatomy.bowel.on(p.axes)) * 11
    region = np.maximum(np.maximum(p.z + 22, -p.y - 25), inner + 9)
    return intersection(loops, region, blend_mm=5)


PANCREAS = (
    Segment((24, 2, -36), (6, 12, -22), (14, 10)),
    Segment((6, 12, -22), (-28, 4, -14), (10, 9)),
    Segment((-28, 4, -14), (-66, -16, -4), (9, 8)),
)
PORTAL_ROOT = Segment((0, 2, -32), (24, 2, 2), (6.5, 7))


def tubes(segments: tuple[Segment, ...], anatomy: Anatomy, points: Points) -> FloatArray:
    """Distance to a tree of tubes; far away it is only known to be large."""
    nearest = np.full(points.x.shape, 50, dtype=np.float32)
    for segment in segments:
        box = anatomy.box(points, segment)
        part = points[box]
        np.minimum(nearest[box], segment.distance(part.x, part.y, part.z), out=nearest[box])
    return nearest
