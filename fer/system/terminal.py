"""The terminal: one live line that is redrawn below the log messages.

No torch here.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fer.config.errors import in_one_line

REDRAW_S = 0.25  # seconds between drawings of the live line
CLEAR = "\r\033[K"  # moves to the line's start and erases the line
BAR, SHORT_BAR = 20, 8  # characters; the short bar is for terminals of less than WIDE columns
WIDE = 100  # columns
LEAST_CUT = 12  # characters; a shorter rest of a cut text is useless


def shown(path: Path) -> Path:
    """Return a path for messages: relative to the current folder if it is inside."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """Send log messages to standard output, without a prefix, and to a file."""
    to_file = logging.FileHandler(file, encoding="utf-8")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), to_file]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(to_file)
        to_file.close()


def wide() -> bool:
    """Return whether the terminal has at least ``WIDE`` columns."""
    return shutil.get_terminal_size().columns >= WIDE


def is_live() -> bool:
    """Return whether standard output is a terminal that can redraw a line."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Line:
    """The last line of a terminal, which is redrawn; log messages appear above it.

    Args:
        live: False draws nothing.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._drawn_at = 0.0
        self._there = False
        self._handlers: list[logging.Handler] = []

    def due(self) -> bool:
        """Return whether the next drawing is due."""
        return self.live and time.perf_counter() - self._drawn_at > REDRAW_S

    def draw(self, parts: Sequence[str], rest: str = "") -> None:
        """Draw as many parts as fit into the terminal's width, at least the first.

        Args:
            parts: texts, the most important first.
            rest: text after all parts, cut to the remaining columns.
        """
        width = shutil.get_terminal_size().columns - 1
        parts, rest = [in_one_line(part) for part in parts], in_one_line(rest)
        text, shown = parts[0], 1
        for part in parts[1:]:
            if len(text) + 2 + len(part) > width:
                break
            text, shown = f"{text}  {part}", shown + 1
        if rest and shown == len(parts) and (columns := width - len(text) - 2) >= LEAST_CUT:
            text += "  " + (rest if len(rest) <= columns else rest[: columns - 3] + "...")
        self._drawn_at, self._there = time.perf_counter(), True
        self._write(CLEAR + text[:width])

    def clear(self) -> None:
        """Erase the line, for the next text."""
        if self._there:
            self._there = False
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the terminal was closed; the run goes on without it
            self.live = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Erase the line before a log message; the method of a filter that logging handlers call."""
        self.clear()
        return True

    def give_way(self) -> None:
        """Make all further log messages appear above the line."""
        if self.live:
            self._handlers = list(logging.getLogger().handlers)
            for handler in self._handlers:
                handler.addFilter(self)

    def end(self) -> None:
        """Erase the line and detach it from logging."""
        self.clear()
        for handler in self._handlers:
            handler.removeFilter(self)
        self._handlers = []


def bar(share: float, width: int | None = None) -> str:
    """Return a bar of ``width`` characters, filled to ``share``; blocks or ``#`` as the terminal's encoding allows."""
    if width is None:
        width = BAR if wide() else SHORT_BAR
    full, empty = "█░" if (sys.stdout.encoding or "").lower().startswith("utf") else "#."
    filled = round(share * width)
    return full * filled + empty * (width - filled)
