"""Networks as TorchScript: their own logits, to the bit, wherever PyTorch runs, without this package."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from liver_monai.errors import InputError, one_line
from liver_monai.model.recipe import RECIPE_KEY

RECIPE_FILE = f"{RECIPE_KEY}.json"
"""One of the archive's extra files."""


class TorchScriptNetwork:
    """A network from a file, on a device.

    ``torch.jit.load`` runs the operators that the file lists and unpickles tensors and numbers, no Python.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            with _undisturbed():
                self.module = torch.jit.load(path, map_location=device).eval()
        except Exception as error:  # torch raises whatever its parser met
            raise InputError(f"{path}: is no TorchScript that torch can read ({one_line(error)[:200]})") from error

    def __call__(self, slabs: torch.Tensor) -> torch.Tensor:
        """Logits of slabs."""
        logits: torch.Tensor = self.module(slabs)
        return logits


def torchscript(network: torch.nn.Module, *, extra_files: Mapping[str, str] | None = None) -> bytes:
    """A network in eval mode as a TorchScript file, with other files inside."""
    content = io.BytesIO()
    with _undisturbed():
        torch.jit.save(torch.jit.script(network), content, _extra_files=dict(extra_files or {}))
    return content.getvalue()


def torchscript_recipe(path: Path) -> str:
    """The recipe in a TorchScript file, read from the archive before anything of it is loaded; empty without one.

    Raises:
        InputError: no archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith(f"/extra/{RECIPE_FILE}")]
            return archive.read(found[0]).decode() if found else ""
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: is no TorchScript file ({one_line(error)[:200]}); export it anew") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """torch advises to use ``torch.export`` instead, whose files C++ cannot load without compiling them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
