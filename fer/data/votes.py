"""FER+'s votes as labels: ten annotators a face.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution".
Rules by name, since each keeps other faces and gives other figures: "majority" is their own; "argmax" and "soft" are
plainer than theirs of probabilities, which keep the three most frequent answers where these cover enough of the votes.
With eight classes, of FER2013's 3,589 PrivateTest faces "majority" keeps 3,153 and "argmax" 3,546.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import FERPLUS_COLUMNS, FERPLUS_EMOTIONS, SPLITS, emotion_index

Rule = Literal["majority", "argmax", "soft"]
OUTLIER = 1  # votes: an answer that a single annotator gave is taken for a slip

# vote column -> index in FERPLUS_EMOTIONS; unknown and NF (not a face) are no emotion
COLUMNS = np.array(
    [UNKNOWN if (i := emotion_index(name, FERPLUS_EMOTIONS)) is None else i for name in FERPLUS_COLUMNS], np.int64
)


def relabelled(faces: Faces, rule: Rule, classes: int) -> Faces:
    """Return the faces that a rule gives a label, with it; those left out are counted in a note.

    Args:
        faces: with votes.
        rule: "majority": an emotion has more than half of the votes, those given once not counting; "argmax": the
            answer with the most votes, the first column of several, is an emotion; "soft": as "argmax", with the shares
            of the emotions' votes, those given once not counting, as soft targets.
        classes: 7, or 8 with contempt.

    Raises:
        FerError: there are no votes, or no face is left.
    """
    if faces.votes is None:
        raise FerError(
            f"{setting('data.labels', 'ferplus')}: {faces.source.path} has no votes; name FER+'s file with "
            f"{setting('data.votes')}"
        )
    names = FERPLUS_EMOTIONS[:classes]
    counted = without_slips(faces.votes)
    labels = _majority(counted, classes) if rule == "majority" else _most(faces.votes, classes)
    kept = np.flatnonzero(labels != UNKNOWN)
    if not kept.size:
        raise FerError(f"{setting('data.labels', 'ferplus')}: {faces.source.path}: the votes give no face a label")
    soft = shares(counted[kept, :classes], labels[kept]) if rule == "soft" else None
    left_out = np.delete(faces.official, kept)
    by_split = ", ".join(f"{int((left_out == index).sum()):,} of {name}" for index, name in enumerate(SPLITS))
    relabelled = replace(
        faces,
        images=faces.images[kept] if kept.size < len(faces) else faces.images,
        targets=labels[kept].astype(np.int8),
        official=faces.official[kept],
        given=faces.given[kept],
        rows=faces.rows[kept],
        votes=faces.votes[kept],
        classes=names,
        soft=soft,
        source=replace(faces.source, labels=f"ferplus {rule}, {classes} classes"),
    )
    if not left_out.size:
        return relabelled
    split_told = f" ({by_split})" if (faces.official != UNKNOWN).all() else ""
    return relabelled.noted(
        f"FER+ {rule}, {classes} classes: {left_out.size:,} of {len(faces):,} faces left out{split_told}, since the "
        f"votes give them none of these labels"
    )


def without_slips(votes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return votes by emotion (N, 9), answers that a single annotator gave left out, as FER+'s authors do.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
    """
    return votes_by_emotion(np.where(votes > OUTLIER, votes, 0))


def votes_by_emotion(votes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return votes (N, 9): of each of ``FERPLUS_EMOTIONS``, and of those that see no emotion or no face.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
    """
    table = np.zeros((len(votes), len(FERPLUS_EMOTIONS) + 1), np.int64)
    for column, place in enumerate(COLUMNS):
        table[:, len(FERPLUS_EMOTIONS) if place == UNKNOWN else place] += votes[:, column]
    return table


def _majority(counted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    best = counted[:, :classes].argmax(1)
    most = counted[np.arange(len(counted)), best]
    return np.where(2 * most > counted.sum(1), best, UNKNOWN)


def _most(votes: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    best = COLUMNS[votes.argmax(1)]
    return np.where(best < classes, best, UNKNOWN)


def shares(counted: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return soft targets (N, C), rows that sum to 1; where every emotion has one vote at most, the label alone.

    Args:
        counted: (N, C) votes.
        labels: (N,) class indices.
    """
    soft = counted.astype(np.float32)
    bare = counted.sum(1) == 0
    soft[bare, labels[bare]] = 1
    normalised: NDArray[np.float32] = soft / soft.sum(1, keepdims=True)
    return normalised


# --- agreement ------------------------------------------------------------------------------------------------------


def agreement(
    votes: NDArray[np.uint8], targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> dict[str, Any]:
    """Return how well labels and a network agree with the annotators, and whose the network's errors are.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
        targets: (N,) labels, index in ``FERPLUS_EMOTIONS``.
        predicted: (N,) the network's answers, likewise.
        classes: emotions that the network tells, 7 or 8.

    Returns:
        ``faces``; ``annotator``: how often one annotator, drawn at random, would give the same answer, for the network,
        the labels, and the answer that most annotators give (no answer can do better); ``majority``: the same against
        the crowd's majority where there is one of these emotions; ``errors``: the network's errors by what the
        crowd's majority says.
    """
    by_emotion = votes_by_emotion(votes)
    given = by_emotion.sum(1)
    place = np.arange(len(votes))
    majority = _majority(without_slips(votes), classes)
    clear = majority != UNKNOWN
    wrong = predicted != targets

    def annotator(answers: NDArray[np.int64]) -> float:
        return float((by_emotion[place, answers] / given).mean())

    def crowd(answers: NDArray[np.int64]) -> float | None:
        return float((answers == majority)[clear].mean()) if clear.any() else None

    return {
        "faces": len(votes),
        "annotator": {
            "network": annotator(predicted),
            "labels": annotator(targets),
            "best": annotator(by_emotion[:, :classes].argmax(1)),
        },
        "majority": {"faces": int(clear.sum()), "network": crowd(predicted), "labels": crowd(targets)},
        "errors": {
            "all": int(wrong.sum()),
            "crowd_agrees_with_the_label": int((wrong & (majority == targets)).sum()),
            "crowd_agrees_with_the_network": int((wrong & (majority == predicted)).sum()),
            "crowd_says_another_emotion": int((wrong & clear & (majority != targets) & (majority != predicted)).sum()),
            "crowd_is_divided": int((wrong & ~clear).sum()),
        },
    }
