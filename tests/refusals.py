"""How a CT that cannot be used is refused."""

from __future__ import annotations

import pytest

from liver_monai.errors import InputError
from liver_monai.io.volumes import read_volume


def assert_refused(path, rule):
    """In one line that names the file."""
    with pytest.raises(InputError, match=rule) as refusal:
        read_volume(path)

    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
