"""What share of a training is the network's? Samples per second of three loops on the same phantoms and network:

bare    forward, backward and step on tensors that are there
ours    ``train``, as the command does it, checkpoints and history included, without validation
MONAI   CacheDataset, RandCropByLabelClassesd, the same augmentation and SupervisedTrainer

They take turns, each in a process of its own of one thread, and a ratio is the median over the turns. Time is that of
the processor, of which little is lost to whatever else runs on the machine; on a GPU, and with workers, it is that of
the clock. Ratios hold between machines, samples per second do not.

    python benchmarks/train.py                                      # mobilenet, minutes
    python benchmarks/train.py --bundle resnet34 --steps 50 --workers 4
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.transforms import Compose, Lambda, RandCropByLabelClassesd, SpatialPadd
from process_budget import OF_THE_PROCESS

from liver_monai.data.draws import CENTRED_ON
from liver_monai.data.layouts import find_cases
from liver_monai.data.phantom import write_phantoms
from liver_monai.data.transforms import augmentation, model_grid
from liver_monai.engine.device import keep_freed_memory
from liver_monai.engine.training import train
from liver_monai.model.bundle import find_bundle, overridden_spec
from liver_monai.model.network import build_network
from liver_monai.processes import open_pool
from liver_monai.spec import LABELS, LIVER, TUMOR, ModelSpec

EPOCHS = 3
"""The first, in which everything is slower, is left out."""

Settings = dict[str, Any]


@click.command()
@click.option("--bundle", default="mobilenet", show_default=True)
@click.option("--cases", default=6, show_default=True, help="Phantoms of 192 x 192 x 64 voxels.")
@click.option("--roi", default=128, show_default=True, help="Rows and columns of a slab.")
@click.option("--batch", default=8, show_default=True, help="Slabs a step.")
@click.option("--steps", default=50, show_default=True, help="An epoch, as many slabs as a bundle's; there are three.")
@click.option("--turns", default=3, show_default=True, help="Of each loop.")
@click.option("--workers", default=0, show_default=True, help="Processes that make slabs; 0: the training's own.")
def main(**settings: Any) -> None:
    """Print samples per second of each loop, and what share of the bare loop's that is."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings["store"] = str(folder / "store")
        write_phantoms(folder / "data", n_cases=settings["cases"], shape=(192, 192, 64), seed=0)
        turns = [
            {name: in_own_process(loop, folder, settings) for name, loop in LOOPS.items()}
            for _ in range(settings["turns"])
        ]
    print(f"{settings['bundle']}, batches of {settings['batch']} slabs of {settings['roi']} x {settings['roi']}")
    for name in LOOPS:
        rate = statistics.median(rates[name] for rates in turns)
        ratios = sorted(rates[name] / rates["bare"] for rates in turns)
        shown = f"{statistics.median(ratios):.2f} of bare ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"{name:8}{rate:9.2f} samples/s   {shown}")


def in_own_process(loop: Callable[[Path, Settings], float], folder: Path, settings: Settings) -> float:
    """So that no loop profits from, or pays for, another's memory and threads."""
    with open_pool(1) as pool:
        return pool.submit(loop, folder, settings).result()


def clock_of(settings: Settings) -> Callable[[], float]:
    """Seconds of the processor where it does all the work."""
    return time.perf_counter if torch.cuda.is_available() or settings["workers"] else time.process_time


def overrides_of(settings: Settings) -> Settings:
    """What differs from the bundle: no validation, and epochs of so many steps."""
    return {
        "fold": None,
        "max_epochs": EPOCHS,
        "slabs_per_epoch": settings["steps"] * settings["batch"],
        "batch_size": settings["batch"],
        "num_workers": settings["workers"],
        "store_dir": settings["store"],
        "spec#roi_size": [settings["roi"], settings["roi"]],
    }


def spec_of(settings: Settings) -> ModelSpec:
    """The bundle's, with slabs of that size."""
    return overridden_spec(find_bundle(settings["bundle"]), overrides_of(settings))


def loss_function() -> torch.nn.Module:
    """That of the bundles."""
    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)


def time_bare(_: Path, settings: Settings) -> float:
    """Samples per second of steps on one batch of random numbers."""
    keep_freed_memory()
    spec, device = spec_of(settings), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, loss = build_network(spec).to(device).train(), loss_function()
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.rand(settings["batch"], spec.slab_size, *spec.roi_size, device=device)
    label = torch.randint(len(LABELS), (settings["batch"], 1, *spec.roi_size), device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    seconds, clock = [], clock_of(settings)
    for _step in range(settings["steps"] + 2):
        started_s = clock()
        optimizer.zero_grad()
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            value = loss(network(image), label)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        value.item()  # waits for a GPU
        seconds.append(clock() - started_s)
    return float(settings["batch"] / statistics.mean(seconds[2:]))


def time_ours(folder: Path, settings: Settings) -> float:
    """Samples per second of the epochs after the first."""
    overrides = overrides_of(settings)
    if clock_of(settings) is time.process_time:
        overrides["budget"] = OF_THE_PROCESS
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        run = train(bundle=settings["bundle"], data=folder / "data", out=Path(temporary) / "run", overrides=overrides)
        minutes = [float(row["minutes"]) for row in read_history(run)]
    return (EPOCHS - 1) * settings["steps"] * settings["batch"] / (60 * (minutes[-1] - minutes[0]))


def read_history(run: Path) -> list[dict[str, str]]:
    """A row an epoch."""
    with (run / "models" / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def time_monai(folder: Path, settings: Settings) -> float:
    """Likewise of MONAI's own parts; what fills the cache is left out."""
    keep_freed_memory()
    spec, device = spec_of(settings), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    n_cases = settings["cases"]
    size = (*spec.roi_size, spec.slab_size)
    crop = RandCropByLabelClassesd(
        ("image", "label"),
        label_key="label",
        spatial_size=size,
        ratios=[CENTRED_ON[value] for value in (None, LIVER, TUMOR)],
        num_classes=len(LABELS),
        num_samples=1,
        warn=False,
    )
    middle = spec.slab_size // 2
    as_slab = Lambda(
        lambda item: {
            "image": item["image"][0].permute(2, 0, 1),
            "label": item["label"][..., middle],
        }
    )
    pad = SpatialPadd(("image", "label"), spatial_size=size)
    transform = Compose([*model_grid(spec).transforms, pad, crop, as_slab, *augmentation(spec).transforms])
    n_repeats = -(-settings["steps"] * settings["batch"] // n_cases)
    items = [case.to_item() for case in find_cases(folder / "data")]
    dataset = CacheDataset(items * n_repeats, transform=transform, hash_as_key=True, progress=False)
    loader = DataLoader(
        dataset, batch_size=settings["batch"], shuffle=True, drop_last=True, num_workers=settings["workers"]
    )
    network = build_network(spec).to(device)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=EPOCHS,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.AdamW(network.parameters()),
        loss_function=loss_function(),
        amp=device.type == "cuda",
    )
    ends, clock = list[float](), clock_of(settings)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: ends.append(clock()))
    trainer.run()
    return (EPOCHS - 1) * len(loader) * settings["batch"] / (ends[-1] - ends[0])


LOOPS: dict[str, Callable[[Path, Settings], float]] = {"bare": time_bare, "ours": time_ours, "MONAI": time_monai}


if __name__ == "__main__":
    main()
