"""The pictures and videos to predict.

Files, folders and patterns name them; a table may give boxes.
"""

import csv
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer.config.errors import FerError
from fer.config.paths import expand_home
from fer.data.crop import Box
from fer.data.faces import some
from fer.data.readers.images import SUFFIXES
from fer.system.files import opened_text
from fer.system.text import plural

LINES = "predictions.jsonl"  # of fer.predict
PAGES, COPIES = "videos", "annotated"  # folders within those of its results: of the videos' pages; the usual one
APPLE = (".heic", ".heif")  # Pillow reads them with a plug-in alone
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
BOX = ("x", "y", "width", "height")


def is_video(file: Path) -> bool:
    """Return whether a file's name is that of a video."""
    return file.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Listing:
    """The files that names stand for.

    Args:
        files: pictures and videos, each once.
        others: ending -> number of the files in the folders that are neither.
        results: folders within the folders with pictures that ``fer.predict`` wrote.
    """

    files: list[Path]
    others: Mapping[str, int]
    results: Sequence[Path] = ()

    @property
    def notes(self) -> list[str]:
        """What was passed over within the folders, in words."""
        results = f"passed over {plural(len(self.results), 'folder')} of results: {some(self.results, 3)}"
        return [*([self._others] if self.others else []), *([results] if self.results else [])]

    @property
    def _others(self) -> str:
        endings = ", ".join(f"{ending or 'no ending'} {count:,}" for ending, count in sorted(self.others.items()))
        return f"passed over {plural(sum(self.others.values()), 'file')}, neither picture nor video: {endings}"


def files(names: Sequence[str], results: Sequence[Path] = ()) -> Listing:
    """Return the pictures and videos that names stand for, each once, and what else lies in the folders.

    A name is a file, a folder with all below it, or a pattern such as ``*.jpg``. Hidden files and folders are passed
    over, and so are links to folders. A folder that cannot be listed stands for itself: whoever reads it says why not.
    The pictures that ``fer.predict`` wrote are passed over: ``results``, and in folders with its records the pages of
    videos and the folder "annotated".

    Args:
        names: of a command line.
        results: folders of marked copies, which the command writes.

    Raises:
        FerError: a name stands for nothing, or is in a folder of ``results``.
    """
    by_path: dict[Path, Path] = {}
    others: dict[str, set[Path]] = {}
    written, passed = {whole_path(folder) for folder in results}, dict[Path, Path]()

    def is_of_results(folder: Path) -> bool:
        named = folder.name in (PAGES, COPIES) and (folder.parent / LINES).is_file()
        return named or whole_path(folder) in written

    for name in names:
        path = _path(name)
        folder = path if path.is_dir() else path.parent
        if whole_path(folder) in written:
            raise FerError(
                f"--annotated {folder}: holds the pictures that are predicted, and a later run would predict the "
                "marked copies too; name another folder"
            )
        if path.is_dir():
            matching = []
            for file in _below(path, is_of_results, passed):
                if _is_known(file):
                    matching.append(file)
                else:
                    others.setdefault(file.suffix.lower(), set()).add(whole_path(file))
            if not matching:
                besides = f" besides results in {some(passed.values(), 3)}" if passed else ""
                raise FerError(
                    f"{name}: no picture or video in this folder{besides}; expected {', '.join((*SUFFIXES, *VIDEOS))}"
                )
        elif path.exists():
            matching = [path]
        else:
            found = [Path(file) for file in sorted(glob.glob(str(path), recursive=True)) if Path(file).is_file()]
            matching = [file for file in found if not is_of_results(file.parent)]
            passed |= {whole_path(file.parent): file.parent for file in found if is_of_results(file.parent)}
            if not matching:
                piped = "; pictures are read from files, not from a pipe" if str(name) == "-" else ""
                raise FerError(f"{name}: no such file or folder, and no file matches it as a pattern{piped}")
        for one in matching:
            by_path.setdefault(whole_path(one), one)  # each once, whatever it is called
    return Listing(
        list(by_path.values()), {ending: len(paths) for ending, paths in others.items()}, list(passed.values())
    )


