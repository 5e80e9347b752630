"""``audit.csv``: what an audit suggests, a row a face and reason; ``data.exclude`` leaves out of train what it says.

# python -m fer.audit: ... fingerprint=<of the table> image_size=48 split=official
row,reason,suggestion,split,label,group,score
59,near twin in test,exclude,train,sad,59,1.0000

The first line tells which table the rows are of. Suggestions may be edited, rows added and removed: ``exclude`` alone
is obeyed, and only in train. A row is left out if any of its lines says so.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, did_you_mean
from fer.config.settings import MAX_SIZE, MIN_SIZE, DataSettings
from fer.data.audit.inspection import Found
from fer.data.audit.suggestions import EXCLUDE, LOOK, RELABEL, Advice
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS
from fer.data.load import read_faces
from fer.system.files import written_whole

HEADS = ("row", "reason", "suggestion", "split", "label", "group", "score")
NEEDED = HEADS[:3]
PURPOSE = "# python -m fer.audit: data.exclude leaves the rows whose suggestion is exclude out of train."
SUGGESTIONS = (EXCLUDE, LOOK, *(f"{RELABEL}{name}" for name in EMOTIONS))


class Listed(NamedTuple):
    """What ``audit.csv`` says.

    Args:
        rows: (K,) of the table, sorted, that are to be left out of train.
        reasons: reason -> rows that are to be left out for it.
        fingerprint: of the table that they are rows of.
        image_size: side of its faces, in pixels.
        split: rule that the audit split it by.
    """

    rows: NDArray[np.int64]
    reasons: dict[str, list[int]]
    fingerprint: str
    image_size: int
    split: str


def fingerprint(faces: Faces) -> str:
    """Return the table's fingerprint without votes, which may be joined later."""
    return replace(faces, votes=None).fingerprint()


