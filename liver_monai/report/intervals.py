"""Figures with their intervals as plots: differences of two evaluations, and several methods beside each other.

Every ``draw_*`` returns the bytes of a PNG; every ``*_figure`` the matplotlib figure behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from liver_monai.report.canvas import INK, OVER_GRID, QUIET, calm, figure_png, new_figure

SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Of Okabe and Ito's palette, for series in their order."""


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    """One line of a forest plot: a difference with its interval, ``None`` where it has none, and which side is good."""

    label: str
    unit: str
    difference: float | None
    low: float | None
    high: float | None
    is_larger_better: bool


def draw_forest_plot(rows: Sequence[ForestRow]) -> bytes:
    """Differences with their intervals (PNG); see :func:`forest_figure`."""
    return figure_png(forest_figure(rows))


def forest_figure(rows: Sequence[ForestRow]) -> Figure:
    """A panel a unit; a dot and its interval a row, green where the interval is on the better side, red on the worse.

    Args:
        rows: at least one.
    """
    units = list(dict.fromkeys(row.unit for row in rows))
    groups = [[row for row in rows if row.unit == unit] for unit in units]
    row_inch, gap_inch, label_inch = 0.34, 0.75, 3.2
    height = sum(row_inch * len(group) + gap_inch for group in groups)
    figure = new_figure((9.0, height))
    top = height - 0.1
    for unit, group in zip(units, groups, strict=True):
        inches = row_inch * len(group)
        box = (label_inch / 9.0, (top - inches) / height, 1 - (label_inch + 0.3) / 9.0, inches / height)
        _draw_forest(figure.add_axes(box), group, unit=unit)
        top -= inches + gap_inch
    return figure


def _draw_forest(axes: Axes, rows: Sequence[ForestRow], *, unit: str) -> None:
    for y, row in enumerate(reversed(rows)):
        if row.difference is None:
            axes.text(0, y, "not defined", color=QUIET, ha="center", va="center", bbox=OVER_GRID)
            continue
        colour = _forest_colour(row)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2.0)
        axes.plot([row.difference], [y], marker="s", markersize=6, color=colour)
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"difference, {unit}" if unit else "difference")
    calm(axes, grid_axis="x")


def _forest_colour(row: ForestRow) -> str:
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return QUIET
    return "#009e73" if (row.low > 0) == row.is_larger_better else "#d55e00"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its interval, ``None`` where they are not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class IntervalPanel:
    """One figure of several methods: method -> series -> interval; one series may have the empty name."""

    title: str
    rows: Mapping[str, Mapping[str, Interval]]


def draw_interval_plot(panels: Sequence[IntervalPanel]) -> bytes:
    """Small multiples of figures with their intervals (PNG); see :func:`interval_figure`."""
    return figure_png(interval_figure(panels))


def interval_figure(panels: Sequence[IntervalPanel]) -> Figure:
    """Panels in rows of two, the methods below each other in all of them alike, the values in a column beside them.

    Args:
        panels: at least one, of the same methods and series; figures from 0 to 1.
    """
    methods, series = list(panels[0].rows), list(next(iter(panels[0].rows.values())))
    row_inch, gap_inch, legend_inch = 0.2 + 0.2 * len(series), 0.75, 0.35 if len(series) > 1 else 0.0
    label_inch = 0.2 + 0.085 * max(len(method) for method in methods)
    width, value_inch = 9.0, 0.6
    panel_inch = ((width - label_inch) / 2 - value_inch, row_inch * len(methods))
    height = legend_inch + math.ceil(len(panels) / 2) * (panel_inch[1] + gap_inch)
    figure = new_figure((width, height))
    for index, panel in enumerate(panels):
        line, column = divmod(index, 2)
        left = label_inch + column * (panel_inch[0] + value_inch)
        bottom = height - legend_inch - line * (panel_inch[1] + gap_inch) - 0.35 - panel_inch[1]
        box = (left / width, bottom / height, panel_inch[0] / width, panel_inch[1] / height)
        _draw_intervals(figure.add_axes(box), panel, series=series, has_labels=column == 0)
    if len(series) > 1:
        marks = [Line2D([], [], color=colour, marker="o", linewidth=2.0) for colour in SERIES_COLOURS[: len(series)]]
        place = (label_inch / width, 1.0)
        figure.legend(
            marks,
            series,
            loc="upper left",
            bbox_to_anchor=place,
            borderaxespad=0.2,
            ncols=len(series),
            frameon=False,
            labelcolor=INK,
        )
    return figure


def _draw_intervals(axes: Axes, panel: IntervalPanel, *, series: Sequence[str], has_labels: bool) -> None:
    step = 0.5 / len(series)
    methods = list(panel.rows)[::-1]
    for y, method in enumerate(methods):
        for index, (name, colour) in enumerate(zip(series, SERIES_COLOURS, strict=False)):
            _draw_interval(axes, panel.rows[method][name], y=y + step * ((len(series) - 1) / 2 - index), colour=colour)
    axes.set_yticks(range(len(methods)), methods if has_labels else [""] * len(methods))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(panel.rows) - 0.4))
    axes.set_title(panel.title, loc="left", fontsize=11, color=INK)
    calm(axes, grid_axis="x")


def _draw_interval(axes: Axes, mark: Interval, *, y: float, colour: str) -> None:
    if mark.value is None:
        axes.text(0.5, y, "not defined", color=QUIET, ha="center", va="center", fontsize=9, bbox=OVER_GRID)
        return
    low, high = mark.value if mark.low is None else mark.low, mark.value if mark.high is None else mark.high
    axes.plot([low, high], [y, y], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([mark.value], [y], marker="o", markersize=6, color=colour)
    axes.text(1.04, y, f"{mark.value:.3f}", ha="left", va="center", fontsize=9, color=INK)
