"""Scores of a data set, and how its cases differ, as plots.

Every ``draw_*`` returns the bytes of a PNG; every ``*_figure`` the matplotlib figure behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from liver_monai.report.canvas import (
    INK,
    LIVER_COLOUR,
    OVER_GRID,
    QUIET,
    RULE,
    TUMOR_COLOUR,
    calm,
    figure_png,
    new_figure,
)

LESION_KINDS = {"IoU above 0.5": "#009e73", "overlap": "#e69f00", "no": "#d55e00", "false positive": "#999999"}
"""How a lesion was found, and its colour of Okabe and Ito's palette."""


def draw_score_plot(cases: Sequence[Mapping[str, Any]]) -> bytes:
    """Every case's Dice of liver and tumour as a dot over a box plot (PNG); see :func:`score_figure`."""
    return figure_png(score_figure(cases))


def score_figure(cases: Sequence[Mapping[str, Any]]) -> Figure:
    """One row for the liver and one for the tumours: a dot a case, quartiles from five cases on, the median labelled.

    Args:
        cases: ``{"liver_dice": ..., "tumor_dice": ...}``; ``None`` or NaN where a score is not defined.
    """
    figure = new_figure((9.0, 2.9))
    axes = figure.add_axes((0.1, 0.2, 0.87, 0.76))
    rows = (("liver", "liver_dice", LIVER_COLOUR, 1.0), ("tumour", "tumor_dice", TUMOR_COLOUR, 0.0))
    for _, key, colour, y in rows:
        _draw_scores(axes, _defined(case.get(key) for case in cases), colour=colour, y=y)
    labels = [f"{name}\nn = {len(_defined(case.get(key) for case in cases))}" for name, key, _, _ in rows]
    axes.set_yticks([y for *_, y in rows], labels)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, 1.6), xlabel="Dice, one dot a case")
    calm(axes, grid_axis="x")
    return figure


def _defined(values: Any) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def _draw_scores(axes: Axes, scores: list[float], *, colour: str, y: float) -> None:
    if not scores:
        axes.text(0.5, y, "not defined in any case", color=QUIET, ha="center", va="center", bbox=OVER_GRID)
        return
    if len(scores) >= 5:  # quartiles of fewer cases say less than the dots do
        line = {"color": QUIET, "linewidth": 1.0}
        axes.boxplot(
            [scores],
            positions=[y],
            widths=0.5,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": INK, "linewidth": 1.6},
        )
    axes.scatter(scores, y + _spread(scores), s=26, color=colour, edgecolors=INK, linewidths=0.5, alpha=0.9, zorder=3)
    median = float(np.median(scores))
    axes.annotate(
        f"median {median:.3f}", (median, y + 0.32), ha="right" if median > 0.5 else "left", va="bottom", color=INK
    )


def _spread(scores: Sequence[float]) -> np.ndarray:
    """Vertical offsets that keep dots of like scores apart: alternating outwards in each bin, the same every time."""
    bin_width, widest, limit = 0.012, 0.06, 0.22
    bins = np.floor(np.asarray(scores) / bin_width).astype(int)
    ranks = np.zeros(len(scores), dtype=int)
    for value in np.unique(bins):
        members = np.flatnonzero(bins == value)
        ranks[members] = np.arange(len(members))
    steps_out = (ranks + 1) // 2
    step = min(widest, limit / max(1, int(steps_out.max())))
    return np.asarray(steps_out * np.where(ranks % 2, step, -step))


def draw_lesion_plot(lesions: Sequence[tuple[float, str, float | None]]) -> bytes:
    """Every lesion's Dice over its size (PNG); see :func:`lesion_figure`."""
    return figure_png(lesion_figure(lesions))


