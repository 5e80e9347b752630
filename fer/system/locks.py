"""Locks on open files: one process at a time works in a folder. The system releases a lock when its process ends."""

from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    HELD = None
else:
    HELD = fcntl.LOCK_EX | fcntl.LOCK_NB


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


def waited_for(file: IO[Any]) -> None:
    """Lock an open file as ``hold`` does, after a process that holds it has released it."""
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
