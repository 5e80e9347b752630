"""What to do about what an audit found: a line for each face and reason, as ``audit.csv`` holds them.

advise(found)

- ``exclude``, which ``data.exclude=audit.csv`` obeys, is only ever said of faces of train: figures on val and test stay
  comparable. Pictures that show no face (more than half of FER+'s votes, one colour, or nearly so); those with a twin,
  exact or near, in val or test; of twins within train whose labels agree, all but the first; of those whose labels
  conflict all, since nobody can say which is right.
- ``relabel:<emotion>`` and ``look`` change nothing by themselves. A suspect label is to be looked at where FER+'s votes
  are joined and their most frequent answer is not what the network prefers, else another one is named.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.data.audit.inspection import Found
from fer.data.faces import UNKNOWN
from fer.data.labels import EMOTIONS
from fer.data.readers.ferplus import COLUMN_EMOTIONS

EXCLUDE, LOOK, RELABEL = "exclude", "look", "relabel:"
SCORED = ("val", "test")  # what figures are told of


class Advice(NamedTuple):
    """A face, what is the matter with it, and what may be done.

    Args:
        place: of the face in the table.
        reason: in a few words, of few kinds.
        suggestion: ``exclude``, ``look`` or ``relabel:<emotion>``.
        first: place of the first face of its group of twins; None where the reason is another.
        score: share of the votes that see no face; standard deviation of flat pixels; correlation of a near twin with
            the first of its group; probability of a suspect label; else None.
    """

    place: int
    reason: str
    suggestion: str
    first: int | None = None
    score: float | None = None


def advise(found: Found) -> list[Advice]:
    """Return what may be done about what was found, in the table's order."""
    return sorted([*_no_faces(found), *_twins(found), *_suspects(found)], key=lambda advice: advice.place)


def trained(found: Found) -> NDArray[np.bool_]:
    """Return (N,) which faces are of train; where the source tells no split, all may be."""
    own: NDArray[np.bool_] = np.isin(found.splits, ("train", "all"))
    return own


def _no_faces(found: Found) -> Iterator[Advice]:
    own, held = trained(found), found.no_faces
    for place in np.flatnonzero(held.voted | held.likely | held.flat | found.one_colour).tolist():
        sure = EXCLUDE if own[place] else LOOK
        if held.voted[place] or held.likely[place]:
            votes = found.faces.votes
            assert votes is not None
            share = float(votes[place, -1] / votes[place].sum())  # NF is the last of the answers
            yield (
                Advice(place, "not a face", sure, score=share)
                if held.voted[place]
                else Advice(place, "perhaps not a face", LOOK, score=share)
            )
        if found.one_colour[place]:
            yield Advice(place, "one colour", sure)
        if held.flat[place]:
            assert found.light is not None
            yield Advice(place, "nearly one colour", sure, score=float(found.light.spread[place]))


def _twins(found: Found) -> Iterator[Advice]:
    """Yield advice on twins; of one colour they are no twins but nothing."""
    exact = np.arange(len(found.labels))  # the first of a face's exact twins
    for group in found.groups:
        exact[group] = group[0]
    near = found.near.groups if found.near else []
    inside = {int(place) for group in near for place in group}
    apart = [group for group in found.groups if int(group[0]) not in inside and not found.one_colour[group[0]]]
    own = trained(found)
    for group in (*near, *apart):
        scored = group[np.isin(found.splits[group], SCORED)]
        mine, conflict = group[own[group]], differ(found.faces.targets[group])
        if scored.size:
            yield from (_of(found, place, _leak(found, exact, place, scored), EXCLUDE, group) for place in mine)
        elif conflict:
            yield from (_of(found, place, _contradicted(found, exact, place, group), EXCLUDE, group) for place in mine)
        else:
            for number, place in enumerate(mine[1:], start=1):
                copied = (exact[mine[:number]] == exact[place]).any()
                yield _of(found, place, f"{_kind(copied)} twin in train", EXCLUDE, group)
        if conflict:
            others = group[~own[group]]
            yield from (_of(found, place, _contradicted(found, exact, place, group), LOOK, group) for place in others)


def _of(found: Found, place: int, reason: str, suggestion: str, group: NDArray[np.int64]) -> Advice:
    """Return advice on a face of a group; only a near twin has a likeness to tell."""
    like = None if found.near is None or np.isnan(found.near.likeness[place]) else float(found.near.likeness[place])
    return Advice(int(place), reason, suggestion, int(group[0]), like if reason.startswith("near") else None)


def _leak(found: Found, exact: NDArray[np.int64], place: int, scored: NDArray[np.int64]) -> str:
    """Return which scored splits hold twins of a face, and of which kind the nearest is."""
    same = scored[exact[scored] == exact[place]]
    where = set(found.splits[same if same.size else scored].tolist())
    return f"{_kind(same.size > 0)} twin in {' and '.join(name for name in SCORED if name in where)}"


def _contradicted(found: Found, exact: NDArray[np.int64], place: int, group: NDArray[np.int64]) -> str:
    """Return of which kind the twins of a face are whose labels conflict with each other or with its own."""
    same = group[exact[group] == exact[place]]
    return f"{_kind(differ(found.faces.targets[same]))} twin of another label"


def _kind(exact: bool | np.bool_) -> str:
    return "exact" if exact else "near"


def differ(targets: NDArray[np.int8]) -> bool:
    """Return whether labels conflict; one that is not known contradicts none."""
    return len(set(targets.tolist()) - {UNKNOWN}) > 1


def _suspects(found: Found) -> Iterator[Advice]:
    if (suspects := found.suspects) is None:
        return
    votes = found.faces.votes
    answers = None if votes is None else COLUMN_EMOTIONS[votes.argmax(1)]
    for place in suspects.places.tolist():
        label = suspects.predicted[place]
        sure = answers is None or answers[place] == label
        suggestion = f"{RELABEL}{EMOTIONS[label]}" if sure else LOOK
        yield Advice(place, "suspect label", suggestion, score=float(suspects.quality[place]))
