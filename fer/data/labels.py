"""The emotions, their order, and their names in other data sets.

The order is FER2013's (Goodfellow et al. 2013, "Challenges in Representation Learning"). Classes are found by name,
never by the order of sorted folders, in which neutral has the index 4. FER+ has a third order and an eighth class.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from fer.config.errors import FerError, setting

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FERPLUS_EMOTIONS = (*EMOTIONS, "contempt")  # FER+'s eight, FER2013's seven first
SPLITS = ("train", "val", "test")
MOST_CLASSES, LONGEST_CLASS = 1000, 60  # of a network; characters of a name

# FER2013's column "Usage" -> index in SPLITS
USAGES = {"training": 0, "publictest": 1, "privatetest": 2}
OFFICIAL_SIZES = (28_709, 3_589, 3_589)  # faces of FER2013's Training, PublicTest and PrivateTest
CHALLENGE_TEST = sum(OFFICIAL_SIZES[1:])  # rows of the challenge's test.csv, which has no labels

# what Hydra's grammar takes as a key, and reads as a text or a whole number
KEY = re.compile(r"(?:0|[1-9]\d*|[A-Za-z_][\w.+-]*(?: [\w.+-]+)*)", re.ASCII)
VALUES = ("null", "true", "false", "nan", "inf")  # words that it reads as values

# FER+ vote columns, in the order of fer2013new.csv (Barsoum et al. 2016)
FERPLUS_COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF",
)  # fmt: skip

# folder and column names in copies of FER2013, in FER+, CK+, RAF-DB and AffectNet -> FER2013's name
SYNONYMS = {
    "anger": "angry", "angry": "angry",
    "disgust": "disgust", "disgusted": "disgust",
    "fear": "fear", "fearful": "fear", "afraid": "fear", "scared": "fear",
    "happy": "happy", "happiness": "happy", "joy": "happy",
    "sad": "sad", "sadness": "sad",
    "surprise": "surprise", "surprised": "surprise",
    "neutral": "neutral", "neutrality": "neutral",
    "contempt": "contempt", "contemptuous": "contempt",
}  # fmt: skip

# names of split folders -> index in SPLITS
SPLIT_FOLDERS = {
    "train": 0, "training": 0,
    "val": 1, "valid": 1, "validation": 1, "publictest": 1,
    "test": 2, "testing": 2, "privatetest": 2,
}  # fmt: skip


NUMBERED = re.compile(r"^\d+[\s_.-]+")  # "0_angry", "01 - angry"


def emotion_index(name: str, classes: Sequence[str] = EMOTIONS) -> int | None:
    """Return the index in ``classes`` of an emotion's name or common synonym, in any case; None for other names.

    A number before the name, as in "0_angry", is ignored.
    """
    emotion = SYNONYMS.get(NUMBERED.sub("", name.strip()).lower())
    return classes.index(emotion) if emotion in classes else None


def is_class_name(name: object) -> bool:
    """Return whether a value from a file may be the name of a class."""
    return isinstance(name, str) and 0 < len(name) <= LONGEST_CLASS and name.isprintable()


def are_classes(names: Sequence[str]) -> bool:
    """Return whether names may be the classes of a network: two or more, no two the same."""
    return 2 <= len(names) <= MOST_CLASSES and len(set(names)) == len(names) and all(map(is_class_name, names))


def class_index(folder: str, names: Mapping[str, str]) -> int | None:
    """Return the index in ``FERPLUS_EMOTIONS`` of a class folder; None for a folder of unknown meaning.

    Args:
        folder: its name.
        names: folder -> emotion, of ``data.class_names``; other folders are known by their names.
    """
    return emotion_index(names.get(folder_key(folder), folder), FERPLUS_EMOTIONS)


def folder_key(folder: str) -> str:
    """Return the name by which a class folder is known: in small letters, with an accent and its letter as one.

    macOS stores both apart, while keyboards type them as one.
    """
    return unicodedata.normalize("NFC", folder).strip().lower()


def folder_names(given: Mapping[str, str] | Sequence[str] | None) -> dict[str, str]:
    """Return class folder, in small letters -> emotion, from ``data.class_names``.

    Raises:
        FerError: a value is no emotion, or an entry of a list is no "FOLDER:EMOTION".
    """
    if not isinstance(given, Mapping):
        pairs = [text.rpartition(":") for text in given or ()]
        if given and not all(folder for folder, _, _ in pairs):
            raise FerError(f"{setting('data.class_names', [*given])}: expected FOLDER:EMOTION in each entry")
        given = {folder: emotion for folder, _, emotion in pairs}
    for folder, emotion in given.items():
        if emotion_index(str(emotion), FERPLUS_EMOTIONS) is None:
            known = ", ".join(FERPLUS_EMOTIONS)
            raise FerError(f"{naming({folder: emotion})}: {str(emotion)!r} is no emotion; expected one of {known}")
    return {folder_key(str(folder)): emotion for folder, emotion in given.items()}


def naming(names: Mapping[str, str]) -> str:
    """Return the setting that says what class folders mean, as the running command takes it."""
    plain = ",".join(f"{folder}:{emotion}" for folder, emotion in names.items())
    return setting("data.class_names", in_braces(names), plain)


def in_braces(names: Mapping[str, str]) -> str:
    """Return a value of ``data.class_names`` as it is written on a command line.

    Hydra's grammar takes few characters in keys. Other names are written as a list of quoted texts.
    """
    pairs = [f"{folder}:{emotion}" for folder, emotion in names.items()]
    if all(KEY.fullmatch(folder) and folder.lower() not in VALUES for folder in names):
        return f"{{{','.join(pairs)}}}"
    from fer.config.conf import quoted  # imports Hydra

    return f"[{','.join(map(quoted, pairs))}]"
