"""Results that name nobody, and the key to them, which stays with whoever may know."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from filelock import FileLock

from liver_monai.data.cases import Case, natural
from liver_monai.errors import InputError
from liver_monai.io.tables import read_table, write_rows

ANONYMOUS = re.compile(r"case-[0-9]{4,}")
COLUMNS = ("case_id", "name", "file", "error")


class Key:
    """The table that tells whose results are: what a case is called in them, by its name, its file, what went wrong.

    It is readable by its owner alone, and one command at a time writes to it. The same name is the same case whenever
    the key is used again.

    Args:
        path: CSV of ``COLUMNS``; begun where there is none.

    Raises:
        InputError: a file that is no key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._errors = {row["case_id"]: row["error"] for row in self._rows().values()}

    def anonymize(self, cases: Sequence[Case]) -> list[Case]:
        """The cases by names of the key; new ones are drawn, so that neither names nor order tell of the old ones."""
        with self._writing() as rows:
            taken = {row["case_id"] for row in rows.values()}
            free = (name for name in (f"case-{n:04d}" for n in count(1)) if name not in taken)
            new = [case for case in cases if case.case_id not in rows]
            for case in random.SystemRandom().sample(new, k=len(new)):
                rows[case.case_id] = dict.fromkeys(COLUMNS, "") | {"case_id": next(free), "name": case.case_id}
            for case in cases:
                rows[case.case_id]["file"] = str(case.image)
        named = [_renamed(case, rows[case.case_id]["case_id"]) for case in cases]
        return sorted(named, key=lambda case: natural(case.case_id))

    def note_error(self, case_id: str, error: str) -> None:
        """Keep what went wrong with a case, by its name in the key; an empty text once it went well."""
        if self._errors.get(case_id, "") == error:  # as it mostly is: the table is not read for every case
            return
        with self._writing() as rows:
            next(row for row in rows.values() if row["case_id"] == case_id)["error"] = error
        self._errors[case_id] = error

    @contextmanager
    def _writing(self) -> Iterator[dict[str, dict[str, str]]]:
        """Its rows by name, written as they are left; no other command comes between."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock"), mode=0o600):
            rows = self._rows()
            yield rows
            write_rows(self.path, rows.values(), columns=COLUMNS, is_private=True)

    def _rows(self) -> dict[str, dict[str, str]]:
        if not self.path.exists():
            return {}
        rows = read_table(self.path, columns=COLUMNS)
        _require_key(rows, self.path)
        return {row["name"]: row for row in rows}


def _renamed(case: Case, name: str) -> Case:
    return replace(case, case_id=name, result_name=name)


def _require_key(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """A row lost or twice the same would give a patient the mask of another."""
    for row in rows:
        if not ANONYMOUS.fullmatch(row["case_id"]):
            raise InputError(f"{path}: calls a case {row['case_id']!r}; a key's are case-0001 and so on")
    for column in ("case_id", "name"):
        for value, n in Counter(row[column] for row in rows).items():
            if n > 1:
                raise InputError(f"{path}: has {column} {value!r} {n} times; bring the key back as it was written")
