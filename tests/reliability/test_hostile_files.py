"""Broken and hostile files: what comes of them is a result or one line, and memory is taken for what is there only."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import config
from pydicom.uid import DeflatedExplicitVRLittleEndian
from refusals import assert_refused
from targets import TARGETS, read_dicom

from liver_monai.errors import InputError
from liver_monai.io.dicom.series import find_dicom_volumes
from liver_monai.io.files import read_json, write_json
from liver_monai.io.limits import MAX_DEFLATED_BYTES, MAX_MEMBER_BYTES
from liver_monai.io.volumes import read_header, read_volume
from liver_monai.model.bundle import read_config

TESTS = Path(__file__).resolve().parents[1]
MOST_MB = 64
"""That a refusal may take: a page of header, and what unpacks it."""


def fuzz(tmp_path, *, n, seed):
    """What ``fuzz.py`` says of each kind; in a process of its own, whose memory is limited."""
    search = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    command = [sys.executable, TESTS / "reliability" / "fuzz.py", "-o", tmp_path / "failures", "-n", n, "--seed", seed]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout)
    assert set(results) == set(TARGETS)
    assert all(result["read"] + result["refused"] == n for result in results.values())
    assert sum(result["refused"] for result in results.values()) > n


def test_a_few_broken_files_of_each_kind_are_read_or_refused(tmp_path):
    fuzz(tmp_path, n=2, seed=1)


@pytest.mark.slow
def test_many_broken_files_of_each_kind_are_read_or_refused(tmp_path):
    fuzz(tmp_path, n=100, seed=2)


def whole(tmp_path, name):
    """The file of a kind that has one."""
    (file,) = TARGETS[name].write(tmp_path)
    return file


def refused_within_bounds(path, rule, *, read=read_volume):
    """Refused, and no memory taken for what is claimed."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rule):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MB * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["nifti", "nifti.gz"])
@pytest.mark.parametrize("shape", [(30000, 30000, 30000), (2000, 2000, 250), (-5, 10, 8)], ids=str)
def test_a_nifti_header_that_lies_takes_no_memory(tmp_path, name, shape):
    path = whole(tmp_path, name)
    content = bytearray(gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes())
    content[42:48] = np.array(shape, dtype="<i2").tobytes()
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    for read in (read_volume, read_header):
        refused_within_bounds(path, r"ct\.nii.*claims", read=read)


