"""Train on files that lie in folders of your own, listed in a CSV file.

    python examples/02_train_on_your_own_data.py OUT

Phantoms stand in for your CTs. The settings are those of a test: leave `SETTINGS` out to train as the bundle says.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from liver_monai.data.phantom import write_phantoms
from liver_monai.engine.training import train

SETTINGS = {
    "max_epochs": 2,
    "slabs_per_epoch": 48,
    "batch_size": 2,
    "learning_rate": 0.004,
    "spec#slab_size": 3,
    "spec#spacing_mm": [5, 5, 10],
    "spec#roi_size": [48, 48],
}


def list_cases(folder: Path) -> Path:
    """A row a CT: paths relative to the list, and a patient_id, so that no patient is in training and validation."""
    names = sorted(path.name for path in (folder / "imagesTr").iterdir())
    listing = folder / "cases.csv"
    with listing.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case_id", "patient_id", "image", "label"])
        for number, name in enumerate(names):
            table.writerow([f"scan{number}", f"patient{number // 2}", f"imagesTr/{name}", f"labelsTr/{name}"])
    return listing


def main(out: str) -> None:
    """Leave a trained run in ``OUT/run``."""
    write_phantoms(Path(out) / "data", n_cases=4, shape=(96, 96, 24), seed=0)
    run = train(bundle="mobilenet", data=list_cases(Path(out) / "data"), out=Path(out) / "run", overrides=SETTINGS)
    facts = json.loads((run / "models" / "model.json").read_text(encoding="utf-8"))
    print(f"epoch {facts['epoch']}, mean Dice of patients held back {facts['val_mean_dice']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
