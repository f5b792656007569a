"""A report as one HTML file: it opens offline, asks nobody for anything, and prints on A4.

Where tables can be sorted or slices looked through, the content security policy names each script by its hash.

Its tables can be written as Markdown, too.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template

from liver_monai.io.files import whole_file

Cell = str | int | float | None

MISSING = "\N{EN DASH}"

_NUMBER = re.compile(
    r"[-+\N{MINUS SIGN}<>≤≥±]?\s*\d[\d.,\s]*(%|of\b.*|[\[(±\N{EN DASH}-].*)?"
)  # 0.95, 12 %, 0.9 [0.8, 1.0], 3 of 4


def structure_word(structure: str) -> str:
    """What people call a structure: ``tumor`` -> ``tumour``."""
    return {"tumor": "tumour", "lesions": "lesion"}.get(structure, structure)


def three_decimals(score: float | None) -> str:
    """A score from 0 to 1 as text."""
    return MISSING if score is None else f"{score:.3f}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names its rows.

    Args:
        rows: one cell a column; ``None`` and NaN are shown as missing, floats with the decimals their column needs.
        note: how the numbers came about, shown below the table.
        links: name of a row -> file beside the page that tells more of it.
        text_columns: those that hold names, even where each looks like a number.
        pictures: name of a row -> small JPEG beside it.

    Raises:
        ValueError: a row has not one cell a column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    text_columns: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table '{self.title}' has {len(self.columns)} columns, but a row is {list(row)}")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot as PNG and the same said in words, for those who cannot see it."""

    title: str
    png: bytes
    alt: str


@dataclass(frozen=True, kw_only=True)
class CasePanel:
    """One case: its contact sheet as PNG, and facts as label -> text such as ``{"liver": "1520 mL"}``.

    ``alt`` says what is to be seen, where that is not axial slices with the outlines of a case.
    """

    case_id: str
    picture_png: bytes
    facts: Mapping[str, str]
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Something said of a case: ``severity`` is ``error``, ``warning`` or ``note``."""

    severity: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """One case of many: a small picture as JPEG, facts as label -> text, and remarks."""

    case_id: str
    picture_jpeg: bytes | None
    facts: Mapping[str, str]
    remarks: Sequence[Remark]


def write_page(
    path: Path,
    *,
    title: str,
    summary: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    figures: Sequence[Figure] = (),
    panels: Sequence[CasePanel] = (),
    rows: Sequence[CaseRow] = (),
    viewer: Mapping[str, Any] | None = None,
    provenance: Mapping[str, str],
) -> None:
    """Write the report to ``path``, whole or not at all.

    Args:
        summary: label and value of the cards at the top.
        panels, rows: cases on large pictures, or on small ones beside what is said of them.
        viewer: slices of the page's one case to look through, from ``report.viewer``.
        provenance: what the report was made from and with: versions, seeds, hashes, configuration.
    """
    html = _template().render(
        title=title,
        summary=summary,
        tables=[_TableView.of(table) for table in tables],
        figures=[(figure, _data_uri(figure.png)) for figure in figures],
        panels=[(panel, _data_uri(panel.picture_png), _panel_alt(panel)) for panel in panels],
        panels_title="Pictures" if viewer else "Worst cases",
        scripts=[_Script.of("sort.js"), *([_Script.of("viewer.js")] if viewer else [])],
        viewer=viewer,
        rows=[(row, None if row.picture_jpeg is None else _data_uri(row.picture_jpeg, "jpeg")) for row in rows],
        provenance=provenance,
    )
    with whole_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def write_markdown(path: Path, *, title: str, paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """Write paragraphs and tables as Markdown, whole or not at all, and return the text."""
    parts = [f"# {title}", *paragraphs, *(_markdown_table(table) for table in tables)]
    text = "\n\n".join(parts) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _markdown_table(table: Table) -> str:
    view = _TableView.of(table)
    heads = [name for name, _ in view.columns]
    rules = ["---:" if is_number else "---" for _, is_number in view.columns]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (heads, rules, *view.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n\n".join(part for part in (f"## {view.title}", "\n".join(lines), view.note) if part)


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("liver_monai.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _data_uri(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def _panel_alt(panel: CasePanel) -> str:
    if panel.alt:
        return panel.alt
    facts = "; ".join(f"{label}: {text}" for label, text in panel.facts.items())
    return f"Axial CT slices of {panel.case_id} with the outlines of liver and tumours. {facts}".strip()


@dataclass(frozen=True, kw_only=True)
class _Script:
    """A script of the package with the hash that permits it."""

    code: str
    sha256: str

    @classmethod
    def of(cls, name: str) -> _Script:
        code = files("liver_monai.report").joinpath(name).read_text(encoding="utf-8")
        digest = hashlib.sha256(code.encode("utf-8")).digest()
        return cls(code=code, sha256=base64.b64encode(digest).decode("ascii"))


@dataclass(frozen=True, kw_only=True)
class _TableView:
    """A table as text: cells formatted, and for each column whether it holds numbers."""

    title: str
    note: str
    columns: list[tuple[str, bool]]
    rows: list[list[str]]
    links: Mapping[str, str]
    pictures: Mapping[str, str]

    @classmethod
    def of(cls, table: Table) -> _TableView:
        columns = [[row[index] for row in table.rows] for index in range(len(table.columns))]
        texts = [_format_column(column) for column in columns]
        is_number = [
            index > 0 and name not in table.text_columns and _holds_numbers(column)
            for index, (name, column) in enumerate(zip(table.columns, columns, strict=True))
        ]
        return cls(
            title=table.title,
            note=table.note,
            columns=list(zip(table.columns, is_number, strict=True)),
            rows=[[column[index] for column in texts] for index in range(len(table.rows))],
            links={row: quote(file) for row, file in table.links.items()},
            pictures={row: _data_uri(jpeg, "jpeg") for row, jpeg in table.pictures.items()},
        )


def _is_missing(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _holds_numbers(column: Sequence[Cell]) -> bool:
    given = [cell for cell in column if cell != "" and not _is_missing(cell)]
    return bool(given) and all(not isinstance(cell, str) or _NUMBER.fullmatch(cell) for cell in given)


def _format_column(column: Sequence[Cell]) -> list[str]:
    """The same number of decimals down a column, as many as its largest number leaves room for."""
    numbers = [abs(cell) for cell in column if isinstance(cell, float) and math.isfinite(cell)]
    largest = max(numbers, default=0.0)
    decimals = 3 if largest < 10 else 2 if largest < 100 else 1
    return [_format_cell(cell, decimals=decimals) for cell in column]


def _format_cell(cell: Cell, *, decimals: int) -> str:
    if _is_missing(cell):
        return MISSING
    if isinstance(cell, float):
        return f"{cell:.{decimals}f}" if math.isfinite(cell) else "∞" if cell > 0 else "\N{MINUS SIGN}∞"
    return str(cell)
