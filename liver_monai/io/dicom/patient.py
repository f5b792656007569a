"""Which scans are of one patient: a pseudonym of PatientID, which itself is told only to those who ask for it."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset

from liver_monai.errors import InputError, one_line
from liver_monai.io.dicom.archive import is_dicom, open_archive
from liver_monai.io.dicom.frames import DAMAGED

NO_ID = {"anon", "anonymous", "anonymized", "anonymised", "deidentified", "none", "unknown", "removed", "0"}
"""What anonymizers write for everybody: it would make one patient of a whole data set."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who a scan is of; empty where the headers do not say."""

    name: str
    id: str


def read_patient(path: Path, *, file: str = "") -> Patient:
    """What the headers of a scan say of its patient; arguments as for ``patient_pseudonym``.

    Raises:
        InputError: a header that cannot be read.
    """
    try:
        header = _header(path, file)
        parts = str(header.get("PatientName") or "").split("=")[0].split("^")
        return Patient(name=" ".join(part for part in parts if part), id=str(header.get("PatientID") or ""))
    except DAMAGED as error:
        raise InputError(f"{path}: its headers do not tell the patient ({one_line(error)})") from error


def patient_pseudonym(path: Path, *, file: str = "") -> str:
    """``patient-`` and eight hexadecimal digits, equal for equal PatientID; empty where there is none to tell by.

    The digits begin the SHA-256 of the PatientID, without a salt, so that scans that are read apart still belong
    together. Who guesses a PatientID can confirm it by them.

    Args:
        path: a folder, a zip or a file.
        file: in the folder or zip, whose header is read; by default the first that is DICOM.
    """
    try:
        patient_id = _patient_id(path, file).strip()
    except (InputError, *DAMAGED):  # who reads the voxels will say so
        return ""
    if patient_id.lower().replace("-", "") in NO_ID | {""}:
        return ""
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:8]}"


def _patient_id(path: Path, name: str) -> str:
    return str(_header(path, name).get("PatientID") or "")


def _header(path: Path, name: str) -> Dataset:
    """Name and ID of the patient in the file of this name or, without a name, in the first that has an ID."""
    with open_archive(path) as (names, open_file):
        for each in [name] if name else names:
            with open_file(each) as opened:
                if is_dicom(opened):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # of values that break a rule of the standard
                        header = pydicom.dcmread(
                            opened, stop_before_pixels=True, specific_tags=["PatientID", "PatientName"]
                        )
                    if "PatientID" in header:  # not in a DICOMDIR
                        return header
    return Dataset()
