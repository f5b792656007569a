"""What leaves the machine, and what stands in results: no connection, no name, ID or date of a patient, no folder."""

from __future__ import annotations

import csv
import gzip
import shutil
import socket
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_export import export

from liver_monai.data.phantom import make_phantom
from liver_monai.io.nifti import build_nifti

NAME, ID, BIRTH, STUDY, FOLDER = "Qzxname^Wvkplqzj", "ID-QZX-77123", "19330102", "20190817", "Qzxfolder"
MARKERS = ("Qzxname", "Wvkplqzj", ID, BIRTH, STUDY, FOLDER)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A DICOM series that names its patient, a NIfTI file, a damaged one and a mask, in a folder with a name."""
    folder = tmp_path_factory.mktemp("data") / FOLDER
    phantom = make_phantom(seed=1, shape=(64, 64, 20), orientation="LPS")
    for file in export(folder / "study", np.asarray(phantom.image), phantom.affine).iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.StudyDate = NAME, ID, BIRTH, STUDY
        dataset.save_as(file)
    nib.save(build_nifti(np.asarray(phantom.image), phantom.affine), folder / "ct.nii.gz")
    nib.save(build_nifti(np.asarray(phantom.label), phantom.affine), folder / "mask.nii.gz")
    (folder / "damaged.nii.gz").write_bytes((folder / "ct.nii.gz").read_bytes()[:2000])
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """A socket, once asked for, ends the command: nothing of ours is replaced, only the way out of the process."""

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):  # the test is of what is not called, so it must be seen
        monkeypatch.setattr(socket, name, refuse)


def contents(folder: Path):
    """The bytes of every file below a folder and its name, unpacked where they are packed."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            yield file, file.name.encode() + content
            if content[:2] == b"\x1f\x8b":
                yield file, gzip.decompress(content)
            if content[:4] == b"\x89PNG":
                yield file, b"".join(_texts_of_png(content))


def _texts_of_png(content: bytes):
    place = 8
    while place < len(content):
        size, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        if kind in (b"tEXt", b"iTXt", b"zTXt"):
            text = content[place + 8 : place + 8 + size]
            yield zlib.decompress(text.partition(b"\0")[2][1:]) if kind == b"zTXt" else text
        place += size + 12


def assert_discreet(folder):
    assert any(True for _ in contents(folder))
    for file, content in contents(folder):
        for marker in MARKERS:
            assert marker.encode() not in content, f"{file.name} holds {marker}"


def test_a_prediction_opens_no_socket_and_names_nobody(scans, trained_run, tmp_path, cli, no_network):
    inputs = [scans / name for name in ("study", "ct.nii.gz", "damaged.nii.gz")]

    done = cli("predict", *inputs, "--bundle", trained_run, "-o", tmp_path / "out", "--report", "--json", "--entropy")

    assert done.exit_code == 3, done.output
    assert_discreet(tmp_path / "out")
    for marker in MARKERS:
        assert marker not in done.stdout


def test_anonymous_results_name_no_file_either(scans, trained_run, tmp_path, cli, capfd):
    """Those of the series, and of the two files, of which one is damaged; what it says names no part of them."""
    data = tmp_path / "Qzxfolder of data"
    named = {"study": "Qzxname", "ct.nii.gz": "Qzxname-2.nii.gz", "damaged.nii.gz": "Qzxname-3.nii.gz"}
    shutil.copytree(scans, data)
    for old, new in named.items():
        (data / old).rename(data / new)
    key = tmp_path / "key.csv"
    options = ("--bundle", trained_run, "-o", tmp_path / "out", "--anonymous", key, "--report", "--entropy", "--json")

    done = cli("predict", *(data / name for name in named.values()), *options)

    assert done.exit_code == 3, done.output
    assert_discreet(tmp_path / "out")
    for marker in MARKERS:
        assert marker not in done.output + "".join(capfd.readouterr())
    rows = {row["name"]: row for row in csv.DictReader(key.read_text().splitlines())}
    assert rows.keys() == {"Qzxname", "Qzxname-2", "Qzxname-3"}
    assert {row["case_id"] for row in rows.values()} == {"case-0001", "case-0002", "case-0003"}
    assert "Qzxname-3.nii.gz" in rows["Qzxname-3"]["error"]
    masks = {name: tmp_path / "out" / f"{row['case_id']}.nii.gz" for name, row in rows.items()}
    assert {name for name, mask in masks.items() if mask.exists()} == {"Qzxname", "Qzxname-2"}
    expected = nib.load(scans / "ct.nii.gz")
    np.testing.assert_array_equal(nib.load(masks["Qzxname-2"]).affine, expected.affine)


def test_masks_carry_no_text_of_their_cts_header(scans, trained_run, tmp_path, cli):
    image = nib.load(scans / "ct.nii.gz")
    image.header["db_name"], image.header["aux_file"], image.header["descrip"] = NAME, NAME, NAME
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    nib.save(image, tmp_path / "ct.nii.gz")
    assert NAME.encode() in gzip.decompress((tmp_path / "ct.nii.gz").read_bytes())

    done = cli("predict", tmp_path / "ct.nii.gz", "--bundle", trained_run, "-o", tmp_path / "out", "--entropy")

    assert done.exit_code == 0, done.output
    assert_discreet(tmp_path / "out")


def test_evaluation_and_findings_open_no_socket_and_name_nobody(scans, tmp_path, cli, no_network):
    evaluated = cli("evaluate", scans / "mask.nii.gz", scans / "mask.nii.gz", "-o", tmp_path / "evaluation")
    found = cli("report", scans / "mask.nii.gz", "--image", scans / "study", "-o", tmp_path / "findings")

    assert (evaluated.exit_code, found.exit_code) == (0, 0), evaluated.output + found.output
    assert_discreet(tmp_path)


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("bundle", "list"), ("bundle", "verify", "mobilenet")], ids=" ".join
)
def test_commands_without_images_open_no_socket(cli, no_network, arguments):
    assert cli(*arguments).exit_code == 0


@pytest.mark.slow
def test_a_training_opens_no_socket(phantom_dataset, tmp_path, train_quickly, cli, no_network):
    assert cli("check", phantom_dataset, "--jobs", 1).exit_code in (0, 1)
    assert cli("prepare", phantom_dataset, "-o", tmp_path / "store", "--jobs", 1).exit_code == 0

    done = train_quickly(tmp_path / "run", "--epochs", 1, data=tmp_path / "store", slabs_per_epoch=4)

    assert done.exit_code == 0, done.output


def test_a_socket_would_have_been_seen(no_network):
    with pytest.raises(AssertionError, match="a socket was opened"):
        socket.create_connection(("localhost", 1))
