"""Reader of parquet files with pictures and labels.

Mirrors of FER2013 and of other data sets on the hub have such files. A row has a picture (its bytes, or a struct of
bytes and path) and a label. Numbers get their words from the class names in the files' own schema. Mirrors differ
there: neutral is 6 in FER2013's order, and 4 in the alphabetical one. A file without class names is refused, unless
``data.class_names={0:angry,...}`` gives them. The split is that of the file names, such as
``train-00000-of-00001.parquet``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fer.config.errors import FerError, setting
from fer.data.faces import UNKNOWN, BadRows, Faces, OnBad, Source
from fer.data.labels import FERPLUS_EMOTIONS, SPLIT_FOLDERS, emotion_index, folder_key
from fer.data.readers.image_folder import Names, official_split, reshuffled_notes, unused_note
from fer.data.readers.picture_set import Sample, read_samples
from fer.data.readers.table_file import NoFaces, why_no_faces

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
AT_ONCE = 256  # rows
LABELS = ("label", "labels", "emotion", "expression")  # column names, where the schema names no column of classes
PICTURES = ("image", "img", "picture")


class Columns(NamedTuple):
    """The columns of a file.

    Args:
        picture: name of the column of pictures.
        label: name of the column of labels.
        words: number -> word of the labels; empty where the labels are words themselves.
        names: word -> emotion of the labels that are words, by ``data.class_names``.
        labels: as ``data.class_names`` may know them; those of the rows are added as they are read.
    """

    picture: str
    label: str
    words: Mapping[int, str]
    names: Names
    labels: set[str]


@dataclass(frozen=True)
class Parquet:
    """The reader; ``names`` has the meaning of labels, by ``data.class_names``."""

    names: Names = field(default_factory=dict)
    in_colour = True  # ``read`` takes ``channels``

    def named(self, names: Names) -> "Parquet":
        """Return the reader for these names of labels."""
        return Parquet(names)

    def recognises(self, path: Path) -> bool:
        """Return whether ``path`` is a parquet file, or a folder with some."""
        return bool(self.files(path))

    def files(self, path: Path) -> list[Path]:
        """Return the files that ``read`` would open."""
        if path.is_file():
            return [path] if path.suffix == SUFFIX else []
        return sorted(file for file in path.iterdir() if file.suffix == SUFFIX) if path.is_dir() else []

    def read(self, path: Path, *, image_size: int = 48, on_bad: OnBad = "error", channels: int = 1) -> Faces:
        """Read every row with an emotion as (image_size, image_size) grey; contempt is an eighth class.

        Raises:
            FerError: pyarrow is missing; a damaged file, or one without pictures, labels or class names; with
                ``on_bad="error"`` a bad row or picture.
        """
        files = [(file, *self._opened(file)) for file in self.files(path)]
        bad, notes = BadRows(on_bad), dict.fromkeys(_meaning(columns) for _, _, columns in files)
        source = Source(path.stem, "parquet", str(path), labels="class names of the files", notes=tuple(notes))
        first = accumulate((table.metadata.num_rows for _, table, _ in files), initial=0)
        parts = (_samples(*opened, bad, row) for opened, row in zip(files, first, strict=False))
        samples, rows = chain.from_iterable(parts), sum(table.metadata.num_rows for _, table, _ in files)
        faces = read_samples(samples, rows, source, image_size, bad, channels)
        labels = {label for _, _, columns in files for label in columns.labels}
        return faces.noted(*reshuffled_notes(faces.given), *unused_note("label is", set(self.names) - labels))

    def without_faces(self, folder: Path) -> list[str]:
        """Return the problems of a folder's files if none has pictures, such as lists of them; else nothing."""
        return why_no_faces(self.files(folder), self._opened)

    def _opened(self, file: Path) -> "tuple[ParquetFile, Columns]":
        """Return a file and its columns.

        Raises:
            FerError: see ``read``.
        """
        try:
            from pyarrow.lib import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise FerError(
                f"{file}: parquet files need pyarrow, which is not installed: pip install 'fer-lightning[large]'"
            ) from error
        try:
            table = ParquetFile(file)
        except (ArrowException, OSError) as error:
            raise FerError(f"{file}: damaged or no parquet file ({error}); download it again") from error
        return table, _columns(file, table.schema_arrow, self.names)


