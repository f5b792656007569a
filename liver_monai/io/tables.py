"""CSV tables: what people write by hand comes in, what they read goes out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from liver_monai.errors import InputError
from liver_monai.io.files import whole_file


def read_table(path: Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; a cell that is not there is empty.

    Args:
        path: the file, in UTF-8; the byte-order mark with which Excel begins is passed over.
        columns: must be there; others may be.

    Raises:
        InputError: no such file, not CSV in UTF-8, or a missing column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval="")
            names = reader.fieldnames or ()
            rows = list(reader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not CSV in UTF-8 ({error})") from error
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]}; it must have {', '.join(columns)}")
    return rows


def write_table(path: Path, rows: Iterable[Sequence[Any]], *, columns: Sequence[str], is_private: bool = False) -> None:
    """Write rows below a header, whole or not at all; ``None`` is an empty cell.

    Args:
        is_private: whether its owner alone may read it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    with whole_file(path) as temporary:
        if is_private:
            temporary.touch(mode=0o600)
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")


def write_rows(
    path: Path, rows: Iterable[Mapping[str, Any]], *, columns: Iterable[str] = (), is_private: bool = False
) -> None:
    """Write rows that name their columns, as ``write_table``; a cell that a row lacks is empty.

    Args:
        columns: the first ones, there even without a row.
        is_private: as ``write_table`` takes it.
    """
    rows = list(rows)
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    write_table(path, [[row.get(name) for name in names] for row in rows], columns=names, is_private=is_private)
