"""What is predicted, written as it is found: a JSON line a picture, a CSV row a face."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fer.config.errors import FerError
from fer.inference.predictor import Answer, Face
from fer.system.files import written_whole

SCHEMA = 1
SEPARATOR = ";"  # of the emotions of a prediction set, in a table
LINES, ROWS = "predictions.jsonl", "predictions.csv"
HEADS = ("file", "face", "x", "y", "width", "height", "tilt", "emotion", "probability", "emotions", "uncertain")


def record(file: Path, answer: Answer | str) -> dict[str, Any]:
    """Return the record of a picture.

    Args:
        file: the picture.
        answer: what is predicted, or why it could not be read.
    """
    if isinstance(answer, str):
        return {"file": str(file), "error": answer}
    return {
        "file": str(file),
        "width": answer.size[0],
        "height": answer.size[1],
        "faces": [_of_face(face) for face in answer.faces],
        "too_small": answer.too_small,
    }


def _of_face(face: Face) -> dict[str, Any]:
    box = face.box
    return {
        "box": [round(value, 2) for value in (box.x, box.y, box.width, box.height)],
        "tilt": face.tilt,
        "emotion": face.emotion,
        "probability": round(face.probability, 4),
        "probabilities": {name: round(value, 4) for name, value in face.probabilities.items()},
        "emotions": list(face.emotions),
        "uncertain": face.uncertain,
        "detector_score": None if face.detector_score is None else round(face.detector_score, 2),
    }


def rows(found: Mapping[str, Any], emotions: Sequence[str]) -> list[list[object]]:
    """Return the CSV rows of a record: one a face; of a picture without any, one with its name and the reason."""
    empty = [""] * (len(HEADS) - 2 + len(emotions))
    if "error" in found:
        return [[found["file"], "", *empty, found["error"]]]
    if not found["faces"]:
        small = f"{found['too_small']} too small" if found["too_small"] else ""
        return [[found["file"], "", *empty, f"no face found{f', {small}' if small else ''}"]]
    return [
        [
            found["file"], number, *face["box"], face["tilt"], face["emotion"], face["probability"],
            SEPARATOR.join(face["emotions"]), face["uncertain"],
            *(face["probabilities"][name] for name in emotions), "",
        ]
        for number, face in enumerate(found["faces"], start=1)
    ]  # fmt: skip


class Writer:
    """Writes records to a folder, each at once, so that an interruption loses none.

    Args:
        folder: for ``predictions.jsonl`` and ``predictions.csv``.
        about: of the network, the detector and the crop; the first line.
        resume: go on after the records that are there.

    Raises:
        FerError: there are records already, or those are of another network or crop.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool) -> None:
        self.emotions: Sequence[str] = about["emotions"]
        self.done: dict[str, dict[str, Any]] = {}
        header = {"schema": SCHEMA, **about}
        lines = folder / LINES
        if lines.exists():
            if not resume:
                raise FerError(f"--out {folder}: holds predictions already; choose another folder, or add --resume")
            self.done = _read(lines, header)
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / ROWS
        with written_whole(lines) as stream:  # whole or not at all: an interruption here loses nothing
            for contents in (header, *self.done.values()):
                stream.write(_line(contents))
        with written_whole(table) as stream:
            csv.writer(stream).writerow([*HEADS, *self.emotions, "note"])
            for found in self.done.values():
                csv.writer(stream).writerows(rows(found, self.emotions))
        self._lines: IO[str] = lines.open("a", encoding="utf-8")
        self._rows: IO[str] = table.open("a", encoding="utf-8", newline="")

    def write(self, found: dict[str, Any]) -> None:
        """Write a record."""
        self._lines.write(_line(found))
        self._lines.flush()
        csv.writer(self._rows).writerows(rows(found, self.emotions))
        self._rows.flush()

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._rows.close()


def _line(contents: Mapping[str, Any]) -> str:
    return json.dumps(contents, ensure_ascii=False) + "\n"


def _read(file: Path, header: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return file name -> record of an interrupted prediction; a last line that was cut off is left out.

    Raises:
        FerError: the records are of another network, detector, crop or coverage.
    """
    found: dict[str, dict[str, Any]] = {}
    lines = file.read_text(encoding="utf-8").splitlines()
    try:
        before = json.loads(lines[0]) if lines else {}
    except ValueError:
        before = {}
    if before != json.loads(json.dumps(header)):
        raise FerError(
            f"--out {file.parent}: its predictions are of another network, detector, crop or coverage; choose another "
            "folder"
        )
    for line in lines[1:]:
        try:
            one = json.loads(line)
            found[one["file"]] = one
        except (ValueError, LookupError, TypeError):  # cut off by a kill
            continue
    return found
