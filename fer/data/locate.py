"""The search for the data, and for the reader of their layout.

Data are searched in this order: the given path, ``$FER_DATA``, ``data/`` here, ``data/`` at the checkout's root, drawn
faces. Only a single plain ``fer.train`` may draw faces if no data are named. A sweep, a resumed run and an evaluation
never replace data by drawn faces. The configuration keeps ``data.path: null``; the path in use is stored in
``metrics.json`` and in the checkpoint.
"""

import os
from pathlib import Path

from fer.config.errors import FerError, setting
from fer.config.paths import expand_home
from fer.data.faces import UNKNOWN, some
from fer.data.labels import EMOTIONS, class_index, naming
from fer.data.readers import READERS, Reader, csv_file, image_folder, jaffe, kdef, parquet
from fer.data.readers.picture_set import PictureSet
from fer.data.readers.synthetic import NAME as SYNTHETIC
from fer.data.readers.table_file import ARCHIVES, is_table, tables_in

VARIABLE = "FER_DATA"
WRAPPERS = 3  # levels of enclosing folders that are searched, as in archive/images/images/train


def how_to_get() -> str:
    """Return instructions: the source of FER2013, and the settings by which a command finds it."""
    return (
        "FER2013 is Kaggle's 'challenges-in-representation-learning-facial-expression-recognition-challenge' "
        f"(or its copy 'msambare/fer2013'): put the file or folder into data/, or set {setting('data.path')} or "
        f"${VARIABLE}"
    )


def locate(path: str | None, *, drawn_faces_allowed: bool) -> tuple[str, bool]:
    """Return the path of the data, and whether drawn faces replace data that were not named.

    Args:
        path: the path given by the user, or None to search.
        drawn_faces_allowed: whether drawn faces are used if no data are found.

    Raises:
        FerError: a given path is missing, or no data are found and drawn faces are not allowed.
    """
    if path == SYNTHETIC:
        return SYNTHETIC, False
    if path is not None:
        return existing(path, setting("data.path", path)), False
    if os.environ.get(VARIABLE):
        return existing(os.environ[VARIABLE], f"${VARIABLE}={os.environ[VARIABLE]}"), False
    folders = data_folders()
    for folder in folders:
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return str(folder), False
    if drawn_faces_allowed:
        return SYNTHETIC, True
    empty = f"{folders[0]} is" if len(folders) == 1 else f"{' and '.join(map(str, folders))} are"
    raise FerError(
        f"no data: {setting('data.path').rstrip('=')} and ${VARIABLE} are not set and {empty} empty or missing. "
        f"{how_to_get()}"
    )


def data_folders() -> list[Path]:
    """Return the folders that are searched: ``data/`` in the current folder, and at the root of a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    roots = [Path.cwd(), *([checkout] if (checkout / "pyproject.toml").is_file() else [])]
    return [root / "data" for root in dict.fromkeys(roots)]


def existing(path: str, given: str, remedy: str = "") -> str:
    """Return the absolute path of data that a user has named.

    Args:
        path: of a file or folder.
        given: the setting, for the message.
        remedy: what to do where there is none.

    Raises:
        FerError: there is none.
    """
    whole = expand_home(path)
    if not path or not whole.exists():  # Path("") is the current folder
        raise FerError(f"{given}: no such file or folder. {remedy or how_to_get()}")
    return str(whole.absolute())  # a run may be resumed or evaluated from another folder


# --- layouts ----------------------------------------------------------------------------------------------------------


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
        f"{_archives_instead(inner)}"
    )


def _reader_of(folder: Path, names: image_folder.Names) -> tuple[str, Reader] | None:
    """Return the newest reader that recognises a folder or file, and its name.

    Class folders are read in place of tables that hold no faces, and of pictures beside them that a data set's names
    may have by chance.
    """
    trees = image_folder.named(names)
    for name, reader in READERS.newest_first():
        of_pictures = isinstance(reader, PictureSet)
        reader = reader.named(names) if hasattr(reader, "named") and not of_pictures else reader
        if not reader.recognises(folder):
            continue
        if names and of_pictures and trees.recognises(folder):
            reader = reader.named(names)
            if not (reader.in_class_folders and reader.has_named(folder)):
                continue  # what the user says about class folders comes first
        if folder.is_dir() and _gives_way(reader, folder) and trees.recognises(folder):
            continue
        return name, reader
    return None


def _gives_way(reader: Reader, folder: Path) -> bool:
    """Return whether class folders, where there are any, are read in place of what a reader recognises."""
    return reader in (jaffe.READER, kdef.READER) or bool(_without_faces(reader, folder))


def _without_faces(reader: Reader, folder: Path) -> list[str]:
    """Return the problems of a folder's tables if none of them holds faces; else nothing."""
    without_faces = getattr(reader, "without_faces", None)
    return without_faces(folder) if without_faces else []


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


