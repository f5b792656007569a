"""What a patient looks like in CT: the Hounsfield units of each tissue by contrast phase, painted organ by organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from liver_monai.data.phantom import anatomy as body
from liver_monai.data.phantom.anatomy import Anatomy
from liver_monai.data.phantom.shapes import (
    Box,
    Ellipsoid,
    FloatArray,
    Points,
    SmoothField,
    as_vector,
    coverage,
    intersection,
)

PHASES = ("non-contrast", "arterial", "portal-venous")
AIR_HU = -1000.0

PHASE_HU: dict[str, tuple[float, float, float]] = {
    # non-contrast, arterial, portal-venous; means of the ranges in radiology textbooks
    "liver": (56, 72, 106),
    "spleen": (47, 104, 120),
    "renal cortex": (33, 165, 178),
    "renal medulla": (30, 75, 155),
    "aorta": (41, 300, 152),
    "vena cava": (40, 78, 132),
    "portal vein": (40, 112, 168),
    "hepatic vein": (40, 66, 158),
    "myocardium": (45, 105, 108),
    "heart chamber": (41, 250, 150),
    "muscle": (52, 57, 63),
    "pancreas": (38, 96, 92),
    "bowel wall": (38, 78, 86),
}
FIXED_HU = {
    "fat": -104.0,
    "skin": 35.0,
    "lung": -850.0,
    "disc": 85.0,
    "canal": 22.0,
    "bile": 10.0,
    "gas": -960.0,
    "cartilage": 120.0,
    "cortical bone": 520.0,
    "marrow": 190.0,
}
"""Of tissues that contrast medium does not change enough to be drawn."""
VARIATION = 0.06
"""Relative standard deviation between patients; the liver varies more (fat, iron)."""


@dataclass(frozen=True)
class Tissues:
    """Hounsfield units of this patient in this phase, and the fine texture all soft tissue shares."""

    phase: str
    hu: dict[str, float]
    texture: SmoothField
    clouds: SmoothField
    stomach_hu: float


def draw_tissues(rng: np.random.Generator) -> Tissues:
    """A random phase and a patient's values in it."""
    phase = int(rng.choice(3, p=(0.2, 0.25, 0.55)))
    hu = {name: values[phase] * rng.normal(1, VARIATION) for name, values in PHASE_HU.items()}
    hu["liver"] = PHASE_HU["liver"][phase] + float(np.clip(rng.normal(0, 7), -14, 14))
    hu |= {name: value + rng.normal(0, 3) for name, value in FIXED_HU.items()}
    return Tissues(
        phase=PHASES[phase],
        hu=hu,
        texture=SmoothField(rng, pitch_mm=5.5),
        clouds=SmoothField(rng, pitch_mm=15),
        stomach_hu=float(rng.choice((8.0, 30.0, 60.0, 140.0), p=(0.3, 0.35, 0.25, 0.1))),
    )


