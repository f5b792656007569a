"""Does a network that never saw a labelled tumour find those of a real CT? Trained on labels of the liver alone.

The CT's tumours become liver in its label, and what the network knows of tumours it has from ``RandLiverTumord``.
Beside the CT it trains on others with a label of the liver, and on phantoms without tumours. The arms:

    tumours-as-liver     the whole CT, as a data set with labels of the liver alone has it: what is to be found was
                         shown as liver
    tumour-free          only the longest part of the CT without tumours, and a gap of 8 mm
    others               nothing of the CT
    phantom-tumours      tumour-free, no synthetic tumours in the CTs, but phantoms with tumours and their labels
    no-tumours           tumour-free, no tumours at all: the control

    python benchmarks/accuracy_real.py -o OUT --ct CT LABEL --liver OTHER_CT OTHER_LABEL

An ``OTHER_LABEL`` may number the liver otherwise: ``--liver-value``. Everything that is made of the CTs stays in OUT.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import nibabel as nib
import numpy as np
from accuracy_arms import BATCH, N_EPOCHS, SETTINGS

from liver_monai.data.phantom import make_phantom
from liver_monai.io.files import write_json
from liver_monai.spec import LIVER, TUMOR

N_PHANTOMS = 3
PHANTOM_SHAPE = (160, 160, 56)
GAP_MM = 8.0
"""Neighbours of a slab of five slices, 5 mm apart, reach 10 mm; all slices that are kept are without tumour."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a network trains on: the CT's part, whether phantoms have tumours, and ids of the bundle."""

    ct: str
    phantoms_have_tumors: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)


SYNTHETIC = {"synthetic_tumors#prob": 0.75}
NONE = {"synthetic_tumors#prob": 0.0}
ARMS = {
    "tumours-as-liver": Arm(ct="whole", overrides=SYNTHETIC),
    "tumour-free": Arm(ct="free", overrides=SYNTHETIC),
    "others": Arm(ct="", overrides=SYNTHETIC),
    "phantom-tumours": Arm(ct="free", phantoms_have_tumors=True, overrides=NONE),
    "no-tumours": Arm(ct="free", overrides=NONE),
}

Pair = tuple[Path, Path]


