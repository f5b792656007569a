"""The running average of the weights by law and in a training, and gradients that are clipped."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer

from liver_monai.engine.averaging import AverageHandler, average_weights
from liver_monai.engine.handlers import ClipGradients
from liver_monai.errors import InputError

CPU = torch.device("cpu")


def small_network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))


def trainer_of(network, *handlers, lr=0.1, scale=1.0):
    batch = {"image": scale * torch.randn(8, 3), "label": torch.randn(8, 1)}
    return SupervisedTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=[batch] * 5,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=torch.nn.MSELoss(),
        train_handlers=list(handlers),
    )


# Laws of the average


@given(decay=st.floats(0.001, 0.999), n_steps=st.integers(1, 30), seed=st.integers(0, 100))
def test_the_average_of_weights_that_stay_is_the_weights(decay, n_steps, seed):
    torch.manual_seed(seed)
    network = small_network()
    averaged = average_weights(network, decay=decay, device=CPU)

    for _ in range(n_steps):
        averaged.update_parameters(network)

    for name, value in averaged.module.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=30), decay=st.floats(0.01, 0.999))
def test_the_average_by_hand(values, decay):
    network = torch.nn.Linear(1, 1, bias=False).double()
    averaged = average_weights(network, decay=decay, device=CPU)
    expected = values[0]

    for n_steps, value in enumerate(values):
        torch.nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
        share = min(decay, (1 + n_steps) / (10 + n_steps))
        expected = share * expected + (1 - share) * value

    assert averaged.module.weight.item() == pytest.approx(expected, abs=1e-9)


def test_batch_statistics_are_averaged_too():
    network = torch.nn.BatchNorm1d(1)
    averaged = average_weights(network, decay=0.9, device=CPU)

    for mean in (1.0, 2.0):
        network.running_mean.fill_(mean)
        averaged.update_parameters(network)

    assert averaged.module.running_mean.item() == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)


def test_a_trainer_takes_every_step_into_the_average():
    network = small_network()
    averaged, by_hand = (average_weights(network, decay=0.5, device=CPU) for _ in range(2))
    trainer = trainer_of(network, AverageHandler(averaged=averaged, network=network))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: by_hand.update_parameters(network))

    trainer.run()

    assert averaged.n_averaged == 5
    for one, other in zip(averaged.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad or one.grad is None  # nothing flows back through the average


@pytest.mark.parametrize("decay", [0, 1, -0.5, 2])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(InputError, match=f"ema_decay is {decay}"):
        average_weights(small_network(), decay=decay, device=CPU)


# In a training


def states(run, name="models/checkpoint.pth"):
    return torch.load(run / name, weights_only=True)


def average_in(checkpoint):
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in checkpoint["averaged"].items() if prefix in name}


def test_without_validation_the_last_average_is_saved(tmp_path, train_quickly):
    run = tmp_path / "run"

    done = train_quickly(run, "--epochs", 1, ema_decay=0.9, slabs_per_epoch=6, fold=None)

    assert done.exit_code == 0, done.output
    saved, checkpoint = states(run, "models/model.pt"), states(run)
    average = average_in(checkpoint)
    assert saved.keys() == average.keys() == checkpoint["network"].keys()
    assert all(torch.equal(saved[name], average[name]) for name in saved)
    assert any(not torch.equal(saved[name], checkpoint["network"][name]) for name in saved)


@pytest.mark.slow
def test_the_average_is_what_is_validated(tmp_path, train_quickly, phantom_dataset):
    """The score that stands beside the saved weights is the one that they have, and not that of the last step."""
    run = tmp_path / "run"
    done = train_quickly(run, "--epochs", 2, ema_decay=0.9)
    assert done.exit_code == 0, done.output

    configs = [str(run / "configs" / f"{name}.json") for name in ("train", "evaluate")]
    again = ConfigWorkflow(config_file=configs, workflow_type="train", bundle_root=str(run), output_dir=str(tmp_path))
    again.initialize()
    again.run()

    facts = json.loads((run / "models" / "model.json").read_text())
    evaluator = again.parser.get_parsed_content("validate#evaluator")
    assert facts["val_mean_dice"] > 0.05
    assert evaluator.state.metrics["val_mean_dice"] == pytest.approx(facts["val_mean_dice"], abs=1e-6)


# Gradients


def gradient_of(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(("max_norm", "is_clipped"), [(0.01, True), (1e6, False)])
def test_gradients_above_the_norm_are_scaled_down_and_others_left_alone(max_norm, is_clipped):
    gradients = []
    for handlers in ([], [ClipGradients(max_norm=max_norm)]):
        network = small_network()
        torch.manual_seed(1)
        trainer = trainer_of(network, *handlers, lr=0.0)
        trainer.run()
        gradients.append(gradient_of(network))

    free, clipped = gradients
    if is_clipped:
        assert clipped.norm().item() == pytest.approx(max_norm, rel=1e-3)
        torch.testing.assert_close(clipped / clipped.norm(), free / free.norm())
    else:
        assert torch.equal(free, clipped)


def test_the_factor_of_mixed_precision_is_taken_out_before():
    network = small_network()
    trainer = trainer_of(network)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = 0.001 * network(torch.randn(8, 3)).square().mean()
    trainer.scaler.scale(loss).backward()
    scaled = gradient_of(network)

    ClipGradients(max_norm=1.0)(trainer)

    torch.testing.assert_close(gradient_of(network), scaled / 1024)


def test_a_norm_that_is_none_is_refused():
    with pytest.raises(InputError, match="max_grad_norm is 0"):
        ClipGradients(max_norm=0)