def write(file: Path, found: Found, advice: Sequence[Advice]) -> None:
    """Write a row for each face and reason."""
    faces = found.faces
    told = f"fingerprint={fingerprint(faces)} image_size={faces.image_size} split={found.split.rule}"
    with written_whole(file) as stream:
        stream.write(f"{PURPOSE} {told}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADS)
        for place, reason, suggestion, first, score in advice:
            whose = (str(found.splits[place]), str(found.labels[place]))
            group = "" if first is None else int(faces.rows[first])
            writer.writerow(
                [int(faces.rows[place]), reason, suggestion, *whose, group, "" if score is None else f"{score:.4f}"]
            )


def read(file: Path) -> Listed:
    """Return what an ``audit.csv`` says.

    Raises:
        FerError: it is missing, or is none; a row or a suggestion cannot be read.
    """
    name = f"data.exclude={file}"
    if not file.is_file():
        raise FerError(f"{name}: no such file; expected the audit.csv that python -m fer.audit has written")
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            told = dict(re.findall(r"\b(fingerprint|image_size|split)=(\w+)", stream.readline()))
            if len(told) < 3 or not re.fullmatch("[0-9]{1,4}", told["image_size"]):
                raise FerError(f"{name}, line 1: does not tell which data it is of; expected fer.audit's audit.csv")
            reasons = _reasons(csv.DictReader(stream), name)
    except (UnicodeDecodeError, csv.Error) as error:
        raise FerError(f"{name}: is no CSV file ({error})") from error
    rows = np.unique(np.array([row for own in reasons.values() for row in own], np.int64))
    return Listed(rows, reasons, told["fingerprint"], int(told["image_size"]), told["split"])


def _reasons(lines: "csv.DictReader[str]", name: str) -> dict[str, list[int]]:
    """Return reason -> rows to be left out for it.

    Raises:
        FerError: naming the line.
    """
    missing = [head for head in NEEDED if head not in (lines.fieldnames or ())]
    if missing:
        raise FerError(f"{name}, line 2: no column {missing[0]!r}; expected {','.join(HEADS)}")
    reasons: dict[str, list[int]] = {}
    for line in lines:
        where, suggestion = f"{name}, line {lines.line_num + 1}", (line["suggestion"] or "").strip()
        if not re.fullmatch(r"\s*[0-9]{1,18}\s*", line["row"] or ""):
            raise FerError(f"{where}: row is {line['row']!r}; expected a whole number from 0")
        if suggestion not in SUGGESTIONS:
            near = did_you_mean(suggestion, SUGGESTIONS)
            raise FerError(f"{where}: suggestion is {suggestion!r}; expected exclude, look or relabel:<emotion>{near}")
        if suggestion == EXCLUDE:
            reasons.setdefault((line["reason"] or "").strip() or "no reason", []).append(int(line["row"]))
    return reasons


def leave_out(
    faces: Faces, splits: NDArray[np.int8], data: DataSettings
) -> tuple[NDArray[np.int8], dict[str, Any] | None]:
    """Return the splits without those faces of train that ``data.exclude`` names, and what was left out.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        data: where they are from, and what is to be left out.

    Raises:
        FerError: the file is missing, bad, of other data, names rows that are not there, or all of train.
    """
    if data.exclude is None:
        return splits, None
    listed = read(Path(data.exclude))
    if not MIN_SIZE <= listed.image_size <= MAX_SIZE:
        raise FerError(f"data.exclude={data.exclude}, line 1: no audit is made at image_size={listed.image_size}")
    _refuse_others(listed, faces, data)
    named = np.isin(faces.rows, listed.rows)
    out = named & (splits == 0)
    if out.sum() == (splits == 0).sum():
        raise FerError(f"data.exclude={data.exclude}: leaves no face in train")
    left = faces.rows[out]
    kept = np.where(out, np.int8(UNKNOWN), splits)
    reasons = {reason: int(np.isin(left, rows).sum()) for reason, rows in listed.reasons.items()}
    return kept, {
        "file": data.exclude,
        "rows_sha256": hashlib.sha256(left.astype("<i8").tobytes()).hexdigest(),
        "faces": len(left),
        "by_reason": {reason: count for reason, count in reasons.items() if count},  # a face may have several
        "outside_train": int(named.sum()) - len(left),
        "emptied": _emptied(faces, splits == 0, kept == 0),
        "audited_split": listed.split,
    }


def _emptied(faces: Faces, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> list[str]:
    """Return the classes that have faces before and none after."""
    gone = set(faces.targets[before].tolist()) - set(faces.targets[after].tolist())
    return [name for index, name in enumerate(faces.classes) if index in gone]


def _refuse_others(listed: Listed, faces: Faces, data: DataSettings) -> None:
    """Raise where the rows are not of these faces.

    A table read at another size than the audit's has other pixels, one labelled by votes has other rows; it is read
    again as the audit has read it.
    """
    own = replace(data, image_size=listed.image_size, votes=None, labels="fer2013", classes=7)
    alike = data.labels == "fer2013" and listed.image_size == data.image_size
    table = faces if alike else read_faces(own)
    if listed.fingerprint != fingerprint(table):
        raise FerError(
            f"data.exclude={data.exclude}: is of other data than {faces.source.path}; python -m fer.audit writes one "
            "of these"
        )
    unknown = listed.rows[~np.isin(listed.rows, table.rows)]
    if unknown.size:
        raise FerError(f"data.exclude={data.exclude}: row {unknown[0]} is not in {faces.source.path}")


def notes(excluded: Mapping[str, Any] | None, split: str) -> list[str]:
    """Return what was left out in words, for the record.

    Args:
        excluded: as by ``leave_out``.
        split: rule of the run.
    """
    if excluded is None:
        return []
    told = [f"{excluded['faces']:,} faces left out of train by {excluded['file']}{_in_words(excluded['by_reason'])}"]
    if emptied := excluded.get("emptied"):
        told.append(f"which leaves NO face of {', '.join(emptied)} in train")
    if excluded["outside_train"]:
        told.append(f"{excluded['outside_train']:,} more that it names are not in train, and stay")
    if excluded["audited_split"] != split:
        told.append(
            f"it was made for split {excluded['audited_split']}, not {split}: twins across these splits may stay"
        )
    return told


def _in_words(reasons: Mapping[str, int]) -> str:
    items: Iterable[str] = (f"{reason} {count:,}" for reason, count in reasons.items())
    return f" ({', '.join(items)})" if reasons else ""
