"""Synthetic tumours drawn into the livers of real CTs while a network trains, so that labels of the liver suffice.

A tumour is a body in millimetres. A slab shows the cut of it that its slices make, whether or not its centre lies
among them; the part beyond the slab is never looked at. Its idea is that of Hu et al. (Label-free liver tumor
segmentation, CVPR 2023): ellipsoids, deformed, textured, with a soft edge. Added are brighter tumours, rims, cores and
the liver pushed aside.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from numpy.typing import NDArray
from scipy import ndimage

from liver_monai.data.phantom.shapes import Axes, Box, Ellipsoid, FloatArray, SmoothField, Vector, as_vector, coverage
from liver_monai.errors import InputError
from liver_monai.spec import LIVER, TUMOR

BRIGHT = 0.15
"""Share of brighter tumours. In the arterial phase 78 % of HCC are (Lee, British Journal of Radiology 85, 2012), in the
portal-venous phase, of which most public CTs are, few."""
RIM = 0.4
"""Share with a rim. 73 % of colorectal metastases have one, of which 84 % take up contrast (Annals of the Academy of
Medicine, Singapore 32, 2003); it is not seen around small ones."""
CORE = 0.4
"""Share of those wider than ``LARGE_MM`` whose centre differs; it does in half of the metastases (likewise)."""
LARGE_MM = 12.0
"""Radius from which tumours have rims and cores that slices of 3 mm could show."""

STRETCH = (0.75, 1.25)
"""Semi-axes over radius (Hu 2023)."""
ROUGHNESS = 0.1
"""How far the surface leaves the ellipsoid, as a share of the radius (one standard deviation)."""
TOUCHES = 0.9
"""How far from the slice its centre may be, as a share of the radius: it is cut anywhere, rarely at its widest."""

GAP_MM = 3.0
"""Between tumours, lest two become one lesion."""
INSIDE = 0.9
"""Share of the visible body that must be liver; what lies beyond is cut off as by the capsule."""
ARM = 0.7
"""Share of the radius; the corners of such a square lie on the surface, and ``INSIDE`` decides."""
TRIES = 8
SHRINK = 0.85
"""Where there is no room, another place is tried with a smaller tumour."""

PUSH = 0.15
REACH = 0.8
"""The liver at the surface has moved outwards by this share of the radius; what lies ``REACH`` radii away has not."""
NOISE_MM = 3.0
"""What varies over less than this is the scan's noise, which tumours show, too."""


@dataclass(frozen=True, kw_only=True)
class SyntheticTumor:
    """One tumour, in the mm of a grid's axes: slices first, then rows and columns.

    Args:
        radius_mm: of the ball of the same volume.
        shape: the ellipsoid that it is before its surface is deformed.
        surface, texture: random functions of position.
        contrast_hu: its mean less that of the liver around it; ``core_hu``, ``rim_hu`` and ``texture_hu`` (standard
            deviation) come on top.
        rim_mm, edge_mm: how wide the rim is, and over how much tumour turns into liver.
    """

    radius_mm: float
    shape: Ellipsoid
    surface: SmoothField
    texture: SmoothField
    contrast_hu: float
    core_hu: float
    rim_hu: float
    texture_hu: float
    rim_mm: float
    edge_mm: float

    def distance(self, axes: Axes) -> FloatArray:
        """Signed distance to its surface in mm on the grid of three axes, negative inside."""
        ellipsoid = self.shape.distance(*np.meshgrid(*axes, indexing="ij", sparse=True))
        return np.asarray(ellipsoid + ROUGHNESS * self.radius_mm * self.surface.on(axes))

    def contrast(self, distance: FloatArray, axes: Axes) -> FloatArray:
        """HU less those of the liver around it."""
        hu = self.contrast_hu + self.texture_hu * self.texture.on(axes)
        hu += self.core_hu * coverage(distance + 0.5 * self.radius_mm, edge_mm=0.3 * self.radius_mm)
        hu += self.rim_hu * coverage(np.abs(distance + self.rim_mm / 2) - self.rim_mm / 2)
        return np.asarray(hu)


