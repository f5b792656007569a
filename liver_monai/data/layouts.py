"""Layouts: which files of a data set are a CT and its mask. A layout is a function and a row of ``LAYOUTS``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liver_monai.data.cases import (
    LITS_IMAGE,
    LITS_LABEL,
    Case,
    Reference,
    by_case_id,
    case_id_of,
    dicom_patient,
    masks_of,
    natural,
    require_name,
    unique,
)
from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import is_dicom_file
from liver_monai.io.files import read_json
from liver_monai.io.tables import read_table
from liver_monai.io.volumes import is_volume_file, strip_suffix
from liver_monai.spec import LIVER, TUMOR

LISTING = "dataset.json"
LIST_SUFFIXES = (".csv", ".json")
PAIRED_FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
IRCAD_CT, IRCAD_MASKS = "PATIENT_DICOM", "MASKS_DICOM"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which data sets lie on disk.

    Args:
        name: for people.
        looks_like: what is looked for.
        find: the labelled cases of a folder or list, none where it is of another layout; a file that belongs to a case
            need not be there.
        terms: licence of the data set that brought the layout up, where it is one data set's alone.
    """

    name: str
    looks_like: str
    find: Callable[[Path], list[Case]]
    terms: str = ""


def find_cases(dataset_dir: str | Path) -> list[Case]:
    """The labelled cases of a data set, ordered by case_id.

    Args:
        dataset_dir: a folder in one of ``LAYOUTS``, or a CSV or JSON list of cases.

    Raises:
        InputError: no such path, no known layout, no labelled case, a file of a case that is not there.
    """
    return require_files(recognize(dataset_dir)[1], dataset_dir)


def recognize(dataset_dir: str | Path) -> tuple[Layout, list[Case]]:
    """The layout of a data set, and its labelled cases whether or not their files are there.

    Raises:
        InputError: as ``find_cases``, but for missing files.
    """
    path = _existing(dataset_dir)
    found = _recognized(path)
    if found is None:
        raise InputError(f"{path}: holds no labelled case; expected {_expected()}; found {_contents(path)}")
    return found


def labelled_cases(path: Path) -> list[Case]:
    """The cases of a data set, whether or not their files are there; none of what is no data set.

    Raises:
        InputError: a listing that cannot be read.
    """
    is_list = path.is_file() and path.suffix.lower() in LIST_SUFFIXES
    found = _recognized(path) if path.is_dir() or is_list else None
    return [] if found is None else found[1]


def _recognized(path: Path) -> tuple[Layout, list[Case]] | None:
    for layout in LAYOUTS:
        cases = layout.find(path)
        if cases:
            return layout, unique(sorted(cases, key=lambda case: natural(case.case_id)))
    return None


def require_files(cases: list[Case], dataset_dir: str | Path) -> list[Case]:
    """The cases themselves.

    Raises:
        InputError: one lacks its CT or its mask.
    """
    for case in cases:
        for what, file in (("mask", case.label), ("CT", case.image)):
            if isinstance(file, Path) and not file.exists():
                raise InputError(
                    f"{dataset_dir}: case '{case.case_id}' lacks its {what}, there is no {file}; complete the download "
                    "or exclude the case"
                )
    return cases


def licence_note(dataset_dir: str | Path) -> str:
    """What is known of a data set's licence: what its listing says, or that of the data set its layout belongs to."""
    path = Path(dataset_dir).expanduser()
    if (path / LISTING).is_file():
        listing = _read_listing(path / LISTING)
        said = next((listing[key] for key in ("licence", "license") if isinstance(listing.get(key), str)), "")
        if said:
            return f"{listing.get('name', path.name)}: {said} (as its {LISTING} says)"
    found = _recognized(path)
    return (found[0].terms if found else "") or "the data set does not say its licence"


def find_references(path: str | Path) -> list[Case | Reference]:
    """The cases of a data set or, of a folder of masks or one mask file, the masks, whose CTs are not known.

    Raises:
        InputError: no such path, or no mask in it.
    """
    path = Path(path).expanduser()
    if path.is_dir() and not _is_folder_of_masks(path):
        return list(find_cases(path))
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return list(find_cases(path))
    return [Reference(case_id=case_id, label=mask) for case_id, mask in by_case_id(masks_of(path)).items()]


def _is_folder_of_masks(folder: Path) -> bool:
    """Whether no layout fits: of ``segmentation-N`` alone, say. A listing that is wrong is told, not passed over."""
    if (folder / LISTING).is_file():
        return False
    if any(folder.glob(f"**/{LITS_LABEL}*")) and not any(folder.glob(f"**/{LITS_IMAGE}*")):
        return True
    return not any(layout.find(folder) for layout in LAYOUTS)


# One function a layout


