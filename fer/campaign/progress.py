"""The progress of a campaign on the terminal.

A terminal shows a live line. Elsewhere a line is printed whenever a training begins or ends.
"""

import logging
import signal
from collections.abc import Sequence

from fer.campaign.record import Clock, Network
from fer.system.terminal import Line, bar, is_live, wide
from fer.system.text import clock, plural

log = logging.getLogger(__name__)

BAR = 10  # characters


class Progress:
    """Shows the running trainings, the next ones and the time left.

    Args:
        clock: clock of the campaign.
        deadline: end of the campaign on that clock, in seconds.
    """

    def __init__(self, clock: Clock, deadline: float) -> None:
        self.clock, self.deadline = clock, deadline
        self.line = Line(live=is_live())
        self.after = ""  # name of the step after the current phase

    def report(self, text: str) -> None:
        """Log a line with the time of the campaign."""
        log.info("[%s] %s", clock(self.clock.now()), text)

    def measuring(self, count: int) -> None:
        """Report that the speed is being measured."""
        self.report(f"measuring the speed of {count} kind{'' if count == 1 else 's'} of network")

    def began(self, network: Network) -> None:
        """Report that a training began, unless a live line shows it."""
        if not self.line.live:
            taught = f", taught by {', '.join(network.teachers)}" if network.teachers else ""
            self.report(f"{network.name} begins: {plural(network.epochs, 'epoch')}{taught}")

    def ended(self, network: Network) -> None:
        """Report how a training ended."""
        took = clock((network.ended or 0.0) - (network.began or 0.0))
        best = "" if network.accuracy_val is None else f", val {100 * network.accuracy_val:.2f} %"
        outcome = network.reason or plural(network.epochs_done, "epoch")
        self.report(f"{network.name} {network.state} ({took}): {outcome}{best}")

    def stopping(self, count: int, number: int) -> None:
        """Report that the running trainings save checkpoints after a signal."""
        trainings = "1 training saves its checkpoint and ends" if count == 1 else f"{count} trainings save and end"
        self.report(f"{signal.Signals(number).name}: {trainings}; send the signal again to kill")

    def draw(self, running: Sequence[Network], waiting: Sequence[Network]) -> None:
        """Draw the live line, if it is due."""
        if not self.line.due():
            return
        now = self.clock.now()
        left = f"{clock(self.deadline - now)} left"
        if wide():
            left = f"{bar(min(1.0, now / self.deadline), BAR)} {left}"
        coming = ", ".join([*(network.name for network in waiting[:2]), *([self.after] if self.after else [])])
        self.line.draw([left, *map(_progress, running)], f"next: {coming}" if coming else "")


def _progress(network: Network) -> str:
    accuracy = "" if network.accuracy_val is None else f" {100 * network.accuracy_val:.1f} %"
    return f"{network.name} {network.epochs_done}/{network.epochs}{accuracy}"
