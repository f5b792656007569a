"""Training by the real command on phantoms: a run is a bundle, repeats to the bit, and goes on where it stopped."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric

from liver_monai.engine.checkpoint import Checkpoint
from liver_monai.engine.handlers import WARM_UP, Budget, EarlyStop, History, WeightsSaver
from liver_monai.errors import InputError
from liver_monai.model.network import build_network
from liver_monai.model.weights import load_weights
from liver_monai.spec import ModelSpec

A_FEW_STEPS = {"slabs_per_epoch": 4}
"""On top of the quick training: two steps an epoch, where it does not matter what is learnt."""


def history(run):
    with (run / "models" / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def config(run, name):
    return json.loads((run / "configs" / name).read_text(encoding="utf-8"))


def weights(run):
    return torch.load(run / "models" / "model.pt", weights_only=True)


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def lits_pairs(phantom_dataset, folder, *, n_cases):
    folder.mkdir()
    for number in range(n_cases):
        for kind, name in (("imagesTr", "volume"), ("labelsTr", "segmentation")):
            shutil.copy(phantom_dataset / kind / f"liver_{number:03d}.nii.gz", folder / f"{name}-{number}.nii.gz")
    return folder


# A finished run


def test_a_finished_run_is_a_bundle(trained_run, phantom_dataset):
    train, inference = config(trained_run, "train.json"), config(trained_run, "inference.json")

    assert (trained_run / "configs" / "metadata.json").is_file()
    assert train["max_epochs"] == 2
    assert train["learning_rate"] == 0.004
    assert train["dataset_dir"] == str(phantom_dataset)
    assert train["spec"] == inference["spec"]
    assert inference["spec"]["slab_size"] == 3
    assert inference["spec"]["spacing_mm"] == [5, 5, 10]
    assert inference["dataset_dir"] == ""  # what it was trained on is not what it predicts


def test_its_weights_are_a_bare_state_dict_that_fits_its_own_config(trained_run):
    values = dict(config(trained_run, "inference.json")["spec"])
    values.pop("_target_")
    spec = ModelSpec(**values)
    network = build_network(spec)

    load_weights(network, trained_run / "models" / "model.pt", spec=spec)

    assert_equal_weights(network.state_dict(), weights(trained_run))


def test_beside_the_weights_stands_what_they_are(trained_run):
    facts = json.loads((trained_run / "models" / "model.json").read_text())
    best = max(history(trained_run), key=lambda row: float(row["val_mean_dice"]))

    assert facts["spec"]["slab_size"] == 3
    assert len(facts["sha256"]) == 64
    assert facts["epoch"] == int(best["epoch"])
    assert facts["val_mean_dice"] == pytest.approx(float(best["val_mean_dice"]), abs=1e-5)


def test_history_has_a_row_an_epoch(trained_run):
    rows = history(trained_run)

    assert list(rows[0]) == [
        "epoch",
        "minutes",
        "learning_rate",
        "train_loss",
        "val_mean_dice",
        "val_liver_dice",
        "val_tumor_dice",
    ]
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[0]["minutes"]) <= float(rows[1]["minutes"])
    assert float(rows[-1]["learning_rate"]) == 0
    for row in rows:
        structures = (float(row["val_liver_dice"]) + float(row["val_tumor_dice"])) / 2
        assert float(row["val_mean_dice"]) == pytest.approx(structures, abs=1e-4)


def test_training_reduces_the_loss_and_finds_livers(trained_run):
    first, *_, last = history(trained_run)

    assert float(last["train_loss"]) < 0.9 * float(first["train_loss"])
    assert float(last["val_liver_dice"]) > 0.2


def test_nothing_temporary_is_left(trained_run):
    assert not list(trained_run.rglob(".*"))


# Again and on


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path, train_quickly):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert train_quickly(tmp_path / name, "--epochs", 2, seed=seed, **A_FEW_STEPS).exit_code == 0

    assert_equal_weights(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(*(weights(tmp_path / name)["segmentation_head.0.weight"] for name in "ac"))


def test_resume_goes_on_where_a_training_stopped(tmp_path, cli, train_quickly):
    run = tmp_path / "run"
    stopped = train_quickly(run, "--epochs", 3, "--minutes", 1e-6, **A_FEW_STEPS)
    assert stopped.exit_code == 0
    assert [row["epoch"] for row in history(run)] == ["1"]
    before = torch.load(run / "models" / "checkpoint.pth", weights_only=True)

    resumed = cli("train", "-o", run, "--resume", "--set", "minutes=null")

    assert resumed.exit_code == 0, resumed.output
    assert [row["epoch"] for row in history(run)] == ["1", "2", "3"]
    after = torch.load(run / "models" / "checkpoint.pth", weights_only=True)
    assert (before["trainer"]["epoch"], after["trainer"]["epoch"]) == (1, 3)
    assert after["budget"]["minutes_spent"] > before["budget"]["minutes_spent"]


def test_what_a_resumed_training_can_change_takes_effect(tmp_path, cli, trained_run):
    """Its own settings may be told again; a new data order, length and size of epochs count from here on."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    again = {"learning_rate": 0.004, "fold": 0, "spec#spacing_mm": [5.0, 5.0, 10.0]}
    new = {"slabs_per_epoch": 8, "batch_size": 4, "val_interval": 3, "patience": 9, "seed": 5}

    options = [text for name, value in (again | new).items() for text in ("--set", f"{name}={value}")]
    resumed = cli("train", "-o", run, "--resume", "--bundle", "mobilenet", "--epochs", 4, *options)

    assert resumed.exit_code == 0, resumed.output
    rows = history(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["val_mean_dice"] != "" for row in rows] == [True, True, True, True]  # the last one always
    assert 0 < float(rows[2]["learning_rate"]) < 0.004  # on the schedule of four epochs, at its third
    assert float(rows[3]["learning_rate"]) == 0
    checkpoint = torch.load(run / "models" / "checkpoint.pth", weights_only=True)
    assert checkpoint["trainer"] == {"epoch": 4, "epoch_length": 2, "max_epochs": 4}
    assert {name: config(run, "train.json")[name] for name in new} == new


