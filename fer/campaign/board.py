"""What a campaign shows while it runs: a live line in a terminal, else a line when something begins or ends."""

import logging
import signal
from collections.abc import Sequence

from fer.campaign.record import Clock, Network
from fer.system.terminal import Line, bar, is_live, wide
from fer.system.text import clock

log = logging.getLogger(__name__)

BAR = 10  # characters


class Board:
    """Shows what runs, what comes next and the time left.

    Args:
        clock: the campaign's.
        deadline: on that clock.
    """

    def __init__(self, clock: Clock, deadline: float) -> None:
        self.clock, self.deadline = clock, deadline
        self.line = Line(live=is_live())
        self.after = ""  # what comes after the phase in hand, in words

    def say(self, text: str) -> None:
        """Print a line with the campaign's time."""
        log.info("[%s] %s", clock(self.clock.now()), text)

    def measuring(self, count: int) -> None:
        """Say that the speed is measured."""
        self.say(f"measuring the speed of {count} kind{'' if count == 1 else 's'} of network")

    def began(self, network: Network) -> None:
        """Say that a training began, where no live line shows it."""
        if not self.line.live:
            taught = f", taught by {', '.join(network.teachers)}" if network.teachers else ""
            self.say(f"{network.name} begins: {network.epochs} epochs{taught}")

    def ended(self, network: Network) -> None:
        """Say how a training ended."""
        took = clock((network.ended or 0.0) - (network.began or 0.0))
        best = "" if network.accuracy_val is None else f", val {100 * network.accuracy_val:.2f} %"
        outcome = network.reason or f"{network.epochs_done} epochs"
        self.say(f"{network.name} {network.state} ({took}): {outcome}{best}")

    def stopping(self, count: int, number: int) -> None:
        """Say what is waited for after a signal."""
        networks = "1 network saves itself and ends" if count == 1 else f"{count} networks save themselves and end"
        self.say(f"{signal.Signals(number).name}: {networks}; once more kills")

    def draw(self, running: Sequence[Network], waiting: Sequence[Network]) -> None:
        """Draw the live line now and then."""
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
