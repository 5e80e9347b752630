"""The cache of parsed tables, memory-mapped.

With it the second start takes a fraction of a second. The key of an entry is the contents of its source files. Hashing
300 MB at every start would take longer than all other steps. A small index therefore maps the data of ``stat`` (name,
size, time of change) to the hash of the contents, as git's index does. A file that was touched, copied or changed is
hashed again. An entry is written under a temporary name and renamed: no process sees half an entry, and two writers
never mix. A damaged entry is detected by its checksum and rebuilt.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.data.faces import Faces, Source
from fer.data.rows import built, checksum
from fer.system.files import written_aside

if TYPE_CHECKING:
    from fer.data.readers.pixel_memory import PixelMemory

log = logging.getLogger(__name__)

FORMAT = 4  # raise it when a reader's result or the layout of an entry changes
STILL_CHANGING_S = 2.0  # a file changed this recently may change again within the clock's resolution
COLUMNS = ("images", "targets", "official", "given", "rows")
PICTURES = ".pictures"  # ending of an entry that has an index of pictures, and no pixels
OPTIONAL = ("group", "colour")  # columns that an entry has where its faces have them
MAPPED = ("images", "colour")  # columns that are not read into memory


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/fer``, by default ``~/.cache/fer``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer"


def folder_of(setting: str | None) -> Path | None:
    """Return the folder for a value of ``data.cache``; None turns the cache off."""
    if not setting:
        return None
    return default_folder() if setting == "auto" else expand_home(setting)


def cached(files: Sequence[Path], variant: str, memory: "PixelMemory", read: Callable[[], Faces]) -> Faces:
    """Return ``read()``, or the same table from the cache if these files were read before.

    Args:
        files: the files that ``read`` opens. Of links that lead nowhere, and of folders, the name counts alone.
        variant: text of all other inputs of the result (reader, image size).
        memory: has the folder of the cache, created if necessary, and the limit of memory. If the folder cannot be
            written, a warning is logged and nothing is cached.
        read: parses the files.
    """
    folder = memory.folder
    if not files or folder is None:
        return memory.placed(read(), None)  # no files, no key; the reader reports what is missing
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _key(files, variant, folder)
    except OSError as error:
        log.warning("no cache: %s (%s); parsing again", error.filename or folder, error.strerror)
        return memory.placed(read(), None)
    entry = folder / key
    if not memory.limited:
        return _known(entry, memory) or _new(entry, memory, read)
    return _known(entry, memory) or _alone(entry, memory, read)


def _alone(entry: Path, memory: "PixelMemory", read: Callable[[], Faces]) -> Faces:
    """Return faces that one process alone reads, since they may fill the disk; others wait for it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(memory.building(entry))
        except OSError as error:
            log.warning("no cache: %s (%s)", error.filename or entry, error.strerror)
        return _known(entry, memory) or _new(entry, memory, read)


def _known(entry: Path, memory: "PixelMemory") -> Faces | None:
    """Return the table of an entry, or of its index where that has to do; None where there is none."""
    for candidate in (entry, entry.with_name(entry.name + PICTURES)):
        if not candidate.is_dir() or (candidate != entry and not memory.limited):
            continue
        try:
            faces = _load(candidate, memory)
        except FerError:
            raise
        except Exception as error:  # numpy raises nearly anything on a damaged header: EOFError, TokenError, ValueError
            log.warning("the cached table %s is damaged (%s); parsing again", candidate, error)
            shutil.rmtree(candidate, ignore_errors=True)
            continue
        size = faces.images.nbytes
        if candidate == entry or (memory.exceeded(size) and not memory.fits_disk(size)):
            return memory.placed(faces, candidate)
    return None


def _new(entry: Path, memory: "PixelMemory", read: Callable[[], Faces]) -> Faces:
    """Return ``read()``, after it was stored."""
    faces = read()
    if faces.votes is not None:  # an entry has no column for votes
        return memory.placed(faces, None)
    unwritten = built(faces.images)
    pixels = unwritten is None or "images" in unwritten.checksums
    target = entry if pixels else entry.with_name(entry.name + PICTURES)
    try:
        _store(faces, target)
    except OSError as error:
        if unwritten is not None:
            raise FerError(
                f"{error.filename or target}: {error.strerror}; free the disk, or name another data.cache"
            ) from error
        log.warning("could not cache: %s (%s)", error.filename or target, error.strerror)
        return memory.placed(faces, None)
    if memory.limited:
        faces = _load(target, memory)
    return memory.placed(faces, target)


def _key(files: Sequence[Path], variant: str, folder: Path) -> str:
    """Return the entry's name: a hash over contents, file names and variant."""
    stats = [_stat(file) for file in files]
    names = [str(file.absolute()) for file in files]  # unresolved: the folder of a link may name its label
    states = [
        (name, known and (known.st_size, known.st_mtime_ns, known.st_ctime_ns, known.st_ino))
        for name, known in zip(names, stats, strict=True)
    ]
    index = folder / "index" / hashlib.sha256(repr((FORMAT, variant, states)).encode()).hexdigest()
    if index.is_file() and re.fullmatch("[0-9a-f]{64}", key := index.read_text(errors="replace")):
        return key
    digest = hashlib.sha256(repr((FORMAT, variant, names)).encode())
    for file, known in zip(files, stats, strict=True):
        if known is None:
            digest.update(b"no file")
            continue
        with open(file, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    newest = max((max(known.st_mtime, known.st_ctime) for known in stats if known), default=0)
    if newest < time.time() - STILL_CHANGING_S:
        with suppress(OSError):  # it saves the next start time; a cache that cannot be written can still be read
            index.parent.mkdir(exist_ok=True)
            with written_aside(index) as part:
                part.write_text(digest.hexdigest())
    return digest.hexdigest()


def _stat(file: Path) -> os.stat_result | None:
    """Return the size and times of a file; None of a link that leads nowhere, a folder or a pipe."""
    try:
        found = file.stat()
    except OSError:  # such as of a link that leads to itself
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _load(entry: Path, memory: "PixelMemory") -> Faces:
    """Return the table of an entry, its pixels memory-mapped or, where it has none, decoded on demand.

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
    if "images" not in columns:
        for name, recorded in about.get("files", {}).items():
            if _sum(entry / name) != recorded:
                raise ValueError(f"checksum of {name}")
        columns["images"] = memory.load(entry)
    source = about["source"]
    source["notes"], source["skipped"] = tuple(source["notes"]), tuple(source["skipped"])
    return Faces(**columns, source=Source(**source), classes=tuple(about["classes"]))  # type: ignore[arg-type]


def _store(faces: Faces, entry: Path) -> None:
    """Write an entry without votes; an entry that another process has finished meanwhile is kept."""
    with written_aside(entry) as part:
        part.mkdir()
        names = (*COLUMNS, *(name for name in OPTIONAL if getattr(faces, name) is not None))
        columns = {name: getattr(faces, name) for name in names}
        checksums, files = {}, {}
        if (unwritten := built(faces.images)) is not None:
            unwritten.write(part, faces)
            files = {file.name: _sum(file) for file in part.iterdir() if file.suffix != ".npy"}
            checksums.update(unwritten.checksums)
            del columns["images"]
        for name, column in columns.items():
            np.save(part / f"{name}.npy", column, allow_pickle=False)
            checksums[name] = checksum(column)
        about = {"source": asdict(faces.source), "classes": faces.classes, "checksums": checksums, "files": files}
        (part / "about.json").write_text(json.dumps(about, indent=1))


def _sum(file: Path) -> int:
    return zlib.adler32(file.read_bytes())
