"""What an epoch of slabs holds: its classes, and what labels cannot teach."""

from __future__ import annotations

from collections import Counter

from liver_monai.data.draws import SlabDataset
from liver_monai.spec import LIVER, TUMOR

CENTRES = {TUMOR: "on a tumour", LIVER: "on liver", None: "anywhere"}


def describe_draws(dataset: SlabDataset) -> str:
    """The class balance of the first epoch, as it is going to be drawn, and of its cases; no voxel is read."""
    draws = [dataset.draw(number) for number in range(len(dataset))]
    counts = Counter(draw.value for draw in draws)
    shares = ", ".join(f"{counts[value]} {name} ({counts[value] / len(draws):.0%})" for value, name in CENTRES.items())
    n_drawn = len({(draw.case.case_id, draw.lesion.lesion) for draw in draws if draw.lesion is not None})
    n_lesions = sum(len(case.lesions) for case in dataset.cases)
    lesions = f"{n_drawn} of {n_lesions} lesions" if n_drawn else f"{n_lesions} lesions"
    with_tumor = sum(bool(case.lesions) for case in dataset.cases)
    return (
        f"first epoch: {len(draws)} slabs, centred {shares}; {lesions}, "
        f"tumours in {with_tumor} of {len(dataset.cases)} cases"
    )


def find_doubts(dataset: SlabDataset) -> list[str]:
    """What is probably not meant of the labels that train, a sentence each."""
    without = [case.case_id for case in dataset.cases if not sum(map(len, case.slices_with.values()))]
    doubts = []
    if len(without) == len(dataset.cases):
        doubts.append("no training case has liver or tumour in its label; are these the right masks?")
    elif without:
        doubts.append(
            f"{len(without)} training cases have no liver in their labels, '{without[0]}' first; if they show one, "
            "leave them out with a line each in excludes.csv"
        )
    if not any(case.lesions for case in dataset.cases) and dataset.synthetic_tumors is None:
        doubts.append(
            "no training case has a tumour in its label, so that none will be found; draw them with "
            "--set synthetic_tumors#prob=0.5"
        )
    return doubts
