"""The page of predicted pictures and videos.

It has every face with its emotions, and what was left out.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.inference.network import UNNAMED
from fer.inference.records import FaceRecord, Record
from fer.metrics.conformal import without_promise
from fer.reports import html
from fer.reports.html import Section, joined, paragraph, tag
from fer.system.records import Json
from fer.system.text import clock

MOST = 500  # faces on a page, which holds each as a picture of 2 kB


class Shown(NamedTuple):
    """A face of the page: the file of its picture, its crop (S, S) uint8, its record."""

    file: str
    crop: NDArray[np.uint8]
    face: FaceRecord


def write(
    file: Path, about: Json, faces: Sequence[Shown], left_out: Iterable[tuple[str, str]], counts: str,
    videos: Sequence[Record] = (), count: int | None = None,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        file: to write.
        about: of the network, detector and crop.
        faces: to show; the first 500 are shown.
        left_out: pictures without a prediction, and why.
        counts: of pictures and faces, in words.
        videos: the closing record of each video.
        count: of all faces on pictures, also those that cannot be shown; default: of ``faces``.
    """
    sections = [Section("videos", "Videos", _videos(videos))] if videos else []
    if faces or count or not videos:
        sections.append(Section("faces", "Faces on pictures" if videos else "Faces", _faces(faces, count)))
    if rows := list(left_out):
        sections.append(Section("left-out", "Without a prediction", html.table(("file", "why"), rows, stack=True)))
    html.write(file, "Predicted emotions", lead(about, counts), sections, "Written by fer predict.")


def lead(about: Json, counts: str) -> Markup:
    """Return what stands above a page's sections: counts, how to understand the answers, how they were made."""
    largest = "Of each picture the largest face alone is predicted. " if about.get("faces") == "largest" else ""
    made = (
        f"Network {about['architecture']}, trained on {about['trained_on'] or UNNAMED}; detector {about['detector']}. "
        f"{largest}Each face is cut out as a square with {_side_in_words(about['crop']['margin'])}the side of its box, "
        f"and resized to {about['crop']['size']} x {about['crop']['size']} pixels."
    )
    limits = (
        "An emotion here is how a face looks to people who label pictures. It is not what a person feels. "
        f"{_uncertain_in_words(about['coverage'], about['trained_on'], about.get('coverage_by', 'all'))} "
        f"{without_promise(about.get('unpromised', ()))}"
    ).strip()
    return joined(paragraph(counts), paragraph(limits), paragraph(made, class_="soft"))


def _side_in_words(margin: float) -> str:
    return "" if margin == 1 else f"{margin:g} times "


def _videos(videos: Sequence[Record]) -> Markup:
    """Return a table of the videos with links to their pages."""
    rows = [
        (
            tag("a", Path(one["file"]).name, href=quote(one["video"]["page"])),
            clock(one["video"]["seconds"]), f"{one['video']['frames']:,}", len(one["video"]["tracks"]),
            "; ".join(one["video"]["notes"]),
        )
        for one in videos
    ]  # fmt: skip
    return html.table(("timeline", "length", "frames", "faces", "notes"), rows, numbers=(1, 2, 3))


def answer(face: FaceRecord) -> str:
    """Return the prediction set of a face, or its emotion where there is none, with a mark where it is uncertain."""
    return " or ".join(face["emotions"] or [face["emotion"]]) + ("?" if face["uncertain"] else "")


def _uncertain_in_words(coverage: float | None, trained_on: str | None, by: str) -> str:
    """Return in words what a question mark stands for, and what the prediction sets promise."""
    small = "or a face of less than 32 pixels"
    if coverage is None:
        return f"A question mark stands for an uncertain answer: a probability below 50 %, {small}."
    each = " of each emotion" if by == "class" else ""
    return (
        f"The bold emotions below a face are the likely ones. For faces like those of {trained_on or 'its data set'}, "
        f"they include the label that people gave in {100 * coverage:g} of 100 cases{each}. A question mark stands "
        f"for an uncertain answer: more than one bold emotion, {small}, for which nothing is promised."
    )


def _faces(faces: Sequence[Shown], count: int | None = None) -> Markup:
    count = len(faces) if count is None else count
    if not count:
        return paragraph("No face was found.")
    shown = [
        html.face(
            one.crop,
            [answer(one.face), Path(one.file).name],
            html.chances(one.face["probabilities"], {}),
        )
        for one in faces[:MOST]
    ]
    grid = tag("div", *shown, class_="faces")
    if len(faces) > MOST:
        return joined(grid, html.note(f"The first {MOST} of {count:,} faces."))
    if len(shown) < count:
        lost = f"{len(shown):,} of {count:,} faces. The pictures of the others have gone since they were predicted."
        return joined(grid, html.note(lost))
    return grid
