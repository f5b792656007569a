"""Broken files, made from whole ones by a seed: bytes that flip, headers that lie, ends that are missing."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pydicom
from pydicom import config

EXTREMES = (0, 1, -1, 127, 255, 32767, -32768, 65535, 30000, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
FLOATS = (float("nan"), float("inf"), 0.0, -1.0, 1e-30, 1e-4, 250.0, 30000.0, 1e30, 1e38)
VALUES = (
    None,
    True,
    -1,
    0,
    10**6,
    10**30,
    1e308,
    float("nan"),
    "",
    "x" * 300,
    "../x",
    "a\0b",
    "\ud800",
    [],
    {},
    [[]],
    [None],
)
"""Of JSON, where others are expected."""
DICOM_VALUES = (
    "nan",
    "1e999",
    "-1",
    "0",
    "1e30",
    "x" * 70,
    "",
    "a\\b",
    "1\\2\\3\\4\\5\\6\\7",
    "\x1b[2J",
    "../x",
    "99999999999",
)
WORDS = (b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 5000, b"", b"\x00", b"\xff\xfe", b"../../x", b"/etc/x", b"null")
WORDS += (b'"', b"[" * 3000, b'{"a":' * 3000, b"true", b"$exit()", b"%x", b"@x", b"\r\n", b",,,,", b"30000 30000 30000")


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def put_number(data: bytearray, rng: random.Random) -> None:
    """An extreme integer of 16, 32 or 64 bits, in the header above all."""
    n_bytes, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
    place = _place(data, rng) // 2 * 2
    data[place : place + n_bytes] = (rng.choice(EXTREMES) % 2 ** (8 * n_bytes)).to_bytes(n_bytes, order)


def put_float(data: bytearray, rng: random.Random) -> None:
    """Of 32 or 64 bits, where headers have spacings and directions."""
    kind, place = rng.choice(("<f", "<d")), _place(data, rng) // 4 * 4
    value = struct.pack(kind, rng.choice(FLOATS))
    data[place : place + len(value)] = value


def cut_end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def cut_part(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 7, 64, 4096))]


def repeat_part(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    data[place:place] = data[place : place + rng.choice((1, 16, 512))] * rng.choice((1, 3))


def zero_part(data: bytearray, rng: random.Random) -> None:
    place = _place(data, rng)
    n_bytes = min(rng.choice((1, 4, 64, 4096)), len(data) - place)
    data[place : place + n_bytes] = bytes([rng.choice((0, 255))]) * n_bytes


def put_word(data: bytearray, rng: random.Random) -> None:
    """In the place of a number or a word, as text formats have them."""
    found = list(re.finditer(rb"[\w.+-]+", bytes(data[:4096])))
    if found:
        match = rng.choice(found)
        data[match.start() : match.end()] = rng.choice(WORDS)


def append_itself(data: bytearray, _: random.Random) -> None:
    data += data[: 2**20]


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip_bits, put_number, put_float, cut_end, cut_part, repeat_part, zero_part, put_word, append_itself),
)


def mutated(content: bytes, rng: random.Random, *, name: str) -> bytes:
    """One to three mutations of a file's bytes; of a packed file, of what is in it as often as of itself."""
    if name.endswith(".gz") and rng.random() < 0.7:
        return gzip.compress(mutated(gzip.decompress(content), rng, name=""), compresslevel=1)
    if name.endswith((".zip", ".pt")) and rng.random() < 0.7:
        return _with_mutated_member(content, rng)
    if rng.random() < 0.5:
        with suppress(ValueError):
            return _with_another_value(content, rng)
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def _with_another_value(content: bytes, rng: random.Random) -> bytes:
    """A value of JSON or DICOM for another, which leaves the format whole.

    Raises:
        ValueError: it is neither.
    """
    if content[128:132] == b"DICM":
        return _with_another_element(content, rng)
    tree = json.loads(content)
    places = [(tree, key) for tree in _trees(tree) for key in (tree if isinstance(tree, dict) else range(len(tree)))]
    if not places:
        raise ValueError("nothing is in it")
    tree_of_it, key = rng.choice(places)
    if isinstance(tree_of_it, dict) and rng.random() < 0.3:
        del tree_of_it[key]
    else:
        tree_of_it[key] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def _trees(tree: Any) -> list[Any]:
    """Every object and list in a tree of JSON, itself included."""
    if not isinstance(tree, dict | list):
        return []
    return [tree, *(each for value in (tree.values() if isinstance(tree, dict) else tree) for each in _trees(value))]


def _with_another_element(content: bytes, rng: random.Random) -> bytes:
    dataset, target = pydicom.dcmread(io.BytesIO(content)), io.BytesIO()
    elements = [element for element in dataset if element.keyword != "PixelData"]
    element = rng.choice(elements)
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rng.random() < 0.3:
            del dataset[element.tag]
        elif element.VR == "US":
            element.value = rng.choice((0, 1, 7, 64, 4097, 65535))
        else:
            dataset[element.tag] = pydicom.DataElement(element.tag, "LO", rng.choice(DICOM_VALUES))
        dataset.save_as(target, enforce_file_format=False)
    return target.getvalue()


def _with_mutated_member(content: bytes, rng: random.Random) -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    chosen = rng.choice(source.namelist())
    with zipfile.ZipFile(target, "w", source.infolist()[0].compress_type) as archive:
        for name in source.namelist():
            member = source.read(name)
            member = mutated(member, rng, name="") if name == chosen else member
            archive.writestr(rng.choice((name, f"../{name}", f"/{name}")) if name == chosen else name, member)
    return target.getvalue()


def _place(data: bytearray, rng: random.Random) -> int:
    """Mostly in the first bytes, where headers are."""
    return rng.randrange(min(len(data), rng.choice((64, 352, 2048, len(data)))) or 1)
