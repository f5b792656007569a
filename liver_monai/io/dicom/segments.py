"""Masks in DICOM: segmentation objects (SEG), and folders with a series of images for each structure (3D-IRCADb)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import open_archive
from liver_monai.io.dicom.geometry import LPS_TO_RAS, SLICE_TOLERANCE_MM
from liver_monai.io.dicom.series import DicomVolume, read_content
from liver_monai.io.dicom.voxels import UNDECODABLE, read_values
from liver_monai.spec import LIVER, TUMOR

Grid = tuple[tuple[int, ...], np.ndarray]
"""Shape ``(X, Y, Z)`` and affine to RAS+ millimetres."""

SNOMED = {
    LIVER: (codes.SCT.Liver,),
    TUMOR: (
        codes.SCT.Neoplasm,
        codes.SCT.NeoplasmPrimary,
        codes.SCT.MalignantNeoplasmPrimary,
        codes.SCT.NeoplasmSecondary,
        codes.SCT.Mass,  # as in TCIA's HCC-TACE-Seg
        codes.SCT.Lesion,
        # read, never written: in no DICOM list
        Code("25370001", "SCT", "Hepatocellular carcinoma (morphologic abnormality)"),
    ),
}
"""SegmentedPropertyTypeCode in SNOMED CT; the codes it had before 2019 (SRT) equal these."""

NAMES = {
    LIVER: re.compile(r"(whole)?liver(parenchyma)?"),
    TUMOR: re.compile(r"(liver|hepatic)?(tumou?r|lesion|mass|metastas[ie]s|hcc|neoplasm)s?"),
}
"""Names of structures, in lower case and without all that is no letter: ``livertumor01``, ``Liver tumour``."""


def label_of(name: str) -> int | None:
    """The label of a structure by its name, or ``None`` for all that is neither the liver nor its tumour."""
    letters = re.sub(r"[^a-z]", "", name.lower())
    return next((label for label, pattern in NAMES.items() if pattern.fullmatch(letters)), None)


def read_dicom_mask(path: Path, *, grid: Grid | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read the masks of a SEG file, or of a folder or zip that holds one SEG or a series for each structure.

    Where structures overlap, the tumour lies on the liver.

    Args:
        path: a file, folder or zip.
        grid: of the CT; the mask is laid on it. Without, the grid is that of the mask.

    Returns:
        uint8 ``(X, Y, Z)`` and the ``(4, 4)`` affine to RAS+ millimetres.

    Raises:
        InputError: no mask, several, none of the liver, or one that does not lie on the grid.
    """
    content = read_content(path.resolve())
    if len(content.segmentations) > 1:
        names = ", ".join(content.segmentations)
        raise InputError(f"{path}: holds {len(content.segmentations)} segmentations ({names}); give one of them")
    if content.segmentations:
        structures = list(_segments(path, content.segmentations[0]))
    else:
        structures = list(_series(path, [*content.masks, *content.cts]))
    shape, affine = grid or (structures[0][1].shape, structures[0][2])
    mask = np.zeros(shape, dtype=np.uint8)
    for label, structure, own_affine in sorted(structures, key=lambda each: each[0]):  # tumour over liver
        mask[_on_grid(structure, own_affine, (shape, affine), path)] = label
    return mask, affine


def _segments(path: Path, name: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Label, marked voxels and affine of each segment of the liver."""
    try:
        with open_archive(path) as (_, open_file), open_file(name) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in frames.py
            segmentation = hd.seg.segread(file)
            labels = {int(item.SegmentNumber): _label_of_segment(item) for item in segmentation.SegmentSequence}
            numbers = [number for number, label in labels.items() if label is not None]
            if not numbers:
                found = ", ".join(str(item.get("SegmentLabel")) for item in segmentation.SegmentSequence)
                raise InputError(f"{path}: none of its segments is the liver or its tumour; it has {found}")
            volume = segmentation.get_volume(segment_numbers=numbers, atol=SLICE_TOLERANCE_MM)
    except InputError:
        raise
    except UNDECODABLE as error:
        raise InputError(f"{path}: its segmentation cannot be read ({one_line(error)})") from error
    if np.linalg.det(volume.affine[:3, [2, 1, 0]]) < 0:  # slices the other way round than those of a CT
        volume = volume.flip_spatial(0)
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    for channel, number in enumerate(numbers):
        label = labels[number]
        if label is not None:
            yield label, volume.array[..., channel].transpose(2, 1, 0) >= HALF, affine


HALF = 0.5
"""Of a fractional segment, voxels that it covers by half belong to it."""


def _label_of_segment(segment: Dataset) -> int | None:
    """By its code where that is known, else by its label; a tumour that is said to lie elsewhere is none of ours."""
    regions = {region.CodeValue for region in segment.get("AnatomicRegionSequence", [])}
    if any(_label_of_code(region) != LIVER for region in regions):
        return None
    types = [str(code.get("CodeValue")) for code in segment.get("SegmentedPropertyTypeCodeSequence", [])]
    coded = next((label for label in map(_label_of_code, types) if label), None)
    named = label_of(str(segment.get("SegmentLabel", "")))
    return TUMOR if TUMOR in (coded, named) else coded or named


def _label_of_code(value: str) -> int | None:
    """By the value alone: the old codes come under the names SRT, SNM3 and 99SDM."""
    spelled = [Code(value, scheme, "") for scheme in ("SCT", "SRT")]
    return next((label for label, known in SNOMED.items() if any(code in spelled for code in known)), None)


def _series(path: Path, volumes: list[DicomVolume]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Label, marked voxels and affine of each series whose folder is called like a structure of the liver."""
    names = [_structure(path, volume) for volume in volumes]
    labels = [label_of(name) for name in names]
    if not any(labels):
        found = ", ".join(sorted(set(names))) or "no DICOM masks"
        raise InputError(
            f"{path}: holds no mask of the liver; expected a segmentation (SEG), or a folder 'liver' and folders "
            f"'livertumor01', ... with a series each, found {found}"
        )
    for volume, label in zip(volumes, labels, strict=True):
        if label is not None:
            values, affine = read_values(volume)
            yield label, values != 0, affine


def _structure(path: Path, volume: DicomVolume) -> str:
    """The name of the folder that a series lies in."""
    return PurePosixPath(volume.files[0]).parent.name or path.resolve().name


def _on_grid(marked: np.ndarray, affine: np.ndarray, grid: Grid, path: Path) -> tuple[np.ndarray, ...]:
    """Indices of marked voxels on another grid of the same voxels, whose axes may be flipped, swapped or longer."""
    shape, target = grid
    exact = np.linalg.inv(target) @ affine
    change = np.round(exact)
    voxels = np.argwhere(marked)
    if not voxels.size:
        return tuple(np.zeros((3, 0), dtype=int))
    ends = np.vstack([np.array([voxels.min(axis=0), voxels.max(axis=0)]).T, [1, 1]])
    apart_mm = float(np.linalg.norm((target @ (exact - change) @ ends)[:3], axis=0).max())
    is_same_kind = (np.abs(change[:3, :3]).sum(axis=0) == 1).all() and (np.abs(change[:3, :3]).sum(axis=1) == 1).all()
    if not is_same_kind or apart_mm > SLICE_TOLERANCE_MM:
        raise InputError(
            f"{path}: does not lie on the voxels of its CT (affine {affine[:3].round(4).tolist()} against "
            f"{target[:3].round(4).tolist()}); was it made from another series?"
        )
    placed = voxels @ change[:3, :3].astype(int).T + change[:3, 3].astype(int)
    if (placed < 0).any() or (placed >= shape).any():
        raise InputError(f"{path}: marks voxels outside of its CT; was it made from another series?")
    return tuple(placed.T)
