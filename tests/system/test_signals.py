"""A signal's ``Interrupted`` ends a block also where a library makes another error of it, or drops it."""

import contextlib
import signal

import pytest

from fer.config.errors import Interrupted
from fer.system import signals


def receive(number, frame):
    raise Interrupted("by a signal", 143)


def within(library):
    """Call a function in which the signal arrives, in a block that handles it."""
    with signals.handled(receive):
        library()
        signals.raise_dropped()


def wraps():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        raise RuntimeError("unexpected pos 68416 vs 68332") from error


def drops():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("library", [wraps, drops])
def test_a_signal_is_kept(library):
    with pytest.raises(Interrupted, match="by a signal"):
        within(library)
    signals.raise_dropped()  # nothing is left of the block before


def test_another_error_stays():
    with pytest.raises(ValueError, match="its own"):
        within(lambda: int("its own"))
