"""Files of predictions, written one answer after the other.

They are a JSON line a picture or frame of a video, and a CSV row a face.
"""

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NotRequired, Required, TypedDict, cast

from fer.config.errors import FerError
from fer.inference.predictor import Answer, Face
from fer.inference.sources import LINES
from fer.inference.video import Frame
from fer.system.files import written_whole
from fer.system.records import Json, Object
from fer.system.text import in_utf8, json_line, plural

SCHEMA = 1
SEPARATOR = ";"  # of the emotions of a prediction set, in a table
ROWS, PAGE = "predictions.csv", "index.html"
HEADS = (
    "file", "frame", "time", "face", "track", "x", "y", "width", "height", "tilt", "emotion", "probability",
    "emotions", "uncertain",
)  # fmt: skip
LAST_HEADS = ("note", "annotated")  # after the probabilities


class FaceRecord(TypedDict):
    """What is written of a face; ``track`` and ``raw`` of a video's, ``map`` of an answer by ``fer serve``."""

    box: list[float]  # x, y, width, height in pixels of the picture
    tilt: float
    emotion: str
    probability: float
    probabilities: dict[str, float]
    emotions: list[str]
    uncertain: bool
    detector_score: float | None
    track: NotRequired[int]
    raw: NotRequired[dict[str, float]]  # probabilities before they were smoothed over time
    map: NotRequired[str | None]


class TrackRecord(TypedDict):
    """What is written of a face of a video: from when to when in seconds, in how many frames, mean probabilities."""

    track: int
    start: float
    end: float
    frames: int
    probabilities: dict[str, float]


class VideoRecord(TypedDict):
    """What closes the records of a video."""

    frames: int
    seconds: float
    tracks: list[TrackRecord]
    notes: list[str]
    page: NotRequired[str]
    annotated: NotRequired[str]  # name of the copy with its faces marked


class Record(TypedDict, total=False):
    """A line: of a picture or a frame with its faces, of a video, or of a file that could not be read."""

    file: Required[str]
    error: str
    frame: int
    time: float
    width: int
    height: int
    faces: list[FaceRecord]
    too_small: int
    unconfirmed: int
    boxes: int  # that a table gave for the picture, in place of the detector
    video: VideoRecord
    annotated: str  # name of the copy with its faces marked


def record(file: Path, answer: Answer | str, boxes: int | None = None) -> Record:
    """Return the record of a picture.

    Args:
        file: the picture.
        answer: what is predicted, or why it could not be read.
        boxes: number of boxes that were given for it; None where a detector searched it.
    """
    if isinstance(answer, str):
        return {"file": str(file), "error": answer}
    found: Record = {
        "file": str(file),
        "width": answer.size[0],
        "height": answer.size[1],
        "faces": [_of_face(face) for face in answer.faces],
        "too_small": answer.too_small,
    }
    return found if boxes is None else {**found, "boxes": boxes}


def frame_record(file: str, frame: Frame) -> Record:
    """Return the record of a frame of a video.

    Args:
        file: the video.
        frame: what is predicted for the frame.
    """
    return {
        "file": file,
        "frame": frame.number,
        "time": round(frame.time, 4),
        "width": frame.size[0],
        "height": frame.size[1],
        "faces": [
            {"track": cast("int", face.track), **_of_face(face), "raw": _rounded(raw)}
            for face, raw in zip(frame.faces, frame.raw, strict=True)
        ],
        "too_small": frame.too_small,
        "unconfirmed": frame.unconfirmed,
    }


def _rounded(probabilities: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in probabilities.items()}


def _of_face(face: Face) -> FaceRecord:
    box = face.box
    return {
        "box": [round(value, 2) for value in (box.x, box.y, box.width, box.height)],
        "tilt": face.tilt,
        "emotion": face.emotion,
        "probability": round(face.probability, 4),
        "probabilities": _rounded(face.probabilities),
        "emotions": list(face.emotions),
        "uncertain": face.uncertain,
        "detector_score": None if face.detector_score is None else round(face.detector_score, 2),
    }


def rows(found: Record, emotions: Sequence[str]) -> list[list[object]]:
    """Return the CSV rows of a record: one a face; of a picture or frame without any, one with the reason.

    The record that closes a video has none.
    """
    if "video" in found:
        return []
    start = [in_utf8(found["file"]), found.get("frame", ""), found.get("time", "")]
    empty = [""] * (len(HEADS) - len(start) + len(emotions))
    if "error" in found:
        return [[*start, *empty, found["error"], ""]]
    copy = in_utf8(found.get("annotated", ""))
    if not found["faces"]:
        return [[*start, *empty, no_face(found), copy]]
    return [
        [
            *start, number, face.get("track", ""), *face["box"], face["tilt"], face["emotion"], face["probability"],
            SEPARATOR.join(face["emotions"]), face["uncertain"],
            *(face["probabilities"][name] for name in emotions), "", copy,
        ]
        for number, face in enumerate(found["faces"], start=1)
    ]  # fmt: skip


