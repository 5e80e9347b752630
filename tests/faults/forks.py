"""Forked children of a process that has imported everything: a run begins within milliseconds, and may be killed."""

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LONGEST_S = 120.0  # of a child; a longer one hangs


@dataclass(frozen=True)
class Ended:
    """A child that has ended.

    Args:
        code: exit code; negative: the number of the signal that killed it.
        said: lines that it reported through its pipe.
        output: what it printed.
    """

    code: int
    said: list[str]
    output: str


class Child:
    """A forked process.

    Args:
        act: its work, a function of ``report``, which sends a line to the parent; returns the exit code.
        log: file for its output.
        heard: is called with each line that it reports, while the parent waits.
    """

    def __init__(
        self,
        act: Callable[[Callable[[str], None]], int],
        log: Path,
        heard: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.log, self.began, self.said, self.heard = log, time.monotonic(), [""], heard
        self._pipe, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            _work(act, theirs, log)
        os.close(theirs)

    def wait_for(self, word: str | None, seconds: float) -> bool:
        """Read what the child reports until it says ``word``, or ends, or the time has passed; return which is so."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if word is not None and word in self.lines():
                return True
            if not select.select([self._pipe], [], [], left)[0]:
                break
            read = os.read(self._pipe, 65536)
            if not read:
                return False
            *whole, rest = (self.said[-1] + read.decode()).split("\n")
            self.said[-1:] = [*whole, rest]
            for line in whole:
                self.heard(line)
        return word is not None and word in self.lines()

    def lines(self) -> list[str]:
        """Return the whole lines so far."""
        return self.said[:-1]

    def send(self, number: int) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self, most: float = LONGEST_S) -> Ended:
        """Wait for the end; a child that hangs is killed, and raises.

        Raises:
            TimeoutError: the child took longer than ``most`` seconds.
        """
        self.wait_for(None, most - (time.monotonic() - self.began))
        hangs = time.monotonic() - self.began >= most
        if hangs:
            self.send(signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._pipe)
        output = self.log.read_text(errors="replace") if self.log.exists() else ""
        if hangs:
            raise TimeoutError(f"a child hangs: {output[-500:]}")
        return Ended(code, self.lines(), output)


def _work(act: Callable[[Callable[[str], None]], int], pipe: int, log: Path) -> None:
    """Do a child's work, and end without the parent's clean-up."""
    code, leave = 99, os._exit
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with open(log, "ab", buffering=0) as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
        code = act(lambda line: (os.write(pipe, f"{line}\n".encode()), None)[1])
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def run(
    act: Callable[[Callable[[str], None]], int],
    log: Path,
    most: float = LONGEST_S,
    heard: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Fork a child and wait for its end."""
    return Child(act, log, heard).end(most)
