"""A bundle is code: what it may name without being trusted, and that nothing of it runs before that is known."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
import torch

from liver_monai.engine.inference import Choices, load_model
from liver_monai.errors import InputError
from liver_monai.io.files import file_hash, write_json
from liver_monai.model.bundle import copy_bundle, find_bundle, list_bundles, read_config, read_spec
from liver_monai.model.network import build_network
from liver_monai.model.trust import OF_TRAINING, require_trusted
from liver_monai.model.weights import load_initial_weights, load_weights, save_weights
from liver_monai.spec import ModelSpec

UNPICKLES_ITS_OWN = ("cluster.py", "inference.py")
"""Tasks that a command sent to its pool: a scheduler's workers run what they are sent in any case; see SECURITY.md."""
PACKAGE = Path(__file__).resolve().parents[1] / "liver_monai"

HOSTILE_TARGETS = (
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "runpy.run_path",
    "shutil.rmtree",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.ops.load_library",
    "torch.utils.cpp_extension.load",
    "monai.bundle.download",
    "monai.bundle.run",
    "monai.bundle.load",
    "monai.utils.misc.run_cmd",
    "run_cmd",
    "download_url",
    "monai.apps.utils.extractall",
    "load_module",
    "LoadImage",
    "SaveImage",
    "Lambda",
    "PersistentDataset",
    "torch.nn.functional.importlib.import_module",
    "torch.nn.modules.module.functools.partial",
    "torch.nn.Module.apply",
    "torch.nn.init.uniform_",
    "monai.losses.PerceptualLoss",
    "PerceptualLoss",
    "monai.networks.nets.Transchex",
    "segmentation_models_pytorch.from_pretrained",
    "liver_monai.cli.main",
    "liver_monai.model.weights.save_weights",
    "$os.system",
    "@weights",
    "",
    ".",
    "no.such.thing",
    "NoSuchLoss",
    "torch.nn.../etc",
    3,
    None,
    ["os.system"],
)
KNOWN_TARGETS = (
    "torch.nn.Conv2d",
    "torch.optim.SGD",
    "torch.optim.lr_scheduler.StepLR",
    "DiceLoss",
    "monai.losses.DiceLoss",
    "UNet",
    "monai.networks.nets.SegResNet",
    "SlidingWindowInferer",
    "segmentation_models_pytorch.losses.DiceLoss",
    "liver_monai.data.partition.split_named",
    "liver_monai.spec.ModelSpec",
    "SupervisedEvaluator",
    "Novograd",
)
HOSTILE_EXPRESSIONS = (
    "$__import__('os').system('true')",
    "$import os",
    "$from os import system",
    "$open('x', 'w')",
    "$eval('1')",
    "$().__class__.__base__.__subclasses__()",
    "$(lambda: 1)()",
    "$[x for x in ()]",
    "$torch.load('x')",
    "$torch.hub",
    "$monai.bundle.run()",
    "$@network_def.__class__",
    "$@network_def.apply(print)",
    "$@weights.write_text('x')",
    "$@a@b",
    "$'@a'+open('x')+'@b'",
    "$f'{1}'",
    "$2 ** 99999999",
    "$1 << 99999999",
    "$(x := 1)",
    "$torch",
    "$monai",
    "$__local_refs.clear()",
    "$getattr(@spec, 'x')",
    "$type(@spec)",
    "$@##x",
    "$" + "(" * 500 + ")" * 500,
    "$",
    "$ 1 +",
    "$print(1)",
    "$int.__subclasses__",
    "$'{0.x}'.format(@spec)",
    "%/etc/hostname::x",
    "%other.json",
)
KNOWN_EXPRESSIONS = (
    "$@max_epochs // 2 + 1",
    "$@bundle_root + '/other'",
    "$not @resume",
    "$@spec if @fold > 0 else None",
    "$[1, (2, 3)][0]",
    "$@train#handlers[: -2]",
    "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "$max(1, len(@folds))",
    "$@network.parameters()",
    "$round(-0.5 * @learning_rate, 3)",
    "$@device.type == 'cpu' and @minutes is None",
)


@pytest.fixture
def bundle(tmp_path):
    """A copy of a shipped bundle that a stranger may change."""
    copy_bundle(find_bundle("mobilenet"), tmp_path / "bundle", {})
    return tmp_path / "bundle"


def change(bundle, name, **values):
    path = bundle / "configs" / name
    config = read_config(path)
    for config_id, value in values.items():
        config[config_id] = value
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", list_bundles())
def test_shipped_bundles_and_their_copies_are_trusted(name, tmp_path):
    copy_bundle(find_bundle(name), tmp_path / "run", {"learning_rate": 0.1, "fold": None})

    require_trusted(find_bundle(name), (*OF_TRAINING, "evaluate.json"))
    require_trusted(tmp_path / "run")


@pytest.mark.parametrize("target", HOSTILE_TARGETS, ids=str)
def test_targets_that_could_do_more_are_refused_by_file_id_and_value(bundle, target):
    change(bundle, "inference.json", thing=[{"_target_": target}])

    with pytest.raises(InputError, match=r"inference\.json: thing#0#_target_ is .* not on the list .*--trust-bundle"):
        require_trusted(bundle)


