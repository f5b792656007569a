"""The files of a folder or of a zip, opened one by one; a zip is never unpacked to disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from liver_monai.errors import InputError, one_line

MAGIC = b"DICM"
MAGIC_OFFSET = 128
"""A DICOM file begins with 128 bytes of anything and these four letters (PS3.10, 7.1)."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

Open = Callable[[str], BinaryIO]


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[list[str], Open]]:
    """Give the names of the files under a folder, in a zip, or of one file, and what opens one of them.

    Hidden files, and the resource forks that macOS adds to zips, are not among them.
    """
    if path.is_dir():
        files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        yield _visible(files), _in_folder(path)
    elif is_zip(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = (entry.filename for entry in archive.infolist() if not entry.is_dir())
                yield _visible(names), _in_zip(archive)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, exotic, encrypted
            raise InputError(f"{path}: cannot be unpacked ({one_line(error)}); unpack it yourself") from error
    elif path.is_file():
        yield [path.name], _in_folder(path.parent)
    else:
        raise InputError(f"{path}: no such file or folder")


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, by its name: other formats may hold a zip's signature by chance."""
    return path.suffix.lower() == ".zip" and path.is_file()


def is_dicom(file: BinaryIO) -> bool:
    """Whether an open file begins as DICOM does; it is left at its beginning."""
    is_one = file.read(MAGIC_OFFSET + len(MAGIC))[MAGIC_OFFSET:] == MAGIC
    file.seek(0)
    return is_one


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, whatever its name."""
    with path.open("rb") as file:
        return is_dicom(file)


def _visible(names: Iterator[str]) -> list[str]:
    """The hidden part may be a folder; ``__MACOSX`` holds resource forks only."""
    parts = ((name, PurePosixPath(name).parts) for name in names)
    return sorted(name for name, path in parts if "__MACOSX" not in path and not any(p.startswith(".") for p in path))


def _in_folder(folder: Path) -> Open:
    return lambda name: (folder / name).open("rb")


def _in_zip(archive: zipfile.ZipFile) -> Open:
    return lambda name: io.BytesIO(archive.read(name))
