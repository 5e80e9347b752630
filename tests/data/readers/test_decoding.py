"""Decoding by processes: the bits, the order and the problems of decoding here."""

import pickle

import numpy as np
import pytest
from PIL import Image

from fer.config.errors import FerError
from fer.data.crop import Box
from fer.data.readers import decoding
from fer.data.readers.decoding import Cut, Decoders


@pytest.fixture(scope="module")
def decoders():
    return Decoders(1)


@pytest.fixture
def cuts(tmp_path, drawn):
    for row in range(6):
        Image.fromarray(drawn.images[row]).resize((48, 40 + row)).save(tmp_path / f"{row}.png")
    (tmp_path / "5.png").write_bytes(b"damaged")
    boxes = (None, Box(4, 4, 20, 20), Box(400, 4, 20, 20))
    return [Cut(tmp_path / f"{row}.png", box) for row in range(6) for box in boxes] * 12


def test_processes_give_what_is_decoded_here(decoders, cuts):
    found, expected = (list(how(cuts, 24)) for how in (decoders.in_order, decoding.here))
    assert len(found) == len(cuts) > decoding.CHUNK
    for one, other in zip(found, expected, strict=True):
        assert (one.size, one.problem) == (other.size, other.problem)
        assert (one.pixels is None) == (other.pixels is None)
        assert one.pixels is None or np.array_equal(one.pixels, other.pixels)
    assert sum(face.pixels is None for face in found) == 12 * (5 + 3)


def test_a_process_that_was_killed_is_named_and_replaced(decoders, cuts, monkeypatch):
    list(decoders.in_order(cuts[:1], 24))
    worker = decoders._idle.get()
    worker._process.kill()
    decoders._idle.put(worker)
    with pytest.raises(FerError, match="exit code -9"):
        list(decoders.in_order(cuts[:1], 24))
    assert next(decoders.in_order(cuts[:1], 24)).pixels is not None


def test_the_work_of_a_process_ends_with_its_parents_pipe(monkeypatch, tmp_path, cuts):
    """``work`` in this process, with files in place of the pipes."""
    with open(tmp_path / "requests", "w+b") as requests, open(tmp_path / "answers", "w+b") as answers:
        pickle.dump(([(str(cut.picture), cut.box, cut.whole) for cut in cuts[:2]], 24), requests)
        requests.seek(0)
        monkeypatch.setattr("sys.stdin", type("Stream", (), {"buffer": requests}))
        monkeypatch.setattr("os.dup", lambda _: answers.fileno())
        monkeypatch.setattr("os.dup2", lambda *_: None)
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr("os.fdopen", lambda *_: answers)
        decoding.work()
        answers.seek(0)
        assert pickle.load(answers)[0].shape == (2, 24, 24)