@pytest.mark.parametrize("text", HOSTILE_EXPRESSIONS)
def test_expressions_that_could_do_more_are_refused(bundle, text):
    change(bundle, "train.json", thing={"value": text})

    with pytest.raises(InputError, match=r"train\.json: thing#value is "):
        require_trusted(bundle)


@pytest.mark.parametrize(
    "thing",
    [*({"_target_": target} for target in KNOWN_TARGETS), *({"value": text} for text in KNOWN_EXPRESSIONS)],
    ids=str,
)
def test_known_networks_and_arithmetic_of_known_names_are_trusted(bundle, thing):
    change(bundle, "train.json", thing=thing)

    require_trusted(bundle)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("train.json", {"network_def#_target_": "os.system"}),
        ("train.json", {"network_def::_target_": "os.system"}),
        ("train.json", {"+network_def": {"_target_": "os.system"}}),
        ("train.json", {"network_def": {"_target_": "torch.nn.Conv2d", "_mode_": "debug"}}),
        ("train.json", {"imports": ["$import torch", "$import os"]}),
        ("train.json", {"initialize": ["$torch.hub.load('x', 'y')"]}),
        ("train.json", {"_requires_": "$exit()"}),
        ("metadata.json", {"description": "$exit()"}),
    ],
)
def test_every_way_in_is_looked_at(bundle, name, values):
    change(bundle, name, **values)

    with pytest.raises(InputError, match=name):
        require_trusted(bundle)


def test_logging_has_expressions_of_its_own(bundle):
    path = bundle / "configs" / "logging.conf"
    path.write_text(path.read_text(encoding="utf-8").replace("(sys.stderr,)", "(exit(),)"), encoding="utf-8")

    with pytest.raises(InputError, match=r"logging\.conf: is not the file of any shipped bundle"):
        require_trusted(bundle)


@pytest.mark.parametrize("command", ["predict", "train", "fold all", "resume", "verify", "pack", "benchmark"])
def test_no_command_runs_what_a_stranger_put_into_a_bundle(bundle, tmp_path, phantom_dataset, cli, command):
    evil = {"_target_": "pathlib.Path.touch", "self": f"$__import__('pathlib').Path({str(tmp_path / 'ran')!r})"}
    for name in ("inference.json", "train.json"):
        change(bundle, name, network_def=evil)
    data = ("--data", phantom_dataset, "-o", tmp_path / "out")
    arguments = {
        "predict": ("predict", phantom_dataset / "imagesTr", "--bundle", bundle, "-o", tmp_path / "out"),
        "train": ("train", "--bundle", bundle, *data, "--epochs", 1),
        "fold all": ("train", "--bundle", bundle, *data, "--epochs", 1, "--fold", "all"),
        "resume": ("train", "-o", bundle, "--data", phantom_dataset, "--resume"),
        "verify": ("bundle", "verify", bundle),
        "pack": ("bundle", "pack", bundle, "-o", tmp_path / "out.zip", "--torchscript"),
        "benchmark": ("benchmark", "--bundle", bundle, *data, "--epochs", 1),
    }[command]

    done = cli(*arguments)

    assert done.exit_code == 1, done.output
    assert "--trust-bundle" in done.output
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_with_trust_a_bundle_may_name_anything(bundle):
    spec, weights = read_spec(bundle), bundle / "models" / "model.pt"
    save_weights(build_network(spec), weights, spec=spec)
    change(bundle, "inference.json", weights=f"$__import__('os').fspath({str(weights)!r})")

    with pytest.raises(InputError, match="weights is "):
        load_model(bundle)
    assert load_model(bundle, choices=Choices(trust_bundle=True, device="cpu")).spec.encoder == "mobilenet_v2"


class Evil:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_in_weights_are_not_run(bundle, tmp_path):
    evil, spec = tmp_path / "evil.pt", ModelSpec(encoder="resnet18")
    torch.save({"weight": Evil(tmp_path / "ran")}, evil)
    write_json(evil.with_suffix(".json"), {"spec": spec.to_json(), "sha256": file_hash(evil)})
    network = torch.nn.Conv2d(1, 1, 1)

    for load in (load_weights, load_initial_weights):
        with pytest.raises(InputError, match=r"evil\.pt: "):
            load(network, evil, spec=spec)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_unpickled_but_weights():
    """``torch.load`` with ``weights_only``, ``np.load`` without pickles, and no other reader that runs code."""
    calls = [
        (path, node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]
    assert len(calls) > 1000
    for path, node in calls:
        function, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        where = f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        assert function not in ("eval", "exec", "compile", "__import__"), where
        assert function.partition(".")[0] not in ("marshal", "shelve", "subprocess"), where
        assert function != "os.system", where
        if path.name not in UNPICKLES_ITS_OWN:
            assert function.partition(".")[0] != "pickle", where
        if function == "torch.load":
            assert options["weights_only"] == "True", where
        if function == "np.load":
            assert options.get("allow_pickle", "False") == "False", where
