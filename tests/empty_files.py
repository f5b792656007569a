"""Data sets of empty files: what belongs together is told by names alone."""

from __future__ import annotations

import json


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def msd(folder, *names):
    """A folder in MSD layout, listed in the order of the names."""
    touch(folder, *[f"{kind}/{name}.nii.gz" for kind in ("imagesTr", "labelsTr") for name in names])
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    return folder


def ids(cases):
    return [case.case_id for case in cases]
