"""FER2013's table as a file: found in a folder, opened packed or not, and read line by line."""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from fer.config.errors import FerError
from fer.data.faces import some
from fer.data.readers.images import named_as_picture
from fer.system.files import POINTER, is_pointer, opened

ARCHIVES = (".zip", ".tar.gz", ".tgz")
SUFFIXES = (".csv", ".csv.gz", *ARCHIVES)
PRECEDENCE = ("fer2013.csv", "icml_face_data.csv", "train.csv", "test.csv")
LONGEST = 100_000  # bytes of a line
RATIO, SPARE = 100, 1 << 27  # most that an archive may unpack to: a hundredfold and 128 MiB; FER2013 takes a third
DAMAGED = (
    EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, NotImplementedError,
    struct.error, ValueError,
)  # fmt: skip


class NoFaces(FerError):
    """A file that is no table of faces: a list of pictures, an archive of them, or an empty file."""


def why_no_faces(files: Sequence[Path], opens: Callable[[Path], object]) -> list[str]:
    """Return the problem of each file if none of them holds faces, such as lists of pictures; else nothing.

    Args:
        files: tables.
        opens: opens one, and raises ``NoFaces`` if it holds none.
    """
    problems = []
    for file in files:
        try:
            opens(file)
        except NoFaces as problem:
            problems.append(str(problem))
        except FerError:
            return []  # damaged, which is reported as it is read
        else:
            return []
    return problems


