"""Cases: which files of a folder belong together, whatever the data set's layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError
from liver_monai.io.dicom import DicomVolume, choose_volumes, find_dicom_volumes, only_volume
from liver_monai.io.dicom.archive import is_dicom_file, is_zip
from liver_monai.io.volumes import VOLUME_FORMATS, is_volume_file, strip_suffix

LITS_IMAGE, LITS_LABEL = "volume-", "segmentation-"
LAYOUTS = "an MSD folder with dataset.json, or LiTS pairs volume-N.nii / segmentation-N.nii"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One CT with or without its reference mask."""

    case_id: str
    image: Path | DicomVolume
    label: Path | None = None

    def to_item(self) -> dict[str, Any]:
        """The case as MONAI's dictionary transforms take it."""
        image = self.image if isinstance(self.image, DicomVolume) else str(self.image)
        item = {"case_id": self.case_id, "image": image}
        return item if self.label is None else {**item, "label": str(self.label)}


def case_id_of(path: Path) -> str:
    """What the files of a case have in common: ``volume-7.nii`` -> ``7``, ``ct_0000.nii.gz`` -> ``ct``."""
    name = strip_suffix(path.name)
    name = re.sub(rf"^({LITS_IMAGE}|{LITS_LABEL})", "", name)
    return re.sub(r"_0000$", "", name)  # nnU-Net's channel number


def find_cases(dataset_dir: str | Path) -> list[Case]:
    """The labelled cases of a data set, ordered by case_id.

    Raises:
        InputError: no such folder, no known layout, no labelled case, a listed file that is not there.
    """
    folder = _existing_folder(dataset_dir)
    listing = folder / "dataset.json"
    cases = _msd_cases(listing) if listing.is_file() else _lits_cases(folder)
    if not cases:
        raise InputError(f"{folder}: holds no labelled case; expected {LAYOUTS}")
    return _unique(sorted(cases, key=lambda case: _natural(case.case_id)))


def find_images(paths: Iterable[str | Path], *, series: str | None = None) -> list[Case]:
    """The CTs of files and folders, for prediction; of DICOM, each volume is one.

    Args:
        paths: files, folders, zips.
        series: of DICOM, which series alone: its UID, a unique beginning of it, or its number in the listing.

    Raises:
        InputError: a path that is not there, a folder without a CT, no such series, or two CTs of the same case_id.
    """
    images = [image for path in paths for image in _images_of(path, series=series)]
    return _unique([Case(case_id=_name_of(image), image=image) for image in images])


def find_references(path: str | Path) -> list[Case]:
    """The cases of a data set, of a folder of masks, or of one mask file; ``image`` is the CT where it is known.

    Raises:
        InputError: no such path, or no mask in it.
    """
    path = Path(path).expanduser()
    if (path / "dataset.json").is_file() or _holds_lits_pairs(path):
        return find_cases(path)
    return _unique([Case(case_id=case_id_of(mask), image=mask, label=mask) for mask in _masks_of(path)])


def find_masks(path: str | Path) -> dict[str, Path]:
    """Mask files by case_id, of a folder or of one file.

    Raises:
        InputError: no such path, or no mask in it.
    """
    return _by_case_id(_masks_of(Path(path).expanduser()))


def _masks_of(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if is_volume_file(file))
    if not files:
        raise InputError(f"{path}: holds no mask; expected {VOLUME_FORMATS}")
    return files


def _name_of(image: Path | DicomVolume) -> str:
    return image.name if isinstance(image, DicomVolume) else case_id_of(image)


def _images_of(path: str | Path, *, series: str | None = None) -> Sequence[Path | DicomVolume]:
    """A file itself; of a folder the CTs in it or, where there are none, those in its subfolders; else its DICOM."""
    if not str(path):
        raise InputError("dataset_dir is empty; give a folder with CTs")
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() and is_volume_file(path):
        files = [path]
    elif path.is_file():
        return _dicom_file_volumes(path, series=series)
    else:
        folder = path / "imagesTr" if (path / "imagesTr").is_dir() else path
        files = _cts_among(folder.iterdir()) or _cts_among(folder.rglob("*"))
    if files and series:
        raise InputError(f"--series {series}: is for DICOM, and {files[0]} is not; give the folder of the DICOM files")
    return files or _dicom_volumes(path, series=series)


