"""What made a result: versions, arguments and inputs, written beside it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from liver_monai._version import __version__
from liver_monai.io.dicom import DicomVolume
from liver_monai.io.files import file_hash, write_json

DEPENDENCIES = ("torch", "monai", "segmentation-models-pytorch", "nibabel", "numpy")


def environment() -> dict[str, str]:
    """Versions of what computes."""
    versions = {name: version(name) for name in DEPENDENCIES}
    return {
        "liver-monai": __version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
    }


def write_record(
    path: Path,
    *,
    inputs: Iterable[Path | DicomVolume],
    names: Mapping[Path | DicomVolume, str] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Write who made a result, when and from what, and return it.

    Args:
        path: a JSON file.
        inputs: files and DICOM volumes whose SHA-256 is kept, by their names: folders are often named after patients.
        names: what inputs are called instead, where their names are nobody's business; then of the
            command its name alone is kept.
        facts: anything else worth knowing, of JSON types.
    """
    record = {
        "command": ["liver-monai", *(_without_folders(argument) for argument in sys.argv[1 : 2 if names else None])],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        **facts,
        "inputs_sha256": _hashes(inputs, names or {}),
    }
    write_json(path, record)
    return record


def _hashes(inputs: Iterable[Path | DicomVolume], names: Mapping[Path | DicomVolume, str]) -> dict[str, str]:
    """SHA-256 by name; of equal names, the second and later ones are numbered."""
    hashes: dict[str, str] = {}
    for each in dict.fromkeys(inputs):
        name, number = names.get(each, Path(str(each)).name), 1
        while (unique := name if number == 1 else f"{name} ({number})") in hashes:
            number += 1
        hashes[unique] = each.sha256() if isinstance(each, DicomVolume) else file_hash(each)
    return hashes


def _without_folders(argument: str) -> str:
    """``"/data/Doe/ct.nii"`` -> ``"ct.nii"``, ``"store_dir=/data/store"`` -> ``"store_dir=store"``."""
    name, equals, value = argument.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if "/" in value or "\\" in value else argument


def provenance(record: Mapping[str, Any]) -> dict[str, str]:
    """A record in words, for a report."""
    facts = {"command": " ".join(record["command"]), "finished": record["finished"], **record["environment"]}
    hashes = {f"SHA-256 of {file}": digest for file, digest in record["inputs_sha256"].items()}
    return {**facts, **hashes}
