"""Prediction sets from a training to a prediction: calibrated, kept, shared, scored; files of before have none."""

import csv
import shutil
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import metrics, runner

import fer
from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.labels import EMOTIONS
from fer.data.table import Table
from fer.evaluation import scoring
from fer.reports.session import Options, Session
from fer.runs.predictions import Scored

FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "format_1"


@pytest.fixture
def share(capfd):
    from fer.share import main

    return runner(main, capfd)


@pytest.fixture
def old_run(tmp_path):
    """A run of before there were prediction sets."""
    return shutil.copytree(FORMAT_1 / "run", tmp_path / "old")


def level(row, temperature):
    """The probability of the emotions above the label, after the temperature, from a row of ``predictions.csv``."""
    powers = {name: float(row[f"p_{name}"]) ** (1 / temperature) for name in EMOTIONS}
    return sum(value for value in powers.values() if value > powers[row["target"]]) / sum(powers.values())


def test_a_run_keeps_the_thresholds_that_val_gives(small_run):
    recorded = metrics(small_run)
    with (small_run / "predictions.csv").open(newline="") as stream:
        levels = sorted(level(row, recorded["temperature"]) for row in csv.DictReader(stream))
    assert recorded["seen_in_training"] == 0
    kept = fer.load(small_run).provenance.sets
    assert kept.faces == len(levels) == 14
    for percent in (50, 80, 93):
        expected = levels[ceil(15 * percent / 100) - 1]
        assert kept.at[f"{percent / 100:.2f}"] == pytest.approx(expected, abs=1e-4)
    assert kept.at["0.99"] == 1
    sets = recorded["sets"]
    assert (sets["promised"], sets["calibrated_on"], sets["kept"]) == (0.9, "these faces", True)
    assert (sets["thresholds"]["faces"], sets["thresholds"]["at"]) == (14, dict(kept.at))
    assert [one["at"] for one in sets["thresholds"]["by_class"]] == [dict(one.at) for one in kept.by_class]
    assert [one.faces for one in kept.by_class] == [2] * 7
    assert sets["all"]["coverage"] >= 0.9


def test_coverage_and_sizes_are_counted_over_all_clean_faces_and_classes():
    generator = np.random.default_rng(0)
    chances = generator.dirichlet(np.full(4, 0.5), 300).astype(np.float32)
    targets = generator.integers(3, size=300)  # no face of the last class
    unseen = generator.random(300) < 0.8
    names = ("a", "b", "c", "d")
    scored = Scored(np.empty((300, 0, 0), np.uint8), targets, chances, np.arange(300), names)
    known = scoring.calibrated_sets(chances, targets, unseen, 1.3)
    assert known.faces == unseen.sum()
    result = scoring.prediction_sets(scored, 1.3, unseen, scoring.Calibration(known, "val", kept=False), 0.85)
    warm = chances.astype(float) ** (1 / 1.3)
    warm /= warm.sum(1, keepdims=True)
    sets = [{k for k in range(4) if sum(v for v in row if v > row[k]) <= result.threshold + 1e-9} for row in warm]
    hits = np.array([target in one for target, one in zip(targets, sets, strict=True)])
    sizes = np.array([len(one) for one in sets])
    for one, mask in ((result.scores, targets >= 0), (result.clean, unseen), (result.per_class["b"], targets == 1)):
        assert one.n == mask.sum()
        assert one.coverage == pytest.approx(hits[mask].mean())
        assert one.size == pytest.approx(sizes[mask].mean())
        assert list(one.sizes) == [(sizes[mask] == size).sum() for size in (1, 2, 3, 4)]
        assert one.coverage_ci95.low < one.coverage < one.coverage_ci95.high
        assert one.size_ci95.low < one.size < one.size_ci95.high
    assert (result.per_class["d"].n, result.per_class["d"].coverage, result.per_class["d"].size_ci95) == (0, None, None)
    assert scoring.prediction_sets(
        scored, 1.3, np.zeros(300, bool), scoring.Calibration(known, "val", kept=False), 0.85
    ).clean is None  # fmt: skip


