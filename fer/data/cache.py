"""The cache of parsed tables, memory-mapped: the second start takes a fraction of a second.

The key of an entry is the contents of its source files. Hashing 300 MB at every start would take longer than all other
steps, so that a small index maps the data of ``stat`` (name, size, time of change) to the hash of the contents, as
git's index does. A file that was touched, copied or changed is hashed again. An entry is written under a temporary name
and renamed: no process sees half an entry, and two writers never mix. A damaged entry is detected by its checksum and
rebuilt.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer.data.faces import Faces, Source

log = logging.getLogger(__name__)

FORMAT = 2  # raise it when a reader's result or the layout of an entry changes
STILL_CHANGING_S = 2.0  # a file changed this recently may change again within the clock's resolution
COLUMNS = ("images", "targets", "official", "given", "rows")
OPTIONAL = ("group", "colour")  # columns that an entry has where its faces have them
MAPPED = ("images", "colour")  # columns that are not read into memory


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/fer``, by default ``~/.cache/fer``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer"


def folder_of(setting: str | None) -> Path | None:
    """Return the folder for a value of ``data.cache``; None turns the cache off."""
    if not setting:
        return None
    return default_folder() if setting == "auto" else Path(setting).expanduser()


def cached(files: Sequence[Path], variant: str, folder: Path, read: Callable[[], Faces]) -> Faces:
    """Return ``read()``, or the same table from the cache if these files were read before.

    Args:
        files: the files that ``read`` opens.
        variant: text of all other inputs of the result (reader, image size).
        folder: of the cache, created if necessary. If it cannot be written, a warning is logged and nothing is cached.
        read: parses the files.
    """
    if not files:
        return read()  # no files, no key; the reader reports what is missing
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _key(files, variant, folder)
    except OSError as error:
        log.warning("no cache: %s (%s); parsing again", error.filename or folder, error.strerror)
        return read()
    entry = folder / key
    if entry.is_dir():
        try:
            return _load(entry)
        except Exception as error:  # numpy raises nearly anything on a damaged header: EOFError, TokenError, ValueError
            log.warning("the cached table %s is damaged (%s); parsing again", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    faces = read()
    if faces.votes is not None:  # an entry has no column for votes
        return faces
    try:
        _store(faces, entry)
    except OSError as error:
        log.warning("could not cache: %s (%s)", error.filename or entry, error.strerror)
    return faces


def _key(files: Sequence[Path], variant: str, folder: Path) -> str:
    """Return the entry's name: a hash over contents, file names and variant."""
    stats = [file.stat() for file in files]
    names = [str(file.absolute()) for file in files]  # unresolved: the folder of a link may name its label
    states = [
        (name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        for name, stat in zip(names, stats, strict=True)
    ]
    index = folder / "index" / hashlib.sha256(repr((FORMAT, variant, states)).encode()).hexdigest()
    if index.is_file() and re.fullmatch("[0-9a-f]{64}", key := index.read_text(errors="replace")):
        return key
    digest = hashlib.sha256(repr((FORMAT, variant, names)).encode())
    for file in files:
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    if max(max(stat.st_mtime, stat.st_ctime) for stat in stats) < time.time() - STILL_CHANGING_S:
        index.parent.mkdir(exist_ok=True)
        with written_aside(index) as part:
            part.write_text(digest.hexdigest())
    return digest.hexdigest()


def _load(entry: Path) -> Faces:
    """Return the table of an entry, its pixels memory-mapped.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged.
    """
    about = json.loads((entry / "about.json").read_text())
    columns: dict[str, NDArray[np.generic]] = {}
    for name in about["checksums"].keys() & {*COLUMNS, *OPTIONAL}:
        column = np.load(entry / f"{name}.npy", mmap_mode="r" if name in MAPPED else None, allow_pickle=False)
        if checksum(column) != about["checksums"][name]:
            raise ValueError(f"checksum of {name}")
        columns[name] = column
    source = about["source"]
    source["notes"], source["skipped"] = tuple(source["notes"]), tuple(source["skipped"])
    return Faces(**columns, source=Source(**source), classes=tuple(about["classes"]))  # type: ignore[arg-type]


def _store(faces: Faces, entry: Path) -> None:
    """Write an entry without votes; an entry that another process has finished meanwhile is kept."""
    with written_aside(entry) as part:
        part.mkdir()
        columns = (*COLUMNS, *(name for name in OPTIONAL if getattr(faces, name) is not None))
        for name in columns:
            np.save(part / f"{name}.npy", getattr(faces, name), allow_pickle=False)
        checksums = {name: checksum(getattr(faces, name)) for name in columns}
        about = {"source": asdict(faces.source), "classes": faces.classes, "checksums": checksums}
        (part / "about.json").write_text(json.dumps(about, indent=1))


def checksum(column: NDArray[np.generic]) -> int:
    """Return a checksum that changes with nearly any damage."""
    # adler32 reads 2 to 3 GB/s, several times crc32, and finds any flipped byte
    return zlib.adler32(np.ascontiguousarray(column).data)


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``, and rename it to ``target`` if the block succeeds."""
    scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        yield scratch / target.name
        os.replace(scratch / target.name, target)
    except OSError:
        if not target.exists():  # otherwise another process has written the same contents first
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
