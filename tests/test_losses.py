"""Losses by hand, by law, and at work on slabs of phantoms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.losses import DiceLoss
from torch.nn.functional import cross_entropy

from liver_monai.data.draws import SlabDataset
from liver_monai.data.layouts import find_cases
from liver_monai.engine.losses import DiceTopKLoss, TopKLoss, choose_loss
from liver_monai.errors import InputError
from liver_monai.model.bundle import find_bundle, list_bundles, read_config
from liver_monai.model.network import build_network
from liver_monai.spec import ModelSpec

LOSSES = ("dice_ce", "dice_topk", "dice_focal", "tversky")


def train_config(bundle="mobilenet"):
    return read_config(find_bundle(bundle) / "configs" / "train.json")


def shipped_losses():
    parser = ConfigParser({"losses": train_config()["losses"]})
    return parser.get_parsed_content("losses")


def logits_of(probabilities):
    """Logits ``(1, 2, 1, N)`` whose softmax gives the second class these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))])[None, :, None]


# By hand


def test_top_k_is_the_mean_over_the_hardest_voxels():
    """Ten voxels of class 1; those with probabilities 0.1 and 0.2 are the hardest 20 %."""
    probabilities = [0.9, 0.1, 0.8, 0.7, 0.95, 0.6, 0.2, 0.5, 0.85, 0.99]
    label = torch.ones(1, 1, 1, 10)

    loss = TopKLoss(percent=20)(logits_of(probabilities), label)

    assert loss.item() == pytest.approx(-(math.log(0.1) + math.log(0.2)) / 2, rel=1e-5)


def test_the_hardest_voxels_are_those_of_the_whole_batch():
    """The second of two items has them all."""
    logits = torch.cat([logits_of([0.9, 0.9]), logits_of([0.3, 0.4])])
    label = torch.ones(2, 1, 1, 2)

    loss = TopKLoss(percent=50)(logits, label)

    assert loss.item() == pytest.approx(-(math.log(0.3) + math.log(0.4)) / 2, rel=1e-5)


def test_at_least_one_voxel_counts():
    assert TopKLoss(percent=1)(logits_of([0.5, 0.25]), torch.ones(1, 1, 1, 2)).item() == pytest.approx(math.log(4))


def test_only_the_hardest_voxels_have_a_gradient():
    logits = logits_of([0.9, 0.1, 0.8, 0.2]).requires_grad_()

    TopKLoss(percent=50)(logits, torch.ones(1, 1, 1, 4)).backward()

    moved = logits.grad.abs().sum(dim=1).flatten() > 0
    assert moved.tolist() == [False, True, False, True]
    assert (logits.grad[0, 1, 0, [1, 3]] < 0).all()  # a step down the gradient raises the right class


# Laws


@given(seed=st.integers(0, 1000), percent=st.floats(1, 100))
def test_top_k_falls_from_the_largest_to_the_mean_cross_entropy(seed, percent):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 4, generator=generator)
    label = torch.randint(3, (2, 1, 5, 4), generator=generator)
    losses = cross_entropy(logits, label[:, 0], reduction="none")

    loss = TopKLoss(percent=percent)(logits, label)

    torch.testing.assert_close(TopKLoss(percent=100)(logits, label), losses.mean())
    assert losses.mean() - 1e-6 <= loss <= losses.max() + 1e-6
    order = torch.randperm(20, generator=generator)
    shuffled = [tensor.flatten(2)[:, :, order] for tensor in (logits, label)]
    torch.testing.assert_close(TopKLoss(percent=percent)(*shuffled), loss)


