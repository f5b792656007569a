"""What is fuzzed: small whole files of every kind that is read, and how they are read."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from dicom_export import export
from monai.data import MetaTensor

from liver_monai.data.cases import Case, find_images
from liver_monai.data.checks.loaded import LoadedCase
from liver_monai.data.checks.table import check_case
from liver_monai.data.curation import read_excludes, read_spacing_overrides
from liver_monai.data.folds import read_fold_rows
from liver_monai.data.layouts import find_cases, find_references
from liver_monai.data.preparation import open_dataset, prepare
from liver_monai.data.slices import ModelSlices
from liver_monai.data.splits import split_dataset
from liver_monai.data.store import build_store
from liver_monai.io.files import file_hash, write_json
from liver_monai.io.masks import write_mask
from liver_monai.io.nifti import build_nifti
from liver_monai.io.tables import write_table
from liver_monai.io.volumes import read_header, read_mask, read_volume
from liver_monai.model.bundle import copy_bundle, find_bundle, override_bundle, read_spec
from liver_monai.model.trust import require_trusted
from liver_monai.model.weights import load_initial_weights, load_weights, save_weights
from liver_monai.processes import ALONE
from liver_monai.spec import ModelSpec

SHAPE = (12, 10, 8)
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
SPEC = ModelSpec(encoder="stand-in", slab_size=1, spacing_mm=(4.0, 4.0, 6.0), roi_size=(16, 16))


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of input.

    Args:
        write: puts a whole one into a folder and returns the files to break.
        read: does with the folder what commands do.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], None]


def hu() -> np.ndarray:
    values = np.random.default_rng(0).normal(40, 30, SHAPE)
    values[:3] = -1000
    return values.astype(np.int16)


def labels() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[4:9, 3:8, 2:6] = 1
    mask[5:7, 4:6, 3:5] = 2
    return mask


# Images


def nifti(suffix: str) -> Target:
    def write(folder: Path) -> list[Path]:
        import nibabel as nib

        nib.save(build_nifti(hu(), AFFINE), folder / f"ct{suffix}")
        return [folder / f"ct{suffix}"]

    return Target(write=write, read=read_image(f"ct{suffix}"))


def itk(suffix: str, *, is_packed: bool) -> Target:
    def write(folder: Path) -> list[Path]:
        sitk.WriteImage(sitk.GetImageFromArray(hu().T), str(folder / f"ct{suffix}"), is_packed)
        return [folder / f"ct{suffix}"]

    return Target(write=write, read=read_image(f"ct{suffix}"))


def read_image(name: str) -> Callable[[Path], None]:
    """As ``predict`` does: read it, and write a mask on its grid; as ``check`` does: all checks of a case."""

    def read(folder: Path) -> None:
        path = folder / name
        list(check_case(LoadedCase(Case(case_id="ct", image=path, label=folder / "label.nii"))))
        header, volume = read_header(path), read_volume(path)
        assert tuple(volume.shape[1:]) == header.shape
        assert torch.isfinite(volume.as_tensor().float()).all()
        assert np.isfinite(volume.affine.numpy()).all()
        look_as_a_network(volume)
        write_mask(np.zeros(header.shape, np.uint8), folder / "out" / "mask.nii.gz", ct=path)
        assert read_mask(folder / "out" / "mask.nii.gz").shape == volume.shape

    return read


def look_as_a_network(volume: MetaTensor) -> None:
    """The model grid is as large as the header says that a scan is."""
    slices = ModelSlices(volume, SPEC)
    assert torch.isfinite(slices.slab(slices.shape[2] // 2)).all()


def write_mask_file(folder: Path) -> list[Path]:
    import nibabel as nib

    nib.save(build_nifti(hu(), AFFINE), folder / "ct.nii")
    nib.save(build_nifti(labels(), AFFINE), folder / "label.nii")
    return [folder / "label.nii"]


def read_mask_file(folder: Path) -> None:
    read_image("ct.nii")(folder)
    assert set(np.unique(read_mask(folder / "label.nii").numpy())) <= {0, 1, 2}


def write_dicom(folder: Path) -> list[Path]:
    return sorted(export(folder / "series", hu(), AFFINE).iterdir())


def write_dicom_zip(folder: Path) -> list[Path]:
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in write_dicom(folder):
            archive.write(file, f"study/{file.name}")
    shutil.rmtree(folder / "series")
    return [folder / "study.zip"]


def read_dicom(folder: Path) -> None:
    for case in find_images([folder]):
        volume = read_volume(case.image)
        assert torch.isfinite(volume.as_tensor().float()).all()
        look_as_a_network(volume)


# Texts


def write_bundle(folder: Path) -> list[Path]:
    copy_bundle(find_bundle("mobilenet"), folder / "bundle", {})
    return [folder / "bundle" / "configs" / name for name in ("inference.json", "train.json", "metadata.json")]


def read_bundle(folder: Path) -> None:
    require_trusted(folder / "bundle")
    read_spec(folder / "bundle")
    override_bundle(folder / "bundle", {"learning_rate": 0.1})


def write_dataset(folder: Path) -> list[Path]:
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
        for name in "abc":
            write_mask_file(folder / kind)[0].rename(folder / kind / f"{name}.nii")
    entries = [{"image": f"./imagesTr/{name}.nii", "label": f"./labelsTr/{name}.nii"} for name in "abc"]
    content = {"labels": {"0": "background", "1": "liver", "2": "tumour"}, "training": entries, "licence": "x"}
    write_json(folder / "dataset.json", content)
    write_table(folder / "list.csv", [(f"imagesTr/{name}.nii", f"labelsTr/{name}.nii", name) for name in "abc"],
                columns=("image", "label", "case_id"))  # fmt: skip
    files = {name: {"images": [f"../imagesTr/{name}.nii"], "label": f"../labelsTr/{name}.nii"} for name in "abc"}
    (folder / "nnunet").mkdir()
    write_json(folder / "nnunet" / "dataset.json", {"labels": {"liver": 1}, "file_ending": ".nii", "dataset": files})
    return [folder / "dataset.json", folder / "list.csv", folder / "nnunet" / "dataset.json"]


def read_dataset(folder: Path) -> None:
    for each in (folder, folder / "list.csv", folder / "nnunet"):
        for case in find_cases(each):
            assert case.image.exists()
            assert case.case_id not in ("", ".", "..")
            assert not set(case.case_id) & set("/\\\0")
    find_references(folder)


def write_tables(folder: Path) -> list[Path]:
    write_table(folder / "excludes.csv", [("a", "twice there")], columns=("case_id", "reason"))
    write_table(folder / "spacing_overrides.csv", [("b", 1, 1, 2.5)], columns=("case_id", "x", "y", "z"))
    write_table(folder / "folds.csv", [("a", 0), ("b", 1), ("c", 2)], columns=("case_id", "fold"))
    return [folder / name for name in ("excludes.csv", "spacing_overrides.csv", "folds.csv")]


def read_tables(folder: Path) -> None:
    read_excludes(folder / "excludes.csv", known="abc")
    for spacing_mm in read_spacing_overrides(folder / "spacing_overrides.csv", known="abc").values():
        assert all(0 < mm < 100 for mm in spacing_mm)
    assert all(row.fold >= 0 for row in read_fold_rows(folder / "folds.csv").values())


# What this package writes


def write_weights(folder: Path) -> list[Path]:
    save_weights(torch.nn.Conv2d(2, 3, 1), folder / "model.pt", spec=SPEC)
    return [folder / "model.pt", folder / "model.json"]


def read_weights(folder: Path) -> None:
    load_initial_weights(torch.nn.Conv2d(2, 3, 1), folder / "model.pt", spec=SPEC)
    facts = folder / "model.json"
    content = json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else None
    if isinstance(content, dict):  # damage that the hash would tell must be survived by who forges the hash, too
        write_json(facts, {**content, "sha256": file_hash(folder / "model.pt")})
    load_weights(torch.nn.Conv2d(2, 3, 1), folder / "model.pt", spec=SPEC)


def write_store(folder: Path) -> list[Path]:
    (folder / "data").mkdir(parents=True)
    write_dataset(folder / "data")
    prepare(folder / "data", spec=SPEC, out=folder / "store", pool=ALONE, say=lambda _: None)
    return sorted(file for file in (folder / "store").rglob("*") if file.is_file() and file.suffix != ".lock")


def read_store(folder: Path) -> None:
    cases = open_dataset(folder / "store").cases
    for stored in build_store(cases, spec=SPEC, folder=folder / "store"):
        stored.image(), stored.label()
    split_dataset(dataset_dir=str(folder / "store"), spec=SPEC, store=str(folder / "store"), fold=0, folds=None)


TARGETS = {
    "nifti": nifti(".nii"),
    "nifti.gz": nifti(".nii.gz"),
    "mask": Target(write=write_mask_file, read=read_mask_file),
    "nrrd": itk(".nrrd", is_packed=False),
    "nrrd packed": itk(".nrrd", is_packed=True),
    "mha": itk(".mha", is_packed=False),
    "mha packed": itk(".mha", is_packed=True),
    "dicom folder": Target(write=write_dicom, read=read_dicom),
    "dicom zip": Target(write=write_dicom_zip, read=read_dicom),
    "bundle configs": Target(write=write_bundle, read=read_bundle),
    "lists of cases": Target(write=write_dataset, read=read_dataset),
    "tables": Target(write=write_tables, read=read_tables),
    "weights": Target(write=write_weights, read=read_weights),
    "store": Target(write=write_store, read=read_store),
}