def test_what_lies_before_the_voxels_is_not_read_without_end(tmp_path):
    path = whole(tmp_path, "nifti.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[108:112] = np.array([2e9], dtype="<f4").tobytes()
    content[348:360] = np.array([1, 2_000_000_000, 4], dtype="<i4").tobytes()
    path.write_bytes(gzip.compress(bytes(content) + bytes(10**8)))

    refused_within_bounds(path, r"its voxels would begin at byte 2e\+09")


@pytest.mark.parametrize("name", ["nrrd", "nrrd packed", "mha", "mha packed"])
def test_an_nrrd_or_metaimage_header_that_lies_takes_no_memory(tmp_path, name):
    path = whole(tmp_path, name)
    content = path.read_bytes()
    assert b"12 10 8" in content
    for shape in (b"30000 30000 30000", b"2000 2000 200"):
        path.write_bytes(content.replace(b"12 10 8", shape, 1))

        refused_within_bounds(path, r"ct\.(nrrd|mha): .*claims")


def test_a_data_type_that_nifti_does_not_know_is_refused(tmp_path):
    path = whole(tmp_path, "nifti")
    content = bytearray(path.read_bytes())
    content[70:72] = (8194).to_bytes(2, "little")
    path.write_bytes(content)

    refused_within_bounds(path, r"ct\.nii.*data type 8194 is none of NIfTI's")


@pytest.mark.parametrize(
    ("row", "values", "rule"),
    [
        (2, (0, -3.4e38, 3, 0), "does not place voxels"),
        (0, (-2, 0, float("nan"), 0), "does not place voxels"),
        (0, (-2, 300, 0, 0), "does not place voxels"),
        (2, (0, 0, 3, 1e30), "does not place voxels"),
        (2, (0, 0, 600, 0), r"is 4800 mm long by its header, .* up to 4000"),
    ],
    ids=str,
)
def test_an_affine_that_places_nothing_takes_no_memory(tmp_path, row, values, rule):
    path = whole(tmp_path, "nifti")
    content = bytearray(path.read_bytes())
    content[280 + 16 * row : 296 + 16 * row] = np.array(values, dtype="<f4").tobytes()
    path.write_bytes(content)

    for read in (read_volume, read_header):
        refused_within_bounds(path, rf"ct\.nii: .*{rule}", read=read)


@pytest.mark.parametrize("field", [b"space: " + b"[" * 3000, b"a" * 1000, b"foo: k:=" + b"9" * 1000], ids=len)
def test_a_field_that_would_end_the_process_is_refused(tmp_path, field):
    """NrrdIO writes beyond its buffer when it names what it refuses."""
    path = whole(tmp_path, "nrrd")
    path.write_bytes(path.read_bytes().replace(b"\nkinds:", b"\n" + field + b"\nkinds:"))

    refused_within_bounds(path, r"ct\.nrrd: has a line of \d+ bytes in its NRRD header")


@pytest.mark.parametrize("line", [b"Segment0_Extent:=" + b"0 100 " * 1000, b"# " + b"x: " * 3000], ids=len)
def test_what_viewers_note_in_a_header_may_be_long(tmp_path, line):
    path = whole(tmp_path, "nrrd")
    path.write_bytes(path.read_bytes().replace(b"\nkinds:", b"\n" + line + b"\nkinds:"))

    assert read_volume(path).shape == (1, 12, 10, 8)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_packed_metaimage_with_a_bit_flipped_is_no_ct(tmp_path, at):
    """ITK prints a line on standard error and goes on with what it has."""
    path = whole(tmp_path, "mha packed")
    content = bytearray(path.read_bytes())
    start = content.index(b"LOCAL\n") + 6
    content[start + int(at * (len(content) - start))] ^= 0x10
    path.write_bytes(content)

    assert_refused(path, "is damaged, its voxels cannot be unpacked|is damaged, it holds")


def test_the_voxels_of_a_metaimage_lie_in_a_file_that_has_a_name(tmp_path):
    path = whole(tmp_path, "mha packed")
    path.write_bytes(path.read_bytes().replace(b"= LOCAL", b"= a\0b"))

    assert_refused(path, "cannot be unpacked|cannot be read")


@pytest.mark.parametrize("n_bytes", [100, 1919, 1921, 5000])
def test_a_packed_metaimage_holds_as_much_as_it_says(tmp_path, n_bytes):
    path = whole(tmp_path, "mha packed")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"LOCAL\n") + 6] + zlib.compress(bytes(n_bytes)))

    assert_refused(path, r"is damaged, it holds \d+ bytes of voxels instead of 1920")


def test_a_zip_that_would_unpack_to_too_much_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(10**6))
    size, too_much = ((n_bytes).to_bytes(4, "little") for n_bytes in (10**6, MAX_MEMBER_BYTES + 1))
    path.write_bytes(path.read_bytes().replace(size, too_much))

    refused_within_bounds(path, rf"bomb\.zip: would unpack to {MAX_MEMBER_BYTES + 1} bytes", read=find_dicom_volumes)


def test_a_member_that_is_longer_than_it_says_is_not_unpacked_further(tmp_path):
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(10**8))
    path.write_bytes(path.read_bytes().replace((10**8).to_bytes(4, "little"), (1000).to_bytes(4, "little")))

    refused_within_bounds(path, "cannot be unpacked|is named like DICOM", read=find_dicom_volumes)


