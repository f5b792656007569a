"""``import torchvision`` works after ``import liver_monai``, whichever torch it stands beside, and is else left alone.

Each test is a fresh interpreter, because what matters is the order of imports.
"""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import liver_monai

PACKAGE_ROOT = Path(liver_monai.__file__).parents[1]

ASSERT_GUARD_MATCHES_MACHINE = """
import torch, torchvision
from liver_monai import _torchvision
from importlib.machinery import SourceFileLoader

assert isinstance(torchvision.__spec__.loader, SourceFileLoader), torchvision.__spec__.loader
assert torchvision.__loader__ is torchvision.__spec__.loader
assert not any(isinstance(finder, _torchvision._TorchvisionFinder) for finder in sys.meta_path)

boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0])
if torchvision.extension._has_ops():
    assert _torchvision._libraries == []
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [0]
else:
    assert len(_torchvision._libraries) == 1
    try:
        torchvision.ops.nms(boxes, scores, 0.5)
    except RuntimeError as error:
        assert "Couldn't load custom C++ ops" in str(error), error
    else:
        raise AssertionError("nms has no implementation here and must say so")
"""


def run_python(script: str, *path: Path) -> None:
    python_path = os.pathsep.join(str(entry) for entry in (*path, PACKAGE_ROOT))
    result = subprocess.run(
        [sys.executable, "-c", "import sys\n" + dedent(script)],
        env={**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def write_fake_torchvision(folder: Path, source: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(dedent(source))
    (package / "extension.py").write_text("")
    return folder


def test_importing_the_package_imports_neither_torch_nor_torchvision() -> None:
    run_python("""
        import liver_monai
        assert "torch" not in sys.modules and "torchvision" not in sys.modules
        liver_monai._torchvision.install()
        finders = [type(finder).__name__ for finder in sys.meta_path]
        assert finders.count("_TorchvisionFinder") == 1, finders
    """)


def test_guard_works_after_an_earlier_attempt_and_after_monai() -> None:
    early_attempt = """
try:
    import torchvision
except RuntimeError as error:
    assert "does not exist" in str(error), error
import monai.networks.nets
import liver_monai
import segmentation_models_pytorch
"""
    run_python(early_attempt + ASSERT_GUARD_MATCHES_MACHINE)


def test_networks_compile_and_export_behind_the_guard() -> None:
    script = """
import importlib.util
import liver_monai
assert importlib.util.find_spec("torchvision").origin.endswith("__init__.py")  # asking is not using
import segmentation_models_pytorch as smp
import torch

network = smp.Unet("mobilenet_v2", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8)).eval()
image = torch.rand(1, 3, 32, 32)
with torch.no_grad():
    expected = network(image)
    exported = torch.export.export(network, (image,)).module()(image)
    compiled = torch.compile(network, backend="aot_eager")(image)
torch.testing.assert_close(exported, expected)
torch.testing.assert_close(compiled, expected)
"""
    run_python(script + ASSERT_GUARD_MATCHES_MACHINE)


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path) -> None:
    source = """
        from torchvision import extension
        loader_during_import = __spec__.loader
        executions = globals().get("executions", 0) + 1
    """
    run_python(
        """
        import liver_monai
        import torchvision
        from importlib.machinery import SourceFileLoader
        from liver_monai import _torchvision

        assert torchvision.executions == 1
        assert torchvision.loader_during_import is torchvision.__spec__.loader is torchvision.__loader__
        assert type(torchvision.__spec__.loader) is SourceFileLoader
        assert not any(isinstance(finder, _torchvision._TorchvisionFinder) for finder in sys.meta_path)
        assert _torchvision._libraries == [] and "torch" not in sys.modules
        _torchvision.install()
        assert not any(isinstance(finder, _torchvision._TorchvisionFinder) for finder in sys.meta_path)
        """,
        write_fake_torchvision(tmp_path, source),
    )


def test_other_failures_propagate_unchanged(tmp_path: Path) -> None:
    source = """
        import sys
        sys.attempts = getattr(sys, "attempts", 0) + 1
        messages = {1: "the disk is full", 2: "operator torchvision::unheard_of does not exist"}
        sys.raised = RuntimeError(messages[sys.attempts])
        raise sys.raised
    """
    run_python(
        """
        import liver_monai
        from liver_monai import _torchvision

        for attempt in (1, 2):
            try:
                import torchvision
            except RuntimeError as error:
                assert error is sys.raised and error.__context__ is None
            else:
                raise AssertionError("the error was swallowed")
            assert sys.attempts == attempt and "torchvision" not in sys.modules
        assert _torchvision._libraries == [] and "torch" not in sys.modules
        """,
        write_fake_torchvision(tmp_path, source),
    )


def test_missing_operators_are_declared_and_stale_submodules_dropped(tmp_path: Path) -> None:
    source = """
        import sys
        from torch import library
        from torchvision import extension
        sys.seen_extensions = [*getattr(sys, "seen_extensions", []), extension]

        @library.register_fake("torchvision::nms")
        def fake_nms(dets, scores, iou_threshold):
            return dets.new_empty(1)

        @library.register_fake("torchvision::qnms")
        def fake_qnms(dets, scores, iou_threshold):
            return dets.new_empty(1)
    """
    run_python(
        """
        import liver_monai
        import gc, torch, torchvision
        from liver_monai import _torchvision

        gc.collect()
        first, second = sys.seen_extensions
        assert first is not second and sys.modules["torchvision.extension"] is second is torchvision.extension
        assert len(_torchvision._libraries) == 1
        assert "iou_threshold" in str(torch.ops.torchvision.nms.default._schema)
        """,
        write_fake_torchvision(tmp_path, source),
    )
