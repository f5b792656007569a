"""What every picture of a report is drawn with: colours, empty figures, PNG.

Figures are built as objects, so nothing here touches pyplot's global state and several threads may draw at once.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LIVER_COLOUR, TUMOR_COLOUR = "#56b4e9", "#e69f00"
"""Sky blue and orange of Okabe and Ito's palette, told apart in every common form of colour blindness."""
INK, QUIET, RULE = "#1d2329", "#57606a", "#d5dade"
OVER_GRID = {"facecolor": "white", "edgecolor": "none", "pad": 2.0}

DPI = 100
COMPRESSION = 3
"""Of PNG: a CT takes 40 % less time than at the usual 6, and no more bytes."""


def calm(axes: Axes, *, grid_axis: Any) -> None:
    """Take away every line of a plot that says nothing."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=QUIET, length=0)
    axes.xaxis.label.set_color(QUIET)
    axes.grid(axis=grid_axis, color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def new_figure(size_inch: tuple[float, float], *, facecolor: str = "white") -> Figure:
    """An empty figure that any thread may draw on."""
    figure = Figure(figsize=size_inch, dpi=DPI, facecolor=facecolor)
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG; the same picture is the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": COMPRESSION})
    return buffer.getvalue()
