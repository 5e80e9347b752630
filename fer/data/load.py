"""Loading of the faces that the data settings name.

Faces are read or drawn, labelled and resized. The path alone decides which reader is used.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data import resize
from fer.data.cache import cached, folder_of
from fer.data.faces import Faces, OnBad, some
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS, emotion_index
from fer.data.readers import READERS, Reader, csv_file, image_folder, synthetic
from fer.data.readers.ferplus import VOTES_ALONE, join_votes
from fer.data.readers.picture_set import PictureSet
from fer.data.readers.pixel_memory import PixelMemory, entered
from fer.data.rows import outside
from fer.data.votes import relabelled
from fer.system.text import plural

log = logging.getLogger(__name__)

CONTEMPT = FERPLUS_EMOTIONS.index("contempt")
WRAPPERS = 3  # levels of enclosing folders that are searched, as in archive/images/images/train


def read_faces(data: DataSettings) -> Faces:
    """Return the faces that ``data`` names, with votes and labels.

    Raises:
        FerError: the data are missing or bad.
    """
    if data.path is None:
        raise FerError("data.path is not set; give a table, an archive, a folder or 'synthetic'")
    if data.path == synthetic.NAME:
        return _drawn(data)
    folder, names = folder_of(data.cache), folder_names(data.class_names or {})
    faces = read_path(
        Path(data.path), image_size=data.image_size, on_bad=data.on_bad, cache=folder, names=names,
        memory_limit_gb=data.memory_limit_gb, channels=data.channels,
    )  # fmt: skip
    if data.votes is not None:
        faces = join_votes(faces, Path(data.votes))
    faces = labelled(faces, data)
    return faces if faces.image_size == data.image_size else resized(faces, data.image_size)


def _drawn(data: DataSettings) -> Faces:
    """Return drawn faces.

    Raises:
        FerError: the settings ask for votes, labels, classes or colours that drawn faces do not have.
    """
    drawn_as = {
        "votes": (None, "drawn faces have no votes; leave it out or name FER2013's table"),
        "labels": ("fer2013", "drawn faces have no votes to make labels of; leave it out"),
        "classes": (len(EMOTIONS), "no drawn face shows contempt; leave it out"),
        "class_names": (None, "drawn faces are in no folders of classes; leave it out"),
        "channels": (1, "drawn faces are grey; leave it out"),
    }
    for key, (only, remedy) in drawn_as.items():
        if (value := getattr(data, key)) not in (only, {}):
            raise FerError(
                f"{setting(f'data.{key}', _in_braces(value) if isinstance(value, dict) else value)}: {remedy}"
            )
    return synthetic.read(data.synthetic_count, seed=data.synthetic_seed, image_size=data.image_size)


def folder_names(given: Mapping[str, str]) -> dict[str, str]:
    """Return class folder, in small letters -> emotion, from ``data.class_names``.

    Raises:
        FerError: a value is no emotion.
    """
    for folder, emotion in given.items():
        if emotion_index(str(emotion), FERPLUS_EMOTIONS) is None:
            named = setting("data.class_names", f"{{{folder}:{emotion}}}")
            raise FerError(f"{named}: {str(emotion)!r} is no emotion; expected one of {', '.join(FERPLUS_EMOTIONS)}")
    return {str(folder).strip().lower(): emotion for folder, emotion in given.items()}


def read_path(
    path: Path,
    *,
    image_size: int,
    on_bad: OnBad,
    cache: Path | None,
    names: image_folder.Names = image_folder.NO_NAMES,
    memory_limit_gb: float | None = None,
    channels: int = 1,
) -> Faces:
    """Read the faces at ``path`` with the reader that recognises its layout.

    Args:
        path: a table, an archive of one, or a folder.
        image_size: side of the faces, in pixels.
        on_bad: "error" raises on the first bad row or file; "skip" leaves it out, and lists it in ``Source.skipped``.
        cache: folder of the cache, or None to parse the files each time.
        names: class folder, in small letters -> emotion, for folders of other names.
        memory_limit_gb: GB of memory for the pixels; more are memory-mapped or decoded on demand, see ``pixel_memory``.
        channels: 3 keeps the colours of pictures too.

    Raises:
        FerError: ``path`` does not exist, or no reader recognises its layout; the data are bad or have no colours;
            ``names`` are given for labels that state their own meaning.
    """
    name, reader, inner = recognise(path, names)
    if names and not hasattr(READERS.get(name), "named"):
        given = setting("data.class_names", _in_braces(names))
        raise FerError(
            f"{given}: names class folders, or the numbers of parquet files; {path} states what its own labels mean "
            f"({_meaning(name)}); leave it out"
        )
    if channels == 3:
        reader = _in_colour(reader, name, path, memory_limit_gb)
    uncached = cache is None or name == "ferplus"  # cache entries have no column for votes
    files = [] if uncached else reader.files(inner)
    variant = f"{name} {image_size} {on_bad}{sorted(names.items()) if names else ''}{' RGB' * (channels == 3)}"
    with entered(PixelMemory(memory_limit_gb, cache)) as memory:
        faces = cached(files, variant, memory, lambda: reader.read(inner, image_size=image_size, on_bad=on_bad))
    return faces.noted(*([] if inner == path else [f"read from {inner}"]), *_not_read(path, inner, name))


def _in_braces(names: Mapping[str, str]) -> str:
    return f"{{{','.join(f'{folder}:{emotion}' for folder, emotion in names.items())}}}"


def _meaning(name: str) -> str:
    """Return in words what the labels of a reader without ``data.class_names`` mean."""
    if READERS.get(name) is not csv_file:
        return f"layout {name}"
    return f"numbers as in FER2013: {', '.join(f'{number} {emotion}' for number, emotion in enumerate(EMOTIONS))}"


def recognise(path: Path, names: image_folder.Names = image_folder.NO_NAMES) -> tuple[str, Reader, Path]:
    """Return the reader's name, the reader, and the folder inside ``path`` that it reads.

    Raises:
        FerError: ``path`` does not exist, or no reader recognises its layout.
    """
    if not path.exists():
        raise FerError(f"{path}: no such file or folder; expected FER2013 as CSV, archive or folders of pictures")
    inner = path
    for _ in range(WRAPPERS + 1):
        if recognised := _reader_of(inner, names):
            return *recognised, inner
        wrapped = _wrapped(inner)
        if wrapped is None:
            break
        inner = wrapped
    raise FerError(
        f"{path}: no data set recognised; expected fer2013.csv, icml_face_data.csv or train.csv (also as .gz, .zip, "
        f".tar.gz), or folders named by emotion, below train/ val/ test/ or alone{_folders_instead(inner)}"
    )


def _reader_of(folder: Path, names: image_folder.Names) -> tuple[str, Reader] | None:
    """Return the newest reader that recognises a folder or file, and its name.

    Class folders are read in place of tables that hold no faces.
    """
    trees = image_folder.named(names)
    for name, reader in READERS.newest_first():
        reader = reader.named(names) if hasattr(reader, "named") else reader
        if not reader.recognises(folder):
            continue
        if names and isinstance(reader, PictureSet) and trees.recognises(folder):
            continue  # what the user says about class folders comes first
        if reader is csv_file and folder.is_dir() and trees.recognises(folder) and csv_file.without_pixels(folder):
            continue
        return name, reader
    return None


def _wrapped(folder: Path) -> Path | None:
    """Return the subfolder that may hold the data, or None if no single one qualifies."""
    if not folder.is_dir():
        return None
    folders = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    named = [entry for entry in folders if entry.name.lower() in ("images", "fer2013", "data")]
    return named[0] if named else folders[0] if len(folders) == 1 else None


def _folders_instead(folder: Path) -> str:
    """Return in words which folders there are instead, and how to say what they mean; empty for a file."""
    if not folder.is_dir():
        return ""
    names = dict.fromkeys(entry.name for _, entry in image_folder.class_folders(folder))
    if not names:
        return ""
    numbered = all(name.strip().isdigit() for name in names)
    example = f"{{{','.join(f'{name}:EMOTION' for name in list(names)[:2])},...}}" if numbered else "{FOLDER:EMOTION}"
    return (
        f"; it holds the folders {some(names, 10)}. If each is a class, {setting('data.class_names', example)} says "
        "which; if one is a data set, name it"
    )


def _in_colour(reader: Reader, name: str, path: Path, memory_limit_gb: float | None) -> Reader:
    """Return a reader that keeps the colours.

    Raises:
        FerError: the layout has none, or a limit of memory is given.
    """
    if memory_limit_gb is not None:
        raise FerError(
            f"{setting('data.memory_limit_gb', memory_limit_gb)}: colours are kept in memory alone; leave it out, or "
            "set data.channels=1"
        )
    if not getattr(reader, "in_colour", False):
        raise FerError(
            f"{setting('data.channels', 3)}: {path} (reader {name}) has grey faces alone; set data.channels=1, or name "
            "pictures in colour"
        )
    return _InColour(reader)


class _InColour:
    """A reader that keeps the colours.

    Args:
        reader: whose ``read`` takes ``channels``.
    """

    def __init__(self, reader: Any) -> None:
        self.recognises, self.files = reader.recognises, reader.files
        self._read = reader.read

    def read(self, path: Path, *, image_size: int, on_bad: OnBad) -> Faces:
        """Return the faces, with their colours."""
        faces: Faces = self._read(path, image_size=image_size, on_bad=on_bad, channels=3)
        return faces


def _not_read(path: Path, inner: Path, name: str) -> list[str]:
    """Return notes on what lies beside the data that are read: tables without faces, and other data sets."""
    if not path.is_dir():
        return []
    notes = [f"no faces in a table beside the class folders: {problem}" for problem in _lists_beside(inner, name)]
    folder_reader = name == "image_tree" or isinstance(READERS.get(name), PictureSet)
    unread = [inner] if not folder_reader and image_folder.recognises(inner) else []
    for folder in (path, *(parent for parent in inner.parents if path in parent.parents)):
        if folder != inner:
            inside = (entry for entry in image_folder.subfolders(folder) if entry != inner)
            unread += [entry for entry in inside if entry not in inner.parents and _holds_data(entry)]
    if unread:
        shown = some("its class folders" if other == inner else other for other in unread)
        notes.append(f"other data sets there are not read: {shown}; {setting('data.path')} names one of them")
    return notes


def _lists_beside(inner: Path, name: str) -> list[str]:
    return csv_file.without_pixels(inner) if name == "image_tree" else []


def _holds_data(folder: Path) -> bool:
    return any(reader.recognises(folder) for _, reader in READERS.newest_first())


def holds_contempt(path: Path, names: image_folder.Names) -> bool:
    """Return whether ``path`` holds class folders of which one means contempt, or a data set that labels it."""
    _, reader, inner = recognise(path, names)
    classes_of = getattr(reader, "classes_of", None)
    return classes_of is not None and CONTEMPT in classes_of(inner)


def labelled(faces: Faces, data: DataSettings) -> Faces:
    """Return the faces with the labels that ``data`` names; faces of FER+'s folders have votes as their only labels.

    Raises:
        FerError: ``data.labels=ferplus``, and the faces have no votes; ``data.classes=8``, and none shows contempt.
    """
    if data.labels == "ferplus":
        return relabelled(faces, data.ferplus_rule, data.classes)
    if faces.source.labels == VOTES_ALONE:
        return relabelled(faces, "argmax", data.classes)
    if data.classes == 8 and len(faces.classes) < 8:
        raise FerError(
            f"data.classes=8: {data.path} labels no face as contempt; FER+ does "
            f"({setting('data.labels', 'ferplus')} and {setting('data.votes')}), otherwise set data.classes=7"
        )
    return without_contempt(faces) if data.classes < len(faces.classes) else faces


def without_contempt(faces: Faces) -> Faces:
    """Return the faces of FER2013's seven emotions; a note counts those that were left out."""
    kept = np.flatnonzero(faces.targets < len(EMOTIONS))
    if not kept.size:
        raise FerError(f"{faces.source.path}: has pictures of contempt alone; data.classes=8 takes them")
    return replace(faces.taken(kept), classes=EMOTIONS).noted(
        f"{plural(len(faces) - len(kept), 'image')} of contempt left out (data.classes=8 takes them)"
    )


def resized(faces: Faces, side: int) -> Faces:
    """Return the faces resampled to ``side`` x ``side`` pixels, with antialiasing."""

    def smaller(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        resampled = np.empty((len(images), *images.shape[1:-2], side, side), np.uint8)
        for start in range(0, len(images), 1024):
            resampled[start : start + 1024] = resize.resized(np.array(images[start : start + 1024]), side)
        return resampled

    if outside(faces.images) is not None:
        size = len(faces) * side**2 / 1e9
        log.info("  resized from %d to %d px: %.2f GB in memory", faces.image_size, side, size)
    return replace(faces, images=smaller(faces.images), colour=None if faces.colour is None else smaller(faces.colour))
