"""The parts of an audit's page on doubtful faces: pictures that show none, and labels that predictions contradict."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fer.data.audit.inspection import Found
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.reports import html
from fer.reports.audit.duplicates import cut_short, share, shrunk
from fer.reports.html import joined, paragraph, tag

SHOWN = 60  # pictures of a kind


def faceless(found: Found) -> bool:
    """Return whether any picture that is not of one colour shows no face."""
    held = found.no_faces
    return bool((held.voted | held.likely | held.flat).any())


def no_faces(found: Found, facts: Mapping[str, Any]) -> Markup:
    """Return the pictures that show no face, by the votes and by their contrast."""
    counted, held = facts["no_faces"], found.no_faces
    votes = (
        f"More than half of FER+'s votes see no face in {counted['voted']:,} pictures, and in {counted['likely']:,} "
        "that is the most frequent answer. Some do show one: turned, lying, cut off, small or painted. "
        if counted["likely"]
        else ""
    )
    flat = (
        f"In {counted['flat']:,} the pixels differ, but so little (standard deviation below {counted['flat_below']:g}) "
        "that they show nothing. "
        if counted["flat"]
        else ""
    )
    told = paragraph(votes, flat, "Pictures of one colour have their own place.", class_="soft")
    seen = ~found.one_colour
    places = np.flatnonzero(held.flat).tolist(), np.flatnonzero((held.voted | held.likely) & seen & ~held.flat).tolist()
    return joined(told, *shown(found, "Nearly one colour", places[0]), *shown(found, "By FER+'s votes", places[1]))


def shown(found: Found, title: str, places: Sequence[int]) -> list[Markup]:
    """Return pictures without a face, with their labels and rows, under a title that says how many."""
    if not places:
        return []
    cards = []
    for image, place in zip(shrunk(found, places[:SHOWN]), places, strict=False):
        cards.append(html.face(image, [str(found.labels[place]), *why_none(found, place), whose(found, place)]))
    return [tag("h3", f"{title} ({cut_short(len(places), SHOWN)})"), tag("div", *cards, class_="faces")]


def why_none(found: Found, place: int) -> list[str]:
    """Return why a picture is taken to show no face."""
    lines = []
    if (votes := found.faces.votes) is not None and found.no_faces.likely[place]:
        lines.append(f"{votes[place, -1]} of {votes[place].sum(dtype=int)} votes")  # NF is the last of the answers
    if found.no_faces.flat[place]:
        assert found.light is not None
        lines.append(f"sd {found.light.spread[place]:.1f}")
    return lines


def whose(found: Found, place: int) -> str:
    """Return split and row of a face."""
    return f"{found.splits[place]}, row {found.faces.rows[place]}"


def suspects(found: Found, facts: Mapping[str, Any]) -> Markup:
    """Return the labels that out-of-fold predictions contradict: how many, what of, and the least likely ones."""
    counted, suspects = facts["suspects"], found.suspects
    assert suspects is not None
    told = paragraph(
        f"{len(counted['runs']):,} runs ({counted['settings']}) have predicted {counted['covered']:,} of "
        f"{facts['n']:,} faces that they had not seen, {100 * counted['accuracy']:.1f} % as labelled. Confident "
        f"learning finds {counted['suspects']:,} labels ({share(counted['suspects'], max(1, counted['covered']))}) "
        "suspect. The network errs as well as the label: a suspect is a face to look at. Below are those whose label "
        "is the least likely; audit.csv lists all.",
        class_="soft",
    )
    rows = [(name, f"{counted['by_label'][name]:,}", f"{counted['by_suggestion'][name]:,}") for name in EMOTIONS]
    table = html.table(("emotion", "suspect labels", "preferred by the network"), rows, (1, 2))
    return joined(told, html.columns(table, agreement(counted)), *least_likely(found, suspects.places))


def least_likely(found: Found, ranked: NDArray[np.int64]) -> list[Markup]:
    """Return the faces whose labels are the least likely, under a title that says how many."""
    if not ranked.size:
        return []
    places = ranked[:SHOWN].tolist()
    cards = [suspect(found, place, image) for place, image in zip(places, shrunk(found, places), strict=True)]
    title = f"Least likely labels ({cut_short(len(ranked), SHOWN)})"
    return [tag("h3", title), tag("div", *cards, class_="faces")]


def agreement(counted: Mapping[str, Any]) -> Markup:
    """Return how often FER+'s most frequent answer is the label, or what the network prefers."""
    if counted["votes"] is None:
        return paragraph(
            "FER+'s votes, joined with --votes, would tell how often they side with the label.", class_="soft"
        )
    rows = [
        (name, *(f"{held[key]:,} ({share(held[key], max(1, held['faces']))})" for key in ("as_given", "as_predicted")))
        for name, held in counted["votes"].items()
    ]
    told = paragraph("FER+'s most frequent answer is", class_="soft")
    return joined(told, html.table(("of", "the label", "what the network prefers"), rows, (1, 2)))


def suspect(found: Found, place: int, image: NDArray[np.uint8]) -> Markup:
    """Return a face with its label, what the network prefers, and what FER+'s votes say."""
    assert found.suspects is not None
    lines = [
        f"{found.labels[place]}, or {EMOTIONS[found.suspects.predicted[place]]}?",
        f"label: {100 * found.suspects.quality[place]:.1f} % likely",
        whose(found, place),
    ]
    if (votes := found.faces.votes) is not None:
        answer = int(votes[place].argmax())
        lines.append(f"FER+: {FERPLUS_COLUMNS[answer]} {votes[place, answer]} of {votes[place].sum(dtype=int)}")
    return html.face(image, lines)