def _archives_instead(folder: Path) -> str:
    """Return in words which archives there are instead, and what to do with them; empty for a file."""
    files = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    archives = [name for name in files if name.lower().endswith(ARCHIVES)]
    return f"; an archive of pictures, such as {some(archives, 2)}, is to be unpacked" if archives else ""


def refuse_names(names: image_folder.Names, name: str, reader: Reader, path: Path) -> None:
    """Raise where ``data.class_names`` is given for a layout whose labels state their own meaning.

    Args:
        names: class folder -> emotion.
        name: of the reader.
        reader: for these names, if it takes any.
        path: of the data.

    Raises:
        FerError: the names are given, and the reader takes none.
    """
    takes_names = reader.names == names if isinstance(reader, PictureSet) else hasattr(READERS.get(name), "named")
    if not names or takes_names:
        return
    meaning = f"layout {name}"
    if READERS.get(name) is csv_file:
        numbers = ", ".join(f"{number} {emotion}" for number, emotion in enumerate(EMOTIONS))
        meaning = f"numbers as in FER2013: {numbers}"
    raise FerError(
        f"{naming(names)}: names class folders, or the numbers of parquet files; "
        f"{path} states what its own labels mean ({meaning}); leave it out"
    )


def not_read(path: Path, inner: Path, name: str, names: image_folder.Names) -> list[str]:
    """Return notes on what lies beside the data that are read: tables without faces, and other data sets.

    Args:
        path: of the data.
        inner: the folder in it that is read.
        name: of its reader.
        names: class folder -> emotion.
    """
    if not path.is_dir():
        return []
    notes = _tables_beside(inner) if name == "image_tree" else []
    reader = READERS.get(name)
    reads_class_folders = name == "image_tree" or (isinstance(reader, PictureSet) and reader.in_class_folders)
    unread = [inner] if not reads_class_folders and image_folder.recognises(inner) else []
    if name == "image_tree":
        outside = (folder for split, folder in image_folder.class_folders(inner) if split == UNKNOWN)
        unread += [folder for folder in outside if class_index(folder.name, names) is None and _holds_data(folder)]
    for folder in (path, *(parent for parent in inner.parents if path in parent.parents)):
        if folder != inner:
            inside = (entry for entry in image_folder.subfolders(folder) if entry != inner)
            unread += [entry for entry in inside if entry not in inner.parents and _holds_data(entry)]
    if unread:
        shown = some("its class folders" if other == inner else other for other in unread)
        notes.append(f"other data sets there are not read: {shown}; {setting('data.path')} names one of them")
    return notes


def _tables_beside(folder: Path) -> list[str]:
    """Return notes on the tables beside class folders, which are not read."""
    problems = [problem for _, reader in READERS.newest_first() for problem in _without_faces(reader, folder)]
    notes = [f"no faces in a table beside the class folders: {problem}" for problem in problems]
    known = {*tables_in(folder), *folder.glob(f"*{parquet.SUFFIX}")}
    if others := sorted(file.name for file in folder.iterdir() if is_table(file) and file not in known):
        notes.append(f"not read, beside the class folders: {some(others)}")
    return notes


def _holds_data(folder: Path) -> bool:
    return any(reader.recognises(folder) for _, reader in READERS.newest_first())
