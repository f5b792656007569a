"""Data sets as nnU-Net (v2) takes them: its raw layout, with folds that keep patients together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from tqdm import tqdm

from liver_monai.data.cases import Case
from liver_monai.data.curation import beside
from liver_monai.data.folds import read_folds, require_folds
from liver_monai.data.layouts import LISTING
from liver_monai.data.preparation import FOLDS, licence_of, open_dataset
from liver_monai.data.transforms import LoadImageVolumed
from liver_monai.errors import InputError, one_line
from liver_monai.io.conversion import write_volume
from liver_monai.io.files import write_json
from liver_monai.io.nifti import is_sheared
from liver_monai.spec import LABELS

NAME = re.compile(r"Dataset\d{3}_\w+")
"""nnU-Net finds data sets by such names."""
SPLITS = "splits_final.json"
ENDING = ".nii.gz"


def write_nnunet(
    dataset_dir: str | Path,
    out: Path,
    *,
    folds: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Write a data set in nnU-Net's raw layout; a case that cannot be read is left out and told.

    What is excluded is left out, and wrong spacings are put right. Voxels and affines stay, and each file is read back.

    Args:
        dataset_dir: a data set in any layout, or a store, whose CTs are where they were.
        out: its folder, such as ``Dataset007_Liver``; ``dataset.json`` comes last.
        folds: CSV with case_id and fold; by default ``folds.csv`` of the store or beside the data. They become
            ``splits_final.json``, which nnU-Net wants in its folder of preprocessed data.
        overwrite: replace a data set that is there.
        say: takes a line for people.

    Returns:
        JSON types: out, numbers of cases, failed and excluded ones with their reasons, number of folds.

    Raises:
        InputError: no data set, a name that nnU-Net does not know, a data set that is there, or folds that lack a case.
    """
    _check_target(out, overwrite=overwrite)
    data = open_dataset(dataset_dir)
    table = folds or beside(dataset_dir, FOLDS)
    numbers = _fold_numbers(table, data.cases) if table else {}
    sheared, failed = _write_cases(data.cases, out, say=say)
    written = [case.case_id for case in data.cases if case.case_id not in failed]
    if numbers:
        write_json(out / SPLITS, _splits({name: numbers[name] for name in written}))
    write_json(out / LISTING, _listing(out.name, len(written), licence=licence_of(dataset_dir), sheared=sheared))
    return {
        "out": str(out),
        "n": len(written),
        "n_failed": len(failed),
        "failed": failed,
        "excluded": data.excluded,
        "n_folds": len(set(numbers.values())),
    }


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not NAME.fullmatch(out.name):
        raise InputError(f"{out}: nnU-Net finds a data set by a name such as Dataset007_Liver; call the folder that")
    if (out / LISTING).exists() and not overwrite:
        raise InputError(f"{out}: holds a data set already; give --overwrite or another name")


def _fold_numbers(table: Path, cases: Sequence[Case]) -> dict[str, int]:
    numbers = read_folds(table, cases)
    require_folds(table, cases, numbers)
    return numbers


def _write_cases(cases: Sequence[Case], out: Path, *, say: Callable[[str], None]) -> tuple[list[str], dict[str, str]]:
    """Which of the cases are sheared, and why others could not be written."""
    sheared: list[str] = []
    failed: dict[str, str] = {}
    for case in tqdm(cases, desc="converting", unit="case", disable=None):
        try:
            if is_sheared(_write_case(case, out)):
                sheared.append(case.case_id)
        except (InputError, OSError, RuntimeError) as error:  # MONAI wraps what a transform raises
            failed[case.case_id] = one_line(error)
            say(f"{case.case_id}: failed: {failed[case.case_id]}")
    return sheared, failed


def _write_case(case: Case, out: Path) -> np.ndarray:
    """CT and mask on one grid; returns their affine."""
    loaded: dict[Any, MetaTensor] = LoadImageVolumed(("image", "label"))(case.to_item())
    affine = np.asarray(loaded["image"].affine, dtype=np.float64)
    write_volume(loaded["image"][0].numpy(), affine, out / "imagesTr" / f"{case.case_id}_0000{ENDING}")
    write_volume(loaded["label"][0].numpy(), affine, out / "labelsTr" / f"{case.case_id}{ENDING}")
    return affine


def _splits(numbers: Mapping[str, int]) -> list[dict[str, list[str]]]:
    """A fold each: which cases train and which validate."""
    return [
        {
            "train": [name for name, number in numbers.items() if number != fold],
            "val": [name for name, number in numbers.items() if number == fold],
        }
        for fold in sorted(set(numbers.values()))
    ]


def _listing(name: str, n_cases: int, *, licence: str, sheared: Sequence[str]) -> dict[str, Any]:
    listing = {
        "name": name,
        "licence": licence,
        "channel_names": {"0": "CT"},  # by which nnU-Net chooses its normalization
        "labels": {label: value for value, label in LABELS.items()},
        "numTraining": n_cases,
        "file_ending": ENDING,
    }
    # SimpleITK, nnU-Net's first choice, refuses slices that are tilted against their stack
    return {**listing, "overwrite_image_reader_writer": "NibabelIO"} if sheared else listing
