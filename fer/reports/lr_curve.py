"""The figure of a learning-rate range test: the loss against the learning rate."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from fer.reports.plotting import canvas
from fer.reports.theme import PAPER

ABOVE = 0.5  # margin above the first smoothed loss, as a share of the fall; the loss axis ends there
BELOW = 0.7  # margin below the lowest smoothed loss, as a share of the fall, for the scatter of single batches
ASIDE = 1.3  # factor by which the axis extends beyond a configured rate outside the tested range
DASHES = (0, (4, 3))


def rate_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    configured: float,
) -> Figure:
    """Draw the loss of each step and the smoothed one against the logarithm of the learning rate.

    Args:
        rates: of the N steps, rising.
        losses: of the N batches, finite.
        smoothed: N of them.
        configured: ``optimizer.lr``, marked by a dashed line.
    """
    figure, rows = canvas(3.3)
    axes = rows[0, 0]
    axes.plot(rates, losses, color=PAPER["soft"], linewidth=0.8, alpha=0.7, label="each batch")
    axes.plot(rates, smoothed, color=PAPER["val"], label="smoothed")
    axes.set_xscale("log")
    axes.axvline(configured, color=PAPER["ink"], linewidth=1, linestyle=DASHES, label=f"configured: {configured:.1e}")
    axes.set_xlim(min(rates[0], configured / ASIDE), max(rates[-1], configured * ASIDE))
    axes.set_ylim(*limits(losses, smoothed))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def limits(losses: Sequence[float], smoothed: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the loss axis: they hold the fall of the loss, and cut off a divergence."""
    first, lowest = smoothed[0], min(smoothed)
    fall = max(first - lowest, 0.02 * abs(first), 1e-3)
    bottom = max(min(losses), lowest - BELOW * fall)
    return bottom - 0.05 * fall, first + ABOVE * fall if math.isfinite(first) else lowest + fall