def _dicom_file_volumes(path: Path, *, series: str | None) -> Sequence[Path | DicomVolume]:
    """The volumes of a zip or a multi-frame file; any other file is read as it is, and refused by its reader."""
    if is_zip(path) or is_dicom_file(path):
        volumes = find_dicom_volumes(path) or [only_volume(path)]  # which tells why there is none
        return choose_volumes(volumes, series) if series else volumes
    return [path]


def _dicom_volumes(folder: Path, *, series: str | None) -> list[DicomVolume]:
    volumes = find_dicom_volumes(folder)
    for archive in sorted(file for file in folder.rglob("*") if is_zip(file) and not file.name.startswith(".")):
        volumes += find_dicom_volumes(archive)
    if not volumes:
        raise InputError(f"{folder}: holds no CT; expected {VOLUME_FORMATS}")
    return choose_volumes(volumes, series) if series else volumes


def _cts_among(files: Iterable[Path]) -> list[Path]:
    cts = [file for file in files if is_volume_file(file) and not file.name.startswith(LITS_LABEL)]
    return sorted(cts, key=lambda file: _natural(file.name))


def _existing_folder(path: str | Path) -> Path:
    if not str(path):
        raise InputError(f"dataset_dir is empty; give the folder of the data set: {LAYOUTS}")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected {LAYOUTS}")
    return folder


def _msd_cases(listing: Path) -> list[Case]:
    entries = _read_listing(listing).get("training", [])
    cases = [
        Case(
            case_id=case_id_of(Path(entry["image"])),
            image=_listed(listing, entry["image"]),
            label=_listed(listing, entry["label"]),
        )
        for entry in entries
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("image", "label"))
    ]
    if len(cases) < len(entries):
        raise InputError(f"{listing}: {len(entries) - len(cases)} entries of 'training' lack 'image' or 'label'")
    return cases


def _read_listing(listing: Path) -> dict[str, Any]:
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{listing}: is not JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("training", []), list):
        raise InputError(f"{listing}: is not MSD's dataset.json, which is an object with the list 'training'")
    return content


def _listed(listing: Path, name: str) -> Path:
    path = listing.parent / name
    if not path.is_file():
        raise InputError(f"{listing}: lists {name}, which is not there; complete the download or remove the entry")
    return path


def _lits_cases(folder: Path) -> list[Case]:
    files = [file for file in folder.rglob("*") if is_volume_file(file) and file.is_file()]
    images, labels = (
        _by_case_id(file for file in files if file.name.startswith(prefix)) for prefix in (LITS_IMAGE, LITS_LABEL)
    )
    lonely = sorted(labels.keys() - images.keys())
    if lonely:
        raise InputError(f"{labels[lonely[0]]}: has no {LITS_IMAGE}{lonely[0]}.nii beside it")
    return [Case(case_id=case_id, image=images[case_id], label=label) for case_id, label in labels.items()]


def _holds_lits_pairs(folder: Path) -> bool:
    """Whether there are CTs beside the references; a folder of ``segmentation-N`` alone is a folder of masks."""
    return all(any(folder.glob(f"**/{prefix}*")) for prefix in (LITS_IMAGE, LITS_LABEL))


def _by_case_id(files: Iterable[Path]) -> dict[str, Path]:
    by_id = [(case_id_of(file), file) for file in files]
    _unique([Case(case_id=case_id, image=file) for case_id, file in by_id])
    return dict(by_id)


def _unique(cases: list[Case]) -> list[Case]:
    seen: dict[str, Path | DicomVolume] = {}
    for case in cases:
        if case.case_id in seen:
            raise InputError(
                f"{case.image} and {seen[case.case_id]} are both case '{case.case_id}', and one result would replace "
                "the other; rename one or run them apart"
            )
        seen[case.case_id] = case.image
    return cases


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which ``liver_9`` comes before ``liver_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