def test_resuming_a_finished_training_changes_nothing(tmp_path, cli, train_quickly):
    run = tmp_path / "run"
    assert train_quickly(run, "--epochs", 1, **A_FEW_STEPS).exit_code == 0
    rows, was = history(run), weights(run)

    again = cli("train", "-o", run, "--resume")

    assert again.exit_code == 0, again.output
    assert history(run) == rows
    assert_equal_weights(weights(run), was)


def test_a_resumed_training_keeps_better_weights_than_it_finds(tmp_path, cli, trained_run):
    """What is taken up again knows nothing any more, so that the next validation is worse than the best before."""
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    best = weights(run)
    checkpoint = torch.load(run / "models" / "checkpoint.pth", weights_only=True)
    for parameter in ("segmentation_head.0.weight", "segmentation_head.0.bias"):
        checkpoint["network"][parameter].zero_()
    checkpoint["lr_scheduler"]["base_lrs"] = [0.0]  # and learns nothing either
    torch.save(checkpoint, run / "models" / "checkpoint.pth")

    resumed = cli("train", "-o", run, "--resume", "--epochs", 3)

    assert resumed.exit_code == 0, resumed.output
    scores = [float(row["val_mean_dice"]) for row in history(run)]
    assert len(scores) == 3
    assert scores[2] < max(scores)
    assert_equal_weights(weights(run), best)


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path, cli):
    refused = cli("train", "-o", tmp_path / "run", "--resume")

    assert refused.exit_code == 1
    assert "holds no run to resume" in refused.stderr


def test_a_folder_that_holds_a_run_is_left_alone(trained_run, train_quickly):
    before = {file: file.stat().st_mtime_ns for file in trained_run.rglob("*")}

    refused = train_quickly(trained_run, "--epochs", 1)

    assert refused.exit_code == 1
    assert "holds a run already" in refused.stderr
    assert {file: file.stat().st_mtime_ns for file in trained_run.rglob("*")} == before


# Length, and what is held back


def test_minutes_alone_end_a_training(tmp_path, train_quickly):
    done = train_quickly(tmp_path / "run", "--minutes", 0.02, **A_FEW_STEPS)

    assert done.exit_code == 0, done.output
    rows = history(tmp_path / "run")
    assert float(rows[-1]["minutes"]) >= 0.02
    assert all(float(row["minutes"]) < 0.02 for row in rows[:-2])  # the last validation may take it over the end
    assert rows[-1]["val_mean_dice"] != ""


def test_the_last_epoch_is_validated_whatever_the_interval(tmp_path, train_quickly):
    done = train_quickly(tmp_path / "run", "--epochs", 3, val_interval=2, **A_FEW_STEPS)

    assert done.exit_code == 0, done.output
    assert [row["val_mean_dice"] != "" for row in history(tmp_path / "run")] == [False, True, True]


