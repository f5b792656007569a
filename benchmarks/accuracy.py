"""What does each choice of a training bring? One at a time against a baseline, with several seeds, on phantoms.

Every training has the same number of optimizer steps, so that whatever else runs on the machine changes nothing. A
training with its scores is a file of its own under ``OUT/rows``: what was stopped goes on where it was, and
``OUT/accuracy-STEPS-steps.md`` is made of the files that are there.

    python benchmarks/accuracy.py -o OUT                         # every arm, 3 seeds, 6 of the baseline
    python benchmarks/accuracy.py -o OUT --arm baseline --arm dice_topk --seeds 10 --steps 2000
    python benchmarks/accuracy.py -o OUT --table                 # of what is there

Spread is the standard deviation over seeds, of initial weights and of what is drawn; the data are the same for all. An
arm is told apart from the baseline where all its seeds are above or all below all of the baseline's, and are so many
that chance would hardly do that.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

import click
from accuracy_arms import ARMS, BASELINE, Arm, settings_of
from accuracy_data import TEST, score_masks, write_data

from liver_monai.io.files import whole_file, write_json
from liver_monai.processes import Processes

BUNDLE = "mobilenet"
CHANCE = 0.05
"""The most that counts as told apart: three seeds against six reach 2.4 %, three against three no less than 10 %. Of
sixteen arms that change nothing one in three tables would still tell one apart."""
MEASURES = ("tumor_dice", "liver_dice", "lesion_recall", "lesion_precision")
VERDICTS = ("tumor_dice", "liver_dice")

Row = dict[str, Any]


@click.command()
@click.option("-o", "out", required=True, type=click.Path(path_type=Path))
@click.option("--arm", "names", multiple=True, type=click.Choice(list(ARMS)), help="All, if none is named.")
@click.option("--seeds", default=3, show_default=True, help="Of each arm; the baseline has twice as many.")
@click.option("--steps", default=600, show_default=True, help="Of the optimizer.")
@click.option("--cases", nargs=2, default=(20, 8), show_default=True, help="That train, and that are held out.")
@click.option("--jobs", default=1, show_default=True, help="Trainings at a time, of one thread each.")
@click.option("--table", "is_table_only", is_flag=True, help="Train nothing.")
def main(
    out: Path, names: tuple[str, ...], seeds: int, steps: int, cases: tuple[int, int], jobs: int, is_table_only: bool
) -> None:
    """Train and score what has no row yet, and print the table."""
    out = out.resolve()
    if not is_table_only:
        write_data(out / "data", n_train=cases[0], n_test=cases[1], jobs=jobs)
        tasks = [(out, name, seed, steps) for name, seed in trials(names or tuple(ARMS), seeds)]
        for row in Processes(jobs).results(run_trial, tasks, killed=run_trial):
            print(f"{row['arm']:24}seed {row['seed']}  " + "  ".join(f"{name} {row[name]}" for name in MEASURES))
    files = sorted(row_path(out, "", 0, steps).parent.glob("*.json"))
    text = table([json.loads(path.read_text(encoding="utf-8")) for path in files])
    with whole_file(out / f"accuracy-{steps}-steps.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def trials(names: Sequence[str], n_seeds: int) -> list[tuple[str, int]]:
    """Arms with their seeds, every arm's first seed before any second one: who stops early has compared all."""
    numbered = [(name, seed) for name in names for seed in range(2 * n_seeds if name == BASELINE else n_seeds)]
    order = {name: number for number, name in enumerate(names)}
    return sorted(numbered, key=lambda each: (each[1] // 2 if each[0] == BASELINE else each[1], order[each[0]]))


def row_path(out: Path, name: str, seed: int, steps: int) -> Path:
    """Where the row of a training lies; those of one budget lie together, and make a table."""
    return out / "rows" / f"{steps}-steps" / f"{name}-seed{seed}.json"


def run_trial(out: Path, name: str, seed: int, steps: int) -> Row:
    """The row of a training; one that is there and was made with the same settings is kept."""
    arm = ARMS[name]
    settings = settings_of(arm, steps=steps)
    path = row_path(out, name, seed, steps)
    if path.is_file():
        row: Row = json.loads(path.read_text(encoding="utf-8"))
        if row["settings"] == settings:
            return row
    row = {"arm": name, "seed": seed, "steps": steps, "settings": settings, **train_and_score(out, arm, seed, settings)}
    write_json(path, row)
    return row


def train_and_score(out: Path, arm: Arm, seed: int, settings: Row) -> Row:
    """Train anew, segment the held-out CTs and score the masks; nothing but the figures is kept."""
    from liver_monai.data.layouts import find_cases
    from liver_monai.engine.inference import predict
    from liver_monai.engine.training import train

    warnings.simplefilter("ignore")
    data = out / "data"
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        run = Path(temporary) / "run"
        started_s = time.process_time()
        overrides = {**settings, "seed": seed, "store_dir": str(out / "store" / arm.data)}
        train(bundle=BUNDLE, data=data / arm.data, out=run, overrides=overrides)
        train_cpu_s = time.process_time() - started_s
        predictions = list(predict(find_cases(data / TEST), bundle=run, out=Path(temporary) / "masks"))
        masks = {each.case.case_id: each.mask for each in predictions if each.mask is not None}
        return {"train_cpu_s": round(train_cpu_s, 1), **score_masks(masks, data / TEST)}


def table(rows: Sequence[Row]) -> str:
    """Markdown: mean and standard deviation over seeds, and which arms are told apart from the baseline."""
    by_arm = {name: [row for row in rows if row["arm"] == name] for name in ARMS}
    reference = by_arm[BASELINE]
    measured = ("tumour Dice", "liver Dice", "lesion recall", "lesion precision")
    heads = ("", "", "seeds", *measured, "told apart: tumour Dice", "liver Dice")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in by_arm.items():
        if found:
            cells = [cell([row[measure] for row in found if row[measure] is not None]) for measure in MEASURES]
            cells += ["" if name == BASELINE else told_apart(found, reference, each) for each in VERDICTS]
            lines.append(f"| {ARMS[name].factor} | `{name}` | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation; a precision is not defined where nothing is found."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def told_apart(arm: Sequence[Row], baseline: Sequence[Row], measure: str) -> str:
    """The difference where no seed of the one lies among those of the other, and chance would rarely do that."""
    ours, theirs = ([row[measure] for row in rows] for rows in (arm, baseline))
    by_chance = 2 / comb(len(ours) + len(theirs), len(ours))
    if by_chance > CHANCE or not (min(ours) > max(theirs) or max(ours) < min(theirs)):
        return "no"
    return f"{statistics.mean(ours) - statistics.mean(theirs):+.3f} (chance {by_chance:.1%})"


if __name__ == "__main__":
    main()
