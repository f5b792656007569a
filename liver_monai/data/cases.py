"""Cases: a CT, its mask, its patient; what the names of files say about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, choose_volumes, find_dicom_volumes, only_volume
from liver_monai.io.dicom.archive import is_locked, is_zip, may_hold_dicom
from liver_monai.io.dicom.patient import patient_pseudonym
from liver_monai.io.volumes import VOLUME_FORMATS, is_volume_file, strip_suffix

LITS_IMAGE, LITS_LABEL = "volume-", "segmentation-"
NNUNET_VALIDATION = "fold_*/validation/*"
PATIENT = re.compile(r"^(sub-[A-Za-z0-9]+|pat(?:ient)?[-_]?[0-9]+)(?![A-Za-z0-9])")
"""Names that tell the patient: BIDS's ``sub-07_ses-1``, ``patient7_portal``."""
MAX_NAME_BYTES = 180
"""Of a case_id: a file's name may have 255, and temporary ones hold those of the machine and the process, too."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One CT with or without its reference mask.

    Args:
        case_id: tells cases apart.
        image: a file, or a folder of DICOM files.
        label: likewise.
        patient_id: equal for all scans of a patient; by default what the case_id says of it, or the case_id. Of DICOM
            a pseudonym.
        spacing_mm: true spacing along the axes of the file, where its header lies.
        source: identity of its files, where they were read into a store and may be gone.
        result_name: what its mask is called, where it shall not be named like its CT.
    """

    case_id: str
    image: Path | DicomVolume
    label: Path | None = None
    patient_id: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    source: str = ""
    result_name: str = ""

    def __post_init__(self) -> None:
        if not self.patient_id:
            object.__setattr__(self, "patient_id", patient_of(self.case_id))  # the class is frozen

    def to_item(self) -> dict[Hashable, Any]:
        """The case as MONAI's dictionary transforms take it; what is not known is left out."""
        image = self.image if isinstance(self.image, DicomVolume) else str(self.image)
        item: dict[Hashable, Any] = {"case_id": self.case_id, "image": image}
        known = {"label": self.label and str(self.label), "spacing_mm": self.spacing_mm}
        return {**item, **{name: value for name, value in known.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference mask whose CT is not known."""

    case_id: str
    label: Path
    image: None = None


def require_name(case_id: str, *, source: object) -> None:
    """Refuse a case_id that results cannot go by: in their own folder, in a table of UTF-8, on a line.

    Raises:
        InputError: names ``source`` and the rule.
    """
    is_text = not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in case_id)  # Cs: bytes that are no UTF-8
    is_one_name = case_id not in ("", ".", "..") and not set(case_id) & set("/\\")
    if not (is_text and is_one_name and len(case_id.encode()) <= MAX_NAME_BYTES):
        raise InputError(
            f"{source}: the case_id {case_id[:80]!a} cannot name a file; take 1 to {MAX_NAME_BYTES} bytes without "
            "/, \\ and what cannot be printed"
        )


def case_id_of(path: Path) -> str:
    """What the files of a case have in common: ``volume-7.nii`` -> ``7``, ``ct_0000.nii.gz`` -> ``ct``."""
    name = strip_suffix(path.name)
    name = re.sub(rf"^({LITS_IMAGE}|{LITS_LABEL})", "", name)
    return re.sub(r"_0000$", "", name)  # nnU-Net's channel number


def patient_of(case_id: str) -> str:
    """Whose scan a case is, by its name: ``sub-07_ses-1`` -> ``sub-07``, ``liver_7`` -> ``liver_7``."""
    match = PATIENT.match(case_id)
    return match[0] if match else case_id


def find_images(paths: Iterable[str | Path], *, series: str | None = None) -> list[Case]:
    """The CTs of files and folders, for prediction; of DICOM, each volume is one.

    Args:
        paths: files, folders, zips.
        series: of DICOM, which series alone: its UID, a unique beginning of it, or its number in the listing.

    Raises:
        InputError: a path that is not there, a folder without a CT, no such series, or two CTs of the same case_id.
    """
    images = [image for path in paths for image in _images_of(path, series=series)]
    return unique([Case(case_id=_name_of(image), image=image, patient_id=dicom_patient(image)) for image in images])


def dicom_patient(image: Path | DicomVolume) -> str:
    """Whose scan DICOM says it is, by a pseudonym; empty for other formats and where it does not say it."""
    if isinstance(image, DicomVolume):
        return patient_pseudonym(image.path, file=image.files[0])
    return patient_pseudonym(image) if not is_volume_file(image) and may_hold_dicom(image) else ""


def find_masks(path: str | Path) -> dict[str, Path]:
    """Mask files by case_id, of a folder or of one file.

    Raises:
        InputError: no such path, or no mask in it.
    """
    return by_case_id(masks_of(Path(path).expanduser()))


def masks_of(path: Path) -> list[Path]:
    """A file itself, or the volumes in a folder; of what nnU-Net trained, the masks of all folds' validation."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if is_volume_file(file))
    if not files:
        files = sorted(file for file in path.glob(NNUNET_VALIDATION) if is_volume_file(file))
    if not files:
        raise InputError(f"{path}: holds no mask; expected {VOLUME_FORMATS}")
    return files


def _name_of(image: Path | DicomVolume) -> str:
    return image.name if isinstance(image, DicomVolume) else case_id_of(image)


def _images_of(path: str | Path, *, series: str | None = None) -> Sequence[Path | DicomVolume]:
    """A file itself; of a folder the CTs in it or, where there are none, those in its subfolders; else its DICOM.

    A folder that may not be read is a case, too: it fails alone and by name.
    """
    if not str(path):
        raise InputError("dataset_dir is empty; give a folder with CTs")
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    locked: list[Path] = []
    if path.is_file() and is_volume_file(path):
        files = [path]
    elif path.is_file():
        return _dicom_file_volumes(path, series=series)
    elif is_locked(path):
        return [path]
    else:
        folder = path / "imagesTr" if (path / "imagesTr").is_dir() else path
        files = _cts_among(folder.iterdir())
        if not files:
            below = sorted(folder.rglob("*"))
            files, locked = _cts_among(below), [each for each in below if is_locked(each)]
    if files and series:
        raise InputError(f"--series {series}: is for DICOM, and {files[0]} is not; give the folder of the DICOM files")
    volumes = files or _dicom_volumes(path, series=series)
    if not volumes and not locked:
        raise InputError(f"{path}: holds no CT; expected {VOLUME_FORMATS}")
    return [*volumes, *locked]


def _dicom_file_volumes(path: Path, *, series: str | None) -> Sequence[Path | DicomVolume]:
    """The volumes of a zip or a multi-frame file; any other file is read as it is, and refused by its reader."""
    if not may_hold_dicom(path):
        return [path]
    volumes, damaged = _listed_volumes([path])
    if damaged:
        return damaged
    volumes = volumes or [only_volume(path)]  # which tells why there is none
    return choose_volumes(volumes, series) if series else volumes


def _dicom_volumes(folder: Path, *, series: str | None) -> Sequence[Path | DicomVolume]:
    archives = sorted(file for file in folder.rglob("*") if is_zip(file) and not file.name.startswith("."))
    volumes, damaged = _listed_volumes([folder, *archives])
    return [*(choose_volumes(volumes, series) if series and volumes else volumes), *damaged]


def _listed_volumes(paths: Sequence[Path]) -> tuple[list[DicomVolume], list[Path]]:
    """Their volumes, and those that are too damaged to be listed: cases, too, which fail alone and by name."""
    volumes: list[DicomVolume] = []
    damaged: list[Path] = []
    for path in paths:
        try:
            volumes += find_dicom_volumes(path)
        except InputError:  # said again by who reads its voxels
            damaged.append(path)
    return volumes, damaged


def _cts_among(files: Iterable[Path]) -> list[Path]:
    cts = [file for file in files if is_volume_file(file) and not file.name.startswith(LITS_LABEL)]
    return sorted(cts, key=lambda file: natural(file.name))


def by_case_id(files: Iterable[Path]) -> dict[str, Path]:
    """Files by the case_id that their names tell; two of one case are refused."""
    by_id = [(case_id_of(file), file) for file in files]
    unique([Case(case_id=case_id, image=file) for case_id, file in by_id])
    return dict(by_id)


def unique(cases: list[Case]) -> list[Case]:
    """The cases themselves, of distinct case_ids that results can go by.

    Raises:
        InputError: two have the same one, or one is no name.
    """
    seen: dict[str, Path | DicomVolume] = {}
    for case in cases:
        require_name(case.case_id, source=case.image)
        if case.case_id in seen:
            raise InputError(
                f"{case.image} and {seen[case.case_id]} are both case '{case.case_id}', and one result would replace "
                "the other; rename one or run them apart"
            )
        seen[case.case_id] = case.image
    return cases


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which ``liver_9`` comes before ``liver_10``."""
    parts = re.split(r"(\d+)", name)
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part) for part in parts]
