"""``audit.csv`` and ``data.exclude``, which leaves faces out of train.

The file has the suggestions of an audit. The key removes the faces for which it suggests ``exclude``.

# python -m fer.audit: ... fingerprint=<of the table> image_size=48 split=official splits=<of the faces>
row,reason,suggestion,split,label,group,score
59,near duplicate in test,exclude,train,sad,59,1.0000

There is one line for each face and reason; the first line identifies the table by its fingerprint. Users may edit
suggestions, and add or remove rows. A row is left out if any of its lines has the suggestion ``exclude``, and only from
train. Val and test never change, so that metrics stay comparable. Results store a digest of the rows that were left
out; a resumed run must have the same digest, and leaderboards show it.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, did_you_mean
from fer.config.settings import MAX_SIZE, MIN_SIZE, DataSettings
from fer.data.audit.inspection import Findings
from fer.data.audit.suggestions import EXCLUDE, LOOK, RELABEL, Advice
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS
from fer.data.load import read_faces
from fer.metrics.results import Excluded
from fer.system.files import opened_text, written_whole
from fer.system.text import plural

HEADS = ("row", "reason", "suggestion", "split", "label", "group", "score")
REQUIRED = HEADS[:3]
PURPOSE = "# python -m fer.audit: data.exclude leaves the rows whose suggestion is exclude out of train."
SUGGESTIONS = (EXCLUDE, LOOK, *(f"{RELABEL}{name}" for name in EMOTIONS))


class Exclusions(NamedTuple):
    """The contents of an ``audit.csv``.

    Args:
        rows: (K,) sorted rows of the source to be left out of train.
        reasons: reason -> rows to be left out for it.
        fingerprint: fingerprint of the audited faces.
        image_size: side of the audited faces, in pixels.
        split: split rule of the audit.
        splits: digest of the splits of its faces; empty in older files.
    """

    rows: NDArray[np.int64]
    reasons: dict[str, list[int]]
    fingerprint: str
    image_size: int
    split: str
    splits: str = ""


def fingerprint(faces: Faces) -> str:
    """Return the fingerprint of faces without their votes, which may be joined later."""
    return replace(faces, votes=None).fingerprint()


def digest_of(faces: Faces, splits: NDArray[np.int8]) -> str:
    """Return a digest of the splits (N,) of the faces with a label; those without one are in no split of a training."""
    labelled = faces.targets != UNKNOWN
    contents = faces.rows[labelled].astype("<i8").tobytes() + splits[labelled].tobytes()
    return hashlib.sha256(contents).hexdigest()[:16]


def write(file: Path, findings: Findings, advice: Sequence[Advice]) -> None:
    """Write ``audit.csv``, a line for each face and reason."""
    faces = findings.faces
    identity = (
        f"fingerprint={fingerprint(faces)} image_size={faces.image_size} split={findings.split.rule} "
        f"splits={digest_of(faces, findings.split.splits)}"
    )
    with written_whole(file) as stream:
        stream.write(f"{PURPOSE} {identity}\n")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADS)
        for index, reason, suggestion, first, score in advice:
            split, label = str(findings.splits[index]), str(findings.labels[index])
            group = "" if first is None else int(faces.rows[first])
            written_score = "" if score is None else f"{score:.4f}"
            writer.writerow([int(faces.rows[index]), reason, suggestion, split, label, group, written_score])


def read(file: Path) -> Exclusions:
    """Return the contents of an ``audit.csv``.

    Raises:
        FerError: the file is missing or no ``audit.csv``, or a row or suggestion is invalid.
    """
    name = f"data.exclude={file}"
    if not file.is_file():
        raise FerError(f"{name}: no such file; expected an audit.csv written by python -m fer.audit")
    try:
        with opened_text(file) as stream:
            identity = dict(re.findall(r"\b(fingerprint|image_size|splits?)=(\w+)", stream.readline()))
            stated = {"fingerprint", "image_size", "split"} <= identity.keys()
            if not stated or not re.fullmatch("[0-9]{1,4}", identity["image_size"]):
                raise FerError(
                    f"{name}, line 1: names no fingerprint, image_size and split; expected fer.audit's audit.csv"
                )
            reasons = _reasons(csv.DictReader(stream), name)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise FerError(f"{name}: is no CSV file ({error})") from error
    rows = np.unique(np.array([row for listed in reasons.values() for row in listed], np.int64))
    return Exclusions(
        rows, reasons, identity["fingerprint"], int(identity["image_size"]), identity["split"],
        identity.get("splits", ""),
    )  # fmt: skip


def _reasons(lines: "csv.DictReader[str]", name: str) -> dict[str, list[int]]:
    """Return reason -> rows to be left out for it.

    Raises:
        FerError: a bad line; the message names it.
    """
    missing = [head for head in REQUIRED if head not in (lines.fieldnames or ())]
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


def leave_out(faces: Faces, splits: NDArray[np.int8], data: DataSettings) -> tuple[NDArray[np.int8], Excluded | None]:
    """Remove the faces of train that ``data.exclude`` names; return the splits and a record of the removal.

    Args:
        faces: N faces.
        splits: (N,) index in ``SPLITS`` or ``UNKNOWN``.
        data: the data settings, with the path of ``audit.csv`` in ``exclude``.

    Raises:
        FerError: the file is missing, bad or of other data, or it names rows that do not exist or all of train.
    """
    if data.exclude is None:
        return splits, None
    exclusions = read(Path(data.exclude))
    if not MIN_SIZE <= exclusions.image_size <= MAX_SIZE:
        size = f"image_size={exclusions.image_size}; expected {MIN_SIZE} to {MAX_SIZE}"
        raise FerError(f"data.exclude={data.exclude}, line 1: {size}")
    _require_same_data(exclusions, faces, data)
    named = np.isin(faces.rows, exclusions.rows)
    removed = named & (splits == 0)
    if removed.sum() == (splits == 0).sum():
        raise FerError(f"data.exclude={data.exclude}: leaves no face in train; remove rows from it")
    rows = faces.rows[removed]
    kept = np.where(removed, np.int8(UNKNOWN), splits)
    same_faces = data.labels == "fer2013" and data.classes == 7
    comparable = same_faces and exclusions.splits and data.split == exclusions.split
    reasons = {reason: int(np.isin(rows, listed).sum()) for reason, listed in exclusions.reasons.items()}
    return kept, Excluded(
        file=data.exclude,
        rows_sha256=hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
        faces=len(rows),
        by_reason={reason: count for reason, count in reasons.items() if count},  # a face may have several
        outside_train=int(named.sum()) - len(rows),
        emptied=_emptied(faces, splits == 0, kept == 0),
        audited_split=exclusions.split,
        drawn_otherwise=True if comparable and digest_of(faces, splits) != exclusions.splits else None,
    )


def _emptied(faces: Faces, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the classes with faces before the removal and none after it."""
    gone = set(faces.targets[before].tolist()) - set(faces.targets[after].tolist())
    return tuple(name for index, name in enumerate(faces.classes) if index in gone)


