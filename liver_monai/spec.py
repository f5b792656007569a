"""What a model expects of its input: the one truth that preprocessing, network and inferer are built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from liver_monai.errors import InputError

LABELS = {0: "background", 1: "liver", 2: "tumor"}
BACKGROUND, LIVER, TUMOR = 0, 1, 2

OUTPUT_STRIDE = 16
"""DeepLabV3+ halves the slice four times; every in-plane size the network sees is a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything that must be equal in training and in prediction.

    Args:
        encoder: name of an encoder of segmentation-models-pytorch, such as ``"resnet34"``.
        slab_size: number of neighbouring slices the network sees as channels; odd, 1 means plain 2D.
        output_slices: number of slices in the middle of a slab that the network segments; odd. Of three, prediction
            needs a third of the passes.
        spacing_mm: voxel spacing of the model grid along right, anterior and superior.
        hu_window: lowest and highest Hounsfield unit the network can tell apart.
        roi_size: in-plane size of the crops the network is trained on; multiples of 16.
        encoder_weights: where the encoder's training starts: ``None`` (random), ``"imagenet"`` or a file.
            It says nothing about the input, so two specs that differ only here are equal.

    Raises:
        InputError: a value breaks one of these rules; the message names the field, the value and the rule.
    """

    encoder: str
    slab_size: int = 5
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 3.0)
    hu_window: tuple[float, float] = (-200.0, 250.0)
    roi_size: tuple[int, int] = (256, 256)
    encoder_weights: str | None = None
    output_slices: int = 1

    def __post_init__(self) -> None:
        self._set("spacing_mm", _numbers("spacing_mm", self.spacing_mm, 3))
        self._set("hu_window", _numbers("hu_window", self.hu_window, 2))
        self._set("roi_size", tuple(int(size) for size in _numbers("roi_size", self.roi_size, 2)))
        _require(isinstance(self.encoder, str) and self.encoder != "", "encoder", self.encoder, "a non-empty name")
        _require(
            isinstance(self.slab_size, int) and self.slab_size > 0 and self.slab_size % 2 == 1,
            "slab_size",
            self.slab_size,
            "an odd number, so that a slab has a centre slice",
        )
        _require(
            isinstance(self.output_slices, int)
            and self.output_slices % 2 == 1
            and 0 < self.output_slices <= self.slab_size,
            "output_slices",
            self.output_slices,
            "an odd number, no larger than slab_size",
        )
        _require(min(self.spacing_mm) > 0, "spacing_mm", self.spacing_mm, "three positive numbers")
        _require(self.hu_window[0] < self.hu_window[1], "hu_window", self.hu_window, "(low, high) with low < high")
        _require(
            all(size > 0 and size % OUTPUT_STRIDE == 0 for size in self.roi_size),
            "roi_size",
            self.roi_size,
            f"two positive multiples of {OUTPUT_STRIDE}, the network's output stride",
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the class is frozen; JSON gives lists where we keep tuples

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON types; ``ModelSpec(**spec.to_json()) == spec``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def differences(self, other: ModelSpec) -> dict[str, tuple[Any, Any]]:
        """The input-defining fields in which two specs differ, as ``{name: (mine, other's)}``."""
        names = [field.name for field in fields(self) if field.name != "encoder_weights"]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def offsets(n_slices: int) -> list[int]:
    """An odd number of neighbouring slices, from the one in their middle: 3 -> -1, 0, 1."""
    return list(range(-(n_slices // 2), n_slices // 2 + 1))


def _numbers(name: str, value: Sequence[float], count: int) -> tuple[float, ...]:
    is_numbers = isinstance(value, (tuple, list)) and len(value) == count
    is_numbers = is_numbers and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    _require(is_numbers, name, value, f"a list of {count} numbers")
    return tuple(float(item) for item in value)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value!r}; it must be {rule}")