def test_patience_ends_a_training_that_no_longer_improves(tmp_path, train_quickly):
    done = train_quickly(tmp_path / "run", "--epochs", 9, learning_rate=0.0, patience=2, **A_FEW_STEPS)

    assert done.exit_code == 0, done.output
    assert len(history(tmp_path / "run")) < 9


def test_a_single_case_trains_without_validation(tmp_path, phantom_dataset, train_quickly):
    data = lits_pairs(phantom_dataset, tmp_path / "lits", n_cases=1)

    done = train_quickly(tmp_path / "run", "--epochs", 2, data=data, **A_FEW_STEPS)

    assert done.exit_code == 0, done.output
    assert [row["val_mean_dice"] for row in history(tmp_path / "run")] == ["", ""]
    assert json.loads((tmp_path / "run" / "models" / "model.json").read_text())["epoch"] == 2
    checkpoint = torch.load(tmp_path / "run" / "models" / "checkpoint.pth", weights_only=True)
    assert_equal_weights(weights(tmp_path / "run"), checkpoint["network"])


def test_fold_null_trains_on_all_cases(tmp_path, train_quickly):
    done = train_quickly(tmp_path / "run", "--epochs", 1, fold=None, **A_FEW_STEPS)

    assert done.exit_code == 0, done.output
    assert len(json.loads((tmp_path / "run" / "record.json").read_text())["train"]) == 4
    assert history(tmp_path / "run")[0]["val_mean_dice"] == ""


def test_the_case_that_validates_is_the_one_that_the_folds_name(trained_run):
    record = json.loads((trained_run / "record.json").read_text())
    with (trained_run / "store" / "folds.csv").open(newline="", encoding="utf-8") as file:
        folds = {row["case_id"]: row["fold"] for row in csv.DictReader(file)}

    assert len(record["train"]) == 3
    assert {case_id for case_id, fold in folds.items() if fold == "0"} == set(record["validation"])
    assert folds.keys() == {*record["train"], *record["validation"]}


# The budget


@given(
    epochs=st.lists(st.floats(0, 12), min_size=2, max_size=20),
    max_epochs=st.integers(1, 10),
    minutes=st.one_of(st.none(), st.floats(1, 1e6)),
)
def test_progress_and_learning_rate_of_a_budget(epochs, max_epochs, minutes):
    budget = Budget(max_epochs=max_epochs, minutes=minutes)
    progress, factors = [], []
    for budget.epochs_done in sorted(epochs):
        progress.append(budget.progress())
        factors.append((budget.progress(), budget.learning_rate_factor()))

    assert progress == sorted(progress)
    assert progress[0] >= 0
    assert progress[-1] <= 1
    assert all(0 < factor <= 1 for share, factor in factors if share < 0.999)
    assert all(factor == 0 for share, factor in factors if share == 1)
    after_warm_up = [factor for share, factor in factors if share > WARM_UP]
    assert after_warm_up == sorted(after_warm_up, reverse=True)


def test_a_learning_rate_rises_in_the_warm_up_and_is_half_in_the_middle_of_the_rest():
    budget = Budget(max_epochs=100)
    factors = []
    for budget.epochs_done in (0, 1, 2.5, 5, 52.5, 100):
        factors.append(budget.learning_rate_factor())

    assert factors[0] > 0
    assert factors == pytest.approx([0.001 / 0.051, 0.011 / 0.051, 0.026 / 0.051, 1, 0.5, 0])


def test_whichever_is_further_counts():
    budget = Budget(max_epochs=10, minutes=20.0)
    budget.epochs_done = 4
    assert budget.progress() == pytest.approx(0.4, abs=1e-3)

    budget.load_state_dict({"minutes_spent": 15.0})  # as if an earlier process had spent them
    assert budget.progress() == pytest.approx(0.75, abs=1e-3)
    assert budget.state_dict()["minutes_spent"] == pytest.approx(15, abs=0.1)

    budget.load_state_dict({"minutes_spent": 21.0})
    assert budget.is_spent()


# Handlers on engines of MONAI


class ScoreOfWeight(CumulativeIterationMetric):
    """A network's only weight, so that a test decides on the score."""

    def _compute_tensor(self, y_pred, y=None, **kwargs):
        return y_pred.reshape(1, 1)

    def aggregate(self):
        return self.get_buffer().mean()


