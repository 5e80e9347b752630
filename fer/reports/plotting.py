"""Figures with matplotlib, in one theme and without pyplot's state.

They are saved as PNG and SVG, or put into a page. A figure is drawn once, in the colours of one theme. It is saved as
it is for a paper, and with CSS variables for its colours in a page. It is one text column wide (4.6 inches, 9 points):
two fit side by side on a screen, one fills a phone. ``tests/reports`` checks that no text overlaps or sticks out and
that every colour is in the theme.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter
from numpy.typing import NDArray

from fer.config.errors import visible
from fer.reports.theme import PAPER, themed
from fer.system.files import written_whole

WIDTH = 4.6  # inches
DPI = 200  # of PNG files: 920 pixels
STYLE: Any = {  # matplotlib's type for it would list every key
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same everywhere
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
    """Apply the theme to all drawing and saving within this block."""
    with matplotlib.rc_context(STYLE):
        yield


def canvas(height: float, rows: int = 1, **options: Any) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of the common width with its axes, (rows, 1); call within ``style``.

    Args:
        height: inches.
        rows: axes above each other.
        options: options of ``matplotlib.figure.Figure.subplots``.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False, **options)


class PerCent(Formatter):
    """Writes shares in per cent, with as many decimals as the ticks of the axis need to be exact, at most three."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the text of a share by itself."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return the texts of the ticks of an axis."""
        shares = [100 * float(value) for value in values]
        decimals = next((d for d in range(3) if all(abs(share - round(share, d)) < 1e-6 for share in shares)), 3)
        return [f"{share:.{decimals}f} %" for share in shares]


def bare(axes: Axes) -> Axes:
    """Remove grid, frame and ticks from axes that hold pictures or cells, and return the axes."""
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return axes


def svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG; ``name`` makes its inner ids unique on a page."""
    stream = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return visible(stream.getvalue())  # names from files are texts in it


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write ``<name>.png`` and ``<name>.svg`` to ``folder``, and return the SVG.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = svg(figure, name)
    with written_whole(folder / f"{name}.svg") as text:
        text.write(drawn)
    with style(), written_whole(folder / f"{name}.png", binary=True) as picture:
        figure.set_layout_engine(None)  # the layout is computed already; again would take as long as drawing
        options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
        figure.savefig(picture, format="png", dpi=DPI, **options)
    return drawn


def inline(drawn: str, label: str) -> str:
    """Return an SVG file's contents for a page: in the page's colours, as wide as its container, with a label."""
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", body, count=1)
    return themed(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def pixels(figure: Figure, dpi: int = 100) -> NDArray[np.uint8]:
    """Return a figure as an image, (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with style():
        figure.set_dpi(dpi)
        agg = FigureCanvasAgg(figure)
        agg.draw()  # type: ignore[no-untyped-call]
    return np.asarray(agg.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
