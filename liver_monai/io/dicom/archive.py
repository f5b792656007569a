"""The files of a folder or of a zip, opened one by one; a zip is never unpacked to disk, a tar not read at all."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from liver_monai.errors import InputError, one_line
from liver_monai.io.limits import MAX_MEMBER_BYTES, MAX_ZIP_BYTES

MAGIC = b"DICM"
MAGIC_OFFSET = 128
"""A DICOM file begins with 128 bytes of anything and these four letters (PS3.10, 7.1)."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Read in order alone, so that any slice would cost all before it; who packed a study so may unpack it."""

FIRST_GROUPS = (0x0002, 0x0008)
"""A data set without preamble begins with its meta information or with what identifies it (PS3.6)."""
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""The length of the first has two bytes, that of the others four, after two that are reserved (PS3.5, 7.1.2)."""
HEAD_BYTES = 512
"""Of a file: the preamble with its letters or, where there is none, the first two elements."""

Open = Callable[[str], BinaryIO]

UNPACKABLE = (
    *(zipfile.BadZipFile, RuntimeError, EOFError, OSError, OverflowError, UnicodeDecodeError),
    *(struct.error, zlib.error),
)
"""What zipfile raises, by turns, for what it cannot unpack; RuntimeError for what is encrypted or packed otherwise."""


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[list[str], Open]]:
    """Give the names of the files under a folder, in a zip, or of one file, and what opens one of them.

    Hidden files, and the resource forks that macOS adds to zips, are not among them.
    """
    if is_locked(path):
        raise InputError(f"{path}: its permissions forbid to read this folder; allow it: chmod -R u+rX {path}")
    if path.is_dir():
        files = (file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        yield _visible(files), _in_folder(path)
    elif is_zip(path):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                _require_possible(path, entries)
                yield _visible(entry.filename for entry in entries), _in_zip(archive)
        except UNPACKABLE as error:
            raise InputError(f"{path}: cannot be unpacked ({one_line(error)}); unpack it yourself") from error
    elif path.is_file():
        yield [path.name], _in_folder(path.parent)
    else:
        raise InputError(f"{path}: no such file or folder")


def is_locked(path: Path) -> bool:
    """Whether it is a folder whose permissions forbid to look into it: to search it would find nothing, silently."""
    with suppress(PermissionError):  # of what lies below such a folder, which is told of itself
        return path.is_dir() and not os.access(path, os.R_OK | os.X_OK)
    return False


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, by its name: other formats may hold a zip's signature by chance."""
    return path.suffix.lower() == ".zip" and path.is_file()


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, by its name."""
    return path.name.lower().endswith(TAR_SUFFIXES) and path.is_file()


def is_dicom(file: BinaryIO) -> bool:
    """Whether an open file begins as DICOM does, with or without the preamble; it is left at its beginning."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head[MAGIC_OFFSET:].startswith(MAGIC) or _is_dataset(head)


def _is_dataset(head: bytes) -> bool:
    """Whether two elements of the first groups follow each other in order: old exports have no preamble."""
    try:
        first, end = _element(head, 0)
        second, _ = _element(head, end)
    except struct.error:  # too short, or what would be a length leads out of it
        return False
    return first[0] in FIRST_GROUPS and second[0] in FIRST_GROUPS and first < second


def _element(head: bytes, start: int) -> tuple[tuple[int, int], int]:
    """Tag of a little-endian element, and where it ends; where there is no VR, the length is in its place."""
    group, element = struct.unpack_from("<HH", head, start)
    vr = head[start + 4 : start + 6]
    if vr in SHORT_VRS:
        return (group, element), start + 8 + struct.unpack_from("<H", head, start + 6)[0]
    if vr in LONG_VRS:
        return (group, element), start + 12 + struct.unpack_from("<I", head, start + 8)[0]
    return (group, element), start + 8 + struct.unpack_from("<I", head, start + 4)[0]


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, whatever its name."""
    with path.open("rb") as file:
        return is_dicom(file)


def may_hold_dicom(path: Path) -> bool:
    """Whether a path that is there is a folder or a zip, into which nobody has looked, or a DICOM file."""
    return path.is_dir() or is_zip(path) or (path.is_file() and is_dicom_file(path))


def _visible(names: Iterable[str]) -> list[str]:
    """The hidden part may be a folder; ``__MACOSX`` holds resource forks only."""
    parts = ((name, PurePosixPath(name).parts) for name in names)
    return sorted(name for name, path in parts if "__MACOSX" not in path and not any(p.startswith(".") for p in path))


def _require_possible(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Before any is unpacked; none is unpacked further than to the size that is written here."""
    sizes = [entry.file_size for entry in entries]
    if sum(sizes) > MAX_ZIP_BYTES or max(sizes, default=0) > MAX_MEMBER_BYTES:
        raise InputError(
            f"{path}: would unpack to {sum(sizes)} bytes, {max(sizes)} of them one file; more than {MAX_ZIP_BYTES} and "
            f"{MAX_MEMBER_BYTES} are not read. Unpack it yourself if you know what it is"
        )


def _in_folder(folder: Path) -> Open:
    return lambda name: (folder / name).open("rb")


def _in_zip(archive: zipfile.ZipFile) -> Open:
    def unpacked(name: str) -> BinaryIO:
        entry = archive.getinfo(name)
        with archive.open(entry) as file:
            return io.BytesIO(file.read(entry.file_size))  # without a size, all is unpacked before it is cut

    return unpacked
