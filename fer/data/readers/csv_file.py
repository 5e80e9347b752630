"""Reader of FER2013 as CSV.

The files are ``fer2013.csv``, ``icml_face_data.csv``, and the challenge's ``train.csv`` and ``test.csv``. Uncompressed,
``.gz``, ``.zip`` and ``.tar.gz`` files are read as a stream. Columns are found by name, in any case and order:

- ``pixels``: 2,304 numbers 0..255;
- ``emotion``: 0..6, absent from ``test.csv``;
- ``Usage``: Training, PublicTest or PrivateTest, absent from ``train.csv``.

For speed, array operations decode 16 rows at once from ASCII. The fast path accepts a block only if all checks succeed.
Any other block is read again row by row, and the message names the line and the bad value.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source, some, split_sizes
from fer.data.labels import CHALLENGE_TEST, EMOTIONS, OFFICIAL_SIZES, USAGES
from fer.data.readers.table_file import (
    LONGEST,
    NoFaces,
    chosen,
    is_table,
    lines_of,
    open_table,
    sound,
    tables_in,
    why_no_faces,
)  # fmt: skip

SIDE = 48  # pixels; FER2013's images are 48x48
PIXELS = SIDE * SIDE
BLOCK = 16  # rows decoded at once: 130 kB of text, which fits in the processor's cache
MOST_BLANK = 1_000_000  # blank lines; they are skipped, but a packed file can hold a billion
TOO_LONG = f"is longer than {LONGEST:,} bytes; the pixels of a face take 9,216 at most"


@dataclass(frozen=True)
class Columns:
    """Positions of the known columns, the number of all columns, and the names of the ignored ones."""

    pixels: int
    emotion: int | None
    usage: int | None
    total: int
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table with its fields as text; ``number`` counts rows from 0, without blank lines."""

    number: int
    line: int
    pixels: bytes
    emotion: bytes
    usage: bytes


