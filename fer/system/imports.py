"""Imports of large libraries."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def first_of(library: str) -> Iterator[None]:
    """Let no garbage be collected within a block that imports a library for the first time.

    An import makes no garbage to speak of, but the collector visits all objects again and again as they become more.
    Afterwards it passes over them.
    """
    if library in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
