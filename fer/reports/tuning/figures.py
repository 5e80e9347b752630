"""Figures of a search.

They are its history, the importance of each parameter, and the metric by each parameter. Each function takes plain
values and returns a ``matplotlib.figure.Figure``; call them, and save, within ``fer.reports.plotting.style``.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fer.config.settings import mode, worded
from fer.reports.plotting import WIDTH, PerCent, canvas
from fer.reports.theme import PAPER
from fer.runs.trials import Share, Trial, best

MARGIN = 0.12  # margin above and below the complete trials, as a share of their range
BELOW = 0.8  # share of that range by which the axis extends for worse trials; those beyond are drawn at the edge
NARROW = 30  # ratio of the ends of a logarithmic axis below which it has ticks within its decades
CHARACTERS = 13  # in a line of a choice's name on an axis


class Axis(NamedTuple):
    """The axis of a parameter.

    Args:
        choices: values as in overrides; empty for a range of numbers.
        log: whether the range is uniform in the logarithm.
    """

    choices: Sequence[str] = ()
    log: bool = False


def history(trials: Sequence[Trial], monitor: str, *, baseline: bool) -> Figure:
    """Draw the monitored metric of every trial in order of their start, and the best so far.

    Args:
        trials: all trials, at least one of them complete.
        monitor: the metric.
        baseline: whether trial 0 has the configured values.
    """
    figure, rows = canvas(WIDTH * 0.72)
    plot = rows[0, 0]
    low, high = limits(trials, monitor)
    _dots(plot, [(float(trial.number), trial) for trial in trials], monitor, (low, high))
    steps = _best_so_far(trials, monitor)
    plot.step(*zip(*steps, strict=True), where="post", color=PAPER["good"], linewidth=1.2, label="best so far")
    first = trials[0]
    if baseline and first.state == "complete" and first.value is not None:
        plot.plot(0, first.value, "D", color=PAPER["train"], markersize=6, label="configured values", zorder=4)
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        edge = low if mode(monitor) == "max" else high
        plot.plot(failed, [edge] * len(failed), "|", color=PAPER["bad"], markersize=9, clip_on=False, label="failed")
    chosen = best(trials, monitor)
    assert chosen is not None
    plot.set_xlim(-0.6, len(trials) - 0.4)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("trial")
    _upright(plot, monitor, (low, high))
    plot.set_title(f"best: trial {chosen.number}, {worded(monitor, chosen.value or 0.0)}", loc="right",
                   color=PAPER["good"], fontsize=8, fontweight="normal")  # fmt: skip
    figure.legend(loc="outside upper left", ncols=3, fontsize=8, columnspacing=1.2, handletextpad=0.4)
    return figure


def limits(trials: Sequence[Trial], monitor: str) -> tuple[float, float]:
    """Return the ends of the metric's axis, which holds all complete trials and others that are not far worse."""
    complete = [trial.value for trial in trials if trial.state == "complete" and trial.value is not None]
    unfinished = [trial.value for trial in trials if trial.state != "complete" and trial.value is not None]
    worst, top = min(complete), max(complete)
    span = max(top - worst, 0.02 * abs(top), 1e-4)
    low = min([worst, *(max(value, worst - BELOW * span) for value in unfinished)])
    high = max([top, *(min(value, top + BELOW * span) for value in unfinished)])
    return low - MARGIN * span, high + MARGIN * span


def _dots(
    plot: Axes, points: Sequence[tuple[float, Trial]], monitor: str, ends: tuple[float, float], *, legend: bool = True
) -> None:
    """Draw trials at their positions: complete ones, pruned ones at their best; values beyond the axis at its edge."""
    low, high = ends
    complete = [(x, trial.value) for x, trial in points if trial.state == "complete" and trial.value is not None]
    early = [(x, trial.value) for x, trial in points if trial.state != "complete" and trial.value is not None]
    if complete:
        label = "complete" if legend else None
        plot.plot(*zip(*complete, strict=True), "o", color=PAPER["val"], markersize=4.5, label=label, zorder=3)
    inside = [(x, value) for x, value in early if low <= value <= high]
    beyond = [(x, min(max(value, low), high)) for x, value in early if not low <= value <= high]
    if early:
        label = "pruned, at its best so far" if legend else None
        across, upright = [x for x, _ in inside], [value for _, value in inside]
        plot.plot(across, upright, "x", color=PAPER["soft"], markersize=4.5, label=label, zorder=2)
    if beyond:
        marker = "v" if mode(monitor) == "max" else "^"
        plot.plot(*zip(*beyond, strict=True), marker, color=PAPER["soft"], markersize=4.5, clip_on=False, zorder=2)


