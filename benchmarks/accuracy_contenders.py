"""Ours against others with the same phantoms, the same processor time and the same scorer.

    ours          bundle mobilenet, its schedule by processor time in place of the clock
    notebook      the recipe of 2-D notebooks with the same encoder: single slices of 256 x 256, cross-entropy, Adam
                  with 3e-4, batches of 16, negatives clipped and divided by the maximum
    monai-unet    MONAI's 3-D UNet on patches by RandCropByPosNegLabeld, sliding windows, Dice + CE, AdamW, cosine
    nnunet        nnU-Net v2, 2d: its plans, network, augmentation, loss, SGD and poly schedule, with mirroring when it
                  predicts; batches cut to 12 slabs where its plan has more, or too few steps would be left. It needs
                  ``--nnunet PYTHON``, the interpreter of an environment where ``nnunetv2`` is installed

    python benchmarks/accuracy_contenders.py -o OUT --minutes 5 --nnunet PYTHON

Time is that of the training's process, in one thread, with all that makes its batches: what else runs on the machine
does not count, nor does what is done once before (grids, plans) or after (predictions). Each contender and seed is a
file under ``OUT/contenders``; what is there is kept.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from accuracy import cell
from accuracy_arms import SETTINGS
from accuracy_data import ALL, TEST, score_masks, write_data
from process_budget import OF_THE_PROCESS

from liver_monai.io.files import whole_file, write_json
from liver_monai.processes import Processes

SPACING_MM = (3.0, 3.0, 5.0)
"""About that of the phantoms."""
NOTEBOOK_SIZE, NOTEBOOK_BATCH, NOTEBOOK_RATE = (256, 256), 16, 3e-4
PATCH = (96, 96, 32)
WITHOUT_END = 100_000
NNUNET_SCRIPT = Path(__file__).with_name("accuracy_nnunet.py")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Data, time, seed, and where masks go."""

    data: Path
    folder: Path
    minutes: float
    seed: int
    nnunet: str

    @property
    def masks(self) -> Path:
        """A mask a held-out case, named like it or like its CT."""
        return self.folder / "masks"


@click.command()
@click.option("-o", "out", required=True, type=click.Path(path_type=Path))
@click.option("--contender", "names", multiple=True, help="All, if none is named; nnunet only where it is installed.")
@click.option("--minutes", default=5.0, show_default=True, help="Of the processor, for each training.")
@click.option("--seeds", default=1, show_default=True, help="Of each contender.")
@click.option("--cases", nargs=2, default=(20, 8), show_default=True, help="That train, and that are held out.")
@click.option("--nnunet", default="", help="Interpreter of an environment with nnunetv2.")
@click.option("--jobs", default=1, show_default=True, help="Trainings at a time, of one thread each.")
def main(
    out: Path, names: tuple[str, ...], minutes: float, seeds: int, cases: tuple[int, int], nnunet: str, jobs: int
) -> None:
    """Train and score what has no row yet, and print the table."""
    out = out.resolve()
    write_data(out / "data", n_train=cases[0], n_test=cases[1], jobs=jobs)
    names = names or tuple(name for name in CONTENDERS if name != "nnunet" or nnunet)
    tasks = [(out, name, seed, minutes, nnunet) for seed in range(seeds) for name in names]
    for row in Processes(jobs).results(run_trial, tasks, killed=run_trial):
        print(json.dumps({key: value for key, value in row.items() if key != "case_dice"}))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "contenders").glob("*.json"))]
    with whole_file(out / "contenders.md") as temporary:
        temporary.write_text(table(rows), encoding="utf-8")
    print(table(rows))


def run_trial(out: Path, name: str, seed: int, minutes: float, nnunet: str) -> Row:
    """The row of a training; one that is there is kept."""
    path = out / "contenders" / f"{name}-{minutes:g}min-seed{seed}.json"
    if path.is_file():
        row: Row = json.loads(path.read_text(encoding="utf-8"))
        return row
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        job = Job(data=out / "data", folder=Path(temporary), minutes=minutes, seed=seed, nnunet=nnunet)
        facts = CONTENDERS[name](job)
        masks = {path.name.removesuffix(".nii.gz").removesuffix("_0000"): path for path in job.masks.glob("*.nii.gz")}
        row = {"contender": name, "minutes": minutes, "seed": seed, **facts, **score_masks(masks, out / "data" / TEST)}
    write_json(path, row)
    return row