class RandLiverTumord(RandomizableTransform, MapTransform):
    """Draw tumours into the liver of ``image`` (HU) and write them into ``label`` as class 2.

    Both are a slab ``(slices, H, W)`` or a volume ``(1, H, W, D)``; in a slab every tumour cuts the slice in the
    middle or lies close to it. Only voxels of class 1 change, in the tumours and up to ``REACH`` radii around them;
    tumours that are there stay as they are and keep their distance. A liver without room gets smaller tumours or none.

    Args:
        keys: of image and label, in this order.
        spacing_mm: of H, W and slices, as in ``ModelSpec``.
        prob: how often there are any.
        count: the least and the most tumours.
        radius_mm: of the ball of a tumour's volume, least and most, even on a logarithmic scale, so that half are below
            2 cm in diameter: those are missed most. Hu (2023) draws 4, 8, 16 and 32 mm.
        darker_hu: contrast to the liver around it, least and most. Hypovascular metastases differ by 57 ± 18 HU at
            120 kVp (Robinson, Investigative Radiology 45, 2010): two standard deviations. Hu's (2023) tumours are 65
            to 145 HU darker, those of 3D-IRCADb's patient 17 by 26 HU.
        brighter_hu: likewise for the share ``BRIGHT``: 10 HU count as enhancement of HCC (Abdominal Imaging 39, 2014);
            no source for the most.

    Raises:
        InputError: a range that is none.
    """

    def __init__(
        self,
        keys: KeysCollection = ("image", "label"),
        *,
        spacing_mm: Sequence[float],
        prob: float = 0.5,
        count: Sequence[int] = (1, 3),
        radius_mm: Sequence[float] = (3.0, 32.0),
        darker_hu: Sequence[float] = (20.0, 90.0),
        brighter_hu: Sequence[float] = (10.0, 45.0),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        ranges = {"count": count, "radius_mm": radius_mm, "darker_hu": darker_hu, "brighter_hu": brighter_hu}
        for name, values in ranges.items():
            if len(values) != 2 or not 0 < values[0] <= values[1]:
                raise InputError(f"{name} is {list(values)}; it must be the least and the most, both above 0")
        if not 0 <= prob <= 1:
            raise InputError(f"prob is {prob}; it must lie between 0 and 1")
        self.spacing_mm = spacing_mm
        self.count, self.radius_mm = count, radius_mm
        self.darker_hu, self.brighter_hu = darker_hu, brighter_hu

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw tumours into copies of image and label."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        rng = np.random.default_rng(self.R.randint(2**32, dtype=np.uint32))
        image_key, label_key = self.keys
        arrays = [convert_to_numpy(data[key]) for key in (image_key, label_key)]
        is_slab = arrays[0].ndim == 3
        image, label = (np.array(each if is_slab else np.moveaxis(each[0], -1, 0)) for each in arrays)
        image = image.astype(np.float32, copy=False)
        self._draw(rng, image, label, anchors=slice(len(label) // 2, len(label) // 2 + 1) if is_slab else slice(None))
        drawn = (image, label) if is_slab else (np.moveaxis(each, 0, -1)[None] for each in (image, label))
        both = zip((image_key, label_key), drawn, strict=True)
        return {**data, **{key: convert_to_dst_type(array, data[key])[0] for key, array in both}}

    def _draw(self, rng: np.random.Generator, image: FloatArray, label: NDArray[Any], *, anchors: slice) -> None:
        """Paint tumours into slices first arrays; each cuts one of the slices ``anchors``."""
        rows_mm, columns_mm, slices_mm = self.spacing_mm
        steps = zip(image.shape, (slices_mm, rows_mm, columns_mm), strict=True)
        axes = _as_axes(np.arange(n, dtype=np.float32) * mm for n, mm in steps)
        for _ in range(rng.integers(self.count[0], self.count[1] + 1)):
            tumor = self._find_room(rng, label, axes, anchors)
            if tumor is not None:
                paint_tumor(image, label, tumor, axes=axes)

    def _find_room(
        self, rng: np.random.Generator, label: NDArray[Any], axes: Axes, anchors: slice
    ) -> SyntheticTumor | None:
        """A tumour that the liver has room for."""
        near = _as_axes((axes[0][anchors], *axes[1:]))
        least_mm, most_mm = self.radius_mm
        radius_mm = float(np.exp(rng.uniform(np.log(least_mm), np.log(most_mm))))
        places = roomy_places(label[anchors] == LIVER, radius_mm, axes=axes)
        for _ in range(TRIES if len(places) else 0):
            place = np.unravel_index(rng.choice(places), label[anchors].shape)
            within = [mm * rng.uniform(-0.5, 0.5) for mm in _steps_mm(axes)]
            centre_mm = [axis[index] + part for axis, index, part in zip(near, place, within, strict=True)]
            centre_mm[0] += rng.uniform(-TOUCHES, TOUCHES) * radius_mm
            tumor = draw_tumor(rng, as_vector(np.asarray(centre_mm)), radius_mm, contrast_hu=self._draw_contrast(rng))
            if has_room(label, tumor, axes=axes):
                return tumor
            radius_mm = max(SHRINK * radius_mm, least_mm)
        return None

    def _draw_contrast(self, rng: np.random.Generator) -> float:
        is_bright = rng.random() < BRIGHT
        least_hu, most_hu = self.brighter_hu if is_bright else self.darker_hu
        return rng.uniform(least_hu, most_hu) * (1 if is_bright else -1)


def draw_tumor(rng: np.random.Generator, centre_mm: Vector, radius_mm: float, *, contrast_hu: float) -> SyntheticTumor:
    """A random tumour of this place, size and contrast."""
    stretch = rng.uniform(*STRETCH, 3)
    stretch /= np.prod(stretch) ** (1 / 3)
    strength = abs(contrast_hu)
    has_rim, has_core = (radius_mm > LARGE_MM and rng.random() < share for share in (RIM, CORE))
    return SyntheticTumor(
        radius_mm=radius_mm,
        shape=Ellipsoid(centre_mm, as_vector(radius_mm * stretch), as_vector(rng.uniform(-180, 180, 3))),
        surface=_field(rng, pitch_mm=rng.uniform(0.5, 0.8) * radius_mm, radius_mm=radius_mm),
        texture=_field(rng, pitch_mm=max(2.0, rng.uniform(0.1, 0.3) * radius_mm), radius_mm=radius_mm),
        contrast_hu=contrast_hu,
        core_hu=-rng.uniform(0.2, 0.5) * strength if has_core else 0.0,
        rim_hu=rng.uniform(0.3, 0.9) * strength if has_rim else 0.0,
        texture_hu=rng.uniform(2.0, 4.0 + 0.1 * strength),
        rim_mm=rng.uniform(2.0, 4.0),
        edge_mm=rng.uniform(1.0, 2.0 if radius_mm < LARGE_MM else 5.0),
    )


def _field(rng: np.random.Generator, *, pitch_mm: float, radius_mm: float) -> SmoothField:
    """It need not repeat later than the tumour ends."""
    return SmoothField(rng, pitch_mm=pitch_mm, period_mm=4 * radius_mm)


def roomy_places(liver: NDArray[np.bool_], radius_mm: float, *, axes: Axes) -> NDArray[np.intp]:
    """Flat indices of liver voxels in the middle of a square of liver, ``ARM`` radii to each side; of all if none is.

    Anywhere in the liver large tumours rarely find room, and shrink: in slabs of a patient's CT a third of those above
    20 mm was left, and here is half.
    """
    inside = liver.astype(np.uint8)
    for axis, mm in enumerate(_steps_mm(axes)[1:], start=1):
        reach = round(ARM * radius_mm / mm)
        inside = ndimage.minimum_filter1d(inside, 2 * reach + 1, axis=axis, mode="nearest")
    places = np.flatnonzero(inside)
    return places if len(places) else np.flatnonzero(liver)


def has_room(label: NDArray[Any], tumor: SyntheticTumor, *, axes: Axes) -> bool:
    """Whether what can be seen of a tumour lies in the liver, at a distance from the tumours that are there."""
    box = _box(tumor, axes, margin_mm=GAP_MM)
    part = label[box]
    if part.size == 0:
        return False
    distance = tumor.distance(_cut(axes, box))
    is_body = distance < 0
    n_inside = np.count_nonzero(part[is_body] == LIVER)
    if n_inside == 0 or n_inside < INSIDE * np.count_nonzero(is_body):
        return False
    return not bool((part[distance < GAP_MM] == TUMOR).any())


def paint_tumor(image: FloatArray, label: NDArray[Any], tumor: SyntheticTumor, *, axes: Axes) -> None:
    """Paint a tumour into ``image`` (HU, float32) and ``label``, ``(slices, H, W)`` both, in place.

    Args:
        image, label: what is painted into; only voxels of class 1 change.
        tumor: in the frame of the axes.
        axes: positions in mm of the slices, rows and columns.
    """
    box = _box(tumor, axes, margin_mm=REACH * tumor.radius_mm)
    part, near = image[box], _cut(axes, box)
    is_liver = label[box] == LIVER
    if not is_liver.any():
        return
    distance = tumor.distance(near)
    around = is_liver & (distance > 0)
    liver_hu = np.median(part[around if around.any() else is_liver])
    liver = np.where(is_liver, part, liver_hu)  # nothing from beyond the liver is smoothed or pushed into it
    noise = _noise(liver, is_liver, near)
    pushed = _push_aside(liver, distance, tumor, near)
    hu = liver_hu + tumor.contrast(distance, near) + noise
    share = coverage(distance, edge_mm=tumor.edge_mm)
    part[is_liver] = (pushed + share * (hu - pushed))[is_liver]
    label[box][is_liver & (share > 0.5)] = TUMOR


def _noise(liver: FloatArray, is_liver: NDArray[np.bool_], axes: Axes) -> FloatArray:
    """The scan's noise: what is left of the liver without all that is smooth, vessels cut down to the noise's size."""
    sigmas = [0.0, *(NOISE_MM / mm for mm in _steps_mm(axes)[1:])]
    rest = liver - ndimage.gaussian_filter(liver, sigmas)
    sd = 1.4826 * np.median(np.abs(rest[is_liver]))  # robust: vessels are no noise
    return np.asarray(np.clip(rest, -2 * sd, 2 * sd))


def _push_aside(liver: FloatArray, distance: FloatArray, tumor: SyntheticTumor, axes: Axes) -> FloatArray:
    """The liver around a tumour moved outwards, within each slice: a slab lacks the slices to move it across them."""
    reach_mm = REACH * tumor.radius_mm
    moved = np.nonzero((distance > 0) & (distance < reach_mm))
    pushed = liver.copy()
    offsets = [axis[index] - centre for axis, index, centre in zip(axes, moved, tumor.shape.centre_mm, strict=True)]
    length = np.sqrt(sum(offset**2 for offset in offsets)) + np.float32(1e-3)
    shift_mm = PUSH * tumor.radius_mm * (1 - distance[moved] / reach_mm) ** 2
    steps = zip(moved[1:], offsets[1:], _steps_mm(axes)[1:], strict=True)
    within = [index - shift_mm * offset / length / step_mm for index, offset, step_mm in steps]
    pushed[moved] = ndimage.map_coordinates(liver, np.stack([moved[0], *within]), order=1, mode="nearest")
    return pushed


def _box(tumor: SyntheticTumor, axes: Axes, *, margin_mm: float) -> Box:
    """The part of a grid that a tumour and a margin around it can reach."""
    low, high = tumor.shape.corners
    reach_mm = 4 * ROUGHNESS * tumor.radius_mm + tumor.edge_mm + margin_mm
    bounds = [
        slice(*(int(np.searchsorted(axis, bound)) for bound in (first - reach_mm, last + reach_mm)))
        for axis, first, last in zip(axes, low, high, strict=True)
    ]
    return bounds[0], bounds[1], bounds[2]


def _cut(axes: Axes, box: Box) -> Axes:
    return _as_axes(axis[part] for axis, part in zip(axes, box, strict=True))


def _as_axes(values: Iterable[FloatArray]) -> Axes:
    """Positions in mm of slices, rows and columns."""
    slices, rows, columns = values
    return slices, rows, columns


def _steps_mm(axes: Axes) -> list[float]:
    """How far apart the positions of each axis are; a single one is taken for 1 mm wide."""
    return [float(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in axes]