def _listed_cases(path: Path) -> list[Case]:
    """A CSV or JSON file with a row a case; paths are relative to the list."""
    if not path.is_file():
        return []
    is_csv = path.suffix.lower() == ".csv"
    rows: Sequence[Mapping[str, Any]] = read_table(path, columns=("image", "label")) if is_csv else _json_rows(path)
    lacking = [number for number, row in enumerate(rows, start=1) if not row.get("image")]
    if lacking:
        raise InputError(f"{path}: entry {lacking[0]} has no image; every entry needs image and label")
    return [_case_of(path, row) for row in rows if row.get("label")]


def _case_of(listing: Path, row: Mapping[str, Any]) -> Case:
    image, label = (_listed(listing, str(row[key])) for key in ("image", "label"))
    case_id = str(row.get("case_id") or case_id_of(image))
    require_name(case_id, source=listing)
    patient_id = str(row.get("patient_id") or "") or dicom_patient(image)
    return Case(case_id=case_id, image=image, label=label, patient_id=patient_id)


def _json_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    content = read_json(path)
    rows = content.get("training", content.get("cases")) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: is no list of cases; expected a list of objects with image and label")
    return rows


def _msd_cases(folder: Path) -> list[Case]:
    """``dataset.json`` that lists its cases under ``training``, as the Medical Segmentation Decathlon does."""
    listing = folder / LISTING
    if not listing.is_file():
        return []
    content = _read_listing(listing)
    entries = content.get("training", [])
    paths = [
        (_listed(listing, entry["image"]), _listed(listing, entry["label"]))
        for entry in entries
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("image", "label"))
    ]
    if len(paths) < len(entries):
        raise InputError(f"{listing}: {len(entries) - len(paths)} entries of 'training' lack 'image' or 'label'")
    _require_our_labels(listing, {str(name): value for value, name in content.get("labels", {}).items()})
    return [Case(case_id=case_id_of(image), image=image, label=label) for image, label in paths]


def _nnunet_cases(folder: Path) -> list[Case]:
    """nnU-Net's raw data: ``imagesTr/X_0000.nii.gz``, ``labelsTr/X.nii.gz``, names to values in ``labels``."""
    listing = folder / LISTING
    if not listing.is_file():
        return []
    content = _read_listing(listing)
    ending = content.get("file_ending")
    if not isinstance(ending, str):
        return []
    _require_our_labels(listing, content.get("labels", {}))
    if isinstance(content.get("dataset"), dict):  # names its files one by one
        return [_nnunet_case(listing, case_id, entry) for case_id, entry in content["dataset"].items()]
    labels = {file.name.removesuffix(ending): file for file in (folder / "labelsTr").glob(f"*{ending}")}
    labels = {case_id: file for case_id, file in labels.items() if not file.name.startswith(".")}
    return [
        Case(case_id=case_id, image=_listed(folder / "imagesTr" / LISTING, f"{case_id}_0000{ending}"), label=label)
        for case_id, label in labels.items()
    ]


def _nnunet_case(listing: Path, case_id: str, entry: Any) -> Case:
    images, label = (entry.get("images"), entry.get("label")) if isinstance(entry, dict) else (None, None)
    if not (isinstance(images, list) and images and label):
        raise InputError(f"{listing}: case '{case_id}' of 'dataset' lacks 'images' or 'label'")
    return _case_of(listing, {"case_id": case_id, "image": images[0], "label": label})


def _lits_cases(folder: Path) -> list[Case]:
    """``volume-N.nii`` and ``segmentation-N.nii`` anywhere below the folder, as in LiTS's parts and batches."""
    if not folder.is_dir():
        return []
    files = [file for file in folder.rglob("*") if is_volume_file(file) and file.is_file()]
    images, labels = (
        by_case_id(file for file in files if file.name.startswith(prefix)) for prefix in (LITS_IMAGE, LITS_LABEL)
    )
    return [
        Case(case_id=case_id, image=images.get(case_id, label.with_name(f"{LITS_IMAGE}{case_id}.nii")), label=label)
        for case_id, label in labels.items()
    ]


def _paired_cases(folder: Path) -> list[Case]:
    """A folder of CTs and one of masks; names match, ``_0000`` of a CT left out."""
    for names in PAIRED_FOLDERS:
        images_dir, labels_dir = (folder / name for name in names)
        if images_dir.is_dir() and labels_dir.is_dir():
            images, labels = (by_case_id(_volumes_in(each)) for each in (images_dir, labels_dir))
            return [
                Case(case_id=case_id, image=images.get(case_id, images_dir / label.name), label=label)
                for case_id, label in labels.items()
            ]
    return []


def _dicom_cases(folder: Path) -> list[Case]:
    """A folder a case: a folder (or zip) of DICOM files, and beside it a mask file or 3D-IRCADb's ``MASKS_DICOM``."""
    if not folder.is_dir():
        return []
    folders = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != ".")]
    return [case for each in folders if (case := _dicom_case(each)) is not None]


