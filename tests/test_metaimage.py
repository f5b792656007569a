"""A packed MetaImage that is damaged is no CT: ITK alone prints a line and goes on with what it has."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from refusals import assert_refused

from liver_monai.io.volumes import read_volume

SHAPE = (12, 10, 8)
HU = np.random.default_rng(0).integers(-200, 250, SHAPE).astype(np.int16)
N_BYTES = HU.size * 2


@pytest.fixture(params=["one file", "header and data"])
def header(request, tmp_path):
    """The file that is opened, and that its voxels lie in, from their first byte."""
    path = tmp_path / ("ct.mha" if request.param == "one file" else "ct.mhd")
    sitk.WriteImage(sitk.GetImageFromArray(HU.transpose(2, 1, 0)), str(path), useCompression=True)
    if request.param == "one file":
        return path, path, path.read_bytes().index(b"LOCAL\n") + 6
    return path, path.with_suffix(".zraw"), 0


def test_a_whole_one_is_read(header):
    np.testing.assert_array_equal(read_volume(header[0])[0].numpy(), HU)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_bit_flipped_is_seen(header, at):
    path, data, start = header
    content = bytearray(data.read_bytes())
    content[start + int(at * (len(content) - start))] ^= 0x10
    data.write_bytes(content)

    assert_refused(path, "is damaged")


@pytest.mark.parametrize("n_bytes", [100, N_BYTES - 1, N_BYTES + 1, 5000])
def test_it_holds_as_much_as_it_says(header, n_bytes):
    path, data, start = header
    data.write_bytes(data.read_bytes()[:start] + zlib.compress(bytes(n_bytes)))

    assert_refused(path, rf"is damaged, it holds \d+ bytes of voxels instead of {N_BYTES}")
