"""Figures that compare runs: curves by epoch, and accuracy against costs.

Each function takes plain values and returns a ``matplotlib.figure.Figure``; call them, and save, within
``fer.reports.plotting.style``. Every line and dot has an id that ends in its configuration's key, so that the page's
script can highlight a configuration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from fer.reports.plotting import WIDTH, PerCent, canvas
from fer.reports.theme import PAPER

COLOURS = ("val", "train", "test", "good", "ink")  # roles of the colours of the best, by rank; all others are grey
GREY = "soft"
SPREAD = 10  # ratio of the largest to the smallest cost above which an axis is logarithmic
LEAST = 0.03  # smallest range of an axis of accuracies
LETTER = 5.2  # points, the width of a digit of a mark
MARK = 8  # points, the height of a mark
ROUND = ((5, 0), (-5, 0), (0, 8), (0, -8), (5, 7), (5, -7), (-5, 7), (-5, -7))  # offsets of a mark from its dot, points


@dataclass(frozen=True)
class Marked:
    """A configuration with its mark and colour.

    Args:
        key: key of the configuration on the page.
        rank: rank of the configuration, from 0.
    """

    key: str
    rank: int

    @property
    def mark(self) -> str:
        """The label of its line or dot: the rank from 1."""
        return str(self.rank + 1)

    @property
    def role(self) -> str:
        """The role of its colour."""
        return role(self.rank)


@dataclass(frozen=True)
class Line(Marked):
    """One configuration's curves.

    Args:
        seeds: the values of each seed by epoch.
    """

    seeds: Sequence[Sequence[float]]

    @property
    def mean(self) -> list[float]:
        """Mean over the seeds of the epochs that all of them have."""
        return [float(np.mean(values)) for values in zip(*self.seeds, strict=False)]


@dataclass(frozen=True)
class Point(Marked):
    """One configuration's cost and accuracy.

    Args:
        cost: of each seed.
        accuracy: of each seed.
    """

    cost: Sequence[float]
    accuracy: Sequence[float]

    @property
    def mean(self) -> tuple[float, float]:
        """Mean cost and accuracy over the seeds."""
        return float(np.mean(self.cost)), float(np.mean(self.accuracy))


def role(rank: int) -> str:
    """Return the role of the colour of the configuration with a rank, from 0."""
    return COLOURS[rank] if rank < len(COLOURS) else GREY


def overlaid(name: str, lines: Sequence[Line], *, shares: bool) -> Figure:
    """Draw curves by epoch: a thin line for each seed, a thick one for their mean, the best in colours with marks.

    Args:
        name: name of the figure, for its ids.
        lines: curves of the configurations, the best first.
        shares: whether the values are shares, written in per cent.
    """
    figure, axes = canvas(WIDTH * 0.78)
    plot = axes[0, 0]
    for line in reversed(lines):
        _draw(plot, line, f"{name}-{line.key}")
    if shares:
        plot.yaxis.set_major_formatter(PerCent())
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("epoch")
    plot.margins(x=0.02)
    _mark_ends(plot, lines[: len(COLOURS)], name)
    return figure


def _draw(plot: Axes, line: Line, key: str) -> None:
    """Draw one configuration's curves."""
    colour = line.role
    for number, seed in enumerate(line.seeds if len(line.seeds) > 1 else ()):
        (thin,) = plot.plot(range(1, len(seed) + 1), seed, color=PAPER[colour], linewidth=0.5, alpha=0.55)
        thin.set_gid(f"seed{number}-{colour}-{key}")
    width, alpha = (0.9, 0.6) if colour == GREY else (1.7, 1.0)
    dot = "o" if len(line.mean) <= 3 else ""  # so few epochs make no visible line
    epochs = range(1, len(line.mean) + 1)
    (drawn,) = plot.plot(epochs, line.mean, color=PAPER[colour], linewidth=width, alpha=alpha, marker=dot, markersize=3)
    drawn.set_gid(f"mean-{colour}-{key}")


def _widen(plot: Axes) -> None:
    """Widen the vertical axis to ``LEAST``, so that chance differences do not look large."""
    low, high = plot.get_ylim()
    more = max(0.0, LEAST - (high - low)) / 2
    plot.set_ylim(low - more, high + more)


