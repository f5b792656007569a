"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError, one_line


class Pace:
    """Keeps what grows with the number of cases to a share of the time, though it is wanted after each of them.

    Args:
        rest: how long it is not due after it was done, as a multiple of what it took.
    """

    def __init__(self, *, rest: float) -> None:
        self.rest = rest
        self.due_s = 0.0

    def is_due(self) -> bool:
        """Whether it may be done again; the first time it always may."""
        return time.monotonic() >= self.due_s

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around what is done."""
        started_s = time.monotonic()
        yield
        ended_s = time.monotonic()
        self.due_s = ended_s + self.rest * (ended_s - started_s)


@lru_cache(maxsize=100)
def _pace_of_looking(folder: Path) -> Pace:
    """To look through a folder of 100,000 files takes half a second, which each of them would pay."""
    return Pace(rest=100)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes ``path``'s place only when the block succeeds.

    The temporary name keeps the suffix, because writers such as nibabel choose the format by it. What processes that
    were killed while they wrote the same file have left is removed, where the folder is not so large, and was looked
    through so shortly before, that this would take a hundredth of the time or more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pace = _pace_of_looking(path.parent)
    if pace.is_due():
        with pace.taken():
            for left in _left_by_the_dead(path):
                left.unlink(missing_ok=True)
    temporary = path.with_name(f".{platform.node()}.{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk names no file, and the hidden one says nothing
            error.filename = str(path)
        raise
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
    return parse_json(path.read_bytes(), source=path)


def parse_json(text: str | bytes, *, source: Path) -> Any:
    """The content of JSON from somewhere in a file; raises as ``read_json``."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a number of too many digits
        raise InputError(f"{source}: is not JSON ({one_line(error)})") from error


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