def _columns(file: Path, schema: "pa.Schema", names: Names) -> Columns:
    """Return the columns of a file, the meaning of its labels included.

    Raises:
        NoFaces: it has no pictures.
        FerError: it has no labels, or numbers without class names.
    """
    features = _features(schema.metadata or {})
    picture = _column(schema.names, features, "Image", PICTURES)
    label = _column(schema.names, features, "ClassLabel", LABELS)
    if picture is None or label is None:
        missing, known = ("pictures", PICTURES) if picture is None else ("labels", LABELS)
        error = NoFaces if picture is None else FerError
        raise error(f"{file}: has no column of {missing} ({', '.join(known)}); found {', '.join(schema.names)}")
    kind = str(schema.field(label).type)
    if kind in ("string", "large_string"):
        return Columns(picture, label, {}, names, set())
    if not re.fullmatch(r"u?int\d+", kind):
        raise FerError(f"{file}: the column {label!r} is of {kind}; expected whole numbers or words")
    given = {int(number): word for number, word in names.items() if number.isdecimal()}
    stated = features.get(label, {}).get("names")
    words = dict(enumerate(map(str, stated))) if isinstance(stated, list) else {}
    labels = {folder_key(word) for word in words.values()}
    words = {number: names.get(folder_key(word), word) for number, word in words.items()} | given
    if not any(emotion_index(word, FERPLUS_EMOTIONS) is not None for word in words.values()):
        example = setting("data.class_names", "{0:angry,1:disgust,...}")
        raise FerError(
            f"{file}: its labels are numbers, and its schema does not name their emotions. Copies of a data set differ "
            f"in their order; state it with {example}"
        )
    return Columns(picture, label, words, {}, labels)


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, dict[str, object]]:
    """Return column -> its description in the schema's metadata; empty where there is none."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _column(
    names: list[str], features: Mapping[str, Mapping[str, object]], kind: str, usual: tuple[str, ...]
) -> str | None:
    """Return the column that the schema describes as of a kind, or the first of a usual name."""
    described = [name for name in names if features.get(name, {}).get("_type") == kind]
    return next(iter([*described, *(name for name in names if name.lower() in usual)]), None)


def _meaning(columns: Columns) -> str:
    if not columns.words:
        meaning = "".join(f", {word} means {emotion}" for word, emotion in sorted(columns.names.items()))
        return f"labels are the words of the column {columns.label!r}{meaning}"
    return f"labels mean {', '.join(f'{number} {word}' for number, word in sorted(columns.words.items()))}"


def _samples(file: Path, table: "ParquetFile", columns: Columns, bad: BadRows, first: int) -> Iterator[Sample]:
    """Yield the faces of a file whose rows are counted from ``first``.

    Raises:
        FerError: it is damaged.
    """
    from pyarrow.lib import ArrowException

    split, row = _split(file), 0
    try:
        for batch in table.iter_batches(AT_ONCE, columns=[columns.picture, columns.label]):
            for values in batch.to_pylist():
                where = f"{file}, row {row}"
                row += 1
                sample = _sample(values[columns.picture], values[columns.label], columns, split, where)
                if isinstance(sample, str):
                    bad.add(where, sample)
                else:
                    yield replace(sample, row=first + row - 1)
    except (ArrowException, OSError) as error:
        raise FerError(f"{file}: damaged ({error}); download it again") from error


def _sample(picture: object, label: object, columns: Columns, split: int, where: str) -> Sample | str:
    """Return the face of a row, or its problem."""
    name = str(picture.get("path") or "") if isinstance(picture, dict) else ""
    contents = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(contents, bytes):
        return "has no bytes of a picture"
    columns.labels.add(folder_key(str(label)))
    word = columns.words.get(label) if isinstance(label, int) else label
    if not isinstance(word, str):
        return f"label is {label!r}; it is one of {', '.join(map(str, sorted(columns.words))) or 'the emotions'}"
    word = columns.names.get(folder_key(word), word)
    official, _ = official_split(Path(name).stem)
    return Sample(contents, word, split, official=official, where=where)


def _split(file: Path) -> int:
    """Return the split by a file's name, such as ``train-00000-of-00001.parquet``."""
    return SPLIT_FOLDERS.get(re.split(r"[-_.]", file.name.lower())[0], UNKNOWN)
