"""Files, written whole or not at all, and read with errors of one line.

No torch here.
"""

import csv
import errno
import io
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.system.records import Json

T = TypeVar("T")

# errors of reading a damaged file, such as a row number of twenty digits or brackets a thousand deep
UNREADABLE = (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error)
ASIDE = ".part-"  # beginning of a temporary folder's name
LEFT_S = 2 * 24 * 3600.0  # age of a temporary folder that no process writes any more
PART = ".part"  # ending of a temporary file; a killed process leaves it
LFS = b"version https://git-lfs.github.com/spec/"  # the beginning of a pointer of Git LFS, in place of a file
POINTER = "is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"
MOST_BYTES = 64 * 2**20  # of a file that is read whole; the largest of this library's has 3 MB


def opened(file: Path) -> IO[bytes]:
    """Open a file for reading bytes; a pipe would block for ever, and a device may be endless.

    Raises:
        OSError: the file is missing or no regular file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # an open pipe does not block
    descriptor = os.open(file, flags)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is a folder" if stat.S_ISDIR(kind) else "is a pipe or a device, no file", str(file))


def is_pointer(file: Path) -> bool:
    """Return whether a file is a pointer of Git LFS, as a clone without its large files has.

    Raises:
        OSError: the file is missing or no regular file.
    """
    with opened(file) as stream:
        return stream.read(len(LFS)) == LFS


def contents(file: Path, most: int = MOST_BYTES) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: the file is missing, no regular file, or larger than ``most`` bytes.
    """
    with opened(file) as stream:
        read = stream.read(most + 1)
    if len(read) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(file))
    return read


def opened_text(file: Path, most: int = MOST_BYTES) -> IO[str]:
    """Return a stream of the text of a file, in UTF-8 with or without a mark at its beginning; see ``contents``."""
    return io.TextIOWrapper(io.BytesIO(contents(file, most)), encoding="utf-8-sig", newline="")


def read_json(file: Path) -> Any:
    """Return the contents of a JSON file.

    Raises:
        OSError: see ``contents``.
        ValueError: the file is no JSON, nested too deeply, or has numbers that are not finite.
    """
    try:
        return json.loads(contents(file).decode("utf-8"), parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _finite(number: str) -> float:
    value = float(number.replace("Infinity", "inf"))
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is no finite number")
    return value


@contextmanager
def written_whole(file: Path, *, binary: bool = False, flushed: bool = False) -> Iterator[IO[Any]]:
    """Yield a stream of text or bytes to a temporary file, and rename it to ``file`` if the block succeeds.

    Args:
        file: path of the file; two processes that write it have temporary files of their own.
        binary: whether bytes are written.
        flushed: whether the contents are on the disk before the file gets its name, also after a power cut.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}{PART}")
    try:
        with open(part, "wb") if binary else open(part, "w", newline="", encoding="utf-8") as stream:
            yield stream
            if flushed:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error  # the error of a full disk names no file
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file or folder, and rename it to ``target`` if the block succeeds.

    What killed processes left beside it more than two days ago is removed.
    """
    for left in target.parent.glob(f"{ASIDE}*"):
        with suppress(OSError):  # another process removes it
            if time.time() - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left)
    scratch = Path(tempfile.mkdtemp(prefix=ASIDE, dir=target.parent))
    try:
        yield scratch / target.name
        os.replace(scratch / target.name, target)
    except OSError:
        if not target.exists():  # otherwise another process has written the same contents first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def moved_into(part: Path, folder: Path) -> None:
    """Rename a finished folder; where there is one of its name, such as the current folder, move the files into it.

    Files of the same names are replaced.

    Raises:
        OSError: a file cannot be moved.
    """
    if not folder.exists():
        part.rename(folder)
        return
    for file in sorted(part.iterdir()):
        file.replace(folder / file.name)
    part.rmdir()


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of killed processes from a folder in which no other process works."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Turn errors of reading a file into one line that names the file and the reason.

    Raises:
        FerError: the file is missing or damaged.
    """
    try:
        yield
    except UNREADABLE as error:
        raise FerError(f"{file}: cannot be read ({why(error)})") from error


def why(error: Exception) -> str:
    """Return the reason of a reading error, in one line."""
    reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return " ".join(reason.split())[:200]


def write_json(file: Path, contents: object) -> None:
    """Write plain values as JSON, whole or not at all; JSON has no NaN and no infinity, which become null."""
    with written_whole(file) as stream:
        json.dump(_without_nan(contents), stream, indent=2, allow_nan=False)
        stream.write("\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_list(file: Path) -> list[Json]:
    """Return the entries of a JSON file that is a list of objects.

    Raises:
        FerError: the file is damaged.
    """
    try:
        entries: list[Json] = read_json(file)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it is no list of entries")
    except UNREADABLE as error:
        raise FerError(f"{file}: damaged ({why(error)}); repair or move it") from error
    return entries


def read_record(file: Path, kind: str, missing: str, of: Callable[[Json], T]) -> T:
    """Return the record of an earlier sweep, search or campaign.

    Args:
        file: ``sweep.json``, ``tune.json`` or ``best.json`` in its folder.
        kind: "sweep", "search" or "campaign".
        missing: name of the kind of folder, for the message that the file is missing.
        of: function that makes the record of the file's object; its errors of ``UNREADABLE`` mean damage.

    Raises:
        FerError: the file is missing or damaged.
    """
    if not file.is_file():
        raise FerError(f"{file.parent}: no {missing} (it has no {file.name})")
    try:
        return of(read_json(file))
    except UNREADABLE as error:
        raise FerError(f"{file}: damaged ({why(error)}); start a new {kind} in another folder") from error


def new_folder(parent: Path, name: str) -> Path:
    """Make and return the first free folder of ``<name>``, ``<name>_2``, ... in ``parent``; overwrites nothing.

    Raises:
        FerError: no folder can be made there.
    """
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise FerError(
                f"{folder}: no folder can be made there ({error.strerror}); name another with --out"
            ) from error
        return folder


def check_beside(file: Path, beside: Path) -> None:
    """Raise where a file that is written beside another one would replace something else.

    An earlier file of the same name may be replaced together with what lies beside it.

    Raises:
        FerError: there is a file beside, but not the other one.
    """
    if beside.exists() and not file.exists():
        raise FerError(
            f"{file}: {beside.name} is written beside it, and there is such a file already; move or rename it"
        )


def new_file(folder: Path, stem: str, suffix: str, *beside: str) -> Path:
    """Return the first path of ``<stem><suffix>``, ``<stem>_2<suffix>``, ... in a folder at which there is no file.

    Nor is there one of the same name with a suffix of ``beside``.
    """
    number, name = 1, stem
    while any((folder / f"{name}{one}").exists() for one in (suffix, *beside)):
        number += 1
        name = f"{stem}_{number}"
    return folder / f"{name}{suffix}"


def unused_folder(folder: Path) -> Path:
    """Make and return a folder; in place of one that holds files, a new one beside it with a number."""
    folder = expand_home(folder).absolute()
    return folder if folder.is_dir() and not any(folder.iterdir()) else new_folder(folder.parent, folder.name)


def read_history(file: Path) -> list[dict[str, float]]:
    """Return the rows of a run's ``history.csv``, one for each epoch."""
    with opened_text(file) as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
