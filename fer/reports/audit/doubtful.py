"""The sections of an audit's page on doubtful faces.

They show pictures without a face, and suspect labels.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.data.audit.inspection import Findings
from fer.data.audit.results import Audit, SuspectLabels
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.reports import html
from fer.reports.audit.duplicates import cut_short, share, shrunk
from fer.reports.html import joined, paragraph, tag

SHOWN = 60  # pictures shown of each kind


def faceless(found: Findings) -> bool:
    """Return whether any picture shows no face, one-colour faces aside."""
    masks = found.no_faces
    return bool((masks.voted | masks.likely | masks.flat).any())


def no_faces(found: Findings, facts: Audit) -> Markup:
    """Return the section on pictures without a face, found by FER+'s votes and by low contrast."""
    counts, masks = facts.no_faces, found.no_faces
    votes = (
        f'More than half of FER+\'s votes are for "no face" in {counts.voted:,} pictures; in '
        f"{counts.likely:,} it is the most frequent answer. Some of them do show a face: turned, lying, cut off, "
        "small or painted. "
        if counts.likely
        else ""
    )
    flat = (
        f"{counts.flat:,} pictures are nearly of one colour: the standard deviation of their pixels is below "
        f"{counts.flat_below:g}. "
        if counts.flat
        else ""
    )
    intro = paragraph(votes, flat, "Pictures of one colour have a separate section.", class_="soft")
    by_votes = (masks.voted | masks.likely) & ~found.one_colour & ~masks.flat
    return joined(
        intro,
        *shown(found, "Nearly one colour", np.flatnonzero(masks.flat).tolist()),
        *shown(found, "By FER+'s votes", np.flatnonzero(by_votes).tolist()),
    )


def shown(found: Findings, title: str, indices: Sequence[int]) -> list[Markup]:
    """Return a title with the number of pictures, and the pictures with their labels, reasons and rows."""
    if not indices:
        return []
    cards = []
    for image, index in zip(shrunk(found, indices[:SHOWN]), indices, strict=False):
        cards.append(html.face(image, [str(found.labels[index]), *reasons(found, index), split_and_row(found, index)]))
    return [tag("h3", f"{title} ({cut_short(len(indices), SHOWN)})"), tag("div", *cards, class_="faces")]


def reasons(found: Findings, index: int) -> list[str]:
    """Return the evidence that a picture shows no face: its votes, its standard deviation."""
    lines = []
    if (votes := found.faces.votes) is not None and found.no_faces.likely[index]:
        lines.append(f"{votes[index, -1]} of {votes[index].sum(dtype=int)} votes")  # "no face" is the last answer
    if found.no_faces.flat[index]:
        assert found.light is not None
        lines.append(f"sd {found.light.spread[index]:.1f}")
    return lines


def split_and_row(found: Findings, index: int) -> str:
    """Return split and row of a face."""
    return f"{found.splits[index]}, row {found.faces.rows[index]}"


def suspects(found: Findings, facts: Audit) -> Markup:
    """Return the section on labels that out-of-fold predictions contradict: counts, agreement, the least likely."""
    counts, suspects = facts.suspects, found.suspects
    assert counts is not None
    assert suspects is not None
    intro = paragraph(
        f"{len(counts.runs):,} runs ({counts.settings}) predicted {counts.covered:,} of {facts.classes.n:,} "
        f"faces, each by a network that was not trained on it; {100 * counts.accuracy:.1f} % of the predictions "
        f"equal the label. Confident learning marks {counts.suspects:,} labels "
        f"({share(counts.suspects, max(1, counts.covered))}) as suspect. Either the label or the network may "
        "be wrong, so check each of these faces. Below are the least likely labels; audit.csv lists all.",
        class_="soft",
    )
    rows = [(name, f"{counts.by_label[name]:,}", f"{counts.by_suggestion[name]:,}") for name in EMOTIONS]
    table = html.table(("emotion", "suspect labels", "predicted by the network"), rows, (1, 2))
    return joined(intro, html.columns(table, agreement(counts)), *least_likely(found, suspects.indices))


def least_likely(found: Findings, ranked: NDArray[np.int64]) -> list[Markup]:
    """Return a title with the number of suspect labels, and the faces with the least likely ones."""
    if not ranked.size:
        return []
    indices = ranked[:SHOWN].tolist()
    cards = [suspect(found, index, image) for index, image in zip(indices, shrunk(found, indices), strict=True)]
    title = f"Least likely labels ({cut_short(len(ranked), SHOWN)})"
    return [tag("h3", title), tag("div", *cards, class_="faces")]


def agreement(counts: SuspectLabels) -> Markup:
    """Return the table of how often FER+'s most frequent answer is the label, or the network's prediction."""
    if counts.votes is None:
        return paragraph(
            "With FER+'s votes (--votes), this section also shows how often annotators agree with the label.",
            class_="soft",
        )
    rows = [
        (name, *(f"{count:,} ({share(count, max(1, row.faces))})" for count in (row.as_given, row.as_predicted)))
        for name, row in counts.votes.items()
    ]
    intro = paragraph("FER+'s most frequent answer equals", class_="soft")
    return joined(intro, html.table(("for", "the label", "the network's prediction"), rows, (1, 2)))


def suspect(found: Findings, index: int, image: NDArray[np.uint8]) -> Markup:
    """Return a face with its label, the network's prediction and FER+'s most frequent answer."""
    assert found.suspects is not None
    lines = [
        f"{found.labels[index]}, or {EMOTIONS[found.suspects.predicted[index]]}?",
        f"label: {100 * found.suspects.quality[index]:.1f} % likely",
        split_and_row(found, index),
    ]
    if (votes := found.faces.votes) is not None:
        answer = int(votes[index].argmax())
        lines.append(f"FER+: {FERPLUS_COLUMNS[answer]} {votes[index, answer]} of {votes[index].sum(dtype=int)}")
    return html.face(image, lines)