def test_dice_top_k_is_the_weighted_sum_of_both():
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 1, 8, 8))
    options = {"softmax": True, "to_onehot_y": True, "include_background": False, "batch": True}

    loss = DiceTopKLoss(percent=10, lambda_dice=0.5, lambda_topk=2.0, **options)(logits, label)

    parts = DiceLoss(**options)(logits, label), TopKLoss(percent=10)(logits, label)
    torch.testing.assert_close(loss, 0.5 * parts[0] + 2 * parts[1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_more_than_a_guess(name):
    loss = shipped_losses()[name]
    label = torch.randint(3, (2, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    right = 60 * torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float() - 30  # MONAI's focal: sigmoid

    perfect, guess, wrong = (loss(logits, label).item() for logits in (right, torch.zeros_like(right), -right))

    assert perfect == pytest.approx(0, abs=1e-4)
    assert perfect < guess < wrong


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_share_that_is_none_is_refused(percent):
    with pytest.raises(InputError, match=f"percent is {percent}"):
        TopKLoss(percent=percent)


# Chosen by name


def test_every_bundle_has_the_same_losses():
    tables = [json.dumps(train_config(bundle)["losses"]) for bundle in list_bundles()]

    assert len(set(tables)) == 1
    assert tuple(train_config()["losses"]) == LOSSES
    assert train_config()["loss"] == "dice_ce"


def test_a_loss_is_chosen_by_name_or_is_ones_own():
    table, own = shipped_losses(), torch.nn.MSELoss()

    assert choose_loss("tversky", table).loss is table["tversky"]
    assert choose_loss(own, table).loss is own
    with pytest.raises(InputError, match="did you mean 'dice_topk'"):
        choose_loss("dice_top10", table)


# At work


@pytest.fixture(scope="module")
def batch(phantom_dataset, tmp_path_factory):
    """Two slabs of phantoms with liver and tumour."""
    spec = ModelSpec(encoder="mobilenet_v2", slab_size=3, spacing_mm=(5, 5, 10), roi_size=(48, 48))
    cases = find_cases(phantom_dataset)
    slabs = SlabDataset(cases, spec=spec, folder=tmp_path_factory.mktemp("store"), n_samples=8, seed=1)
    batches = iter(DataLoader(slabs, batch_size=4))
    return spec, next(each for each in batches if set(each["label"].unique().tolist()) == {0, 1, 2})


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_each_loss_lowers_it(name, batch):
    spec, slabs = batch
    torch.manual_seed(0)
    network, loss = build_network(spec).eval(), shipped_losses()[name]  # eval: dropout would change the loss, too
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    before = loss(network(slabs["image"]), slabs["label"])
    before.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    optimizer.step()
    after = loss(network(slabs["image"]), slabs["label"])

    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert after < before


@pytest.mark.parametrize("loss", ["dice_topk", '{"_target_": "DiceLoss", "softmax": true, "to_onehot_y": true}'])
def test_a_training_takes_the_loss_that_is_asked_for(tmp_path, train_quickly, loss):
    run = tmp_path / "run"

    done = train_quickly(run, "--epochs", 1, "--set", f"loss={loss}", slabs_per_epoch=4)

    assert done.exit_code == 0, done.output
    assert (run / "models" / "model.pt").is_file()


def test_a_training_with_a_loss_that_is_none_ends_with_one_line(tmp_path, train_quickly):
    refused = train_quickly(tmp_path / "run", "--epochs", 1, loss="tverski", slabs_per_epoch=4)

    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1].endswith("did you mean 'tversky'?")


@pytest.mark.parametrize("name", LOSSES)
def test_slices_of_a_pass_count_as_slices_of_a_larger_batch(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 16, 16, generator=generator)
    label = torch.randint(0, 3, (2, 3, 16, 16), generator=generator).float()
    loss = shipped_losses()[name]

    expected = loss(logits.reshape(6, 3, 16, 16), label.reshape(6, 1, 16, 16))

    assert choose_loss(name, {name: loss})(logits, label).item() == expected.item()
    assert (
        choose_loss(name, {name: loss})(logits[:, :3], label[:, :1]).item() == loss(logits[:, :3], label[:, :1]).item()
    )