def _is_known(file: Path) -> bool:
    """Return whether a file's name is that of a picture or video; a folder is one that could not be listed."""
    return file.name.lower().endswith((*SUFFIXES, *APPLE, *VIDEOS)) or file.is_dir()


def _path(name: str) -> Path:
    if not name:  # would stand for the current folder; such is a variable of a script that was not set
        raise FerError("an empty name; expected a picture, a video, a folder or a pattern")
    path = Path(name)
    if name.startswith("~") and not os.path.lexists(path):  # a file may have such a name too
        return expand_home(path)
    return path


def whole_path(file: Path) -> Path:
    """Return the path of a file without links; of a loop of links its own path, and whoever opens it says why not."""
    return Path(os.path.realpath(file))  # Path.resolve raises RuntimeError or OSError at a loop


def _below(folder: Path, passed_over: Callable[[Path], bool], passed: dict[Path, Path]) -> Iterator[Path]:
    """Give the files below a folder, by name; folders that are passed over are added to ``passed``."""
    closed: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        inside = [Path(parent) / name for name in sorted(folders) if not name.startswith(".")]
        left_out = list(filter(passed_over, inside))
        for one in left_out:
            passed.setdefault(whole_path(one), one)
        folders[:] = [one.name for one in inside if one not in left_out]
        for file in sorted(names):
            if not file.startswith("."):
                yield Path(parent) / file
    yield from closed


def boxes(table: Path) -> Mapping[Path, Sequence[Box]]:
    """Return picture -> boxes of its faces, from a CSV with the columns file, x, y, width, height.

    A row without numbers is a picture without a face. Files are named from the table's folder. Pixels are those of
    the upright picture.

    Raises:
        FerError: the table cannot be read, lacks a column, or has a bad row.
    """
    by_file: dict[Path, list[Box]] = {}
    try:
        with opened_text(table) as stream:
            reader = csv.DictReader(stream)
            missing = {"file", *BOX} - set(reader.fieldnames or ())
            if missing:
                raise FerError(
                    f"--boxes {table}: no column {', '.join(sorted(missing))}; expected file, {', '.join(BOX)}"
                )
            for row in reader:
                of_file = by_file.setdefault(whole_path(table.parent / (row["file"] or "")), [])
                if row["file"] and not any(row[name] for name in BOX):  # a picture without a face, as predictions.csv
                    continue
                of_file.append(_box(row, table, reader.line_num))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FerError(f"--boxes {table}: cannot be read ({error})") from error
    return by_file


def _box(row: Mapping[str, str], table: Path, line: int) -> Box:
    try:
        box = Box(*(float(row[name]) for name in BOX))
    except (TypeError, ValueError) as error:
        raise FerError(f"--boxes {table}, line {line}: expected numbers for {', '.join(BOX)}") from error
    if not row["file"]:
        raise FerError(f"--boxes {table}, line {line}: names no file")
    if not (0 < box.width < float("inf") and 0 < box.height < float("inf") and abs(box.x) + abs(box.y) < float("inf")):
        raise FerError(
            f"--boxes {table}, line {line}: width and height are {box.width:g} and {box.height:g}; expected more than 0"
        )
    return box


def compared(table: Path, given: Mapping[Path, Sequence[Box]], files: Sequence[Path]) -> str | None:
    """Return in words for how many pictures a table has no boxes, and how many of its files are no such picture.

    Args:
        table: that gives the boxes.
        given: picture -> boxes.
        files: the pictures.

    Raises:
        FerError: it names none of the pictures.
    """
    pictures = {whole_path(file) for file in files}
    others = [file for file in given if file not in pictures]
    without = len(pictures - given.keys())
    if without == len(pictures):
        first = f"; its first is {others[0]}" if others else ""
        raise FerError(f"--boxes {table}: names none of the pictures{first}; files are named from the table's folder")
    parts = [f"no boxes for {without:,} of {plural(len(pictures), 'picture')}"] if without else []
    parts += [f"{plural(len(others), 'file')} of it not among the pictures, such as {others[0]}"] if others else []
    return f"--boxes {table}: {', '.join(parts)}" if parts else None