class Canvas:
    """A CT in the making: ``hu`` and, beside it, how much of each voxel is ``liver``."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.hu = np.full(points.x.shape, AIR_HU, dtype=np.float32)
        self.liver = np.zeros(points.x.shape, dtype=np.float32)

    def paint(self, box: Box, share: FloatArray, hu: FloatArray | float) -> None:
        """Fill a share of each voxel in a box; it takes the place of what was there, liver included."""
        self.hu[box] += share * (hu - self.hu[box])
        self.liver[box] *= 1 - share

    def paint_liver(self, box: Box, share: FloatArray, hu: FloatArray | float) -> None:
        """The same for the liver itself."""
        self.paint(box, share, hu)
        self.liver[box] += share


@dataclass(frozen=True)
class Scene:
    """A patient on a grid, with the fields that most organs need, ``(X, Y, Z)`` each."""

    points: Points
    anatomy: Anatomy
    tissues: Tissues
    inner: FloatArray
    dome: FloatArray
    texture: FloatArray
    clouds: FloatArray


WHOLE: Box = (slice(None), slice(None), slice(None))


def paint_patient(anatomy: Anatomy, tissues: Tissues, points: Points) -> Canvas:
    """Everything but tumors and noise."""
    scene = Scene(
        points=points,
        anatomy=anatomy,
        tissues=tissues,
        inner=body.cavity(points),
        dome=body.diaphragm(anatomy, points),
        texture=tissues.texture.on(points.axes),
        clouds=tissues.clouds.on(points.axes),
    )
    canvas = Canvas(points)
    for paint in (_table, _trunk, _lungs, _gut, _stomach, _spleen, _kidneys, _liver, _gallbladder, _vessels, _bones):
        paint(canvas, scene)
    return canvas


def _table(canvas: Canvas, scene: Scene) -> None:
    right, anterior, _ = np.meshgrid(*scene.points.axes, indexing="ij", sparse=True)
    top = scene.anatomy.back_mm + right**2 / 1100
    canvas.paint(WHOLE, coverage(np.abs(anterior - top + 4) - 2.5), -120.0)


def _trunk(canvas: Canvas, scene: Scene) -> None:
    hu, texture, clouds, inner = scene.tissues.hu, scene.texture, scene.clouds, scene.inner
    muscle, skin = body.trunk(scene.anatomy, scene.points, inner)
    fat = hu["fat"] + 5 * texture + 3 * clouds
    streaks = np.clip(clouds - 0.9, 0, 0.8) * 70  # fat between the muscles
    mesentery = np.clip(texture - 1.5, 0, 1) * 80  # small vessels and strands
    canvas.paint(WHOLE, coverage(skin), hu["skin"])
    canvas.paint(WHOLE, coverage(skin + 2), fat)
    canvas.paint(WHOLE, coverage(muscle), hu["muscle"] + 5 * texture - streaks)
    canvas.paint(WHOLE, coverage(inner), fat + mesentery)
    canvas.paint(WHOLE, coverage(body.psoas(scene.points)), hu["muscle"] + 5 * texture)
    shell = intersection(np.abs(scene.dome + 1.5) - 1.5, inner)
    canvas.paint(WHOLE, coverage(shell), hu["muscle"])


def _lungs(canvas: Canvas, scene: Scene) -> None:
    hu, texture = scene.tissues.hu, scene.texture
    middle = body.mediastinum(scene.anatomy, scene.points)
    lungs = np.maximum(np.maximum(scene.inner + 1, -scene.dome), -middle)
    vessels = np.clip(texture - 1.5, 0, 1) * 700
    canvas.paint(WHOLE, coverage(lungs), hu["lung"] + 18 * texture + vessels)
    box = scene.anatomy.box(scene.points, scene.anatomy.organs["heart"])
    heart = intersection(scene.anatomy.organ("heart", scene.points[box]), -scene.dome[box])
    canvas.paint(box, coverage(heart), hu["myocardium"] + 4 * texture[box])
    canvas.paint(box, coverage(heart + 12, edge_mm=4), hu["heart chamber"] + 4 * texture[box])


def _gut(canvas: Canvas, scene: Scene) -> None:
    hu, texture, clouds = scene.tissues.hu, scene.texture, scene.clouds
    loops = body.bowel(scene.anatomy, scene.points, scene.inner)
    canvas.paint(WHOLE, coverage(loops), hu["bowel wall"] + 4 * texture)
    canvas.paint(WHOLE, coverage(loops + 3.5, edge_mm=3), 22 + 14 * clouds + 4 * texture)
    gas = np.maximum(loops + 5, 35 - scene.points.y - 12 * clouds)
    canvas.paint(WHOLE, coverage(gas), hu["gas"])
    pancreas = body.tubes(body.PANCREAS, scene.anatomy, scene.points) + 2.2 * clouds
    canvas.paint(WHOLE, coverage(pancreas), hu["pancreas"] + 9 * texture)


def _stomach(canvas: Canvas, scene: Scene) -> None:
    organ = scene.anatomy.organs["stomach"]
    box = scene.anatomy.box(scene.points, organ)
    part, texture = scene.points[box], scene.texture[box]
    abdomen = np.maximum(scene.inner, scene.dome)[box] + 5
    stomach = intersection(scene.anatomy.organ("stomach", part), abdomen, blend_mm=8)
    canvas.paint(box, coverage(stomach), scene.tissues.hu["bowel wall"] + 4 * texture)
    meal = scene.tissues.stomach_hu + 9 * scene.clouds[box] + 5 * texture
    canvas.paint(box, coverage(stomach + 4.5, edge_mm=2.5), meal)
    level_mm = organ.centre_mm[1] + 16  # gas rises, and its lower face is flat
    canvas.paint(box, coverage(np.maximum(stomach + 5, level_mm - part.y)), scene.tissues.hu["gas"])


def _spleen(canvas: Canvas, scene: Scene) -> None:
    box = scene.anatomy.box(scene.points, scene.anatomy.organs["spleen"])
    abdomen = np.maximum(scene.inner + 2, scene.dome + 4)[box]
    spleen = intersection(scene.anatomy.organ("spleen", scene.points[box]), abdomen, blend_mm=6)
    mottled = 14.0 if scene.tissues.phase == "arterial" else 4.0  # red and white pulp fill at different speed
    canvas.paint(box, coverage(spleen), scene.tissues.hu["spleen"] + mottled * scene.texture[box])


def _kidneys(canvas: Canvas, scene: Scene) -> None:
    hu = scene.tissues.hu
    for name, medial in (("right_kidney", -1), ("left_kidney", 1)):
        organ = scene.anatomy.organs[name]
        box = scene.anatomy.box(scene.points, organ)
        part, texture = scene.points[box], scene.texture[box]
        kidney = scene.anatomy.organ(name, part)
        hilum = Ellipsoid(as_vector(np.add(organ.centre_mm, (15 * medial, 6, 0))), (13, 13, 24))
        sinus = np.maximum(hilum.distance(part.x, part.y, part.z) + 2 * scene.clouds[box], kidney - 4)
        canvas.paint(box, coverage(kidney), hu["renal cortex"] + 5 * texture)
        canvas.paint(box, coverage(kidney + 7 + 2.5 * texture, edge_mm=4), hu["renal medulla"] + 5 * texture)
        canvas.paint(box, coverage(sinus, edge_mm=4), hu["fat"] + 5 * texture)


def _liver(canvas: Canvas, scene: Scene) -> None:
    anatomy, hu = scene.anatomy, scene.tissues.hu
    share = coverage(body.liver(anatomy, scene.points, inner=scene.inner, dome=scene.dome))
    canvas.paint_liver(WHOLE, share, hu["liver"] + 3.5 * scene.texture + 2.5 * scene.clouds)
    for tree, blood in ((anatomy.portal_tree, "portal vein"), (anatomy.hepatic_tree, "hepatic vein")):
        vessels = coverage(body.tubes(tree, anatomy, scene.points))
        canvas.hu += share * vessels * (hu[blood] + 3 * scene.texture - canvas.hu)


def _gallbladder(canvas: Canvas, scene: Scene) -> None:
    box = scene.anatomy.box(scene.points, scene.anatomy.organs["gallbladder"])
    bladder = scene.anatomy.organ("gallbladder", scene.points[box])
    canvas.paint(box, coverage(bladder), scene.tissues.hu["muscle"])
    canvas.paint(box, coverage(bladder + 2), scene.tissues.hu["bile"] + 2 * scene.texture[box])


def _vessels(canvas: Canvas, scene: Scene) -> None:
    hu, texture = scene.tissues.hu, scene.texture
    portal = coverage(body.tubes((body.PORTAL_ROOT,), scene.anatomy, scene.points))
    canvas.hu += (1 - canvas.liver) * portal * (hu["portal vein"] - canvas.hu)
    canvas.paint(WHOLE, coverage(body.vena_cava(scene.points)), hu["vena cava"] + 4 * texture)
    canvas.paint(WHOLE, coverage(body.aorta(scene.points)), hu["aorta"] + 4 * texture)


def _bones(canvas: Canvas, scene: Scene) -> None:
    hu, texture = scene.tissues.hu, scene.texture
    spine, disc, canal = body.vertebrae(scene.anatomy, scene.points)
    ribs, cartilage = body.ribs(scene.anatomy, scene.points, scene.inner)
    canvas.paint(WHOLE, coverage(disc), hu["disc"] + 4 * texture)
    canvas.paint(WHOLE, coverage(canal), hu["canal"])
    canvas.paint(WHOLE, coverage(cartilage), hu["cartilage"] + 10 * texture)
    for solid in (spine, ribs):
        canvas.paint(WHOLE, coverage(solid), hu["cortical bone"] + 40 * texture)
        canvas.paint(WHOLE, coverage(solid + 2.5), hu["marrow"] + 45 * texture)