def _require_same_data(exclusions: Exclusions, faces: Faces, data: DataSettings) -> None:
    """Raise if ``audit.csv`` belongs to other data.

    Faces of another size than the audit's have other pixels, faces labelled by votes have other rows, and audits read
    seven classes in grey. The data are then read again with the settings of the audit.
    """
    size = exclusions.image_size
    audited = replace(data, image_size=size, votes=None, labels="fer2013", classes=7, channels=1)
    equal = audited == replace(data, votes=None)
    table = faces if equal else read_faces(audited)
    if exclusions.fingerprint != fingerprint(table):
        raise FerError(
            f"data.exclude={data.exclude}: is of other data than {faces.source.path}; run python -m fer.audit on these"
        )
    unknown = exclusions.rows[~np.isin(exclusions.rows, table.rows)]
    if unknown.size:
        raise FerError(f"data.exclude={data.exclude}: row {unknown[0]} is not in {faces.source.path}")


def notes(excluded: Excluded | None, split: str) -> list[str]:
    """Return notes on the faces that were left out, for the record.

    Args:
        excluded: the record made by ``leave_out``.
        split: split rule of the run.
    """
    if excluded is None:
        return []
    lines = [f"{plural(excluded.faces, 'face')} left out of train by {excluded.file}{_in_words(excluded.by_reason)}"]
    if excluded.emptied:
        lines.append(f"NO face of {', '.join(excluded.emptied)} remains in train")
    if excluded.outside_train:
        lines.append(f"{plural(excluded.outside_train, 'more face')} of it not in train, and kept")
    if excluded.audited_split != split or excluded.drawn_otherwise:
        audited = "without a split" if excluded.audited_split == "all" else f"for split {excluded.audited_split}"
        here = f"not {split}" if excluded.audited_split != split else "with other faces in val than here"
        lines.append(f"it was made {audited}, {here}: duplicates across the splits may stay")
    return lines


def _in_words(reasons: Mapping[str, int]) -> str:
    items: Iterable[str] = (f"{reason} {count:,}" for reason, count in reasons.items())
    return f" ({', '.join(items)})" if reasons else ""
