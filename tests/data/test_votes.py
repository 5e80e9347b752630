"""Labels from votes, and the agreement of a network with the annotators, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.data import votes as data_votes
from fer.data.faces import UNKNOWN, Faces, Source
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.metrics.results import Majority
from fer.system.records import plain


def votes(**given):
    return [given.get(name, 0) for name in FERPLUS_COLUMNS]


TABLE = np.array(
    [
        votes(happiness=9, neutral=1),  # clear
        votes(happiness=5, sadness=5),  # a tie: no majority; the first column is happiness
        votes(anger=5, disgust=1, fear=1, sadness=1, neutral=1, surprise=1),  # alone above one vote: all that counts
        votes(contempt=8, neutral=2),
        votes(unknown=6, fear=4),
        votes(NF=10),
        votes(fear=4, surprise=3, neutral=3),
        votes(anger=4, disgust=4, unknown=1, NF=1),  # what sees nothing was given once each: it does not count
    ],
    np.uint8,
)


@pytest.fixture
def faces():
    count = len(TABLE)
    return Faces(
        images=np.arange(count, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2),
        targets=np.zeros(count, np.int8),
        official=np.array([0, 0, 0, 0, 1, 1, 2, 2], np.int8),
        given=np.full(count, UNKNOWN, np.int8),
        rows=np.arange(count) + 10,
        source=Source("fer2013", "table", "fer2013.csv"),
        votes=TABLE,
    )


@pytest.mark.parametrize(
    ("rule", "classes", "kept"),
    [
        ("majority", 7, {10: "happy", 12: "angry"}),
        ("majority", 8, {10: "happy", 12: "angry", 13: "contempt"}),
        ("argmax", 7, {10: "happy", 11: "happy", 12: "angry", 16: "fear", 17: "angry"}),
        ("soft", 8, {10: "happy", 11: "happy", 12: "angry", 13: "contempt", 16: "fear", 17: "angry"}),
    ],
)
def test_rules_by_hand(faces, rule, classes, kept):
    relabelled = data_votes.relabelled(faces, rule, classes)
    assert {int(r): relabelled.classes[t] for r, t in zip(relabelled.rows, relabelled.targets, strict=True)} == kept
    assert relabelled.images[:, 0, 0].tolist() == [row - 10 for row in kept]
    assert relabelled.source.labels == f"ferplus {rule}, {classes} classes"
    assert f"{8 - len(kept)} of 8 faces left out" in relabelled.source.notes[-1]
    ties = sum(sorted(votes)[-1] == sorted(votes)[-2] for votes in relabelled.votes.tolist())
    noted = [note for note in relabelled.source.notes if "several most frequent answers" in note]
    assert noted == [] if rule == "majority" or not ties else noted[0].startswith(f"{ties} faces ")
    assert len(relabelled.classes) == classes
    assert (relabelled.soft is None) == (rule != "soft")


def test_soft_targets_are_the_shares_of_the_votes(faces):
    soft = data_votes.relabelled(faces, "soft", 8).soft
    names = [*EMOTIONS, "contempt"]
    assert dict(zip(names, soft[0].tolist(), strict=True))["happy"] == 1  # neutral's one vote is a slip
    assert dict(zip(names, soft[1].tolist(), strict=True))["sad"] == pytest.approx(0.5)
    assert soft.sum(1) == pytest.approx(1)
    scattered = data_votes.shares(np.zeros((1, 7), np.int64), np.array([4]))  # ten different answers
    assert scattered.tolist() == [[0, 0, 0, 0, 1, 0, 0]]


def test_rules_have_fingerprints_of_their_own(faces):
    prints = {
        data_votes.relabelled(faces, rule, classes).fingerprint() for rule in ("argmax", "soft") for classes in (7, 8)
    }
    assert len(prints) == 4


def test_faces_without_votes_have_no_agreement(faces):
    with pytest.raises(FerError, match="fer2013.csv has no votes; name FER"):
        data_votes.relabelled(replace(faces, votes=None), "argmax", 7)
    with pytest.raises(FerError, match="give no face a label"):
        data_votes.relabelled(replace(faces, votes=np.array([votes(NF=10)] * 8, np.uint8)), "argmax", 8)


def test_agreement_by_hand():
    index = EMOTIONS.index
    targets = np.array([index(name) for name in ("happy", "sad", "angry", "neutral", "fear", "sad", "fear", "angry")])
    answers = np.array([index(name) for name in ("happy", "happy", "sad", "sad", "sad", "happy", "sad", "happy")])
    agreement = data_votes.agreement(TABLE, targets, answers, 7)
    assert agreement.annotator.network == pytest.approx(np.mean([0.9, 0.5, 0.1, 0, 0, 0, 0, 0]))
    assert agreement.annotator.labels == pytest.approx(np.mean([0.9, 0.5, 0.5, 0.2, 0.4, 0, 0.4, 0.4]))
    assert agreement.annotator.best == pytest.approx(np.mean([0.9, 0.5, 0.5, 0.2, 0.4, 0, 0.4, 0.4]))
    assert agreement.majority == Majority(faces=2, network=0.5, labels=1.0)
    assert plain(agreement.errors) == {
        "all": 7,
        "crowd_agrees_with_the_label": 1,
        "crowd_agrees_with_the_network": 0,
        "crowd_says_another_emotion": 0,
        "crowd_is_divided": 6,
    }
