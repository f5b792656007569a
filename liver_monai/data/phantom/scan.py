"""The scanner: which grid it samples a phantom on, how it blurs, its noise, and the orientation it stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from scipy import ndimage

from liver_monai.data.phantom.anatomy import Anatomy
from liver_monai.data.phantom.shapes import Axes, FloatArray, Vector
from liver_monai.data.phantom.tumors import liver_sites

Voxels = TypeVar("Voxels", bound=NDArray[Any])

ORIENTATIONS = ("RAS", "LAS", "LPS")
PADDING_HU = (-1024, -1024, -2000, -3024)
"""What scanners write outside the circle they reconstruct."""

BLUR_MM = 0.6
"""Standard deviation of the scanner's blur."""


@dataclass(frozen=True)
class Scan:
    """The grid in RAS order, before it is turned to the stored orientation."""

    shape: tuple[int, int, int]
    spacing_mm: Vector
    centre_mm: Vector

    @property
    def axes(self) -> Axes:
        """World coordinates of the voxel centres along right, anterior and superior."""
        x, y, z = (
            (centre + spacing * (np.arange(count) - (count - 1) / 2)).astype(np.float32)
            for count, spacing, centre in zip(self.shape, self.spacing_mm, self.centre_mm, strict=True)
        )
        return x, y, z

    def affine(self, code: str) -> NDArray[np.float64]:
        """Voxel indices to RAS world mm, for the array as stored with these axis codes."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = np.asarray(self.centre_mm) - np.asarray(self.spacing_mm) * (np.asarray(self.shape) - 1) / 2
        return np.asarray(affine @ orientations.inv_ornt_aff(_turn(code), self.shape))

    def stored(self, voxels: Voxels, code: str) -> Voxels:
        """An array in RAS order turned to these axis codes."""
        turned = orientations.apply_orientation(voxels, _turn(code))
        return cast(Voxels, np.ascontiguousarray(turned))


def is_orientation(code: str) -> bool:
    """Whether these are axis codes: one of R and L, one of A and P, one of S and I, in any order."""
    return len(code) == 3 and all(sum(letter in pair for letter in code) == 1 for pair in ("RL", "AP", "SI"))


def _turn(code: str) -> NDArray[np.float64]:
    start, end = orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(code)
    return np.asarray(orientations.ornt_transform(start, end))


def draw_scan(
    rng: np.random.Generator, anatomy: Anatomy, *, shape: tuple[int, int, int], spacing_mm: Vector | None
) -> Scan:
    """The grid of a scan that shows the body in its circle and the liver from top to bottom."""
    heights = liver_sites(anatomy)[0][:, 2]
    low, high = float(heights.min()), float(heights.max())
    field_of_view_mm = float(np.clip(2 * anatomy.half_width_mm * rng.uniform(1.05, 1.17), 320, 420))
    covered_mm = float(np.clip((high - low) * rng.uniform(1.2, 1.5), max(200, high - low + 24), 260))
    in_plane_mm = field_of_view_mm / min(shape[0], shape[1])
    drawn = (round(in_plane_mm, 4), round(in_plane_mm, 4), round(covered_mm / shape[2], 4))
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2])) if spacing_mm else drawn
    return Scan(shape, spacing, (0.0, -6 * anatomy.scale[1], round((low + high) / 2 + 4, 1)))


def acquire(scanner: np.random.Generator, rng: np.random.Generator, hu: FloatArray, scan: Scan) -> NDArray[np.int16]:
    """What the scanner makes of the patient: blur, noise that is smooth and strongest in the middle, padding."""
    spacing = np.asarray(scan.spacing_mm)
    image = ndimage.gaussian_filter(hu, BLUR_MM / spacing + np.array([0.15, 0.15, 0.3]))
    noise = rng.standard_normal(scan.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, [*(scanner.uniform(0.7, 1.2) / spacing[:2]), 0.3])
    x, y, _ = np.meshgrid(*scan.axes, indexing="ij", sparse=True)
    from_centre = np.hypot(x - scan.centre_mm[0], y - scan.centre_mm[1]) / 180
    noise *= scanner.uniform(8, 14) / float(noise.std()) * (1.1 - 0.4 * np.clip(from_centre, 0, 1))
    image = np.maximum(np.rint(image + noise), -1024)
    padding, padded = int(scanner.choice(PADDING_HU)), scanner.random() < 0.5
    if padded:
        reach = min(count * spacing for count, spacing in zip(scan.shape[:2], scan.spacing_mm[:2], strict=True)) / 2
        image[np.broadcast_to(from_centre * 180 > reach, image.shape)] = padding
    stored: NDArray[np.int16] = image.astype(np.int16)
    return stored
