"""Copies of FER2013's training faces are found by content; drawn faces stand for them here."""

import io

import numpy as np
import pytest
from PIL import Image

from fer.data import known_faces
from fer.data.audit.near_duplicates import frequencies, hashed
from fer.evaluation.leakage import TrainingData, copies_by_content, not_trained_on
from fer.evaluation.request import Member, Tables
from fer.runs.provenance import Provenance

WHOLE = {"name": "fer2013", "split": "official", "fingerprint": "a", "counts": {"train": {"happy": 28_709}}}


@pytest.fixture
def known(drawn, monkeypatch):
    """The first half of the drawn faces as the training faces of FER2013."""
    hashes = np.unique(hashed(frequencies(drawn.images, np.arange(35))))
    monkeypatch.setattr(known_faces, "training_hashes", lambda: hashes)
    return drawn.images


def changed(face, side, quality):
    picture, stream = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("L").resize((48, 48), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("side", "quality"), [(224, 75), (96, 50), (48, 60)])
def test_copies_of_another_size_and_compression_are_found(known, side, quality):
    copies = np.stack([changed(face, side, quality) for face in known])
    copies_in_train = known_faces.copies_of_training(copies)
    assert copies_in_train[:35].mean() >= 0.9
    assert copies_in_train[35:].mean() <= 0.1


def test_pictures_of_one_colour_are_no_copies(known):
    assert not known_faces.copies_of_training(np.full((3, 48, 48), 7, np.uint8)).any()


def test_the_package_carries_the_hashes():
    hashes = known_faces.training_hashes()
    assert (hashes.dtype, len(hashes)) == (np.uint64, 27_405)  # Training has 28,709 faces, some of them twice
    assert (np.diff(hashes) > 0).all()


class Network:
    """A network that is nothing but its record."""

    def __init__(self, dataset):
        self.provenance = Provenance(dataset={"settings": {"path": "/gone.csv"}, **dataset})


@pytest.mark.parametrize(
    ("dataset", "fingerprint", "compared"),
    [
        (WHOLE, "b", True),
        (WHOLE, "a", False),  # the table of the training: its pixels are compared
        ({**WHOLE, "name": "mine"}, "b", False),
        ({**WHOLE, "split": "holdout"}, "b", False),
        ({**WHOLE, "counts": {"train": {"happy": 90}}}, "b", False),
    ],
)
def test_content_is_compared_where_a_network_knows_fer2013(known, tmp_path, dataset, fingerprint, compared):
    training = TrainingData([Member(tmp_path, Network(dataset))], Tables(8))
    copies = copies_by_content(training, known, fingerprint)
    assert (copies is not None) == compared
    kept = not_trained_on(training, known, copies)
    assert (kept is not None) == compared  # the data of the training are gone
    if compared:
        assert (~kept[:35]).all()