class Decoded:
    """The columns read so far; the array of pixels grows in place, so that the peak memory is near its final size."""

    def __init__(self, rows: int) -> None:
        self.images = np.empty((max(rows, 1), PIXELS), np.uint8)
        self.targets: list[int] = []
        self.official: list[int] = []
        self.rows: list[int] = []

    def add(self, images: NDArray[np.uint8], targets: list[int], official: list[int], rows: list[int]) -> None:
        """Append K rows: ``images`` (K, PIXELS) uint8 and three lists of K."""
        end = len(self.rows) + len(rows)
        if end > len(self.images):  # by a tenth: realloc moves pages and copies none
            self.images.resize((max(end, len(self.images) * 11 // 10 + 64), PIXELS), refcheck=False)
        self.images[len(self.rows) : end] = images
        self.targets += targets
        self.official += official
        self.rows += rows


def recognises(path: Path) -> bool:
    """Return whether ``path`` is a table, or a folder with one."""
    return is_table(path) if path.is_file() else path.is_dir() and bool(tables_in(path))


def files(path: Path) -> list[Path]:
    """Return the files that ``read`` would open."""
    return inputs(path)[0]


def inputs(path: Path) -> tuple[list[Path], list[str]]:
    """Return the file that ``read`` would open, and its note on others."""
    file, note = chosen(path)
    return [file], [note] if note else []


def without_faces(folder: Path) -> list[str]:
    """Return the problems of a folder's tables if none of them holds faces, such as lists of pictures; else nothing."""
    return why_no_faces(tables_in(folder), _header_of)


def _header_of(file: Path) -> Columns:
    with ExitStack() as stack, sound(file):
        return header(next(lines_of(open_table(file, stack).stream, file), b""), file)


def read(path: Path, *, image_size: int = SIDE, on_bad: OnBad = "error") -> Faces:
    """Read a table; ``image_size`` is not used, since FER2013's images are 48x48.

    Raises:
        FerError: no table, a damaged file, or with ``on_bad="error"`` a bad row (with file, line and value).
    """
    (file,), notes = inputs(path)
    bad = BadRows(on_bad)
    with ExitStack() as stack, sound(file):
        stream, member, others = open_table(file, stack)
        also = [f"{member} is read; also in the archive: {some(others)}"] if others else []
        return _read_stream(stream, file, member, bad, [*notes, *also])


def _read_stream(stream: IO[bytes], file: Path, member: str, bad: BadRows, notes: list[str]) -> Faces:
    text = lines_of(stream, file)
    columns = header(next(text, b""), file)
    table = Decoded(_expected_rows(file))
    lines = _rows(text, columns, file, bad)
    while block := list(islice(lines, BLOCK)):
        _decode(block, columns, table, file, bad)
    if not table.rows:
        raise FerError(f"{file}: holds no usable row{f' ({len(bad.messages)} bad ones)' if bad.messages else ''}")
    if columns.ignored:
        notes.append(f"columns ignored: {', '.join(name or 'one without a name' for name in columns.ignored)}")
    table.images.resize((len(table.rows), PIXELS), refcheck=False)
    official = np.array(table.official, np.int8)
    source = Source(
        name=_name(member, official, len(bad.messages)),
        layout=f"table {member}",
        path=str(file),
        labels="fer2013" if columns.emotion is not None else "none",
        notes=tuple(notes),
        skipped=tuple(bad.messages),
    )
    return Faces(
        images=table.images.reshape(-1, SIDE, SIDE),
        targets=np.array(table.targets, np.int8),
        official=official,
        given=official if columns.usage is not None else _given_by_name(member, len(table.rows)),
        rows=np.array(table.rows, np.int64),
        source=source,
    )


def _name(member: str, official: NDArray[np.int8], skipped: int) -> str:
    """Return the data set's name: "fer2013" for a table of its size or a file of the challenge, else the table's."""
    parts = {"icml_face_data.csv": sum(OFFICIAL_SIZES), "train.csv": OFFICIAL_SIZES[0], "test.csv": CHALLENGE_TEST}
    whole = split_sizes(official) == OFFICIAL_SIZES or parts.get(Path(member).name.lower()) == len(official) + skipped
    return "fer2013" if whole else Path(member).stem


def _given_by_name(member: str, count: int) -> NDArray[np.int8]:
    """Return the split by the challenge's file names: ``train.csv`` is train, ``test.csv`` is test."""
    split = {"train.csv": 0, "test.csv": 2}.get(Path(member).name.lower(), UNKNOWN)
    return np.full(count, split, np.int8)


def _expected_rows(file: Path) -> int:
    """Return an upper limit of the rows in an uncompressed file; unused rows take address space but no memory."""
    return file.stat().st_size // (2 * PIXELS) + 1 if file.name.lower().endswith(".csv") else 4096


def header(line: bytes, file: Path) -> Columns:
    """Return the columns by the header line.

    Raises:
        FerError: no header, another kind of file, or no column ``pixels``.
    """
    if len(line) > LONGEST:
        raise FerError(f"{file}, line 1: {TOO_LONG}")
    text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    if text[:1] == "<":
        raise FerError(f"{file}: is a web page, not a table (a login page, perhaps); download it again")
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FerError(f"{file}: is text in UTF-16; save it as UTF-8")
    names = [name.strip() for name in _split(text)]
    positions = {name.lower(): position for position, name in reversed(list(enumerate(names)))}
    if "pixels" not in positions:
        raise NoFaces(f"{file}, line 1: no column 'pixels'; found {some(names) or 'nothing'}"[:400])
    known = ("pixels", "emotion", "usage")
    lower = [name.lower() for name in names]
    if twice := [name for name in known if lower.count(name) > 1]:
        raise FerError(f"{file}, line 1: has {lower.count(twice[0])} columns {twice[0]!r}; leave the wrong ones out")
    return Columns(
        pixels=positions["pixels"],
        emotion=positions.get("emotion"),
        usage=positions.get("usage"),
        total=len(names),
        ignored=tuple(name for name in names if name.lower() not in known),
    )


def _rows(text: Iterator[bytes], columns: Columns, file: Path, bad: BadRows) -> Iterator[Row]:
    """Yield the rows with the right number of fields; blank lines are skipped."""
    row, blank = -1, 0
    for number, line in enumerate(text, start=2):
        if not line.strip():
            blank += 1
            if blank > MOST_BLANK:
                raise FerError(
                    f"{file}, line {number}: has more than {MOST_BLANK:,} blank lines; it is no table of faces"
                )
            continue
        row += 1
        if len(line) > LONGEST:
            bad.add(f"{file}, line {number}", TOO_LONG)
            continue
        fields = _fields(line)
        if len(fields) == columns.total:
            emotion = b"" if columns.emotion is None else fields[columns.emotion]
            usage = b"" if columns.usage is None else fields[columns.usage]
            yield Row(row, number, fields[columns.pixels], emotion, usage)
        else:
            bad.add(f"{file}, line {number}", f"{len(fields)} fields where the header names {columns.total}")


def _fields(line: bytes) -> list[bytes]:
    line = line.rstrip(b"\r\n")
    if b'"' not in line:
        return line.split(b",")
    # latin-1 maps every byte to one character and back, so that csv keeps all bytes
    return [field.encode("latin-1") for field in _split(line.decode("latin-1"))]


def _split(line: str) -> list[str]:
    """Return the fields of a line with quotes; none if csv rejects it (a field above 128 kB, a lone CR)."""
    try:
        return next(csv.reader([line], skipinitialspace=True), [])
    except csv.Error:
        return []


# --- numbers -------------------------------------------------------------------------------------------------------


def _decode(block: list[Row], columns: Columns, table: Decoded, file: Path, bad: BadRows) -> None:
    """Append a block of rows to the table: all at once if all are good, otherwise one by one."""
    images = decode_pixels([row.pixels for row in block])
    if images is None and len(block) > 1:
        for row in block:
            _decode([row], columns, table, file, bad)
        return
    labels = [_labels(row, columns) for row in block]
    for row, label in zip(block, labels, strict=True):
        problem = label if isinstance(label, str) else _pixel_problem(row.pixels) if images is None else ""
        if problem:
            bad.add(f"{file}, line {row.line}", problem)
    good = [index for index, label in enumerate(labels) if not isinstance(label, str)]
    if images is not None and good:
        pairs = [label for label in labels if not isinstance(label, str)]
        targets, official = (list(column) for column in zip(*pairs, strict=True))
        table.add(images[good], targets, official, [block[index].number for index in good])


def decode_pixels(texts: Sequence[bytes]) -> NDArray[np.uint8] | None:
    """Decode K texts of space-separated numbers 0..255 into (K, PIXELS) uint8; None if a text has another form.

    The byte before each space is the last digit of a number. The bytes before it are tens and hundreds, if the distance
    to the previous space is large enough.
    """
    joined = (
        b"   " + b" ".join(text.strip() for text in texts) + b" "
    )  # padding for tens and hundreds of the first number
    if joined.translate(None, b"0123456789 "):
        return None
    characters = np.frombuffer(joined, np.uint8)  # (L,)
    spaces = np.flatnonzero(characters[3:] == ord(" "))  # (K * PIXELS,) end of each number, shifted by the padding
    if spaces.size != len(texts) * PIXELS:
        return None
    digits = np.diff(spaces, prepend=-1) - 1  # (K * PIXELS,) digits of each number
    lengths = np.cumsum([len(text.strip()) + 1 for text in texts]) - 1
    if digits.min() < 1 or digits.max() > 3 or not np.array_equal(spaces[PIXELS - 1 :: PIXELS], lengths):
        return None
    values = characters & 15  # "0".."9" -> 0..9; a space -> 0
    hundreds, tens, ones = (values[offset:].take(spaces) for offset in (0, 1, 2))
    numbers = (hundreds * (digits > 2)).astype(np.uint16) * 100 + (tens * 10 + ones)
    return None if numbers.max() > 255 else numbers.astype(np.uint8).reshape(len(texts), PIXELS)


def _pixel_problem(text: bytes) -> str:
    """Return the problem of a row's pixels, which ``decode_pixels`` has rejected."""
    numbers = text.split()
    for position, number in enumerate(numbers, start=1):
        if not number.isdigit() or len(number) > 3 or int(number) > 255:
            shown = number[:24].decode("utf-8", "replace")
            return f"pixel {position} is {shown!r}; pixels are whole numbers 0 to 255"
    if len(numbers) != PIXELS:
        return f"{len(numbers):,} pixels; a face has {PIXELS:,} ({SIDE}x{SIDE})"
    return "pixels are not separated by single spaces"


def _labels(row: Row, columns: Columns) -> tuple[int, int] | str:
    """Return (target, official split) of a row, or the problem as text."""
    emotion, usage = row.emotion.strip(), row.usage.strip().decode("utf-8", "replace")
    if columns.emotion is not None and (len(emotion) != 1 or emotion not in b"0123456"):
        shown = emotion[:24].decode("utf-8", "replace")
        return f"emotion is {shown!r}; it is one of 0 to {len(EMOTIONS) - 1}"
    if columns.usage is not None and usage.lower() not in USAGES:
        return f"Usage is {usage[:24]!r}; it is one of Training, PublicTest, PrivateTest"
    target = UNKNOWN if columns.emotion is None else int(emotion)
    return target, UNKNOWN if columns.usage is None else USAGES[usage.lower()]
