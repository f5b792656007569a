"""Weights on disk: bare for MONAI, bound to their spec for us."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch

from liver_monai.errors import InputError
from liver_monai.model.network import build_network
from liver_monai.model.weights import check_weights, load_initial_weights, load_weights, save_weights
from liver_monai.spec import ModelSpec

SPEC = ModelSpec(encoder="mobilenet_v2", slab_size=3)


def small_network(seed=0, channels=3):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 3, 1))


def equal(network, other):
    pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "models" / "model.pt"
    save_weights(small_network(), path, spec=SPEC, epoch=7)
    return path


def test_there_and_back(weights):
    network = small_network(seed=1)
    assert not equal(network, small_network())

    load_weights(network, weights, spec=SPEC)

    assert equal(network, small_network())


def test_the_network_of_a_spec_gives_the_same_logits_after_loading(tmp_path):
    trained, fresh = build_network(SPEC).eval(), build_network(SPEC).eval()
    save_weights(trained, tmp_path / "model.pt", spec=SPEC)

    load_weights(fresh, tmp_path / "model.pt", spec=SPEC)

    slab = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(fresh(slab), trained(slab), rtol=0, atol=0)


def test_the_file_is_a_bare_state_dict(weights):
    state = torch.load(weights, weights_only=True)

    assert state.keys() == small_network().state_dict().keys()
    small_network(seed=1).load_state_dict(state)


def test_the_record_tells_spec_hash_and_facts(weights):
    record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))

    assert ModelSpec(**record["spec"]) == SPEC
    assert record["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["epoch"] == 7


def test_weights_of_another_spec_are_refused_with_the_fields_that_differ(weights):
    other = ModelSpec(encoder="mobilenet_v2", slab_size=5, hu_window=(-100, 250))

    with pytest.raises(InputError) as refusal:
        load_weights(small_network(), weights, spec=other)

    message = str(refusal.value)
    assert "slab_size 3 -> 5" in message
    assert "hu_window (-200.0, 250.0) -> (-100.0, 250.0)" in message
    assert "encoder" not in message
    assert str(weights) in message


def test_where_training_started_from_is_no_difference(weights):
    check_weights(weights, spec=ModelSpec(encoder="mobilenet_v2", slab_size=3, encoder_weights="imagenet"))


def test_weights_without_a_record_are_taken_if_they_fit(weights):
    weights.with_suffix(".json").unlink()
    network = small_network(seed=1)

    load_weights(network, weights, spec=SPEC)

    assert equal(network, small_network())


def test_missing_weights_are_missed_before_anything_else(tmp_path):
    with pytest.raises(InputError, match=r"model\.pt: no weights; train the bundle first"):
        load_weights(small_network(), tmp_path / "model.pt", spec=SPEC)


def no_weights(path):
    path.write_bytes(b"these are no weights")


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_layers(path):
    torch.save({"layer": torch.zeros(3)}, path)


def other_shapes(path):
    torch.save(small_network(channels=5).state_dict(), path)


def no_state_dict(path):
    torch.save([1, 2, 3], path)


def whole_network(path):
    torch.save(small_network(), path)  # needs code to load, which weights_only refuses


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SPOILERS = [no_weights, empty, cut_short, other_layers, other_shapes, no_state_dict, whole_network]


@pytest.mark.parametrize("spoil", [*SPOILERS, one_bit])
def test_a_file_that_is_not_the_one_that_was_saved_is_refused_in_one_line(weights, spoil):
    spoil(weights)

    with pytest.raises(
        InputError, match=r"model\.pt: is damaged or was replaced, .* SHA-256 .* model\.json"
    ) as refusal:
        check_weights(weights, spec=SPEC)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_file_that_does_not_fit_is_refused_in_one_line(weights, spoil):
    spoil(weights)
    weights.with_suffix(".json").unlink()

    with pytest.raises(InputError, match=r"model\.pt: does not fit the network of encoder 'mobilenet_v2'") as refusal:
        load_weights(small_network(), weights, spec=SPEC)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "[" * 10**5,
        "{}",
        '{"spec": null}',
        '{"spec": {"encoder": "x", "colour": 1}}',
        '{"spec": {"slab_size": 4}}',
    ],
)
def test_a_record_that_cannot_be_read_is_refused(weights, content):
    weights.with_suffix(".json").write_text(content)

    with pytest.raises(InputError, match=r"model\.json: holds no spec that can be read"):
        check_weights(weights, spec=SPEC)


class Unsaveable(torch.nn.Linear):
    """State that is no tensor, which saving stumbles over."""

    def get_extra_state(self):
        return "text"

    def set_extra_state(self, state):
        pass


def test_a_failed_save_leaves_the_old_weights_and_nothing_else(weights):
    before = {path.name: path.read_bytes() for path in weights.parent.iterdir()}

    with pytest.raises(AttributeError):
        save_weights(Unsaveable(2, 2), weights, spec=SPEC)

    assert {path.name: path.read_bytes() for path in weights.parent.iterdir()} == before
    assert before.keys() == {"model.pt", "model.json"}


# To begin from


def test_weights_to_begin_from_say_where_they_are_from(weights):
    for source in (weights, weights.parents[1]):
        network = small_network(seed=1)

        facts = load_initial_weights(network, source, spec=SPEC)

        assert equal(network, small_network())
        assert facts["path"] == str(weights)
        assert facts["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert (facts["epoch"], facts["spec"]["slab_size"]) == (7, 3)


def test_weights_to_begin_from_may_be_a_state_dict_of_which_nothing_is_known(tmp_path):
    torch.save(small_network().state_dict(), tmp_path / "weights.pt")
    network = small_network(seed=1)

    facts = load_initial_weights(network, tmp_path / "weights.pt", spec=SPEC)

    assert equal(network, small_network())
    assert facts.keys() == {"path", "sha256"}


def test_weights_that_saw_other_slabs_are_warned_of(weights, caplog):
    load_initial_weights(
        small_network(), weights, spec=ModelSpec(encoder="mobilenet_v2", slab_size=3, hu_window=(0, 9))
    )

    assert "was trained under another spec (hu_window (-200.0, 250.0) -> (0.0, 9.0))" in caplog.text


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: without(state, "0.bias"), "layers are 1 missing: 0.bias."),
        (lambda state: {**state, "3.weight": torch.zeros(2)}, "layers are 1 unexpected: 3.weight."),
        (
            lambda state: {**state, "2.weight": torch.zeros(2, 4, 1, 1)},
            r"layers are 1 of another shape: 2.weight (2, 4, 1, 1), not (3, 4, 1, 1).",
        ),
        (
            lambda state: {"2.bias": torch.zeros(2), "other": torch.zeros(1)},
            "8 missing: 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean and 3 more; 1 unexpected: other; "
            "1 of another shape: 2.bias (2,), not (3,).",
        ),
        (lambda state: {"network": state}, "is no state_dict"),
        (lambda state: [1], "is no state_dict"),
    ],
)
def test_layers_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path, change, fault):
    torch.save(change(small_network().state_dict()), tmp_path / "weights.pt")
    network = small_network(seed=1)

    with pytest.raises(InputError, match=re.escape(fault)):
        load_initial_weights(network, tmp_path / "weights.pt", spec=SPEC)

    assert equal(network, small_network(seed=1))


def test_damaged_weights_are_nothing_to_begin_from(weights):
    weights.write_bytes(weights.read_bytes()[:-1])

    with pytest.raises(InputError, match="is damaged or was replaced"):
        load_initial_weights(small_network(), weights, spec=SPEC)
