"""Metrics of an epoch, compared with formulas written out by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from fer.data.labels import EMOTIONS
from fer.metrics import running
from fer.metrics.classification import Weighted, score
from fer.metrics.statistics import wilson


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    """(500, 7) probabilities and (500,) targets, one class never predicted."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 7, generator=generator) * 2
    logits[:, 1] = -50
    targets = torch.randint(7, (500,), generator=generator)
    logits[torch.arange(500), targets] += 1
    return logits.softmax(1), targets


def by_hand(predicted: list[int], targets: list[int]) -> dict[str, float]:
    recalls, f1s = [], []
    for label in range(7):
        hits = sum(p == t == label for p, t in zip(predicted, targets, strict=True))
        support, called = targets.count(label), predicted.count(label)
        recalls.append(hits / support)
        f1s.append(2 * hits / (support + called))
    right = sum(p == t for p, t in zip(predicted, targets, strict=True))
    return {"accuracy": right / len(targets), "macro_f1": sum(f1s) / 7, "balanced_accuracy": sum(recalls) / 7}


def test_metrics_equal_those_by_hand(case):
    predicted, targets = case
    scores = score(predicted, targets, EMOTIONS)
    for name, value in by_hand(predicted.argmax(1).tolist(), targets.tolist()).items():
        assert scores.metrics[name].value == pytest.approx(value, abs=1e-6)
    chosen = [math.log(max(float(row[target]), 1.2e-38)) for row, target in zip(predicted, targets, strict=True)]
    assert scores.metrics["nll"].value == pytest.approx(-sum(chosen) / len(chosen), rel=1e-5)
    assert sum(map(sum, scores.confusion)) == 500
    assert scores.confusion[2][3] == int(((targets == 2) & (predicted.argmax(1) == 3)).sum())
    assert scores.per_class["disgust"].precision.value == 0
    assert scores.per_class["happy"].support == int((targets == 3).sum())


def test_calibration_error_is_that_by_hand(case):
    predicted, targets = case
    confidence, guess = predicted.max(1)
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            right = (guess == targets)[inside].float().mean()
            total += float(inside.float().mean() * (right - confidence[inside].mean()).abs())
    assert score(predicted, targets, EMOTIONS).metrics["ece"].value == pytest.approx(total, abs=1e-5)


def test_batches_add_up_to_the_whole(case):
    predicted, targets = case
    whole, parts = running.Scores(7), running.Scores(7)
    whole.update(predicted, targets, torch.tensor(2.0))
    for start, end in ((0, 128), (128, 256), (256, 500)):
        parts.update(predicted[start:end], targets[start:end], torch.tensor(2.0))
    for name, value in whole.compute().items():
        assert torch.allclose(value, parts.compute()[name]), name
    assert float(whole.compute()["loss"]) == pytest.approx(2.0)


def test_mean_loss_weighs_a_short_last_batch_by_its_faces():
    scores = running.Scores(7)
    scores.update(torch.zeros(3, 7), torch.zeros(3, dtype=torch.long), torch.tensor(1.0))
    scores.update(torch.zeros(1, 7), torch.zeros(1, dtype=torch.long), torch.tensor(5.0))
    assert float(scores.compute()["loss"]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(50, 100, 0.4038, 0.5962), (0, 10, 0.0, 0.2775), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_interval_is_the_published_one(hits, count, low, high):
    """81 of 263 is Newcombe's example (Statistics in Medicine 1998): 0.2553 to 0.3662."""
    assert wilson(hits, count) == pytest.approx([low, high], abs=5e-5)


def test_a_class_without_faces_stays_out_of_the_means():
    confusion = torch.zeros(7, 7, dtype=torch.long)
    confusion[0, 0], confusion[1, 0], confusion[1, 1] = 4, 2, 2
    scores = running.from_confusion(confusion)
    assert float(scores["balanced_accuracy"]) == pytest.approx((1 + 0.5) / 2)
    assert float(scores["macro_f1"]) == pytest.approx((8 / 10 + 4 / 6) / 2)


def test_macro_f1_leaves_out_absent_classes_that_are_predicted_everywhere():
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(5, (240,), generator=generator)  # no face of 5 and 6
    predicted = torch.where(torch.rand(240, generator=generator) < 0.6, targets, (targets + 3) % 7)
    truth, guess = targets.numpy(), predicted.numpy()
    expected = f1_score(truth, guess, labels=np.unique(truth), average="macro")
    chances = torch.nn.functional.one_hot(predicted, 7).float()
    scores = score(chances, targets, EMOTIONS)
    column = [values.f1.value for values in scores.per_class.values() if values.support]
    assert scores.metrics["macro_f1"].value == pytest.approx(expected, abs=1e-6)
    assert scores.metrics["macro_f1"].value == pytest.approx(sum(column) / 5)  # the mean of the printed column
    assert scores.plain()["means_over"] == list(EMOTIONS[:5])
    monitored = running.Scores(7)
    monitored.update(chances, targets, torch.tensor(1.0))
    assert float(monitored.compute()["macro_f1"]) == pytest.approx(expected, abs=1e-6)


def test_bootstrap_samples_of_macro_f1_leave_out_absent_classes_too():
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(6, (60,), generator=generator)
    predicted = torch.where(torch.rand(60, generator=generator) < 0.5, targets, torch.full((60,), 6))
    drawn = torch.randint(60, (60,), generator=generator)
    weights = torch.bincount(drawn, minlength=60)[None].double()
    sample = Weighted(torch.nn.functional.one_hot(predicted, 7).float(), targets)(weights)["macro_f1"]
    truth, guess = targets[drawn].numpy(), predicted[drawn].numpy()
    assert float(sample) == pytest.approx(f1_score(truth, guess, labels=np.unique(truth), average="macro"))


def test_means_over_all_classes_are_not_named():
    targets = torch.arange(70) % 7
    assert "means_over" not in score(torch.eye(7)[targets], targets, EMOTIONS).plain()