@contextmanager
def sound(file: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into one line that names the file."""
    try:
        yield
    except DAMAGED as error:
        raise FerError(f"{file}: damaged or incomplete ({error}); download it again") from error
    except OSError as error:
        if error.errno is not None:  # of the file system, not of a decoder such as bzip2's
            raise
        raise FerError(f"{file}: damaged or incomplete ({error}); download it again") from error


def is_table(path: Path) -> bool:
    """Return whether a file is named like a table, packed or not."""
    return path.name.lower().endswith(SUFFIXES)


def tables_in(folder: Path) -> list[Path]:
    """Return the tables in a folder with a name of FER2013's, in order of precedence, then archives with a table."""
    tables = [path for path in folder.iterdir() if path.is_file() and is_table(path)]
    named = [path for path in tables if _rank(path.name) is not None]
    archives = [path for path in tables if path not in named and _contains_table(path)]
    return [*sorted(named, key=lambda path: (_rank(path.name), path.name)), *sorted(archives)]


def _contains_table(file: Path) -> bool:
    """Return whether a zip of any name, such as Kaggle's archive.zip, contains a table or an archive of one."""
    if not zipfile.is_zipfile(file):
        return False
    with sound(file), zipfile.ZipFile(file) as archive:
        return any(_rank(Path(name).name) is not None for name in archive.namelist() if not _is_hidden(name))


def _rank(name: str) -> int | None:
    """Return a file's rank in ``PRECEDENCE``, or None; an archive has the rank of its table."""
    stem = name.lower()
    for suffix in (".gz", ".zip", ".tar", ".tgz"):
        stem = stem.removesuffix(suffix)
    stem = stem if stem.endswith(".csv") else stem + ".csv"
    return PRECEDENCE.index(stem) if stem in PRECEDENCE else None


def chosen(path: Path) -> tuple[Path, str]:
    """Return the table to read, and a note if the folder contains several."""
    if path.is_file():
        return path, ""
    tables = tables_in(path)
    if not tables:
        raise FerError(f"{path}: holds none of {', '.join(PRECEDENCE)}")
    unused = some(table.name for table in tables[1:])
    return tables[0], f"{tables[0].name} is read; also in the folder: {unused}" if unused else ""


class Opened(NamedTuple):
    """A table that can be read.

    Args:
        stream: its bytes.
        name: its name.
        others: further tables of the archive that it is in.
    """

    stream: IO[bytes]
    name: str
    others: Sequence[str] = ()


def open_table(file: Path, stack: ExitStack) -> Opened:
    """Return a stream of the table.

    Raises:
        FerError: the contents do not match the suffix of the file, or an archive contains no table, or several of the
            same name.
    """
    raw = stack.enter_context(opened(file))
    name, magic = file.name.lower(), raw.read(4)
    raw.seek(0)
    if is_pointer(file):
        raise NoFaces(f"{file}: {POINTER}")
    kind = "zip" if magic[:2] == b"PK" else "gzip" if magic[:2] == b"\x1f\x8b" else "text"
    expected = "zip" if name.endswith(".zip") else "gzip" if name.endswith((".gz", ".tgz")) else "text"
    if not magic:
        raise NoFaces(f"{file}: is empty (0 bytes)")
    if kind != expected:
        raise FerError(f"{file}: is named as {expected} but holds {kind}; rename it to the suffix of its contents")
    if kind == "text":
        return Opened(raw, file.name)
    if kind == "zip":
        return _open_zip(file, stack)
    if name.endswith((".tar.gz", ".tgz")):
        return _open_tar(raw, file, stack)
    return Opened(io.BufferedReader(stack.enter_context(gzip.open(raw))), file.name[: -len(".gz")])


def _open_zip(file: Path, stack: ExitStack) -> Opened:
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
        member, others = _best_member([entry for entry in archive.namelist() if not entry.endswith("/")], file)
        opened = stack.enter_context(archive.open(member))
    except RuntimeError as error:  # encrypted, or an unknown compression
        raise FerError(f"{file}: cannot be unpacked ({error}); unpack it by hand") from error
    except OSError as error:  # the directory at the end of the file has a bad offset
        raise zipfile.BadZipFile(str(error)) from error
    stream = io.BufferedReader(opened, 1 << 20)  # type: ignore[type-var]
    if member.lower().endswith(".tar.gz"):  # Kaggle's archive contains fer2013.tar.gz and other tables
        inner = _open_tar(stream, file, stack)
        return inner._replace(others=[*inner.others, *others])
    return Opened(stream, Path(member).name, others)


def _open_tar(stream: IO[bytes], file: Path, stack: ExitStack) -> Opened:
    unpacked = stack.enter_context(gzip.open(stream))
    while unpacked.read(1 << 20):  # to the end, where gzip checks its checksum; tarfile stops before it
        _refuse_bomb(unpacked.tell(), file)
    unpacked.seek(0)
    archive = stack.enter_context(tarfile.open(fileobj=unpacked, mode="r:"))
    member, others = _best_member([entry.name for entry in archive.getmembers() if entry.isfile()], file)
    extracted = archive.extractfile(member)
    assert extracted is not None  # a plain file, by the filter above
    return Opened(stack.enter_context(extracted), Path(member).name, others)


def _best_member(names: Sequence[str], file: Path) -> tuple[str, list[str]]:
    """Return the table to read among the files of an archive, and the names of its other tables."""
    names = [name for name in names if not _is_hidden(name)]
    ranked = sorted((rank, name) for name in names if (rank := _rank(Path(name).name)) is not None)
    if ranked:
        best = [name for rank, name in ranked if rank == ranked[0][0]]
        if len(best) > 1:
            raise FerError(f"{file}: holds several tables of one name: {some(best)}; unpack it and name one of them")
        return best[0], [Path(name).name for _, name in ranked[1:]]
    tables = [name for name in names if name.lower().endswith(".csv")]
    if len(tables) == 1:
        return tables[0], []
    if pictures := [name for name in names if named_as_picture(name)]:
        raise NoFaces(f"{file}: holds pictures, such as {pictures[0]}; unpack it and name the folder")
    raise NoFaces(f"{file}: holds none of {', '.join(PRECEDENCE)}; it holds {some(names) or 'nothing'}")


def _is_hidden(name: str) -> bool:
    """Return whether a file in an archive is hidden, as those that a Mac adds."""
    return any(part.startswith(".") or part == "__MACOSX" for part in Path(name).parts)


def lines_of(stream: IO[bytes], file: Path) -> Iterator[bytes]:
    """Yield the lines of a table; of one that is too long for memory the first ``LONGEST`` + 1 bytes.

    Raises:
        FerError: the archive unpacks to far more than its size.
    """
    count, inside = 0, False  # bytes so far; whether the next bytes belong to a line that is too long
    while line := stream.readline(LONGEST + 1):
        count += len(line)
        _refuse_bomb(count, file)
        if not inside:
            yield line
        inside = (inside or len(line) > LONGEST) and not line.endswith(b"\n")


def _refuse_bomb(unpacked: int, file: Path) -> None:
    if unpacked > SPARE and unpacked > RATIO * file.stat().st_size + SPARE:
        raise FerError(f"{file}: refused, it unpacks to more than {RATIO} times its size, which no table of faces does")
