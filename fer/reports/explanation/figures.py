"""Figures of an explanation.

They are deletion and insertion curves, and what random weights leave of the maps. Each function takes plain values and
returns a ``matplotlib.figure.Figure``; call them, and save, within ``fer.reports.plotting.style``.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer.metrics.explanation import BLOB, RANDOM, TITLES, Curves, Mean, Randomised
from fer.reports.plotting import PerCent, canvas
from fer.reports.theme import PAPER

BASELINES = {BLOB: ("train", "--"), RANDOM: ("soft", ":")}  # colour and dashes; the method is val's, solid


def curves(found: Sequence[Curves]) -> Figure:
    """Draw the mean probability of the predicted emotion as pixels are deleted, and below as they are inserted."""
    figure, rows = canvas(4.6, 2, sharex=True)
    for axes, name in zip(rows[:, 0], ("deletion", "insertion"), strict=True):
        for one in found:
            colour, dashes = BASELINES.get(one.map, ("val", "-"))
            _band(axes, getattr(one, name), PAPER[colour], dashes, TITLES[one.map])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PerCent())
    rows[0, 0].set_title("Deletion: lower is better")
    rows[1, 0].set_title("Insertion: higher is better")
    rows[1, 0].set_xlabel("share of the pixels, in the map's order")
    rows[1, 0].xaxis.set_major_formatter(PerCent())
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=8)
    return figure


def _band(axes: Axes, means: Sequence[Mean], colour: str, dashes: str, label: str) -> None:
    shares = np.linspace(0, 1, len(means))
    axes.plot(shares, [mean.value for mean in means], color=colour, linestyle=dashes, label=label)
    intervals = [mean.ci95 for mean in means if mean.ci95 is not None]
    if len(intervals) == len(means):
        low, high = zip(*intervals, strict=True)
        axes.fill_between(shares, low, high, color=colour, alpha=0.16, linewidth=0)


def randomised(found: Sequence[Randomised]) -> Figure:
    """Draw the rank correlation of the maps with those of networks with more and more random layers."""
    figure, rows = canvas(2.4)
    axes = rows[0, 0]
    positions = np.arange(len(found) + 1)
    values = [1.0, *(one.correlation.value for one in found)]
    axes.plot(positions, values, color=PAPER["val"], marker="o", markersize=4)
    for position, one in enumerate(found, start=1):
        if one.correlation.ci95 is not None:
            axes.vlines(position, *one.correlation.ci95, color=PAPER["val"], linewidth=1.2)
    axes.axhline(0, color=PAPER["soft"], linewidth=0.8)
    axes.set_xticks(positions, ["none", *(str(one.layers) for one in found)])
    axes.set_ylim(min(-0.2, *values) - 0.05, 1.05)
    axes.set_xlabel(f"random layers, from the last, of {found[0].of}")
    axes.set_ylabel("rank correlation")
    return figure
