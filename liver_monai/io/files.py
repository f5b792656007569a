"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes ``path``'s place only when the block succeeds.

    The temporary name keeps the suffix, because writers such as nibabel choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def files_hash(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 of files of a folder and their names, as hexadecimal digits."""
    hashes = "".join(f"{name} {file_hash(folder / name)}\n" for name in names)
    return hashlib.sha256(hashes.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits; of a folder, of all files in it."""
    if path.is_dir():
        return files_hash(path, sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