def run_ours(job: Job) -> Row:
    """Train the bundle by processor time and predict as the command does."""
    import csv

    from liver_monai.data.layouts import find_cases
    from liver_monai.engine.inference import predict
    from liver_monai.engine.training import train

    overrides = {
        **SETTINGS,
        "spec#spacing_mm": list(SPACING_MM),
        "spec#roi_size": [96, 96],
        "max_grad_norm": 1.0,
        "max_epochs": WITHOUT_END,
        "minutes": job.minutes,
        "budget": OF_THE_PROCESS,
        "slabs_per_epoch": 400,
        "seed": job.seed,
        "store_dir": str(job.folder / "store"),
    }
    run = train(bundle="mobilenet", data=job.data / ALL, out=job.folder / "run", overrides=overrides)
    list(predict(find_cases(job.data / TEST), bundle=run, out=job.masks))
    with (run / "models" / "history.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return {"train_cpu_minutes": round(float(last["minutes"]), 2)}


def steps_of(minutes: float) -> Iterator[float]:
    """From 0 to 1 while the process's time goes by: the progress at the beginning of each step."""
    started_s = time.process_time()
    while (progress := (time.process_time() - started_s) / (60 * minutes)) < 1:
        yield progress


def cosine(progress: float) -> float:
    """A short warm-up, then a cosine to 0, as ours."""
    return min(1.0, progress / 0.05 + 1e-3) * 0.5 * (1 + math.cos(math.pi * progress))


def run_notebook(job: Job) -> Row:
    """Slices in random order, resized, as the notebooks have them; masks are resized back and not cleaned."""
    import nibabel as nib
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy, interpolate

    from liver_monai.data.layouts import find_cases
    from liver_monai.model.network import build_network
    from liver_monai.spec import ModelSpec

    torch.manual_seed(job.seed)

    def slices_of(image: Path) -> torch.Tensor:
        volume = np.clip(nib.load(image).get_fdata(dtype=np.float32), 0, None)
        volume /= volume.max()
        return interpolate(torch.from_numpy(volume).permute(2, 0, 1)[:, None], NOTEBOOK_SIZE, mode="bilinear")

    def labels_of(label: Path) -> torch.Tensor:
        values = torch.from_numpy(np.asarray(nib.load(label).dataobj, dtype=np.float32))
        return interpolate(values.permute(2, 0, 1)[:, None], NOTEBOOK_SIZE, mode="nearest")[:, 0].long()

    cases = find_cases(job.data / ALL)
    images = torch.cat([slices_of(case.image) for case in cases])
    labels = torch.cat([labels_of(case.label) for case in cases])
    network = build_network(ModelSpec(encoder="mobilenet_v2", slab_size=1, roi_size=NOTEBOOK_SIZE)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=NOTEBOOK_RATE)
    n_steps, order = 0, torch.empty(0, dtype=torch.long)
    for _ in steps_of(job.minutes):
        if len(order) < NOTEBOOK_BATCH:
            order = torch.randperm(len(images))
        chosen, order = order[:NOTEBOOK_BATCH], order[NOTEBOOK_BATCH:]
        optimizer.zero_grad()
        cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()
        n_steps += 1
    network.eval()
    job.masks.mkdir()
    for case in find_cases(job.data / TEST):
        ct = nib.load(case.image)
        with torch.inference_mode():
            mask = torch.cat([network(one[None]).argmax(1, keepdim=True) for one in slices_of(case.image)]).float()
        mask = interpolate(mask, ct.shape[:2], mode="nearest")[:, 0].permute(1, 2, 0).numpy().astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, ct.affine), job.masks / f"{case.case_id}.nii.gz")
    return {"steps": n_steps}


def run_monai_unet(job: Job) -> Row:
    """As MONAI's tutorials train a 3-D UNet, on our grid; probabilities go back through the inverse transforms."""
    from monai.networks.nets import UNet
    from monai.utils import set_determinism

    set_determinism(job.seed)
    network = UNet(3, 1, 3, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2, norm="batch")
    n_steps = train_monai_unet(network, job)
    predict_monai_unet(network, job)
    return {"steps": n_steps}


def monai_grid() -> list[Any]:
    """From files to the grid, with or without labels."""
    import monai.transforms as mt

    keys = ("image", "label")
    return [
        mt.LoadImaged(keys, allow_missing_keys=True),
        mt.EnsureChannelFirstd(keys, allow_missing_keys=True),
        mt.Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
        mt.Spacingd(keys, pixdim=SPACING_MM, mode=("bilinear", "nearest"), allow_missing_keys=True),
        mt.ScaleIntensityRanged("image", a_min=-200, a_max=250, b_min=0.0, b_max=1.0, clip=True),
    ]


