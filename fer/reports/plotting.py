"""Matplotlib's side: figures without pyplot's global state, in the theme, saved as PNG and SVG or shown in a page.

A figure is at most a text column wide (4.6 inches, 9 points), so that it serves a paper, half a screen and a phone.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer.reports.theme import PAPER, themed
from fer.system.files import written_whole

WIDTH = 4.6  # inches
DPI = 200  # of PNG files: 920 pixels
STYLE: Any = {  # matplotlib's own type for it lists every key there is
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": PAPER["soft"],
    "axes.labelcolor": PAPER["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[PAPER["val"], PAPER["train"]]),
    "axes.axisbelow": True,
    "grid.color": PAPER["rule"],
    "grid.linewidth": 0.6,
    "text.color": PAPER["ink"],
    "axes.titlecolor": PAPER["ink"],
    "xtick.color": PAPER["soft"],
    "ytick.color": PAPER["soft"],
    "xtick.labelcolor": PAPER["ink"],
    "ytick.labelcolor": PAPER["ink"],
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.facecolor": PAPER["ground"],
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER["ground"],
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and edited
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save within this block in the theme."""
    with matplotlib.rc_context(STYLE):
        yield


def canvas(height: float, rows: int = 1, **options: Any) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of the common width with its axes, (rows, 1); call within ``style``.

    Args:
        height: inches.
        rows: axes above each other.
        options: as of ``matplotlib.figure.Figure.subplots``.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False, **options)


def bare(axes: Axes) -> Axes:
    """Take grid, frame and ticks from axes that hold pictures or cells, and return them."""
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return axes


def svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG; ``name`` keeps its inner ids apart from those of other figures on a page."""
    stream = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write ``<name>.png`` and ``<name>.svg`` to ``folder``, and return the SVG.

    Raises:
        OSError: the folder may not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = svg(figure, name)
    with written_whole(folder / f"{name}.svg") as text:
        text.write(drawn)
    with style(), written_whole(folder / f"{name}.png", binary=True) as picture:
        figure.set_layout_engine(None)  # it is laid out by now; again would take as long as drawing
        kept: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        figure.savefig(picture, format="png", dpi=DPI, **kept)
    return drawn


def inline(drawn: str, label: str) -> str:
    """Return an SVG file's contents for use within a page: themed, as wide as its place, with a label for readers."""
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", body, count=1)
    return themed(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def pixels(figure: Figure, dpi: int = 100) -> NDArray[np.uint8]:
    """Return a figure as a picture, (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with style():
        figure.set_dpi(dpi)
        agg = FigureCanvasAgg(figure)
        agg.draw()  # type: ignore[no-untyped-call]
    return np.asarray(agg.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