def test_from_a_checkpoint_to_a_shared_file_to_a_prediction(evaluate, share, small_run, tmp_path):
    ended = evaluate(str(small_run), "--split", "test", "--coverage", "0.6", "--out", "scored")
    assert ended.code == 0, ended.err
    assert "60 % have a set that holds the label" in ended.out
    assert "in-sample" not in ended.out
    sets = metrics(tmp_path / "scored" / "test")["sets"]
    assert (sets["promised"], sets["calibrated_on"], sets["kept"]) == (0.6, "val", True)
    page, card = ((tmp_path / "scored" / "test" / name).read_text() for name in ("report.html", "model_card.md"))
    assert "Prediction sets" in page
    assert "## Prediction sets" in card
    assert share("scored/test", "shared.safetensors", "--full").code == 0
    assert fer.load("shared.safetensors").provenance.sets == fer.load(small_run).provenance.sets
    predictor = fer.Predictor("shared.safetensors", detector="none", coverage=0.6)
    assert predictor.about()["coverage"] == 0.6
    test = Table(DataSettings(path="synthetic", synthetic_count=140, image_size=24)).split("test")
    faces = [one for (one,) in predictor(list(test.grey))]
    pairs = [(face, EMOTIONS[label]) for face, label in zip(faces, test.targets.tolist(), strict=True)]
    assert sum(label in face.emotions for face, label in pairs) == round(14 * sets["all"]["coverage"])
    assert [sum(len(face.emotions) == size for face in faces) for size in range(1, 8)] == sets["all"]["sizes"]


def test_val_is_called_in_sample(evaluate, small_run):
    ended = evaluate(str(small_run), "--no-report")
    assert ended.code == 0, ended.err
    assert "in-sample" in ended.out
    assert metrics(small_run / "evaluations" / "val")["sets"]["calibrated_on"] == "these faces"


def test_views_and_ensembles_are_calibrated_for_themselves(evaluate, share, small_run, another_run, tmp_path):
    own = fer.load(small_run).provenance.sets
    assert evaluate(str(small_run), "--tta", "flip", "--out", "scored").code == 0
    sets = metrics(tmp_path / "scored" / "val_flip")["sets"]
    assert sets["kept"] is False
    assert sets["thresholds"]["at"] != own.at
    assert share("scored/val_flip", "shared.safetensors").code == 0
    assert fer.load("shared.safetensors").provenance.sets == own  # those of the face alone
    assert evaluate(str(small_run), str(another_run), "--split", "test", "--no-report", "--out", "both").code == 0
    sets = metrics(tmp_path / "both" / "test")["sets"]
    assert (sets["kept"], sets["thresholds"]["faces"]) == (False, 14)


@pytest.mark.slow
def test_a_file_of_before_gets_thresholds_from_an_evaluation(evaluate, share, old_run, tmp_path):
    assert fer.load(old_run).provenance.sets is None
    (face,) = fer.Predictor(old_run, detector="none")(np.full((48, 48), 99, np.uint8))[0]
    assert face.emotions == ()
    assert face.uncertain == (face.probability < 0.5)
    with pytest.raises(FerError, match=r"coverage=0\.9: no prediction sets: .*fer\.evaluate .*fer\.share"):
        fer.Predictor(old_run, detector="none", coverage=0.9)
    assert evaluate(str(old_run), "--no-report", "--out", "without").code == 0
    assert "sets" not in metrics(tmp_path / "without" / "val")
    assert evaluate(str(old_run), "--tta", "flip", "--coverage", "0.9", "--out", "flipped").code == 0
    assert share("flipped/val_flip", "flipped.safetensors").code == 0
    assert fer.load("flipped.safetensors").provenance.sets is None  # they fit other probabilities
    assert evaluate(str(old_run), "--coverage", "0.9", "--out", "scored").code == 0
    sets = metrics(tmp_path / "scored" / "val")["sets"]
    assert sets["kept"] is False
    assert share("scored/val", "new.safetensors").code == 0
    kept = fer.load("new.safetensors").provenance.sets
    assert (kept.faces, kept.at) == (sets["thresholds"]["faces"], sets["thresholds"]["at"])
    (face,) = fer.Predictor("new.safetensors", detector="none", coverage=0.9)(np.full((48, 48), 99, np.uint8))[0]
    assert face.emotions[0] == face.emotion
    assert face.uncertain == (len(face.emotions) > 1)
    assert fer.load(FORMAT_1 / "shared.safetensors").provenance.sets is None