@click.command()
@click.option("-o", "out", required=True, type=click.Path(path_type=Path))
@click.option("--ct", "ct", nargs=2, required=True, type=click.Path(path_type=Path, exists=True), help="And its label.")
@click.option("--liver", "others", nargs=2, multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--liver-value", default=LIVER, show_default=True, help="The liver's number in labels of --liver.")
@click.option("--arm", "names", multiple=True, type=click.Choice(list(ARMS)), help="All, if none is named.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True)
@click.option("--steps", default=500, show_default=True, help="Of the optimizer.")
@click.option("--bundle", default="mobilenet", show_default=True)
@click.option("--set", "sets", multiple=True, help="id=value of the bundle, for every arm.")
def main(
    out: Path,
    ct: Pair,
    others: tuple[Pair, ...],
    liver_value: int,
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    steps: int,
    bundle: str,
    sets: tuple[str, ...],
) -> None:
    """Train what has no row yet, and print each row."""
    from liver_monai.model.bundle import parse_override

    warnings.simplefilter("ignore")
    out = out.resolve()
    write_cases(out / "cases", ct=ct, others=others, liver_value=liver_value)
    given = {"slabs_per_epoch": steps * BATCH // N_EPOCHS, **dict(parse_override(text) for text in sets)}
    for name, seed in itertools.product(names or ARMS, seeds):
        path = out / "rows" / f"{name}-seed{seed}.json"
        settings = {**SETTINGS, **ARMS[name].overrides, **given}
        row = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if row.get("settings") != settings:
            row = {"arm": name, "seed": seed, "bundle": bundle, "settings": settings}
            row |= train_and_score(out, name, ct=ct, bundle=bundle, settings={**settings, "seed": seed})
            write_json(path, row)
        print(json.dumps({key: value for key, value in row.items() if key != "settings"}))


def write_cases(folder: Path, *, ct: Pair, others: tuple[Pair, ...], liver_value: int) -> None:
    """Everything that an arm may train on, each a folder with ``image`` and ``label``; what is there stays."""
    if (folder / "done").is_file():
        return
    image, label = (nib.load(path) for path in ct)
    values = np.asarray(label.dataobj)
    part = longest_free_part(values, slice_mm=float(label.header.get_zooms()[2]))
    whole = nib.Nifti1Image(np.minimum(values, LIVER).astype(np.uint8), label.affine)
    write_pair(folder / "whole", image, whole)
    write_pair(folder / "free", image.slicer[:, :, part], whole.slicer[:, :, part])
    for number, (other, other_label) in enumerate(others):
        mask = nib.load(other_label)
        liver = (np.asarray(mask.dataobj) == liver_value).astype(np.uint8)
        write_pair(folder / f"other{number}", nib.load(other), nib.Nifti1Image(liver, mask.affine))
    for number, has_tumors in itertools.product(range(N_PHANTOMS), (False, True)):
        phantom = make_phantom(seed=700 + number, shape=PHANTOM_SHAPE, n_tumors=3 * has_tumors)
        pair = (nib.Nifti1Image(voxels, phantom.affine) for voxels in (phantom.image, phantom.label))
        write_pair(folder / f"phantom{number}{'-tumors' * has_tumors}", *pair)
    (folder / "done").touch()


def write_pair(folder: Path, image: nib.Nifti1Image, label: nib.Nifti1Image) -> None:
    """Write a CT and its label."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, volume in (("image", image), ("label", label)):
        nib.save(volume, folder / f"{name}.nii.gz")


def longest_free_part(label: np.ndarray, *, slice_mm: float) -> slice:
    """The longest range of slices that have liver and lie ``GAP_MM`` or more from every tumour."""
    has_tumor = (label == TUMOR).any(axis=(0, 1))
    gap = int(np.ceil(GAP_MM / slice_mm))
    is_free = (label == LIVER).any(axis=(0, 1)) & ~np.convolve(has_tumor, np.ones(2 * gap + 1), mode="same").astype(
        bool
    )
    runs = [list(run) for free, run in itertools.groupby(range(len(is_free)), key=lambda z: is_free[z]) if free]
    longest = max(runs, key=len)
    return slice(longest[0], longest[-1] + 1)


def train_and_score(out: Path, name: str, *, ct: Pair, bundle: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train, segment the CT and score it against its own label, tumours included; the mask stays beside the rows."""
    from liver_monai.data.cases import Case
    from liver_monai.engine.inference import predict
    from liver_monai.engine.training import train

    case = Case(case_id="ct", image=ct[0], label=ct[1])
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        folder = Path(temporary)
        listing = folder / "cases.json"
        cases = [out / "cases" / each for each in case_names(out / "cases", ARMS[name])]
        files = [{key: str(each / f"{key}.nii.gz") for key in ("image", "label")} for each in cases]
        write_json(listing, [{"case_id": each.name, **paths} for each, paths in zip(cases, files, strict=True)])
        started_s = time.process_time()
        run = train(
            bundle=bundle,
            data=listing,
            out=folder / "run",
            overrides={**settings, "store_dir": str(out / "store")},
        )
        train_cpu_s = time.process_time() - started_s
        (prediction,) = predict([case], bundle=run, out=folder / "masks")
        if prediction.mask is None:
            raise RuntimeError(prediction.error)
        kept = out / "masks" / f"{name}-seed{settings['seed']}.nii.gz"
        kept.parent.mkdir(exist_ok=True)
        shutil.move(os.fspath(prediction.mask), kept)
    return {"train_cpu_s": round(train_cpu_s, 1), **score(case, kept)}


def case_names(folder: Path, arm: Arm) -> list[str]:
    """Folders of the cases that an arm trains on."""
    others = [each.name for each in sorted(folder.glob("other*"))]
    end = "-tumors" if arm.phantoms_have_tumors else ""
    return [*([arm.ct] if arm.ct else []), *others, *(f"phantom{number}{end}" for number in range(N_PHANTOMS))]


def score(case: Any, mask: Path) -> dict[str, Any]:
    """Dice of liver and tumour, and each of the CT's tumours: its volume, how much of it was marked, its own Dice."""
    from scipy import ndimage

    from liver_monai.engine.evaluation import evaluate, summarize

    (result,) = evaluate({case.case_id: mask}, [case])
    if result.result is None:
        raise RuntimeError(result.error)
    summary = summarize([result])
    reference, prediction = (np.asarray(nib.load(path).dataobj) == TUMOR for path in (case.label, mask))
    voxel_ml = float(np.prod(nib.load(case.label).header.get_zooms())) / 1000
    numbers, n_tumors = ndimage.label(reference, np.ones((3, 3, 3)))
    found, _ = ndimage.label(prediction, np.ones((3, 3, 3)))
    tumors = []
    for number in range(1, n_tumors + 1):
        tumor = numbers == number
        hits = np.unique(found[tumor & prediction])
        marked = np.isin(found, hits) & prediction
        shared = int((tumor & prediction).sum())
        tumors.append(
            {
                "ml": round(tumor.sum() * voxel_ml, 2),
                "marked": round(shared / tumor.sum(), 3),
                "dice": round(2 * shared / (tumor.sum() + marked.sum()), 3),
            }
        )
    return {
        "liver_dice": round(result.result.values["liver"]["dice"], 4),
        "tumor_dice": round(result.result.values["tumor"]["dice"], 4),
        "predicted_ml": round(prediction.sum() * voxel_ml, 1),
        "detection": summary["lesion_detection"]["overlap"],
        "tumors": tumors,
    }


if __name__ == "__main__":
    main()