def lesion_figure(lesions: Sequence[tuple[float, str, float | None]]) -> Figure:
    """A dot a lesion: Dice over equivalent diameter; what was not found, or found nothing, stands below the axis.

    Args:
        lesions: equivalent diameter in mm, one of ``LESION_KINDS``, and Dice, ``None`` without a match.
    """
    figure = new_figure((9.0, 3.4))
    axes = figure.add_axes((0.08, 0.17, 0.72, 0.78))
    below = dict(zip(LESION_KINDS, (-0.1, -0.1, -0.2, -0.3), strict=True))
    for kind, colour in LESION_KINDS.items():
        chosen = [(diameter_mm, dice) for diameter_mm, each, dice in lesions if each == kind]
        heights = [below[kind] if dice is None else dice for _, dice in chosen]
        label = f"{kind} ({len(chosen)})" if kind != "no" else f"not found ({len(chosen)})"
        axes.scatter(
            [size for size, _ in chosen], heights, s=26, color=colour, edgecolors=INK, linewidths=0.5, label=label
        )
    axes.set_xscale("log")
    axes.set(ylim=(-0.38, 1.04), xlabel="equivalent diameter (mm)", ylabel="Dice")
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    for bound_mm in (10, 20):
        axes.axvline(bound_mm, color=RULE, linewidth=1.0, zorder=0)
    calm(axes, grid_axis="y")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], labels=["1", "2", "5", "10", "20", "50", "100", "200"])
    axes.set_xticks([], minor=True)
    sizes_mm = [diameter_mm for diameter_mm, _, _ in lesions] or [1.0]
    axes.set_xlim(min(5.0, 0.8 * min(sizes_mm)), max(50.0, 1.25 * max(sizes_mm)))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, labelcolor=INK)
    return figure


def draw_reliability_plot(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """What probabilities say against what is true (PNG); see :func:`reliability_figure`."""
    return figure_png(reliability_figure(curves))


def reliability_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """A panel a structure: share of true voxels over mean probability, a dot a bin, larger where it holds more voxels.

    Args:
        curves: by structure, ``voxels``, ``mean_probability`` and ``true_share`` of each bin, ``None`` where empty.
    """
    figure = new_figure((9.0, 4.0))
    for panel, (name, bins) in enumerate(curves.items()):
        axes = figure.add_axes((0.08 + 0.48 * panel, 0.14, 0.36, 0.76))
        filled = [each for each in bins if each["voxels"]]
        said, true = ([each[key] for each in filled] for key in ("mean_probability", "true_share"))
        sizes = [6 + 4 * math.log10(each["voxels"]) ** 2 for each in filled]
        colour = TUMOR_COLOUR if name == "tumour" else LIVER_COLOUR
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1.2, zorder=1)
        axes.plot(said, true, color=colour, linewidth=1.4)
        axes.scatter(said, true, s=sizes, color=colour, edgecolors=INK, linewidths=0.5, zorder=3, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of true voxels")
        axes.set_title(name, loc="left", fontsize=11, color=INK)
        calm(axes, grid_axis="both")
        axes.tick_params(pad=9)  # the dot at 0 is large
    return figure


def draw_dot_rows(rows: Mapping[str, Sequence[float]]) -> bytes:
    """How values spread, each row on an axis of its own (PNG); see :func:`dot_rows_figure`."""
    return figure_png(dot_rows_figure(rows))


def dot_rows_figure(rows: Mapping[str, Sequence[float]]) -> Figure:
    """A row a quantity, a dot a value, with the smallest, median and largest in words.

    Args:
        rows: label -> at least one value each.
    """
    row_inch, base_inch = 0.62, 0.1
    height = row_inch * len(rows) + base_inch
    figure = new_figure((9.0, height))
    for index, (label, values) in enumerate(rows.items()):
        bottom = height - row_inch * (index + 1) + 0.26
        axes = figure.add_axes((0.24, bottom / height, 0.72, 0.3 / height))
        axes.scatter(values, [0.0] * len(values), s=22, color="#0072b2", alpha=0.35, edgecolors="none")
        axes.plot([float(np.median(values))] * 2, [-1, 1], color=INK, linewidth=1.4)
        axes.set(ylim=(-1, 1), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.tick_params(labelsize=8.5)
        calm(axes, grid_axis="x")
        figure.text(0.22, (bottom + 0.15) / height, label, color=INK, ha="right", va="center", fontsize=10)
    return figure
