"""Graphs: the same logits as their network, and never those of other weights."""

import pytest
import torch

from liver_monai.engine.runtime import choose_runtime
from liver_monai.errors import InputError
from liver_monai.io.files import file_hash
from liver_monai.model.onnx import MAX_LOGIT_DIFFERENCE, OnnxNetwork, export_onnx, logit_difference
from liver_monai.model.weights import save_weights
from liver_monai.spec import ModelSpec

SPEC = ModelSpec(encoder="mobilenet_v2", slab_size=3)
CPU = torch.device("cpu")


def small_network(*, seed=0):
    """Exported in a second; its logits span about 2 and any two sizes go through it."""
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1)
    )
    return layers.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network, its weights and the graph that ``onnx`` puts beside them."""
    weights = tmp_path_factory.mktemp("models") / "model.pt"
    network = small_network()
    save_weights(network, weights, spec=SPEC)
    graph = choose_runtime(network, weights=weights, slab_size=3, device=CPU, runtime="onnx")
    return network, weights, graph


def choose(network, weights, **options):
    return choose_runtime(network, weights=weights, slab_size=3, device=CPU, **options)


def test_a_graph_has_the_logits_of_its_network(exported):
    network, _, graph = exported
    assert isinstance(graph, OnnxNetwork)
    for shape in ((1, 3, 16, 48), (5, 3, 64, 32)):
        slabs = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(graph(slabs), network(slabs), rtol=0, atol=1e-5)


def test_auto_takes_the_graph_that_is_there(exported):
    network, weights, _ = exported
    assert isinstance(choose(network, weights), OnnxNetwork)
    assert choose(network, weights, runtime="torch") is network


def test_a_graph_is_made_once(exported):
    network, weights, _ = exported
    graph = weights.with_suffix(".onnx")
    before = graph.stat().st_mtime_ns
    choose(network, weights, runtime="onnx")
    assert graph.stat().st_mtime_ns == before


def test_a_graph_of_other_weights_is_not_used(exported, tmp_path):
    _, old, _ = exported
    weights, other = tmp_path / "model.pt", small_network(seed=1)
    save_weights(other, weights, spec=SPEC)
    graph = weights.with_suffix(".onnx")
    graph.write_bytes(old.with_suffix(".onnx").read_bytes())

    assert choose(other, weights) is other
    renewed = choose(other, weights, runtime="onnx")

    assert renewed.weights_sha256 == file_hash(weights)
    assert logit_difference(renewed, other, slab_size=3) < MAX_LOGIT_DIFFERENCE


class Unfaithful(torch.nn.Module):
    """Computes one thing where it is traced and another where it runs."""

    def forward(self, slabs):
        return (3 if torch.compiler.is_compiling() else 2) * slabs


def test_a_graph_that_differs_is_not_kept(tmp_path):
    with pytest.raises(InputError, match="logits differ"):
        export_onnx(Unfaithful().eval(), tmp_path / "model.onnx", slab_size=3, weights_sha256="")
    assert list(tmp_path.iterdir()) == []


def test_onnx_is_refused_on_a_gpu(exported):
    network, weights, _ = exported
    with pytest.raises(InputError, match="--device cpu"):
        choose_runtime(network, weights=weights, slab_size=3, device=torch.device("cuda"), runtime="onnx")


def test_a_damaged_graph_is_named(exported, tmp_path):
    network, old, _ = exported
    weights = tmp_path / "model.pt"
    weights.write_bytes(old.read_bytes())
    weights.with_suffix(".onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"model\.onnx: is no graph"):
        choose(network, weights)
