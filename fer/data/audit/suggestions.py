"""Suggestions of an audit: a line of ``audit.csv`` for each face and reason.

advise(findings)

``exclude`` is suggested for faces of train alone, so that metrics on val and test stay comparable.
``data.exclude=audit.csv`` removes these faces:

- pictures without a face: by more than half of FER+'s votes, of one colour, or nearly so;
- faces with an exact or near duplicate or a moved copy in val or test;
- of duplicates within train with equal labels, all but the first;
- of duplicates with conflicting labels, all, since the true label is unknown.

``relabel:<emotion>`` and ``look`` change nothing by themselves. For a suspect label, ``relabel`` names the network's
prediction. ``look`` is suggested instead if FER+'s votes are joined and their most frequent answer is another one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer.data.audit.inspection import Findings
from fer.data.faces import UNKNOWN
from fer.data.labels import EMOTIONS
from fer.data.readers.ferplus import COLUMN_EMOTIONS

EXCLUDE, LOOK, RELABEL = "exclude", "look", "relabel:"
SCORED = ("val", "test")  # splits with published metrics


class Advice(NamedTuple):
    """A problem of one face, with a suggestion.

    Args:
        face: index of the face in the table.
        reason: short text of the problem, one of a few kinds.
        suggestion: ``exclude``, ``look`` or ``relabel:<emotion>``.
        first: index of the first face of its group of duplicates, or of the moved copy; None for other problems.
        score: depends on the problem. It is the share of the votes for "not a face", the standard deviation of a flat
            picture, or the probability of a suspect label. Of a near duplicate it is the correlation with the first of
            its group, of a moved copy that with the other face. Else None.
    """

    face: int
    reason: str
    suggestion: str
    first: int | None = None
    score: float | None = None


def advise(findings: Findings) -> list[Advice]:
    """Return the suggestions for all problems findings, in the order of the table."""
    problems = (*_no_faces(findings), *_duplicates(findings), *_moved_copies(findings), *_suspects(findings))
    return sorted(problems, key=lambda advice: advice.face)


def trained(findings: Findings) -> NDArray[np.bool_]:
    """Return (N,) whether a face is in train; without a split, all faces count as train."""
    inside: NDArray[np.bool_] = np.isin(findings.splits, ("train", "all"))
    return inside


def _no_faces(findings: Findings) -> Iterator[Advice]:
    inside, problems = trained(findings), findings.no_faces
    for index in np.flatnonzero(problems.voted | problems.likely | problems.flat | findings.one_colour).tolist():
        suggestion = EXCLUDE if inside[index] else LOOK
        if problems.voted[index] or problems.likely[index]:
            votes = findings.faces.votes
            assert votes is not None
            share = float(votes[index, -1] / votes[index].sum())  # NF is the last of the answers
            yield (
                Advice(index, "not a face", suggestion, score=share)
                if problems.voted[index]
                else Advice(index, "perhaps not a face", LOOK, score=share)
            )
        if findings.one_colour[index]:
            yield Advice(index, "one colour", suggestion)
        if problems.flat[index]:
            assert findings.light is not None
            yield Advice(index, "nearly one colour", suggestion, score=float(findings.light.spread[index]))


def _duplicates(findings: Findings) -> Iterator[Advice]:
    """Yield suggestions for exact and near duplicates, without pictures of one colour."""
    exact = np.arange(len(findings.labels))  # index of the first exact duplicate of each face
    for group in findings.groups:
        exact[group] = group[0]
    near = findings.near.groups if findings.near else []
    in_near = {int(index) for group in near for index in group}
    apart = [group for group in findings.groups if int(group[0]) not in in_near and not findings.one_colour[group[0]]]
    inside = trained(findings)
    for group in (*near, *apart):
        scored = group[np.isin(findings.splits[group], SCORED)]
        train, conflict = group[inside[group]], differ(findings.faces.targets[group])
        if scored.size:
            yield from (_of(findings, index, _leak(findings, exact, index, scored), EXCLUDE, group) for index in train)
        elif conflict:
            for index in train:
                yield _of(findings, index, _contradicted(findings, exact, index, group), EXCLUDE, group)
        else:
            for number, index in enumerate(train[1:], start=1):
                copied = (exact[train[:number]] == exact[index]).any()
                yield _of(findings, index, f"{_kind(copied)} duplicate in train", EXCLUDE, group)
        if conflict:
            for index in group[~inside[group]]:
                yield _of(findings, index, _contradicted(findings, exact, index, group), LOOK, group)


def _of(findings: Findings, index: int, reason: str, suggestion: str, group: NDArray[np.int64]) -> Advice:
    """Return the suggestion for a face of a group; only near duplicates have a score, their likeness."""
    score = None
    if reason.startswith("near") and findings.near is not None and not np.isnan(findings.near.likeness[index]):
        score = float(findings.near.likeness[index])
    return Advice(int(index), reason, suggestion, int(group[0]), score)


def _leak(findings: Findings, exact: NDArray[np.int64], index: int, scored: NDArray[np.int64]) -> str:
    """Return the reason for a face with duplicates in val or test: their kind (exact first) and their splits."""
    same = scored[exact[scored] == exact[index]]
    splits = set(findings.splits[same if same.size else scored].tolist())
    return f"{_kind(same.size > 0)} duplicate in {_named(splits)}"


def _named(splits: set[str]) -> str:
    return " and ".join(name for name in SCORED if name in splits)


def _contradicted(findings: Findings, exact: NDArray[np.int64], index: int, group: NDArray[np.int64]) -> str:
    """Return the reason for a face in a group with conflicting labels: the kind of the duplicates that conflict."""
    same = group[exact[group] == exact[index]]
    return f"{_kind(differ(findings.faces.targets[same]))} duplicate of another label"


def _kind(exact: bool | np.bool_) -> str:
    return "exact" if exact else "near"


def differ(targets: NDArray[np.int8]) -> bool:
    """Return whether labels conflict; unknown labels conflict with none."""
    return len(set(targets.tolist()) - {UNKNOWN}) > 1


def _moved_copies(findings: Findings) -> Iterator[Advice]:
    """Yield suggestions for faces of train with a moved copy in val or test, and for duplicates of these faces."""
    if (moved := findings.moved) is None:
        return
    groups = [*(findings.near.groups if findings.near else []), *findings.groups]
    group_of = {
        int(index): group for group in groups[::-1] for index in group
    }  # the near one, which has the exact ones
    inside, pairs = trained(findings), dict[int, list[int]]()
    for number, second in enumerate(moved.second.tolist()):
        for index in group_of.get(second, np.array([second])):
            if inside[index]:
                pairs.setdefault(int(index), []).append(number)
    for index, numbers in pairs.items():
        likest = max(numbers, key=lambda number: float(moved.correlation[number]))
        reason = f"moved copy in {_named(set(findings.splits[moved.first[numbers]].tolist()))}"
        yield Advice(index, reason, EXCLUDE, int(moved.first[likest]), float(moved.correlation[likest]))


def _suspects(findings: Findings) -> Iterator[Advice]:
    if (suspects := findings.suspects) is None:
        return
    votes = findings.faces.votes
    answers = None if votes is None else COLUMN_EMOTIONS[votes.argmax(1)]
    for index in suspects.indices.tolist():
        label = suspects.predicted[index]
        supported = answers is None or answers[index] == label
        suggestion = f"{RELABEL}{EMOTIONS[label]}" if supported else LOOK
        yield Advice(index, "suspect label", suggestion, score=float(suspects.quality[index]))
