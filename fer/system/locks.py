"""Locks on open files: one process at a time works in a folder.

The system releases a lock when its process ends.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    HELD = None
else:
    HELD = fcntl.LOCK_EX | fcntl.LOCK_NB

log = logging.getLogger(__name__)


def hold(file: IO[Any]) -> None:
    """Lock an open file, such as a job's ``console.log``, for this process and the processes that inherit it.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if HELD is None:
        return
    try:
        fcntl.flock(file, HELD)
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, "a process still writes it", file.name) from error


def waited_for(file: IO[Any] | int) -> None:
    """Lock an open file, or its descriptor, as ``hold`` does, after a process that holds it has released it."""
    if HELD is not None:
        fcntl.flock(file, fcntl.LOCK_EX)


def is_held(file: Path) -> bool:
    """Return whether a process holds the lock on a file; False for a missing file, and where there are no locks."""
    if not file.is_file():
        return False
    try:
        with open(file, "rb") as stream:
            hold(stream)
    except BlockingIOError:
        return True
    except OSError:  # a file that cannot be read, a file system without locks
        return False
    return False


@contextmanager
def waiting(file: Path, reason: str) -> Iterator[None]:
    """Hold the lock on a file, made if necessary; while another process holds it, wait, after one line on it.

    Args:
        file: the lock's; it stays.
        reason: why this process waits, for that line.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as stream:
        try:
            hold(stream)
        except BlockingIOError:
            log.info("%s; waiting for it", reason)
            waited_for(stream)
        except OSError as error:  # a file system without locks: two processes then work side by side
            log.debug("%s: no locks (%s)", file, error.strerror)
        yield


@contextmanager
def of_folder(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder, after a process that holds it has released it; it leaves no file.

    Raises:
        OSError: the folder cannot be opened.
    """
    if HELD is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: two processes then work side by side
            waited_for(descriptor)
        yield
    finally:
        os.close(descriptor)
