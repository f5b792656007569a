from __future__ import annotations

import pytest

from liver_monai.spec import ModelSpec


def test_json_and_back_is_the_same_spec():
    spec = ModelSpec(encoder="resnet34", slab_size=3, spacing_mm=(1, 1, 2.5), encoder_weights="imagenet")

    assert ModelSpec(**spec.to_json()) == spec


def test_differences_name_the_fields_of_the_input_alone():
    spec = ModelSpec(encoder="resnet34")
    other = ModelSpec(encoder="resnet34", slab_size=3, encoder_weights="imagenet")

    assert spec.differences(other) == {"slab_size": (5, 3)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder", ""),
        ("slab_size", 4),
        ("slab_size", 0),
        ("slab_size", "5"),
        ("output_slices", 2),
        ("output_slices", 7),
        ("output_slices", -1),
        ("spacing_mm", (1, 1)),
        ("spacing_mm", (1, 1, 0)),
        ("spacing_mm", "1,1,1"),
        ("hu_window", (250, -200)),
        ("roi_size", (250, 256)),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        ModelSpec(**{"encoder": "resnet34", field: value})
