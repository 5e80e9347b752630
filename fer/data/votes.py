"""Labels from the votes of FER+: ten annotators for each face.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution".
Rules have names, since each keeps different faces and so gives different metrics. "majority" is the authors' rule.
"argmax" and "soft" are simpler than their probability rules, which keep the three most frequent answers if these cover
enough of the votes. With eight classes, "majority" keeps 3,153 and "argmax" 3,546 of the 3,589 PrivateTest faces.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer.config.errors import FerError, setting, takes
from fer.data.faces import UNKNOWN, Faces
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS, FERPLUS_EMOTIONS, SPLITS, emotion_index
from fer.metrics.results import Annotators, ErrorsByVote, Majority, Shares
from fer.system.text import plural

VoteRule = Literal["majority", "argmax", "soft"]
OUTLIER = 1  # votes: an answer of a single annotator is treated as a slip

# vote column -> index in FERPLUS_EMOTIONS; UNKNOWN for the answers "unknown" and "NF" (not a face)
COLUMNS = np.array(
    [UNKNOWN if (i := emotion_index(name, FERPLUS_EMOTIONS)) is None else i for name in FERPLUS_COLUMNS], np.int64
)


def relabelled(faces: Faces, rule: VoteRule, classes: int) -> Faces:
    """Return the faces that have a label by a rule; a note counts the faces that were left out.

    Args:
        faces: faces with votes.
        rule: "majority" takes an emotion with more than half of the votes; answers given once do not count. "argmax"
            takes the answer with the most votes (the first of equal ones), if it is an emotion. "soft" is "argmax" with
            soft targets: the distribution of the emotions' votes, without answers given once.
        classes: 7, or 8 with contempt.

    Raises:
        FerError: the faces have no votes, or no face has a label.
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
        faces.taken(kept),
        targets=labels[kept].astype(np.int8),
        classes=names,
        soft=soft,
        source=replace(faces.source, labels=f"ferplus {rule}, {classes} classes"),
    ).noted(*([] if rule == "majority" else _tie_notes(faces.votes[kept])))
    if not left_out.size:
        return relabelled
    splits = f" ({by_split})" if (faces.official != UNKNOWN).all() else ""
    return relabelled.noted(
        f"FER+ {rule}, {classes} classes: {left_out.size:,} of {len(faces):,} faces left out{splits}, since the "
        f"votes give them none of these labels"
    )


def without_contempt(faces: Faces) -> Faces:
    """Return the faces of FER2013's seven emotions; a note counts those that were left out."""
    kept = np.flatnonzero(faces.targets < len(EMOTIONS))
    if not kept.size:
        raise FerError(f"{faces.source.path}: has pictures of contempt alone{_eighth_class()}")
    return replace(faces.taken(kept), classes=EMOTIONS).noted(
        f"{plural(len(faces) - len(kept), 'image')} of contempt left out{_eighth_class()}"
    )


def _eighth_class() -> str:
    """Return in words how the running command takes contempt."""
    if takes("data.classes"):
        return f"; {setting('data.classes', 8)} takes them"
    return "; a network that predicts contempt takes them" if takes("data.labels") else ""


def _tie_notes(votes: NDArray[np.uint8]) -> list[str]:
    count = int(tied(votes).sum())
    if not count:
        return []
    return [f"{count:,} faces have several most frequent answers; the first in FER+'s order of columns is their label"]


def tied(votes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (N,) whether several answers share the most votes of a face.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
    """
    several: NDArray[np.bool_] = (votes == votes.max(1, keepdims=True)).sum(1) > 1
    return several


def without_slips(votes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return votes by emotion (N, 9), without answers that a single annotator gave, as FER+'s authors do.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
    """
    return votes_by_emotion(np.where(votes > OUTLIER, votes, 0))


def votes_by_emotion(votes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return votes (N, 9): for each of ``FERPLUS_EMOTIONS``, and last for "unknown" and "not a face" together.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
    """
    table = np.zeros((len(votes), len(FERPLUS_EMOTIONS) + 1), np.int64)
    for column, emotion in enumerate(COLUMNS):
        table[:, len(FERPLUS_EMOTIONS) if emotion == UNKNOWN else emotion] += votes[:, column]
    return table


def _majority(counted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    best = counted[:, :classes].argmax(1)
    most = counted[np.arange(len(counted)), best]
    return np.where(2 * most > counted.sum(1), best, UNKNOWN)


def _most(votes: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    best = COLUMNS[votes.argmax(1)]
    return np.where(best < classes, best, UNKNOWN)


def shares(counted: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return soft targets (N, C), whose rows sum to 1; a face without votes is given its label.

    Args:
        counted: (N, C) votes, without answers given once.
        labels: (N,) class indices.
    """
    soft = counted.astype(np.float32)
    without_votes = counted.sum(1) == 0
    soft[without_votes, labels[without_votes]] = 1
    normalised: NDArray[np.float32] = soft / soft.sum(1, keepdims=True)
    return normalised


# --- agreement ------------------------------------------------------------------------------------------------------


def agreement(
    votes: NDArray[np.uint8], targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Annotators:
    """Return the agreement of labels and predictions with the annotators, and the annotators' view of the errors.

    ``annotator`` is the probability that a random annotator gives the same answer. It is given for the network, for the
    labels, and for the most frequent answer, which is the upper limit. ``majority`` is on the faces with a majority for
    one of the emotions. ``errors`` are the network's, by the majority's answer.

    Args:
        votes: (N, 10), in the order of ``FERPLUS_COLUMNS``.
        targets: (N,) labels, index in ``FERPLUS_EMOTIONS``.
        predicted: (N,) predictions of a network, index in ``FERPLUS_EMOTIONS``.
        classes: emotions that the network predicts, 7 or 8.
    """
    by_emotion = votes_by_emotion(votes)
    total = by_emotion.sum(1)
    faces = np.arange(len(votes))
    majority = _majority(without_slips(votes), classes)
    clear = majority != UNKNOWN
    wrong = predicted != targets

    def with_annotator(answers: NDArray[np.int64]) -> float:
        return float((by_emotion[faces, answers] / total).mean())

    def with_majority(answers: NDArray[np.int64]) -> float | None:
        return float((answers == majority)[clear].mean()) if clear.any() else None

    return Annotators(
        faces=len(votes),
        annotator=Shares(
            network=with_annotator(predicted),
            labels=with_annotator(targets),
            best=with_annotator(by_emotion[:, :classes].argmax(1)),
        ),
        majority=Majority(faces=int(clear.sum()), network=with_majority(predicted), labels=with_majority(targets)),
        errors=ErrorsByVote(
            all=int(wrong.sum()),
            label=int((wrong & (majority == targets)).sum()),
            network=int((wrong & (majority == predicted)).sum()),
            other=int((wrong & clear & (majority != targets) & (majority != predicted)).sum()),
            divided=int((wrong & ~clear).sum()),
        ),
    )
