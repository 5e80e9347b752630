"""The terminal: one live line that is drawn over, and gives way to what is logged. No torch here."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

REDRAW_S = 0.25  # seconds between drawings of the live line
CLEAR = "\r\033[K"  # to the line's start, and nothing to its right
BAR, SHORT_BAR = 20, 8  # characters, the latter in a terminal of less than WIDE columns
WIDE = 100
LEAST_CUT = 12  # characters, below which a part that is cut tells nothing


def shown(path: Path) -> Path:
    """Return a path relative to the current folder where it lies inside, as it is shown and copied."""
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path


@contextmanager
def logged(file: Path) -> Iterator[None]:
    """Let what is logged go to standard output as it is, and to a file as well."""
    kept = logging.FileHandler(file, encoding="utf-8")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout), kept]
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(kept)
        kept.close()


def wide() -> bool:
    """Return whether the terminal has room to spare."""
    return shutil.get_terminal_size().columns >= WIDE


def is_live() -> bool:
    """Return whether standard output is a terminal that can be drawn over."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Line:
    """The last line of a terminal, drawn over as often as one likes; what others log goes above it.

    Args:
        live: draw at all.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._drawn_at = 0.0
        self._there = False
        self._handlers: list[logging.Handler] = []

    def due(self) -> bool:
        """Return whether it is time to draw again."""
        return self.live and time.perf_counter() - self._drawn_at > REDRAW_S

    def draw(self, parts: Sequence[str], rest: str = "") -> None:
        """Show the parts, the first of them alone where the terminal is too narrow for all.

        Args:
            parts: what can be spared last.
            rest: shown after them, cut to the room that is left.
        """
        width = shutil.get_terminal_size().columns - 1
        text, shown = parts[0], 1
        for part in parts[1:]:
            if len(text) + 2 + len(part) > width:
                break
            text, shown = f"{text}  {part}", shown + 1
        if rest and shown == len(parts) and (room := width - len(text) - 2) >= LEAST_CUT:
            text += "  " + (rest if len(rest) <= room else rest[: room - 3] + "...")
        self._drawn_at, self._there = time.perf_counter(), True
        self._write(CLEAR + text[:width])

    def clear(self) -> None:
        """Leave a clean line to whatever is said next."""
        if self._there:
            self._there = False
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:  # the terminal was closed; whatever is shown in it must not end for that
            self.live = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Give way to a line that is logged; what a logging handler asks of its filters."""
        self.clear()
        return True

    def give_way(self) -> None:
        """Let everything that is logged from now on go above the line."""
        if self.live:
            self._handlers = list(logging.getLogger().handlers)
            for handler in self._handlers:
                handler.addFilter(self)

    def end(self) -> None:
        """Leave a clean line, and the log as it was."""
        self.clear()
        for handler in self._handlers:
            handler.removeFilter(self)
        self._handlers = []


def bar(share: float, width: int | None = None) -> str:
    """Return a bar of ``width`` characters, or what suits the terminal, filled to ``share``, in what it can show."""
    if width is None:
        width = BAR if wide() else SHORT_BAR
    full, empty = "█░" if (sys.stdout.encoding or "").lower().startswith("utf") else "#."
    filled = round(share * width)
    return full * filled + empty * (width - filled)
