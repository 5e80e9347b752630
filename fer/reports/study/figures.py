"""The figures of the founding study's replication.

They are its accuracies beside ours, and accuracy by epoch. Each function takes plain values and returns a
``matplotlib.figure.Figure``; call them, and save, within ``fer.reports.plotting.style``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer.reports.plotting import WIDTH, PerCent, canvas
from fer.reports.theme import PAPER

COLOURS = ("val", "train", "test", "good")  # roles in the order of the curves; their colours differ in grey print, too
SHOWN = 0.13  # range of val accuracy below the best that is shown: the first epochs would compress the others


@dataclass(frozen=True)
class Estimate:
    """An accuracy and its 95 % interval, from 0 to 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Band:
    """The curves of one experiment.

    Args:
        label: its name in the legend.
        val: (K, E) val accuracy of K seeds after each of E epochs.
        train: (K, E) train accuracy.
    """

    label: str
    val: Sequence[Sequence[float]]
    train: Sequence[Sequence[float]]


def accuracies(rows: Sequence[tuple[str, float | None, Mapping[str, Estimate]]]) -> Figure:
    """Draw each experiment's accuracy in the study, and as measured here with its interval.

    Args:
        rows: name, the study's accuracy or None, protocol -> accuracy measured here.
    """
    protocols = list(dict.fromkeys(protocol for _, _, ours in rows for protocol in ours))
    figure, axes = canvas(1.05 + 0.52 * len(rows))
    plot = axes[0, 0]
    for index, (_, theirs, ours) in enumerate(rows):
        if theirs is not None:
            label = "the study, val of its 80/20" if index == 0 else None
            plot.plot(
                theirs, index - 0.22, "D", color=PAPER["ground"], markeredgecolor=PAPER["ink"], label=label, zorder=4
            )
        for offset, protocol in enumerate(protocols):
            if protocol in ours:
                _dot(plot, ours[protocol], index + 0.22 * offset, PAPER[COLOURS[offset]])
    for offset, protocol in enumerate(protocols):
        plot.plot([], [], "o", color=PAPER[COLOURS[offset]], label=f"here, val of {protocol}")
    plot.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    plot.set_ylim(len(rows) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)
    plot.xaxis.set_major_formatter(PerCent())
    plot.set_xlabel("val accuracy")
    plot.margins(x=0.06)
    figure.legend(loc="outside upper left", ncols=1 + len(protocols), fontsize=7.5, columnspacing=1.0)
    return figure


def _dot(axes: Axes, estimate: Estimate, height: float, colour: str) -> None:
    axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.4)
    axes.plot(estimate.value, height, "o", color=colour, markersize=5)


def curves(bands: Sequence[Band]) -> Figure:
    """Draw val accuracy by epoch as the mean and range of the seeds, and mean train accuracy below.

    Args:
        bands: curves of at most four experiments.
    """
    figure, axes = canvas(WIDTH * 1.15, 2, sharex=True, height_ratios=(3, 2))
    above, below = axes[:, 0]
    for band, role in zip(bands, COLOURS, strict=False):
        epochs = np.arange(1, len(band.val[0]) + 1)
        val, train = np.asarray(band.val), np.asarray(band.train)
        above.fill_between(epochs, val.min(0), val.max(0), color=PAPER[role], alpha=0.2, linewidth=0)
        above.plot(epochs, val.mean(0), color=PAPER[role], label=band.label)
        below.plot(epochs, train.mean(0), color=PAPER[role])
    best = max(np.max(band.val) for band in bands)
    above.set_ylim(best - SHOWN, best + 0.01)
    for plot, name in ((above, "val accuracy"), (below, "train accuracy")):
        plot.yaxis.set_major_formatter(PerCent())
        plot.set_ylabel(name)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel("epoch")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure
