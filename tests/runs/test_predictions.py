"""``predictions.csv``, written and read back."""

import gzip

import numpy as np
import pytest
import torch

from fer.config.errors import FerError
from fer.data.labels import EMOTIONS, FERPLUS_EMOTIONS
from fer.runs import predictions
from fer.runs.predictions import Scored


def scored(count: int, classes: tuple[str, ...]) -> Scored:
    drawn = np.random.default_rng(0)
    chances = drawn.dirichlet(np.ones(len(classes)), count).astype(np.float32)
    targets = drawn.integers(len(classes), size=count)
    return Scored(np.zeros((count, 2, 2), np.uint8), targets, chances, 5 + 3 * np.arange(count)[::-1], classes)


@pytest.mark.parametrize("classes", [EMOTIONS, FERPLUS_EMOTIONS])
def test_what_is_written_is_read_back(tmp_path, classes):
    faces = scored(40, classes)
    predictions.write(tmp_path / "predictions.csv", "val", faces, torch.full((40, 7), 1 / 7))
    said = predictions.read(tmp_path / "predictions.csv")
    assert said.classes == classes
    assert said.rows.tolist() == faces.rows.tolist()
    assert said.targets == [classes[target] for target in faces.targets]
    assert said.answers == [classes[index] for index in faces.probabilities.argmax(1)]
    assert np.allclose(said.probabilities, faces.probabilities, rtol=1e-5, atol=0)


def test_compressed_predictions_are_read_as_they_are(tmp_path):
    file, small = tmp_path / "predictions.csv", tmp_path / "predictions.csv.gz"
    predictions.write(file, "val", scored(40, EMOTIONS))
    small.write_bytes(gzip.compress(file.read_bytes()))
    plain, unpacked = predictions.read(file), predictions.read(small)
    assert np.array_equal(unpacked.probabilities, plain.probabilities)
    assert unpacked.rows.tolist() == plain.rows.tolist()
    assert unpacked.targets == plain.targets


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-20], lambda raw: raw[:60] + b"0" * 40 + raw[100:], lambda _: b"x"])
def test_a_damaged_compressed_file_is_one_line(tmp_path, spoil):
    file, small = tmp_path / "predictions.csv", tmp_path / "predictions.csv.gz"
    predictions.write(file, "val", scored(40, EMOTIONS))
    small.write_bytes(spoil(gzip.compress(file.read_bytes())))
    with pytest.raises(FerError) as caught:
        predictions.read(small)
    assert str(caught.value).startswith(f"{small}: cannot be read (")
    assert "\n" not in str(caught.value)


def test_predictions_that_unpack_without_end_are_refused(tmp_path):
    small = tmp_path / "predictions.csv.gz"
    small.write_bytes(gzip.compress(bytes(65 << 20), 1))
    with pytest.raises(FerError, match="unpacks to more than"):
        predictions.read(small)


def test_no_faces_are_read_as_none(tmp_path):
    predictions.write(tmp_path / "predictions.csv", "val", scored(0, EMOTIONS))
    said = predictions.read(tmp_path / "predictions.csv")
    assert said.probabilities.shape == (0, 7)
    assert said.rows.shape == (0,)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: [], "it has no columns p_<emotion>"),
        (lambda lines: [lines[0], lines[1], lines[1]], "a row stands twice"),
        (lambda lines: [lines[0], lines[1].replace("5,", "five,", 1)], "invalid literal"),
        (lambda lines: [lines[0].replace("target", "label"), lines[1]], "no 'target'"),
        (lambda lines: [lines[0], lines[1].rsplit(",", 1)[0]], "line 2 is cut short"),
        (lambda lines: [lines[0], lines[1].rsplit(",", 1)[0] + ",inf"], "line 2: its values are no probabilities"),
        (lambda lines: [lines[0], lines[1].rsplit(",", 1)[0] + ",0.9"], "line 2: its values are no probabilities"),
        (lambda lines: [lines[0], lines[1].replace("5,", "9" * 20 + ",", 1)], "too large"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, spoil, says):
    file = tmp_path / "predictions.csv"
    predictions.write(file, "val", scored(1, EMOTIONS))
    file.write_text("\n".join(spoil(file.read_text().splitlines())))
    with pytest.raises(FerError) as caught:
        predictions.read(file)
    assert str(caught.value).startswith(f"{file}: cannot be read (")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
