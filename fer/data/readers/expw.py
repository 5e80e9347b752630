"""Reader of ExpW (Zhang et al. 2018): ``label.lst`` and the photographs in ``image/origin``.

A line has the picture, the number of the face in it, and the box as top, left, right, bottom. The detector's confidence
and the emotion, in FER2013's order, follow. Several faces of one picture are a group, which holdout and folds keep
together. ExpW has no split.
"""

from pathlib import Path

from fer.data.crop import Box
from fer.data.labels import EMOTIONS
from fer.data.readers.picture_set import Listing, PictureSet, Sample, first_of, lines_of, published_note

FIELDS = 8
PUBLISHED = 91_793  # faces


def recognises(path: Path) -> bool:
    """Return whether ``path`` has ``label.lst`` and a folder of pictures."""
    return path.is_dir() and _table(path) is not None and _pictures(path) is not None


def _table(path: Path) -> Path | None:
    return first_of(path / "label.lst", path / "label" / "label.lst")


def _pictures(path: Path) -> Path | None:
    return first_of(path / "image" / "origin", path / "origin", path / "image")


def listed(path: Path) -> Listing:
    """Return the faces, each with the box of its picture."""
    table, pictures = _table(path), _pictures(path)
    assert table is not None  # as recognised
    assert pictures is not None
    listing = Listing(tables=[table])
    for where, line in lines_of(table):
        listing.add(where, _sample(line.split(), pictures, where))
    listing.notes.append(published_note(len(listing.samples), PUBLISHED, "faces"))
    return listing


def _sample(fields: list[str], pictures: Path, where: str) -> Sample | str:
    """Return the face of a line, or its problem."""
    if len(fields) != FIELDS:
        return f"{len(fields)} fields; expected picture, face, top, left, right, bottom, confidence, emotion"
    name, _, *numbers, _, label = fields
    if label not in map(str, range(len(EMOTIONS))):
        return f"emotion is {label[:20]!r}; it is one of 0 to {len(EMOTIONS) - 1}"
    box = box_of(numbers)
    if box is None:
        return f"box is {' '.join(numbers)[:60]!r}; expected top, left, right, bottom in pixels"
    return Sample(pictures / name, EMOTIONS[int(label)], group=name, box=box, where=where)


def box_of(numbers: list[str]) -> Box | None:
    """Return the box of the texts top, left, right, bottom; None where it has no area."""
    try:
        top, left, right, bottom = map(float, numbers)
    except ValueError:
        return None
    return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None


READER = PictureSet("expw", "ExpW, faces cut out", recognises, listed)
