"""The processes that work on one search.

They are on one computer, or on several that share its folder. Each has a number, whose file in ``workers/`` it keeps
locked. The system releases the lock when the process ends, also if it is killed. Another process may then take the
number, and with it the trials that were left open. A second lock lets one process at a time begin or take over trials
and write the files of the search.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fer.system.locks import hold, is_held, waited_for

FOLDER = "workers"  # in the folder of a search
TURN = "turn"


class Workers:
    """The processes of a search, as one of them sees them.

    Args:
        folder: folder of the search.
    """

    def __init__(self, folder: Path) -> None:
        self.search, self.folder = folder, folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.number = 0  # of this process
        self._numbers: set[int] = set()  # this process's number, and those that it has taken over
        self._locks = ExitStack()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process is within such a block, and keep them out of it."""
        with self.locked(TURN):
            yield

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Wait for the lock on a file of the folder ``workers/``, and hold it within a block."""
        with open(self.folder / name, "ab") as file:
            waited_for(file)
            yield

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Have the lowest free number within a block."""
        with self.turn():
            self.number = next(number for number in itertools.count() if self.takes(number))
        with self._locks:
            yield
        self._numbers.clear()

    def takes(self, number: int) -> bool:
        """Take a number whose process has ended, with its trials; return whether this process has the number."""
        if number in self._numbers:
            return True
        file = open(self.folder / str(number), "ab")
        try:
            hold(file)
        except BlockingIOError:
            file.close()
            return False
        self._locks.enter_context(file)
        self._numbers.add(number)
        return True

    def alone(self) -> bool:
        """Return whether no process works on the search; asked before this one joins."""
        return not any(is_held(file) for file in self.folder.iterdir() if file.name.isdecimal())
