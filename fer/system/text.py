"""Text: tables, times, sentences."""

import json
import re
from collections.abc import Sequence

from fer.config.errors import HIDDEN, in_one_line, visible

CODE_SPAN = re.compile(r"(`+[^`]+`+)")


def sentence(words: str) -> str:
    """Return words with a capital and a full stop."""
    return f"{words[0].upper()}{words[1:]}."


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in columns, with a line under the heads."""
    cells = [[in_one_line(text) for text in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:]))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [[in_markdown(in_one_line(cell)).replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], ["---"] * len(heads), *lines[1:]))


def in_markdown(text: str) -> str:
    """Return a text that may hold names from files for Markdown: no element of HTML, no link, no picture in it.

    Spans of code stay as they are, since nothing in them is more than text.
    """
    parts = CODE_SPAN.split(visible(text))
    return "".join(
        part if index % 2 else part.replace("<", "&lt;").replace("](", "]\\(") for index, part in enumerate(parts)
    )


def code_span(text: str) -> str:
    """Return a text as a span of code in Markdown, whatever it holds."""
    return f"`{in_one_line(text).replace('`', chr(39))}`"


def in_utf8(text: str) -> str:
    """Return a text that a file in UTF-8 can hold: bytes of a name that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_line(value: object) -> str:
    """Return plain values as JSON in one line that a terminal and a file in UTF-8 can hold: with hidden characters as
    escapes of JSON.
    """
    return HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, ``1 run`` or ``2 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def times(count: int) -> str:
    """Return a number of times in words: "once", "2 times"."""
    return "once" if count == 1 else f"{count} times"
