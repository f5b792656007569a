"""A row a lesion: its size, whether it was found, and the measures of the match it was found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liver_monai.scoring.lesions import Detection, LesionMaps, equivalent_diameter_mm, size_bin
from liver_monai.scoring.rules import SEGMENTED_AT


def lesion_rows(
    maps: LesionMaps, detections: dict[str, Detection], pairs: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """A row a lesion of the reference, and a row a predicted lesion that belongs to no match found at IoU > 0.5."""
    found = {name: {r for match in each.matches for r in match.references} for name, each in detections.items()}
    matches = detections[SEGMENTED_AT].matches
    match_of = {r: number for number, match in enumerate(matches) for r in match.references}
    rows = []
    for lesion, voxels in enumerate(maps.table.reference_voxels):
        hits = {f"detected_{name}": lesion in found[name] for name in detections}
        match = match_of.get(lesion)
        values = {} if match is None else {"n_merged": len(matches[match].references), **pairs[match]}
        rows.append({**_lesion_facts(maps, "reference", lesion, int(voxels)), **hits, **values})
    used = {p for match in matches for p in match.predictions}
    for lesion, voxels in enumerate(maps.table.prediction_voxels):
        if lesion not in used:
            rows.append(_lesion_facts(maps, "prediction", lesion, int(voxels)))
    return rows


def _lesion_facts(maps: LesionMaps, mask: str, lesion: int, voxels: int) -> dict[str, Any]:
    volume_ml = maps.volume_ml(voxels)
    diameter_mm = equivalent_diameter_mm(volume_ml)
    return {
        "mask": mask,
        "lesion": lesion + 1,
        "volume_ml": volume_ml,
        "diameter_mm": diameter_mm,
        "size": size_bin(diameter_mm),
    }
