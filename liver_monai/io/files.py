"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError, one_line


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes ``path``'s place only when the block succeeds.

    The temporary name keeps the suffix, because writers such as nibabel choose the format by it. What processes that
    were killed while they wrote the same file have left is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in _left_by_the_dead(path):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{platform.node()}.{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _left_by_the_dead(path: Path) -> list[Path]:
    """Temporary files of ``path`` whose process, on this machine, is no more; of other machines nothing is known."""
    start, end = f".{platform.node()}.", f".{path.name}"
    found = [file for file in path.parent.iterdir() if file.name.startswith(start) and file.name.endswith(end)]
    pids = [file.name[len(start) : -len(end)] for file in found]
    return [file for file, pid in zip(found, pids, strict=True) if pid.isdecimal() and not _is_alive(int(pid))]


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, to ask is to end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: it is not JSON, or nests too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of too many digits
        raise InputError(f"{path}: is not JSON ({one_line(error)})") from error


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