def _best_so_far(trials: Sequence[Trial], monitor: str) -> list[tuple[float, float]]:
    better = min if mode(monitor) == "min" else max
    steps: list[tuple[float, float]] = []
    for trial in trials:
        if trial.state == "complete" and trial.value is not None:
            steps.append((trial.number, better(trial.value, steps[-1][1]) if steps else trial.value))
    return [*steps, (trials[-1].number + 0.4, steps[-1][1])]


def _upright(plot: Axes, monitor: str, ends: tuple[float, float]) -> None:
    """Set the ends of the vertical axis, and write shares in per cent."""
    low, high = ends
    plot.set_ylim(low, high)
    if mode(monitor) == "max":
        plot.yaxis.set_major_formatter(PerCent())
    plot.set_ylabel(monitor)


def importance(shares: Mapping[str, Share]) -> Figure:
    """Draw the importance of each parameter with its interval, the most important one on top."""
    figure, rows = canvas(0.75 + 0.34 * len(shares))
    plot = rows[0, 0]
    keys = sorted(shares, key=lambda key: -shares[key].value)
    for row, key in enumerate(keys):
        share = shares[key]
        plot.barh(row, share.value, 0.58, color=PAPER["val"])
        plot.plot([share.low, share.high], [row, row], color=PAPER["ink"], linewidth=1)
        for end in (share.low, share.high):
            plot.plot([end, end], [row - 0.12, row + 0.12], color=PAPER["ink"], linewidth=1)
    plot.set_yticks(range(len(keys)), keys)
    plot.set_ylim(len(keys) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)
    plot.set_xlim(0, 1)
    plot.xaxis.set_major_formatter(PerCent())
    plot.set_xlabel("share of the importance")
    return figure


def slices(trials: Sequence[Trial], axes: Mapping[str, Axis], monitor: str) -> Figure:
    """Draw the monitored metric against each parameter, with the best trial marked.

    Args:
        trials: all trials, at least one of them complete.
        axes: key of a parameter -> its axis.
        monitor: the metric.
    """
    down = -(-len(axes) // 2)
    figure = Figure(figsize=(WIDTH, 1.55 * down + 0.35), layout="constrained")
    plots = figure.subplots(down, 2, sharey=True, squeeze=False)
    ends = limits(trials, monitor)
    for number, plot in enumerate(plots.flat):
        if number >= len(axes):
            plot.set_axis_off()
            continue
        key = list(axes)[number]
        _slice(plot, key, axes[key], trials, monitor, ends)
        plot.set_ylabel(monitor if number % 2 == 0 else "")
    return figure


def _slice(plot: Axes, key: str, axis: Axis, trials: Sequence[Trial], monitor: str, ends: tuple[float, float]) -> None:
    points = [(_position(trial.texts[key], axis), trial) for trial in trials if key in trial.texts]
    _upright(plot, monitor, ends)
    _dots(plot, points, monitor, ends, legend=False)
    chosen = best(trials, monitor)
    if chosen is not None and key in chosen.texts:
        position = _position(chosen.texts[key], axis)
        plot.plot(position, chosen.value or 0.0, "o", color=PAPER["good"], markersize=6.5, zorder=4)
    if axis.choices:
        names = ["\n".join(textwrap.wrap(choice, CHARACTERS)) for choice in axis.choices]
        plot.set_xticks(range(len(names)), names)
        plot.set_xlim(-0.5, len(names) - 0.5)
    elif axis.log:
        plot.set_xscale("log")
        values = [position for position, _ in points]
        decades = max(values) > NARROW * min(values)
        plot.xaxis.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5), numticks=5))
        plot.xaxis.set_major_formatter("{x:g}")
        plot.xaxis.set_minor_formatter(NullFormatter())
    else:
        plot.xaxis.set_major_locator(MaxNLocator(4))
    plot.tick_params(labelsize=7.5)
    plot.set_title(key, fontsize=8)


def _position(text: str, axis: Axis) -> float:
    return float(axis.choices.index(text)) if axis.choices else float(text)
