"""A mask with what is known beside it: its CT and its probabilities, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, only_volume
from liver_monai.io.dicom.patient import Patient, read_patient
from liver_monai.io.probabilities import probability_file, read_probabilities
from liver_monai.io.volumes import Source, is_volume_file, read_mask, read_volume, require_same_grid, strip_suffix
from liver_monai.report.findings import Findings
from liver_monai.report.measurement import find_findings


@dataclass(frozen=True, kw_only=True)
class MaskedScan:
    """A mask with what is known beside it, all on one grid.

    Args:
        case_id: name of the mask's file without its suffix.
        mask: ``(X, Y, Z)`` uint8 of ``LABELS``.
        affine: voxels to millimetres in RAS+ world space, ``(4, 4)``.
        image: the CT in HU.
        probabilities: of tumour, 0 to 1, or uint8 where 255 stands for 1.
        ct: what the image was read from.
        files: all that it was read from.
    """

    case_id: str
    mask: np.ndarray
    affine: np.ndarray
    image: np.ndarray | None
    probabilities: np.ndarray | None
    ct: Source | None
    files: tuple[Source, ...]

    def findings(self) -> Findings:
        """What the mask says."""
        return find_findings(self.mask, self.affine, image=self.image, probabilities=self.probabilities)

    def patient(self) -> Patient | None:
        """Whose scan the headers of its CT say it is; ``None`` where that is not DICOM.

        Raises:
            InputError: a header that cannot be read.
        """
        return read_patient(self.ct.path, file=self.ct.files[0]) if isinstance(self.ct, DicomVolume) else None


def read_scan(
    mask: str | Path, *, image: Source | None = None, probabilities: Path | None = None, series: str | None = None
) -> MaskedScan:
    """Read a mask and what belongs to it; arguments and errors are those of ``report.mask.findings``."""
    source = None if image is None else _chosen(image, series)
    ct = None if source is None else read_volume(source)
    labels = read_mask(mask, grid=ct)
    case_id = strip_suffix(Path(mask).name)
    tumor_map = None if probabilities is None else probability_file(probabilities, case_id, "tumor")
    maps = None if tumor_map is None else read_probabilities(tumor_map)
    for other in (ct, maps):
        if other is not None:
            require_same_grid(labels, other)
    return MaskedScan(
        case_id=case_id,
        mask=labels[0].numpy(),
        affine=np.asarray(labels.affine, dtype=np.float64),
        image=_array(ct),
        probabilities=_array(maps),
        ct=source,
        files=tuple(each for each in (Path(mask), source, tumor_map) if each is not None),
    )


def _chosen(image: Source, series: str | None) -> Source:
    """A file, or the one DICOM volume of a path."""
    if isinstance(image, DicomVolume):
        return image
    path = Path(image).expanduser()
    is_dicom = path.exists() and not is_volume_file(path)
    if series is not None and not is_dicom:
        raise InputError(f"--series {series}: is for DICOM, and {image} is not")
    return only_volume(path, series=series) if is_dicom else path


def _array(volume: MetaTensor | None) -> np.ndarray | None:
    return None if volume is None else np.asarray(volume[0].numpy())