def without_classes(run):
    """The run of a version whose sets had one threshold."""
    file = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    del checkpoint["fer"]["sets"]["by_class"]
    torch.save(checkpoint, file)
    return run


def test_a_promise_for_each_emotion_is_calibrated_kept_and_served(evaluate, share, small_run, tmp_path):
    before = without_classes(small_run)
    with pytest.raises(FerError, match=r"coverage_by=class: .*fer\.evaluate .*fer\.share"):
        fer.Predictor(before, detector="none", coverage_by="class")
    ended = evaluate(str(before), "--coverage", "0.5", "--coverage-by", "class", "--out", "scored")
    assert "for the faces of each emotion" in ended.out
    sets = metrics(tmp_path / "scored" / "val")["sets"]
    assert (sets["by"], sets["kept"], sets["unpromised"]) == ("class", False, [])
    assert all(one["coverage"] >= 0.5 for one in sets["per_class"].values())  # scored on the faces that calibrated
    assert share("scored/val", "by_class.safetensors").code == 0
    predictor = fer.Predictor("by_class.safetensors", detector="none", coverage=0.5, coverage_by="class")
    assert predictor.about()["coverage_by"] == "class"
    (face,) = predictor(np.full((48, 48), 99, np.uint8))[0]
    limits = predictor.network.sets.limits(0.5, "class")
    chances = face.probabilities
    inside = {
        name for name, limit in zip(chances, limits, strict=True)
        if sum(other for other in chances.values() if other > chances[name]) <= limit
    }  # fmt: skip
    assert set(face.emotions) == inside


def test_emotions_with_too_few_faces_for_the_promise_are_named(evaluate, small_run):
    ended = evaluate(str(small_run), "--coverage-by", "class", "--no-report", "--out", "few")
    assert "too few faces of angry, disgust" in ended.out


def test_a_file_with_thresholds_of_another_number_of_emotions_is_refused(small_run):
    file = small_run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["fer"]["sets"]["by_class"].pop()
    torch.save(checkpoint, file)
    with pytest.raises(FerError, match="not in the format of a checkpoint"):
        fer.load(small_run)


def test_the_network_of_the_package_serves_both_promises(capsys, tmp_path):
    sets = fer.load("tiny").provenance.sets
    assert sum(one.faces for one in sets.by_class) == sets.faces == 3309
    predictor = fer.Predictor("tiny", detector="none", coverage=0.98, coverage_by="class")
    assert predictor.unpromised == ("disgust",)  # 41 faces of val without a duplicate in train: enough up to 0.97
    assert predictor.about()["unpromised"] == ["disgust"]
    assert fer.Predictor("tiny", detector="none", coverage=0.97, coverage_by="class").unpromised == ()
    assert fer.Predictor("tiny", detector="none", coverage=0.98).unpromised == ()
    session = Session(Options(out=tmp_path / "out"), predictor, [])
    session.close()
    session.closing()
    for text in (capsys.readouterr().err, (tmp_path / "out" / "index.html").read_text()):
        assert "too few faces of disgust" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--coverage", "0.3"], "--coverage 0.3: expected a share of the faces from 0.5 to 0.99"),
        (["--coverage", "1"], "--coverage 1: expected"),
    ],
)
def test_other_coverages_are_refused(scores, small_run, arguments, says):
    ended = scores(str(small_run), *arguments)
    assert (ended.code, says in ended.line) == (1, True), ended.line
    assert not (small_run / "evaluations").exists()
