"""What the pages of a prediction and of an evaluation share: pictures of cases, and tables of their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liver_monai.io.volumes import Source
from liver_monai.report.page import Table

MAX_STAMPS = 300
"""15 kB a small picture as it stands in a page: they take less than 5 MB, however many cases there are."""

STAMP_NOTE = "Pictures: the slice with most tumour, or the middle of the liver; blue the liver, orange tumours."


@dataclass(frozen=True, kw_only=True)
class CasePicture:
    """What to draw of one case: its CT, masks by name (``"prediction"``, ``"reference"``), and facts to print.

    ``input_name`` is what the record calls its CT.
    """

    case_id: str
    image: Source
    masks: Mapping[str, Path]
    facts: Mapping[str, str]
    input_name: str = ""


def table_of(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    note: str = "",
    links: Mapping[str, str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Table:
    """Columns that no row fills are left out."""
    filled = {head: key for head, key in columns.items() if any(row.get(key) not in (None, "") for row in rows)}
    return Table(
        title=title,
        columns=list(filled),
        rows=[[row.get(key) for key in filled.values()] for row in rows],
        note=note,
        links=links or {},
        pictures=pictures or {},
    )
