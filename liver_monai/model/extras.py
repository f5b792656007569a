"""The one door to libraries that are not always installed."""

from __future__ import annotations

import importlib
from typing import Any

from liver_monai.errors import InputError


def import_extra(name: str, *, extra: str) -> Any:
    """A module that comes with an extra of the package.

    Raises:
        InputError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{extra} needs {name}, which is not installed: pip install 'liver-monai[{extra}]'") from error