def train_monai_unet(network: Any, job: Job) -> int:
    """Train it for the job's time; returns the steps."""
    import monai.transforms as mt
    import numpy as np
    import torch
    from monai.data import CacheDataset, DataLoader, list_data_collate
    from monai.losses import DiceCELoss

    from liver_monai.data.layouts import find_cases

    keys = ("image", "label")
    random = [
        mt.SpatialPadd(keys, spatial_size=PATCH),
        mt.RandCropByPosNegLabeld(keys, label_key="label", spatial_size=PATCH, pos=1, neg=1, num_samples=2),
        mt.RandAffined(
            keys,
            prob=0.7,
            rotate_range=(0, 0, np.pi / 12),
            scale_range=(0.15, 0.15, 0),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        mt.RandScaleIntensityd("image", factors=0.1, prob=0.3),
        mt.RandShiftIntensityd("image", offsets=0.05, prob=0.3),
        mt.ToTensord(keys, track_meta=False),
    ]
    items = [{"image": str(case.image), "label": str(case.label)} for case in find_cases(job.data / ALL)]
    dataset = CacheDataset(items, mt.Compose([*monai_grid(), *random]), progress=False)
    loader = DataLoader(dataset, batch_size=1, shuffle=True, collate_fn=list_data_collate)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    batches: Iterator[Any] = iter(())
    n_steps = 0
    for progress in steps_of(job.minutes):
        optimizer.param_groups[0]["lr"] = 1e-3 * cosine(progress)
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        optimizer.zero_grad()
        loss(network(batch["image"]), batch["label"]).backward()
        optimizer.step()
        n_steps += 1
    return n_steps


def predict_monai_unet(network: Any, job: Job) -> None:
    """Segment what is held out."""
    import monai.transforms as mt
    import numpy as np
    import torch
    from monai.inferers import sliding_window_inference

    from liver_monai.data.layouts import find_cases

    before = mt.Compose(monai_grid())
    after = mt.Compose(
        [
            mt.Activationsd("pred", softmax=True),
            mt.Invertd("pred", transform=before, orig_keys="image", nearest_interp=False),
            mt.AsDiscreted("pred", argmax=True),
            mt.SaveImaged(
                "pred", output_dir=job.masks, output_postfix="", separate_folder=False, output_dtype=np.uint8,
                print_log=False,
            ),
        ]
    )  # fmt: skip
    network.eval()
    for case in find_cases(job.data / TEST):
        item = before({"image": str(case.image)})
        with torch.inference_mode():
            item["pred"] = sliding_window_inference(item["image"][None], PATCH, 2, network, overlap=0.5)[0]
        after(item)


def run_nnunet(job: Job) -> Row:
    """In its own environment, which plans, preprocesses, trains and predicts."""
    if not job.nnunet:
        raise click.UsageError("nnunet needs --nnunet PYTHON, an interpreter of an environment with nnunetv2")
    task = {name: str(getattr(job, name)) for name in ("data", "folder", "masks")}
    command = [job.nnunet, str(NNUNET_SCRIPT), json.dumps({**task, "minutes": job.minutes, "seed": job.seed})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout[-2000:], file=sys.stderr)
    facts: Row = json.loads(done.stdout.splitlines()[-1])
    return facts


CONTENDERS: dict[str, Callable[[Job], Row]] = {
    "ours": run_ours,
    "notebook": run_notebook,
    "monai-unet": run_monai_unet,
    "nnunet": run_nnunet,
}


def table(rows: list[Row]) -> str:
    """Markdown: mean and standard deviation over seeds."""
    lines = [
        "| CPU minutes | | seeds | tumour Dice | liver Dice | lesion recall | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys((row["minutes"], row["contender"]) for row in rows)
    for minutes, name in sorted(groups, key=lambda each: (each[0], list(CONTENDERS).index(each[1]))):
        found = [row for row in rows if (row["minutes"], row["contender"]) == (minutes, name)]
        cells = [cell([row[key] for row in found]) for key in ("tumor_dice", "liver_dice", "lesion_recall")]
        steps = [row["steps"] for row in found if "steps" in row]
        n_steps = f"{statistics.mean(steps):.0f}" if steps else ""
        lines.append(f"| {minutes:g} | `{name}` | {len(found)} | {' | '.join(cells)} | {n_steps} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
