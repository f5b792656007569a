"""What the public scorer of the LiTS challenge does (2017-09-03), faults included: for comparing with old tables only.

Its definitions are those of ``lesions.detect``. What comes out differently, and what follows from the numbers that
components happen to have, is marked below. Numbers are those of the masks' own axis order.
"""

from __future__ import annotations

from liver_monai.scoring.lesions import (
    Detection,
    Match,
    OverlapTable,
    groups_by_reference,
    merged_references,
    shared_with_groups,
)

UNDEFINED = 9001.0
"""What the scorer writes for every measure that needs two objects and has only one."""

N_BYTE = 256
"""The scorer keeps the numbers of detected references in bytes: the 256th lesion is background, the 257th the first."""


def detect(table: OverlapTable, min_iou: float) -> Detection:
    """Counts as the scorer has them; they may be negative, or more than there are lesions.

    A volume without a reference lesion ends the scorer with an error; here it gives TP 0 and every prediction as FP.
    """
    if len(table.reference_voxels) == 0:
        return Detection(tp=0, fp=len(table.prediction_voxels), fn=0)
    groups = merged_references(table)
    n_detected, numbers = _trim(table, groups, min_iou)
    kept = [group for group in groups if (group[0] + 1) % N_BYTE in numbers.values()]
    matches = [
        Match(predictions=tuple(p for p, number in numbers.items() if number == (group[0] + 1) % N_BYTE),
              references=group, iou=float("nan"))
        for group in kept if group[0] + 1 < N_BYTE
    ]  # fmt: skip
    return Detection(
        tp=n_detected,
        fp=len(table.prediction_voxels) - n_detected,
        fn=len(table.reference_voxels) - n_detected,
        matches=matches if n_detected > 0 else (),
    )


def _trim(table: OverlapTable, groups: list[tuple[int, ...]], min_iou: float) -> tuple[int, dict[int, int]]:
    """Number of detected lesions, and the number that each prediction bears in the scorer's mask of detections."""
    members: dict[int, list[int]] = {}  # group -> predictions
    shared: dict[int, int] = {}  # group -> voxels
    group_of = groups_by_reference(groups)
    for predicted, row in table.by_prediction.items():
        with_groups = shared_with_groups(row, group_of)
        group = max(with_groups, key=lambda each: (with_groups[each], -each))
        members.setdefault(group, []).append(predicted)
        shared[group] = shared.get(group, 0) + with_groups[group]
    numbers = {p: (groups[group][0] + 1) % N_BYTE for group, predictions in members.items() for p in predictions}

    n_detected = len(members)  # fault: one for each merged reference, although ...
    for group in sorted(members, key=lambda each: members[each][0]):
        # Fault: by now predictions bear the number of their reference, but here the scorer looks for the first
        # prediction's own number, and finds another object under it, or none.
        found = [p for p, number in numbers.items() if number == members[group][0] + 1]
        union = _union(table, found, groups[group])
        if shared[group] / union <= min_iou:
            numbers = {p: 0 if number == groups[group][0] + 1 else number for p, number in numbers.items()}
            n_detected -= len(groups[group])  # ... as many as were merged are taken away
    return n_detected, numbers


def _union(table: OverlapTable, predictions: list[int], references: tuple[int, ...]) -> int:
    shared = sum(table.shared.get((p, r), 0) for p in predictions for r in references)
    sizes = table.prediction_voxels[predictions].sum() + table.reference_voxels[list(references)].sum()
    return int(sizes - shared)