def _dicom_case(folder: Path) -> Case | None:
    masks = _either(folder, IRCAD_MASKS) or _volumes_in(folder)
    if not masks:
        return None
    series = _either(folder, IRCAD_CT) or [
        path for path in sorted(folder.iterdir()) if path.is_dir() and path not in masks and _holds_dicom(path)
    ]
    if not series:
        return None
    for what, paths in (("mask", masks), ("folder of DICOM files", series)):
        if len(paths) > 1:
            raise InputError(
                f"{folder}: holds more than one {what} ({', '.join(path.name for path in paths[:3])}); list the cases "
                "in a CSV file with the columns image and label"
            )
    return Case(case_id=folder.name, image=series[0], label=masks[0], patient_id=dicom_patient(series[0]))


LAYOUTS = (
    Layout(name="list", looks_like="a .csv or .json list of cases", find=_listed_cases),
    Layout(name="MSD", looks_like="an MSD folder with dataset.json", find=_msd_cases),
    Layout(
        name="nnU-Net",
        looks_like="nnU-Net's raw imagesTr/X_0000, labelsTr/X with dataset.json",
        find=_nnunet_cases,
    ),
    Layout(
        name="LiTS",
        looks_like="LiTS pairs volume-N.nii / segmentation-N.nii",
        find=_lits_cases,
        terms="LiTS: CC BY-NC-ND 4.0 (if the data are that benchmark's, as their names say)",
    ),
    Layout(
        name="paired folders",
        looks_like="folders images / labels, or imagesTr / labelsTr, of equal names",
        find=_paired_cases,
    ),
    Layout(
        name="DICOM",
        looks_like="a folder a case with a DICOM folder and a mask, such as PATIENT_DICOM / MASKS_DICOM",
        find=_dicom_cases,
    ),
)
"""In the order in which they are tried."""


def _expected() -> str:
    first, *others = (layout.looks_like for layout in LAYOUTS[1:] + LAYOUTS[:1])
    return f"{', '.join([first, *others[:-1]])}, or {others[-1]}"


def _contents(path: Path) -> str:
    """What lies in a folder, in a few words."""
    if path.is_file():
        return "no entry with a label"
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    files = Counter(
        entry.name.removeprefix(strip_suffix(entry.stem)) or entry.name for entry in entries if entry.is_file()
    )
    kinds = [f"{count} x {suffix}" for suffix, count in files.most_common(4)]
    return ", ".join([*folders[:4], *(["..."] if len(folders) > 4 else []), *kinds]) or "nothing"


def _existing(path: str | Path) -> Path:
    if not str(path):
        raise InputError(f"dataset_dir is empty; give the folder of the data set: {_expected()}")
    found = Path(path).expanduser()
    is_list = found.is_file() and found.suffix.lower() in LIST_SUFFIXES
    if not found.is_dir() and not is_list:
        raise InputError(f"{found}: no such folder; expected {_expected()}")
    return found


def _read_listing(listing: Path) -> dict[str, Any]:
    content = read_json(listing)
    if not isinstance(content, dict) or not isinstance(content.get("training", []), list):
        raise InputError(f"{listing}: is not MSD's dataset.json, which is an object with the list 'training'")
    if not isinstance(content.get("labels", {}), dict):
        raise InputError(f"{listing}: its 'labels' are no object of names and values; repair it")
    return content


def _require_our_labels(listing: Path, labels: Mapping[str, Any]) -> None:
    """Refuse a data set that says that its values mean something else; a region's list of values says nothing."""
    for name, value in labels.items():
        words = name.lower()
        is_tumor = any(word in words for word in ("tumor", "tumour", "cancer", "lesion"))
        ours = TUMOR if is_tumor else LIVER if "liver" in words else None
        if ours is not None and not isinstance(value, list) and str(value) != str(ours):
            raise InputError(
                f"{listing}: says that '{name}' is {value}; here liver is {LIVER} and tumour {TUMOR}. Relabel the "
                "masks."
            )


def _listed(listing: Path, name: str) -> Path:
    """A listed file or DICOM folder; nnU-Net's first version lists CTs without their channel number.

    Raises:
        InputError: no file can have the name.
    """
    path = listing.parent / name
    try:
        with_channel = path.with_name(
            f"{strip_suffix(path.name)}_0000{path.name.removeprefix(strip_suffix(path.name))}"
        )
        return with_channel if with_channel.exists() and not path.exists() else path
    except (OSError, ValueError) as error:  # a name of too many letters; none at all
        raise InputError(f"{listing}: lists {name[:80]!r}, which cannot be a file ({one_line(error)[:80]})") from error


def _volumes_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if is_volume_file(file) and file.is_file()]


def _either(folder: Path, name: str) -> list[Path]:
    """A folder of this name, or the zip it came in."""
    return [path for path in (folder / name, folder / f"{name}.zip") if path.exists()][:1]


def _holds_dicom(folder: Path) -> bool:
    """Whether its first file is DICOM: by its magic word, as such files often have no suffix."""
    first = next((path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."), None)
    return first is not None and is_dicom_file(first)
