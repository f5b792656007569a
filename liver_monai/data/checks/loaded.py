"""A case as the checks see it: its files read once, and what several checks measure measured once."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from nibabel.orientations import aff2axcodes
from scipy import ndimage

from liver_monai.data.cases import Case
from liver_monai.data.checks.header import StoredHeader, read_stored_header
from liver_monai.data.checks.measures import Blocks, Histogram
from liver_monai.data.transforms import with_spacing
from liver_monai.errors import InputError, one_line
from liver_monai.io.nifti import DAMAGED
from liver_monai.io.volumes import (
    Source,
    is_volume_file,
    last_axis_first,
    read_mask,
    read_volume,
    require_same_grid,
    slice_axis,
)
from liver_monai.spec import LABELS, LIVER, TUMOR

CONNECTED_BY_CORNERS = np.ones((3, 3, 3), dtype=bool)


class LoadedCase:
    """A case with its voxels.

    Args:
        case: ``label`` may be ``None``.

    Attributes:
        image: ``(X, Y, Z)`` Hounsfield units in the stored orientation; empty where ``image_error`` says why.
        affine: ``(4, 4)`` from voxels to mm, RAS, with the case's true spacing where that is known.
        stored_affine: as the file says it.
        label: ``(X, Y, Z)``, any values; ``None`` where there is none, or ``label_error`` says why.
        grid_error: how the mask's grid differs from the image's.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.label_error = self.grid_error = ""
        self.label: np.ndarray | None = None
        volume, self.image_error = _try_read(case.image)
        self.stored_affine = np.eye(4) if volume is None else np.asarray(volume.affine, dtype=np.float64)
        self.affine = self.stored_affine
        if volume is not None and case.spacing_mm is not None:
            self.affine = np.asarray(with_spacing(volume, case.spacing_mm).affine, dtype=np.float64)
        self.image = np.zeros((0, 0, 0), np.int16) if volume is None else last_axis_first(volume[0].numpy())
        if case.label is not None:
            label, self.label_error = _try_read_label(case.label, volume)
            self.label = None if label is None else last_axis_first(label[0].numpy())
            if label is not None and volume is not None:
                self.grid_error = _grid_error(label, volume)

    @classmethod
    def of_arrays(
        cls, case: Case, image: np.ndarray, *, affine: np.ndarray, label: np.ndarray | None = None
    ) -> LoadedCase:
        """A case whose voxels are in memory already; attributes as above."""
        loaded = cls.__new__(cls)
        loaded.case, loaded.image, loaded.label = case, image, label
        loaded.affine = loaded.stored_affine = affine
        loaded.image_error = loaded.label_error = loaded.grid_error = ""
        return loaded

    @cached_property
    def spacing_mm(self) -> np.ndarray:
        """Along the stored axes."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def slice_axis(self) -> int:
        """The stored axis closest to foot-head."""
        return slice_axis(self.affine)

    @property
    def orientation(self) -> str:
        """Axis codes such as ``LPS``."""
        return "".join(str(code) for code in aff2axcodes(self.affine))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm)) / 1000

    @cached_property
    def header(self) -> StoredHeader | None:
        """What the image's header says, where it is NIfTI."""
        return read_stored_header(self.case.image)

    @cached_property
    def histogram(self) -> Histogram:
        """Of the image."""
        return Histogram.of(self.image)

    @cached_property
    def unknown_labels(self) -> dict[float, int]:
        """How many voxels of the label hold each value that is none of ``LABELS``."""
        counts: Counter[float] = Counter()
        for plane in () if self.label is None else self.label:
            values, n_voxels = np.unique(plane[~np.isin(plane, list(LABELS))], return_counts=True)
            counts.update(dict(zip(values.tolist(), n_voxels.tolist(), strict=True)))
        return dict(counts)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """The label as uint8 where it lies on the image's grid and holds labels only; nothing is made of another."""
        if self.label is None or self.grid_error or self.image_error or self.unknown_labels:
            return None
        return self.label.astype(np.uint8)

    @cached_property
    def blocks(self) -> Blocks:
        """Image and mask in coarse blocks, RAS."""
        return Blocks.of(self.image, self.mask, affine=self.affine)

    @cached_property
    def liver_box(self) -> tuple[slice, ...] | None:
        """Where the mask marks anything."""
        if self.mask is None:
            return None
        boxes = ndimage.find_objects(self.mask > 0, max_label=1)
        return boxes[0] if boxes else None

    @property
    def marked(self) -> np.ndarray:
        """The mask, cut to ``liver_box``; empty without a mask."""
        if self.mask is None or self.liver_box is None:
            return np.zeros((0, 0, 0), dtype=np.uint8)
        return self.mask[self.liver_box]

    @cached_property
    def liver_ml(self) -> float:
        """The liver with its tumours."""
        return float(np.count_nonzero(self.marked)) * self.voxel_ml

    @cached_property
    def lesions_ml(self) -> np.ndarray:
        """Volume of each lesion; lesions are connected by faces, as when they are scored."""
        parts, _ = ndimage.label(self.marked == TUMOR)
        return np.asarray(np.bincount(parts.ravel())[1:] * self.voxel_ml)

    @cached_property
    def liver_parts_ml(self) -> np.ndarray:
        """Volume of each part of the liver with its tumours, largest first; parts are connected by corners, too."""
        parts, _ = ndimage.label(self.marked >= LIVER, structure=CONNECTED_BY_CORNERS)
        return np.asarray(np.sort(np.bincount(parts.ravel())[1:])[::-1] * self.voxel_ml)


def _try_read(source: Source) -> tuple[MetaTensor | None, str]:
    try:
        return read_volume(source), ""
    except (InputError, *DAMAGED) as error:
        return None, one_line(error)


def _try_read_label(path: Path, volume: MetaTensor | None) -> tuple[MetaTensor | None, str]:
    """A file's values as they are, be they labels or not; of DICOM, only the segments of liver and tumour."""
    if is_volume_file(path):
        return _try_read(path)
    try:
        return read_mask(path, grid=volume), ""
    except (InputError, *DAMAGED) as error:
        return None, one_line(error)


def _grid_error(label: MetaTensor, volume: MetaTensor) -> str:
    try:
        require_same_grid(label, volume)
    except InputError as error:
        return one_line(error)
    return ""
