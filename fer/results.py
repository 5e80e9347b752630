"""Results as files and as text: written whole or not at all, read by people. No torch here."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(file: Path) -> Iterator[IO[str]]:
    """Give a text stream beside ``file``, and rename it to ``file`` if the block ends well."""
    part = file.with_name(f".{file.name}.part")
    try:
        with open(part, "w", newline="", encoding="utf-8") as stream:
            yield stream
        os.replace(part, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error  # a full disk names no file by itself
    finally:
        part.unlink(missing_ok=True)


def write_json(file: Path, contents: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write plain values as JSON, whole or not at all."""
    with written_whole(file) as stream:
        json.dump(contents, stream, indent=2)
        stream.write("\n")


def score_table(results: dict[str, Any]) -> str:
    """Return the closing table: split, faces, accuracy with its interval, macro-F1, balanced accuracy, NLL, ECE."""
    low, high = (100 * value for value in results["accuracy_ci95"])
    heads = ("split", "faces", "accuracy, 95 % interval", "macro-F1", "balanced", "NLL", "ECE")
    cells = (
        str(results["split"]),
        f"{results['n']:,}",
        f"{100 * results['accuracy']:.2f} %  [{low:.2f}, {high:.2f}]",
        f"{100 * results['macro_f1']:.2f} %",
        f"{100 * results['balanced_accuracy']:.2f} %",
        f"{results['nll']:.4f}",
        f"{results['ece']:.4f}",
    )
    return text_table(heads, [cells])


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in columns, with a line under the heads."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:]))


def clock(seconds: float) -> str:
    """Return seconds as h:mm:ss, or m:ss below an hour."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
