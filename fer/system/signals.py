"""Signals that end a process, their handlers and their exit codes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from fer.config.errors import Interrupted

# SIGHUP: the terminal was closed; SIGUSR1, SIGUSR2: a batch system (submitit's jobs) announces the end of the time
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
OF_BATCH_SYSTEMS = ("SIGUSR1", "SIGUSR2")
Receive = Callable[[int, FrameType | None], None]
_raised: list[Interrupted] = []  # by handlers within ``kept``, the latest last


def name(number: int) -> str:
    """Return a signal's name, such as SIGTERM."""
    return signal.Signals(number).name


def exit_code(number: int) -> int:
    """Return 128 + the number, as shells do; for SIGUSR1 and SIGUSR2 that of SIGTERM, which batch systems know."""
    return 128 + (signal.SIGTERM if name(number) in OF_BATCH_SYSTEMS else number)


@contextmanager
def handled(receive: Receive) -> Iterator[None]:
    """Handle the signals that end a process by ``receive``; outside the main thread nothing changes.

    A process that ignores SIGHUP, as under ``nohup``, keeps ignoring it.
    """
    before = install(receive)
    try:
        with kept():
            yield
    finally:
        restore(before)


@contextmanager
def kept() -> Iterator[None]:
    """Keep the ``Interrupted`` that a handler raises within a block.

    A handler runs between any two lines, also in those of a library. Some libraries make another error of every
    exception, as torch's writer of archives does.
    """
    earlier = len(_raised)
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if len(_raised) > earlier:
            raise _raised[-1] from error
        raise
    finally:
        del _raised[earlier:]


def raise_dropped() -> None:
    """Raise the ``Interrupted`` of a handler again, if a library has dropped it: called where a long phase begins.

    Raises:
        Interrupted: as the handler raised it.
    """
    if _raised:
        raise _raised[-1]


def install(receive: Receive) -> dict[int, object]:
    """Install a handler, and return the previous ones for ``restore``."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [int(getattr(signal, word)) for word in NAMES if hasattr(signal, word)]

    def noted(number: int, frame: FrameType | None) -> None:
        try:
            receive(number, frame)
        except Interrupted as error:
            _raised.append(error)
            raise

    return {number: signal.signal(number, noted) for number in numbers if not _stays(number)}


def _stays(number: int) -> bool:
    """Return whether a signal keeps its handler: SIGHUP under ``nohup``, and submitit's, which queues the job again."""
    handler = signal.getsignal(number)
    if name(number) in OF_BATCH_SYSTEMS:
        return str(getattr(handler, "__module__", "")).startswith("submitit.")
    return name(number) == "SIGHUP" and handler is signal.SIG_IGN


def restore(before: dict[int, object]) -> None:
    """Install the handlers that ``install`` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]  # as signal.signal returned it