def _mark_ends(plot: Axes, lines: Sequence[Line], name: str) -> None:
    """Write each line's mark at the right of the axes, as close to the height of its end as the other marks allow."""
    low, high = plot.get_ylim()
    distance = 0.055 * (high - low)
    ends = sorted((line.mean[-1], number) for number, line in enumerate(lines))
    heights = list(_apart([end for end, _ in ends], distance))
    for (_, number), height in zip(ends, heights, strict=True):
        line = lines[number]
        text = plot.annotate(line.mark, (1, height), xycoords=("axes fraction", "data"), xytext=(3, 0),
                             textcoords="offset points", va="center", fontsize=8, fontweight="bold",
                             color=PAPER[line.role])  # fmt: skip
        text.set_gid(f"end-{line.role}-{name}-{line.key}")


def _apart(values: Sequence[float], distance: float) -> Iterator[float]:
    """Yield rising values moved so that neighbours are at least ``distance`` apart; the middle of a cluster is kept."""
    clusters: list[tuple[float, int]] = []  # the middle and the size of each
    for value in values:
        clusters.append((value, 1))
        while len(clusters) > 1:
            (below, few), (above, more) = clusters[-2:]
            if above - below >= distance * (few + more) / 2:
                break
            clusters[-2:] = [((below * few + above * more) / (few + more), few + more)]
    for middle, count in clusters:
        yield from (middle + distance * (number - (count - 1) / 2) for number in range(count))


def accuracy_by_cost(name: str, points: Sequence[Point], label: str) -> Figure:
    """Draw accuracy against a cost: a small dot for each seed, a large marked one for each configuration's mean.

    Args:
        name: name of the figure, for its ids.
        points: costs and accuracies of the configurations, the best first.
        label: label of the cost's axis.
    """
    figure, axes = canvas(WIDTH * 0.66)
    plot = axes[0, 0]
    for point in reversed(points):
        colour = PAPER[point.role]
        if len(point.cost) > 1:
            (dots,) = plot.plot(point.cost, point.accuracy, "o", color=colour, markersize=2, alpha=0.6)
            dots.set_gid(f"seeds-{point.role}-{name}-{point.key}")
        (dot,) = plot.plot(*point.mean, "o", color=colour, markersize=5.5, markeredgecolor=PAPER["ground"],
                           markeredgewidth=0.6)  # fmt: skip
        dot.set_gid(f"mean-{point.role}-{name}-{point.key}")
    costs = [cost for point in points for cost in point.cost]
    if min(costs) > 0 and max(costs) / min(costs) > SPREAD:
        plot.set_xscale("log")
        plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        plot.xaxis.set_minor_formatter(NullFormatter())
    else:
        plot.xaxis.set_major_locator(MaxNLocator(5))
    plot.xaxis.set_major_formatter(FuncFormatter(_brief))
    plot.margins(0.08)
    _widen(plot)
    plot.yaxis.set_major_formatter(PerCent())
    plot.set_xlabel(label)
    plot.set_ylabel("val accuracy")
    _mark(figure, plot, points, name)
    return figure


def _brief(value: float, _: int) -> str:
    """Return a number in short form for an axis: 2.5M, 300k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _mark(figure: Figure, plot: Axes, points: Sequence[Point], name: str) -> None:
    """Write each configuration's mark beside its dot, the best first; a mark without room is left out."""
    figure.draw_without_rendering()  # computes the layout
    scale = figure.dpi / 72
    frame = plot.get_window_extent()
    dots = [plot.transData.transform(point.mean) for point in points]
    taken = [_box(x, y, 5.5 * scale, 5.5 * scale) for x, y in dots]
    for point in points:
        taken += [
            _box(x, y, 2 * scale, 2 * scale)
            for x, y in plot.transData.transform([*zip(point.cost, point.accuracy, strict=True)])
        ]
    for point, (x, y) in zip(points, dots, strict=True):
        width, height = LETTER * len(point.mark) * scale, MARK * scale
        for right, up in ROUND:
            side = (right > 0) - (right < 0)
            box = _box(x + right * scale + side * width / 2, y + up * scale, width, height)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(another) for another in taken):
                taken.append(box)
                alignment = {-1: "right", 0: "center", 1: "left"}[side]
                text = plot.annotate(point.mark, point.mean, xytext=(right, up), textcoords="offset points",
                                     ha=alignment, va="center", fontsize=7.5, color=PAPER[point.role])  # fmt: skip
                text.set_gid(f"mark-{point.role}-{name}-{point.key}")
                break


def _box(x: float, y: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
