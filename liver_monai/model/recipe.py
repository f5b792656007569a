"""What is done before and after a network, as JSON that travels inside its exported file.

It holds values only, and words that say what the values mean to a reader in another language: nothing in it is run.
The words are those of ``recipe.schema.json``, and a recipe that says anything else is refused, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from liver_monai.errors import InputError, one_line
from liver_monai.io.files import parse_json, read_json
from liver_monai.spec import LABELS, OUTPUT_STRIDE, ModelSpec, offsets

RECIPE_KEY = "liver_monai_recipe"
"""Entry of a graph's metadata that holds the recipe."""
VERSION = 2
"""Counts up when a reader of the former would get another mask."""
SCHEMA = Path(__file__).with_name("recipe.schema.json")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a CT becomes what a network sees, and its logits a mask.

    Args:
        spec: grid, window, slab_size and output_slices; ``encoder_weights`` is not kept.
        inferer: keyword arguments of ``SlabInferer``: sw_batch_size, overlap, search.
        cleaning: keyword arguments of ``clean_mask``: largest_component, fill_holes, min_lesion_mm3.
        weights_sha256: of the file that the network's weights came from.
        made_by: versions of what exported it.
    """

    spec: ModelSpec
    inferer: Mapping[str, Any]
    cleaning: Mapping[str, Any]
    weights_sha256: str
    made_by: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON types by ``recipe.schema.json``."""
        values = self.spec.to_json()
        return {
            "recipe": VERSION,
            "network": {
                "architecture": "DeepLabV3+",
                "encoder": self.spec.encoder,
                "weights_sha256": self.weights_sha256,
                "input": {"name": "image", "axes": ["batch", "slab", "height", "width"], "dtype": "float32"},
                "output": {"name": "pred", "axes": ["batch", "label", "height", "width"], "dtype": "float32"},
                "size_multiple": OUTPUT_STRIDE,
            },
            "labels": {str(value): name for value, name in LABELS.items()},
            "preprocessing": {
                "intensity": "HU",
                "axes": {"height": "right", "width": "anterior", "slices": "superior"},
                "rotation": "none, an axis counts as the one it is nearest to",
                "spacing_mm": values["spacing_mm"],
                "size": "max(1, round_half_to_even(voxels * mm / spacing_mm))",
                "alignment": "centre",
                "interpolation": "linear, box-averaged where coarser",
                "beyond_edges": "nearest voxel",
                "hu_window": values["hu_window"],
                "scaled_to": [0.0, 1.0],
                "slab_offsets": offsets(self.spec.slab_size),
                "beyond_ends": "nearest slice",
            },
            "inference": {
                "output_offsets": offsets(self.spec.output_slices),
                "passes": "centres at every len(output_offsets)-th slice, such that the first output is slice 0",
                "padding": "zeros on both sides, the odd one at the end",
                "roi_size": values["roi_size"],
                "window": "the padded slice, at most twice roi_size",
                "blending": "gaussian",
                **self.inferer,
            },
            "postprocessing": {
                "logits_to_ct": "as preprocessing, the other way",
                "mask": "argmax, the lowest of equals",
                "connectivity": "faces",
                **self.cleaning,
            },
            "made_by": dict(self.made_by),
        }

    def dumps(self) -> str:
        """One line, as it stands in a file's metadata."""
        return json.dumps(self.to_json())


def read_recipe(text: str, path: Path) -> Recipe:
    """The recipe that a file holds.

    Raises:
        InputError: not JSON, or not as ``recipe.schema.json`` has it; names ``path`` and the first fault.
    """
    try:
        content = parse_json(text, source=path)
        _validator().validate(content)
        preprocessing, inference, postprocessing = (
            content[name] for name in ("preprocessing", "inference", "postprocessing")
        )
        recipe = Recipe(
            spec=ModelSpec(
                encoder=content["network"]["encoder"],
                slab_size=len(preprocessing["slab_offsets"]),
                spacing_mm=preprocessing["spacing_mm"],
                hu_window=preprocessing["hu_window"],
                roi_size=inference["roi_size"],
                output_slices=len(inference["output_offsets"]),
            ),
            inferer={name: inference[name] for name in ("sw_batch_size", "overlap", "search")},
            cleaning={name: postprocessing[name] for name in ("largest_component", "fill_holes", "min_lesion_mm3")},
            weights_sha256=content["network"]["weights_sha256"],
            made_by=content["made_by"],
        )
        if recipe.to_json() != content:  # what a schema cannot say, such as slabs that are not around their centre
            raise InputError("slab_offsets or output_offsets are not those of neighbouring slices around the centre")
        return recipe
    except (jsonschema.ValidationError, InputError) as error:
        where = getattr(error, "json_path", "$").removeprefix("$").removeprefix(".")
        what = error.message if isinstance(error, jsonschema.ValidationError) else one_line(error)
        raise InputError(
            f"{path}: its recipe cannot be followed ({f'{where}: ' if where else ''}{what[:200]}); export the network "
            "anew with this version"
        ) from error


@cache
def _validator() -> Any:
    return jsonschema.Draft202012Validator(read_json(SCHEMA))
