"""Processes that end with the process that started them, even if that is killed; Linux alone can do it."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG
# becomes a command that ends with its parent; Popen's preexec_fn would do the same, but may deadlock with threads
LAUNCHER = f"""
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl({WITH_PARENT}, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(128 + signal.SIGTERM)
os.execv(command[0], command)
"""


def end_with_parent() -> None:
    """Let this process end by SIGTERM with the one that started it; off Linux nothing happens."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(WITH_PARENT, signal.SIGTERM)


def with_parent(command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` until it ends or this process does; off Linux ``command`` itself."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command]
