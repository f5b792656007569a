"""Findings from files to files: any 0/1/2 mask, with or without its CT and its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, only_volume
from liver_monai.io.files import whole_file, write_json
from liver_monai.io.probabilities import probability_file, read_probabilities
from liver_monai.io.record import provenance, write_record
from liver_monai.io.tables import write_table
from liver_monai.io.volumes import Source, is_volume_file, read_mask, read_volume, require_same_grid, strip_suffix
from liver_monai.report.findings import LESION_COLUMNS, Findings
from liver_monai.report.mask_page import write_mask_page
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


def findings(
    mask: str | Path, *, image: Source | None = None, probabilities: Path | None = None, series: str | None = None
) -> Findings:
    """What a mask says: volumes, and of every lesion diameters, place, brightness and confidence.

    Args:
        mask: anything that ``read_mask`` takes, of 0 background, 1 liver, 2 tumour.
        image: its CT.
        probabilities: folder with the case's tumour map, see ``io.probabilities``.
        series: which DICOM series of ``image``, where there are several.

    Raises:
        InputError: a file that cannot be read, or that does not lie on the mask's grid.
    """
    return read_scan(mask, image=image, probabilities=probabilities, series=series).findings()


def report_mask(
    mask: str | Path,
    *,
    out: Path,
    image: Source | None = None,
    probabilities: Path | None = None,
    series: str | None = None,
    to: str | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write the findings of a mask and a page with pictures to a folder; returns what ``findings.json`` holds.

    Args:
        to: ``"dicom-seg"`` writes the mask as ``<case_id>.dcm``, too; its CT must be DICOM.

    Raises:
        InputError: as ``findings``, the folder holds findings already, or a CT that no DICOM can refer to.
    """
    if (out / "findings.json").exists() and not overwrite:
        raise InputError(f"{out}: holds findings already; give --overwrite or another -o")
    scan = read_scan(mask, image=image, probabilities=probabilities, series=series)
    if to == "dicom-seg":
        _write_segmentation(scan, out / f"{scan.case_id}.dcm")
    inputs = [Path(each) if isinstance(each, str) else each for each in scan.files]
    found = write_scan(scan, out, provenance=provenance(write_record(out / "record.json", inputs=inputs)))
    say(f"{found.to_text()}\nreport: {out / 'report.html'}")
    return _content(found, scan.case_id)


def read_scan(
    mask: str | Path, *, image: Source | None = None, probabilities: Path | None = None, series: str | None = None
) -> MaskedScan:
    """Read a mask and what belongs to it; arguments and errors are those of ``findings``."""
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


def write_scan(scan: MaskedScan, out: Path, *, provenance: Mapping[str, str]) -> Findings:
    """Measure a scan; write ``report.html``, ``findings.csv``, ``findings.txt`` and, last, ``findings.json``."""
    found = scan.findings()
    write_mask_page(
        out / "report.html",
        case_id=scan.case_id,
        found=found,
        mask=scan.mask,
        affine=scan.affine,
        image=scan.image,
        provenance=provenance,
    )
    rows = [[value(lesion) for value in LESION_COLUMNS.values()] for lesion in found.lesions]
    write_table(out / "findings.csv", rows, columns=list(LESION_COLUMNS))
    with whole_file(out / "findings.txt") as temporary:
        temporary.write_text(f"{found.to_text()}\n", encoding="utf-8")
    write_json(out / "findings.json", _content(found, scan.case_id))
    return found


def _content(found: Findings, case_id: str) -> dict[str, Any]:
    return {"case_id": case_id, **found.to_json()}


def _chosen(image: Source, series: str | None) -> Source:
    """A file, or the one DICOM volume of a path."""
    if isinstance(image, DicomVolume):
        return image
    path = Path(image).expanduser()
    is_dicom = path.exists() and not is_volume_file(path)
    if series is not None and not is_dicom:
        raise InputError(f"--series {series}: is for DICOM, and {image} is not")
    return only_volume(path, series=series) if is_dicom else path


def _write_segmentation(scan: MaskedScan, path: Path) -> None:
    from liver_monai.io.dicom.writer import write_segmentation  # here: highdicom takes a second

    if not isinstance(scan.ct, DicomVolume):
        raise InputError(
            f"--to dicom-seg: refers to the DICOM series of a CT, and --image is {scan.ct}; give that series"
        )
    write_segmentation(scan.mask, path, ct=scan.ct)


def _array(volume: MetaTensor | None) -> np.ndarray | None:
    return None if volume is None else np.asarray(volume[0].numpy())
