"""Learning-rate schedules by name.

``scheduler.name`` names a registered function; the other keys of the group are its arguments. A schedule is a factor on
the learning rate as a function of time in epochs, evaluated at every step. It has no state, so that a resumed run
continues it exactly. ``plateau`` alone depends on val: it is torch's ``ReduceLROnPlateau``. It is stepped at an epoch's
last step, after validation. Lightning's stepping by epoch comes after checkpoints are written, so that a resumed run
would differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fer.config.errors import FerError
from fer.config.registry import Registry
from fer.config.schema import AboveZero, Count, Fraction, NonNegative, PartialFraction, Positive

SCHEDULES: Registry = Registry("scheduler")  # type: ignore[type-arg]
Factor = Callable[[float], float]  # epochs since the start, fractional -> factor on the learning rate


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by ``factor`` after more than ``patience`` epochs without a better monitored value."""

    factor: float
    patience: int
    min_factor: float


class Timeline:
    """The position in a schedule as a function of the epochs trained, for a run whose number of epochs changes.

    The position moves evenly towards the schedule's end. Where the number of epochs changes, it moves faster or slower
    from the position reached. The learning rate therefore has no jump and always reaches the end.

    Args:
        epochs: epochs of the schedule, and of the run before any change.
    """

    def __init__(self, epochs: int) -> None:
        self.knots = [(0.0, 0.0), (float(epochs), float(epochs))]  # (epochs trained, position), ascending

    @classmethod
    def of(cls, knots: Sequence[Sequence[float]]) -> "Timeline":
        """Return the timeline with these knots."""
        timeline = cls(1)
        timeline.knots = [(float(trained), float(position)) for trained, position in knots]
        return timeline

    @property
    def epochs(self) -> int:
        """The number of epochs of the run."""
        return round(self.knots[-1][0])

    def at(self, trained: float) -> float:
        """Return the position after so many epochs."""
        for (begin, low), (end, high) in pairwise(self.knots):
            if trained < end:
                return low + (trained - begin) / (end - begin) * (high - low)
        return self.knots[-1][1]

    def end_at(self, trained: int, epochs: int) -> None:
        """Let a run that has trained some epochs end after ``epochs``, at the end of the schedule.

        Args:
            trained: finished epochs.
            epochs: epochs of the whole run; as many as ``trained`` end it here.
        """
        if epochs != self.epochs:
            ahead = [(float(epochs), self.knots[-1][1])] if epochs > trained else []
            before = [knot for knot in self.knots[:-1] if knot[0] < trained]
            self.knots = [*before, (float(trained), self.at(trained)), *ahead]


@SCHEDULES.register("none")
def constant(epochs: int, /) -> Factor:
    """Return a constant rate."""
    return lambda time: 1.0


@SCHEDULES.register("step")
def step(
    epochs: int,
    /,
    *,
    step_epochs: Positive,
    gamma: Fraction = 0.1,
    hold_epochs: Count = 0,
    warmup_epochs: NonNegative = 0.0,
) -> Factor:
    """Return a rate that is constant for ``hold_epochs``, then multiplied by ``gamma`` every ``step_epochs`` epochs.

    Raises:
        FerError: the warm-up is as long as the run, or longer.
    """
    _check_warmup(warmup_epochs, epochs)
    return warmed_up(lambda time: gamma ** (max(0, int(time) - hold_epochs) // step_epochs), warmup_epochs)


@SCHEDULES.register("exponential")
def exponential(epochs: int, /, *, gamma: Fraction = 0.95, warmup_epochs: NonNegative = 0.0) -> Factor:
    """Return a rate that decays by the factor ``gamma`` each epoch, a little at every step.

    Raises:
        FerError: the warm-up is as long as the run, or longer.
    """
    _check_warmup(warmup_epochs, epochs)
    return warmed_up(lambda time: gamma**time, warmup_epochs)


@SCHEDULES.register("cosine")
def cosine(epochs: int, /, *, warmup_epochs: NonNegative = 0.0, final: Fraction = 0.0) -> Factor:
    """Return half a cosine from 1 to ``final`` over the run, after a linear warm-up (Loshchilov & Hutter 2017).

    Raises:
        FerError: the warm-up is as long as the run, or longer.
    """
    _check_warmup(warmup_epochs, epochs)

    def factor(time: float) -> float:
        progress = min(1.0, max(0.0, time - warmup_epochs) / (epochs - warmup_epochs))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return warmed_up(factor, warmup_epochs)


@SCHEDULES.register("onecycle")
def onecycle(
    epochs: int, /, *, rise: PartialFraction = 0.3, initial: AboveZero = 0.04, final: NonNegative = 4e-6
) -> Factor:
    """Return one cycle: a cosine rise from ``initial`` to 1 over the share ``rise`` of the run, then down to ``final``.

    Smith & Topin 2018. The defaults are those of torch's ``OneCycleLR``: 1/25 to 1 to 1/250,000.
    """

    def factor(time: float) -> float:
        progress = min(1.0, time / epochs)
        if progress < rise:
            return _between(initial, 1.0, progress / rise)
        return _between(1.0, final, (progress - rise) / (1 - rise))

    return factor


@SCHEDULES.register("plateau")
def plateau(
    epochs: int, /, *, factor: PartialFraction = 0.5, patience: Count = 3, min_factor: Fraction = 0.001
) -> Plateau:
    """Return the schedule that lowers the rate when val stops improving; ``min_factor`` limits the total factor."""
    return Plateau(factor, patience, min_factor)


def warmed_up(factor: Factor, warmup_epochs: float) -> Factor:
    """Return ``factor`` with a linear rise from 0.01 over the first ``warmup_epochs``."""
    if not warmup_epochs:
        return factor
    return lambda time: factor(time) * max(0.01, min(1.0, time / warmup_epochs))


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def _check_warmup(warmup_epochs: float, epochs: int) -> None:
    if warmup_epochs >= epochs:
        raise FerError(f"scheduler.warmup_epochs={warmup_epochs:g}: expected less than trainer.max_epochs={epochs}")
