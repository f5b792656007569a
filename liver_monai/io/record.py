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


def write_record(path: Path, *, inputs: Iterable[Path | DicomVolume], **facts: Any) -> dict[str, Any]:
    """Write who made a result, when and from what, and return it.

    Args:
        path: a JSON file.
        inputs: files and DICOM volumes whose SHA-256 is kept.
        facts: anything else worth knowing, of JSON types.
    """
    record = {
        "command": ["liver-monai", *sys.argv[1:]],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        **facts,
        "inputs_sha256": {
            str(each): each.sha256() if isinstance(each, DicomVolume) else file_hash(each) for each in inputs
        },
    }
    write_json(path, record)
    return record


def provenance(record: Mapping[str, Any]) -> dict[str, str]:
    """A record in words, for a report."""
    facts = {"command": " ".join(record["command"]), "finished": record["finished"], **record["environment"]}
    hashes = {f"SHA-256 of {Path(file).name}": digest for file, digest in record["inputs_sha256"].items()}
    return {**facts, **hashes}