def engines(scores, handlers_of, *, max_epochs):
    """A trainer that sets the weight to the next score each epoch, and its validator."""
    network = torch.nn.Linear(1, 1, bias=False)
    loader = [{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}]
    metric = IgniteMetricHandler(metric_fn=ScoreOfWeight(), output_transform=from_engine(["pred", "label"]))
    validator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=loader, network=network, key_val_metric={"score": metric}
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=torch.nn.MSELoss(),
    )

    class Validate:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

        def __call__(self, engine):
            with torch.no_grad():
                network.weight.fill_(scores[engine.state.epoch - 1])
            validator.run(engine.state.epoch)

    for handler in (Validate(), *handlers_of(network, trainer, validator)):
        handler.attach(trainer)
    return trainer, validator, network


@pytest.mark.parametrize(
    ("scores", "patience", "last_epoch"),
    [([0.1, 0.2, 0.3, 0.4], 1, 4), ([0.5, 0.4, 0.4, 0.3, 0.2], 3, 4), ([0.1, 0.0, 0.2, 0.0, 0.0, 0.0], 2, 5)],
)
def test_early_stop_counts_the_epochs_since_the_best(scores, patience, last_epoch):
    trainer, _, _ = engines(
        scores, lambda _, __, validator: [EarlyStop(patience=patience, validator=validator)], max_epochs=len(scores)
    )

    trainer.run()

    assert trainer.state.epoch == last_epoch


def test_patience_outlasts_an_interruption(tmp_path, capfd):
    """What MONAI's handler counts begins anew in a resumed training."""

    def handlers(resume):
        def of(network, _, validator):
            checkpoint = Checkpoint(
                path=str(tmp_path / "checkpoint.pth"), objects={"network": network}, validator=validator, resume=resume
            )
            return [EarlyStop(patience=2, validator=validator), checkpoint]

        return of

    before, _, _ = engines([0.5, 0.4], handlers(resume=False), max_epochs=2)
    before.run()

    after, _, _ = engines([0.5, 0.4, 0.3, 0.2, 0.1], handlers(resume=True), max_epochs=5)
    after.run()

    assert after.state.epoch == 3
    assert "EarlyStopping" not in capfd.readouterr().err


@given(warm_up=st.floats(0, 0.99))
def test_the_warm_up_is_as_long_as_it_is_said_to_be(warm_up):
    budget = Budget(max_epochs=1000, warm_up=warm_up)
    factors = []
    for budget.epochs_done in range(1000):
        factors.append(budget.learning_rate_factor())

    assert factors.index(max(factors)) == pytest.approx(1000 * warm_up, abs=1)


@pytest.mark.parametrize("warm_up", [-0.1, 1, 1.5])
def test_a_warm_up_that_leaves_nothing_is_refused(warm_up):
    with pytest.raises(InputError, match=f"warm_up is {warm_up}"):
        Budget(max_epochs=3, warm_up=warm_up)


@pytest.mark.parametrize(("max_epochs", "minutes"), [(0, None), (1.5, None), (3, 0), (3, -1.0)])
def test_a_budget_of_nothing_is_refused(max_epochs, minutes):
    with pytest.raises(InputError, match=f"max_epochs is {max_epochs} and minutes {minutes}"):
        Budget(max_epochs=max_epochs, minutes=minutes)


SPEC = ModelSpec(encoder="stand-in")


def test_the_weights_of_the_best_validation_are_kept(tmp_path):
    trainer, validator, network = engines([0.2, 0.7, 0.4, 0.7], lambda *_: [], max_epochs=4)
    WeightsSaver(network=network, path=str(tmp_path / "model.pt"), spec=SPEC).attach(validator)

    trainer.run()

    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == pytest.approx(0.7)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert (facts["epoch"], facts["score"]) == (2, pytest.approx(0.7))


def test_without_validation_the_last_weights_are_kept(tmp_path):
    def saver(network, *_):
        return [WeightsSaver(network=network, path=str(tmp_path / "model.pt"), spec=SPEC)]

    trainer, _, _ = engines([0.2, 0.7, 0.4], saver, max_epochs=3)

    trainer.run()

    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() == pytest.approx(0.4)
    assert json.loads((tmp_path / "model.json").read_text())["epoch"] == 3


def test_the_mean_loss_of_an_epoch_stands_in_history(tmp_path):
    """The weight is w and the loss (w - 1) squared, of the weight that the epoch before left."""
    path = tmp_path / "history.csv"

    def log(_, trainer, __):
        return [History(path=str(path), budget=Budget(max_epochs=3), optimizer=trainer.optimizer)]

    trainer, _, _ = engines([0.5, 0.0, 0.0], log, max_epochs=3)

    trainer.run()

    with path.open(newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[1:] == pytest.approx([0.25, 1.0])
    assert not math.isnan(losses[0])
    assert [file.name for file in Path(tmp_path).iterdir()] == ["history.csv"]