def no_face(found: Record) -> str:
    """Return in words why a picture or frame has no faces."""
    if found.get("boxes") == 0:
        return "no box was given"
    counts = ((found.get("too_small"), "too small"), (found.get("unconfirmed"), "not confirmed yet"))
    return "no face found" + "".join(f", {count} {words}" for count, words in counts if count)


class Writer:
    """Writes records to a folder, each at once, so that an interruption loses none.

    Args:
        folder: for ``predictions.jsonl`` and ``predictions.csv``.
        about: of the network, the detector and the crop; the first line.
        again: files that are predicted again if they could not be read before; None refuses a folder that has records.

    Raises:
        FerError: there are records already, or those are of another network or crop; or there are files of something
            else, such as a run's, which would be overwritten.
    """

    def __init__(self, folder: Path, about: Json, again: Collection[str] | None = None) -> None:
        self.emotions: Sequence[str] = about["emotions"]
        self.done: dict[str, Record] = {}  # file -> its record; of a video the one that closes it
        self._header = {"schema": SCHEMA, **about}
        lines, table = folder / LINES, folder / ROWS
        if lines.exists():
            if again is None:
                raise FerError(
                    f"--out {folder}: holds the predictions of {plural(_finished(lines), 'file')} already; add "
                    "--resume to go on with the others, or choose another folder"
                )
            self.done = _done(lines, self._header)
            for name in [name for name in again if "error" in self.done.get(name, {})]:
                del self.done[name]
        else:
            _check_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(lines) as stream, written_whole(table) as rows_:  # whole or not: no interruption loses any
            stream.write(_line(self._header))
            csv.writer(rows_).writerow([*HEADS, *self.emotions, *LAST_HEADS])
            for entry in _kept(lines, self.done) if self.done else ():
                stream.write(_line(entry))
                csv.writer(rows_).writerows(rows(entry, self.emotions))
        self._lines: IO[str] = lines.open("a", encoding="utf-8")
        self._rows: IO[str] = table.open("a", encoding="utf-8", newline="")

    def write(self, found: Record) -> None:
        """Write a record."""
        self._lines.write(_line(found))
        self._lines.flush()
        csv.writer(self._rows).writerows(rows(found, self.emotions))
        self._rows.flush()

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._rows.close()


def _check_unused(folder: Path) -> None:
    """Raise where a folder without records has files of their names: a run, for one, has a ``predictions.csv``."""
    for name in (ROWS, PAGE):
        if (folder / name).exists():
            raise FerError(f"--out {folder}: has a {name} that is not of fer predict; choose another folder")


def _line(contents: Mapping[str, Any]) -> str:
    return json_line(contents) + "\n"  # bytes of a name that are no UTF-8 are escaped, and read back as they were


def _done(file: Path, header: Object) -> dict[str, Record]:
    """Return file name -> record of what an interrupted prediction finished; of a video the record that closes it.

    Raises:
        FerError: the records are of another network, detector, crop or coverage, of other faces, or videos of
            other settings.
    """
    with file.open(encoding="utf-8") as stream:
        before = _parsed(stream.readline(), "schema") or {}
        expected = json.loads(json.dumps(header))
        videos = before.pop("video", None), expected.pop("video", None)
        if before != expected or (None not in videos and videos[0] != videos[1]):
            raise FerError(
                f"--out {file.parent}: its predictions are of another network, detector, crop or coverage, of "
                "other --faces, or its videos of other --fps or --smooth; choose another folder"
            )
        if videos[0] is not None:
            header["video"] = videos[0]
        records = (record for line in stream if (record := _parsed(line)) is not None)
        return {entry["file"]: entry for entry in records if "frame" not in entry}


def _finished(file: Path) -> int:
    """Return the number of pictures and videos that a file of records has finished."""
    with file.open(encoding="utf-8") as stream:
        return len({entry["file"] for line in stream if (entry := _parsed(line)) is not None and "frame" not in entry})


def _kept(file: Path, done: Mapping[str, Record]) -> Iterator[Record]:
    """Give the records of finished pictures and videos, one after the other: those of a video may be millions."""
    with file.open(encoding="utf-8") as stream:
        stream.readline()
        for line in stream:
            entry = _parsed(line)
            if entry is not None and entry["file"] in done:
                yield entry


def _parsed(line: str, key: str = "file") -> Any:
    """Return a line's record, or None for one that a kill has cut off; ``key`` stands in each whole one."""
    try:
        entry = json.loads(line)
        return entry if isinstance(entry, dict) and key in entry else None
    except ValueError:
        return None