@pytest.mark.parametrize("prefix", ["../out", "/out", "a/../../out"])
def test_nothing_of_a_zip_is_written(tmp_path, prefix):
    (tmp_path / "room").mkdir()
    path = whole(tmp_path / "room", "dicom zip")
    with zipfile.ZipFile(path) as archive:
        slices = [archive.read(each) for each in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for index, content in enumerate(slices):
            archive.writestr(f"{prefix}{index}.dcm", content)

    with suppress(InputError):  # names with dots are hidden files, like those of macOS
        read_dicom(tmp_path / "room")

    assert sorted(tmp_path.rglob("*")) == [tmp_path / "room", path]


@pytest.mark.parametrize("lie", [("Rows", 65535), ("Columns", 65535), ("Rows", 0), ("BitsAllocated", 64)])
def test_dicom_sizes_that_lie_are_refused_with_the_headers(tmp_path, lie):
    files = TARGETS["dicom folder"].write(tmp_path)
    dataset = pydicom.dcmread(files[0])
    setattr(dataset, *lie)
    dataset.save_as(files[0])

    refused_within_bounds(files[0].parent, "cannot be read", read=find_dicom_volumes)


@pytest.mark.parametrize("value", ["nan", "1e30"])
@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"])
def test_dicom_numbers_that_are_none_are_refused_with_the_headers(tmp_path, keyword, value):
    file = TARGETS["dicom folder"].write(tmp_path)[3]
    dataset = pydicom.dcmread(file)
    n_values = 1 if keyword == "RescaleSlope" else len(dataset[keyword].value)
    with config.disable_value_validation():
        dataset[dataset[keyword].tag] = pydicom.DataElement(dataset[keyword].tag, "LO", "\\".join([value] * n_values))
        dataset.save_as(file)

    refused_within_bounds(file.parent, f"header cannot be read .*{keyword}", read=find_dicom_volumes)


def test_a_deflated_dicom_file_is_not_unpacked_without_end(tmp_path):
    file = TARGETS["dicom folder"].write(tmp_path)[0]
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(file)
    file.write_bytes(file.read_bytes() + bytes(MAX_DEFLATED_BYTES))

    refused_within_bounds(file.parent, "Deflated Explicit VR", read=find_dicom_volumes)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, '{"a": ' + "9" * 10**4 + "}", "\x00", '"'], ids=len)
def test_json_that_nests_or_counts_too_far_is_refused(tmp_path, text):
    (tmp_path / "train.json").write_text(text, encoding="utf-8")

    with pytest.raises(InputError, match=r"train\.json: is not JSON"):
        read_config(tmp_path / "train.json")


# Stores


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("case_id", "../../out", "cannot name a file"),
        ("case_id", "9" * 5000, "cannot name a file"),
        ("case_id", None, "is no index of a store"),
        ("image", 3, "is no index of a store"),
        ("spacing_mm", [0, 1, 1], "is no index of a store"),
    ],
    ids=lambda value: str(value)[:10],
)
def test_a_store_names_no_case_that_lies_outside(tmp_path, key, value, rule):
    TARGETS["store"].write(tmp_path / "room")
    index = tmp_path / "room" / "store" / "store.json"
    content = read_json(index)
    content["cases"][0][key] = value
    write_json(index, content)

    with pytest.raises(InputError, match=rule):
        TARGETS["store"].read(tmp_path / "room")

    assert list(tmp_path.iterdir()) == [tmp_path / "room"]


def test_a_stored_case_is_made_of_its_own_files_alone(tmp_path):
    """What its facts list elsewhere is not looked at: they are as if they were not there."""
    facts = next(file for file in TARGETS["store"].write(tmp_path) if file.name == "case.json")
    content = read_json(facts)
    write_json(facts, {**content, "sizes": {**content["sizes"], "../" * 9 + "etc/passwd": 1, "9" * 5000: 1}})

    TARGETS["store"].read(tmp_path)

    assert read_json(facts) == content


@pytest.mark.parametrize(
    "damage",
    [{"shape": "x"}, {"shape": None}, {"lesions": [3]}, {"class_counts": [[10**30, 0, 0]]}, {"liver_ml": "x"}],
    ids=str,
)
def test_facts_of_a_stored_case_that_are_damaged_are_told(tmp_path, damage):
    facts = next(file for file in TARGETS["store"].write(tmp_path) if file.name == "case.json")
    write_json(facts, {**read_json(facts), **damage})

    with pytest.raises(InputError, match=r"case\.json: is damaged .*prepare the data again"):
        TARGETS["store"].read(tmp_path)


def test_a_unit_and_a_quaternion_that_nobody_knows_are_no_crash(tmp_path, cli):
    path = whole(tmp_path, "nifti")
    content = bytearray(path.read_bytes())
    content[123] = 7
    content[256:268] = np.array([3, 3, 3], dtype="<f4").tobytes()
    path.write_bytes(content)

    done = cli("check", path, "--json")

    (found,) = (each for each in json.loads(done.stdout)["findings"] if each["check"] == "header-unit")
    assert "unknown code 7" in found["message"]
