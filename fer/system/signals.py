"""Signals that end a process: which they are, their handlers, their exit codes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP: the terminal was closed; SIGUSR1: a batch system announces the end of the job's time
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
Receive = Callable[[int, FrameType | None], None]


def name(number: int) -> str:
    """Return a signal's name, such as SIGTERM."""
    return signal.Signals(number).name


def exit_code(number: int) -> int:
    """Return 128 + the number, as shells do; for SIGUSR1 that of SIGTERM, which batch systems know."""
    return 128 + (signal.SIGTERM if name(number) == "SIGUSR1" else number)


@contextmanager
def handled(receive: Receive) -> Iterator[None]:
    """Handle the signals that end a process by ``receive``; outside the main thread nothing changes.

    A process that ignores SIGHUP, as under ``nohup``, keeps ignoring it.
    """
    before = install(receive)
    try:
        yield
    finally:
        restore(before)


def install(receive: Receive) -> dict[int, object]:
    """Install a handler, and return the previous ones for ``restore``."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [int(getattr(signal, word)) for word in NAMES if hasattr(signal, word)]
    kept = [number for number in numbers if _ignored(number)]
    return {number: signal.signal(number, receive) for number in numbers if number not in kept}


def _ignored(number: int) -> bool:
    return name(number) == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def restore(before: dict[int, object]) -> None:
    """Install the handlers that ``install`` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]  # as signal.signal returned it
