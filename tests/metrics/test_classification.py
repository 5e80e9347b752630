"""Metrics and their intervals, compared with scikit-learn, with formulas and with values of a large sample."""

import json

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs

from fer.metrics import classification
from fer.metrics.calibration import bin_indices, bins_of, debiased_error, expected_error
from fer.metrics.statistics import wilson
from fer.metrics.table import SAMPLED
from fer.system.records import plain

NAMES = list("abcdefg")


def predictions(count, seed, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    chances = (sharpness * torch.randn(count, 7, generator=generator)).softmax(1)
    return chances, torch.multinomial(chances, 1, generator=generator)[:, 0]  # calibrated by construction


def test_the_interval_of_the_nll_is_that_of_a_mean():
    chances, targets = predictions(2000, 0)
    losses = -chances[torch.arange(2000), targets].log()
    half = 1.96 * float(losses.std()) / 2000**0.5
    low, high = classification.score(chances, targets, NAMES).metrics["nll"].ci95
    assert (low, high) == pytest.approx((float(losses.mean()) - half, float(losses.mean()) + half), abs=half / 8)


def test_the_interval_of_balanced_accuracy_is_that_of_independent_recalls():
    chances, targets = predictions(2000, 1)
    right = (chances.argmax(1) == targets).double()
    recalls = [right[targets == label] for label in range(7)]
    half = 1.96 * float(sum(r.var() / len(r) for r in recalls) ** 0.5) / 7
    mean = float(np.mean([float(r.mean()) for r in recalls]))
    low, high = classification.score(chances, targets, NAMES).metrics["balanced_accuracy"].ci95
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=half / 5)


@pytest.mark.slow
def test_intervals_contain_the_values_of_a_large_sample(monkeypatch):
    """At least 16 of 20 intervals contain the metric of 100,000 faces; nominally 95 % do."""
    with monkeypatch.context() as patch:
        patch.setattr(classification, "DRAWS", classification.CHUNK)  # of the large sample, the values alone are used
        truth = classification.score(*predictions(100_000, 99), NAMES).metrics
    samples = [classification.score(*predictions(800, seed), NAMES).metrics for seed in range(20)]
    for name in SAMPLED:
        estimates = [sample[name] for sample in samples]
        assert all(one.ci95[0] <= one.value <= one.ci95[1] for one in estimates)
        assert sum(one.ci95[0] <= truth[name].value <= one.ci95[1] for one in estimates) >= 16, name


def sharpened(count, seed):
    chances, targets = predictions(count, seed)
    return (2.5 * chances.log()).softmax(1), targets


def test_the_ece_of_a_calibrated_network_is_below_the_limit_of_chance():
    """Of 60 samples of a calibrated network 95 % are below the limit; of an overconfident one none is."""
    cases = [predictions(500, seed) for seed in range(60)]
    for name in ("ece", "ece_adaptive"):
        errors = [classification.calibration(*case)[name] for case in cases]
        assert sum(error.value > error.if_calibrated for error in errors) <= 8
        surer = classification.calibration(*sharpened(500, 0))[name]
        assert surer.value > surer.if_calibrated


def test_the_ece_by_chance_equals_that_of_samples_of_calibrated_networks():
    """Mean and 95th percentile, compared with networks whose labels are drawn from their probabilities."""
    chances, _ = predictions(500, 0)
    generator = torch.Generator().manual_seed(1)
    labels = torch.multinomial(chances, 600, replacement=True, generator=generator)  # (500, 600)
    shown = np.array([expected_error(bins_of(chances.numpy(), column.numpy())) for column in labels.T])
    values = classification.calibration(chances, labels[:, 0])
    assert values["ece_if_calibrated_mean"].value == pytest.approx(shown.mean(), abs=4 * shown.std() / 600**0.5)
    assert values["ece"].if_calibrated == pytest.approx(np.quantile(shown, 0.95), rel=0.06)


@pytest.mark.parametrize("sharpness", [0.9, *(pytest.param(one, marks=pytest.mark.slow) for one in (1.0, 1.15))])
def test_the_debiased_error_is_nearer_the_true_one(sharpness):
    """It is 0 on average for calibrated networks, and otherwise nearer to the value of a million faces than the ECE."""

    def shown(count, seed):
        chances, targets = predictions(count, seed)
        chances = (sharpness * chances.log()).softmax(1)
        bins = bins_of(chances.numpy(), targets.numpy())
        plain = float(np.average((bins.confidence - bins.accuracy) ** 2, weights=bins.faces)) ** 0.5
        confidence = chances.max(1).values.numpy()
        gaps = confidence.astype(np.float64) - (chances.argmax(1) == targets).numpy()
        return debiased_error(gaps, bin_indices(confidence)), plain, expected_error(bins)

    debiased, plain, ece = np.array([shown(1000, seed) for seed in range(200)]).T
    squares = np.sign(debiased) * debiased**2
    if sharpness == 1:
        assert abs(squares.mean()) < 3 * squares.std() / 200**0.5
        assert abs(debiased.mean()) < ece.mean() / 5
        return
    _, true_rms, true_ece = shown(1_000_000, 999)
    assert squares.mean() == pytest.approx(true_rms**2, abs=3 * squares.std() / 200**0.5)
    assert abs(debiased.mean() - true_rms) < abs(plain.mean() - true_rms)
    assert abs(debiased.mean() - true_rms) < abs(ece.mean() - true_ece)


def test_few_errors_or_few_hits_have_no_interval():
    targets = torch.arange(210) % 7
    right = torch.eye(7)[targets]
    for wrong, has_interval in ((0, False), (9, False), (10, True), (201, False)):
        chances = right.clone()
        chances[:wrong] = right[:wrong].roll(1, 1)
        assert (classification.score(chances, targets, NAMES).metrics["macro_f1"].ci95 is not None) == has_interval


@pytest.mark.parametrize(("faces", "has_interval"), [(1, False), (9, False), (10, True)])
def test_means_over_the_classes_have_no_interval_where_a_class_is_rare(faces, has_interval):
    """In a sample without the class the mean would be over the others."""
    chances, targets = predictions(400, 8)
    kept = torch.cat([(targets != 6).nonzero()[:, 0], (targets == 6).nonzero()[:faces, 0]])
    metrics = classification.score(chances[kept], targets[kept], NAMES).metrics
    of_classes = ("macro_f1", "balanced_accuracy", "roc_auc", "average_precision")
    assert {name for name in SAMPLED if metrics[name].ci95 is None} == (set() if has_interval else set(of_classes))
    gaps = classification.paired(chances[kept], chances[kept].roll(1, 0), targets[kept]).differences
    assert {name for name in SAMPLED if gaps[name].ci95 is None} == (set() if has_interval else set(of_classes))


def test_agreement_beyond_chance_is_unknown_where_chance_always_agrees():
    right = torch.eye(7)[torch.zeros(30, dtype=torch.long)]
    assert classification.score(right, torch.zeros(30, dtype=torch.long), NAMES).metrics["kappa"].value is None


def test_intervals_are_the_same_every_time():
    chances, targets = predictions(300, 4)
    state = torch.random.get_rng_state()
    assert classification.score(chances, targets, NAMES) == classification.score(chances, targets, NAMES)
    assert torch.equal(state, torch.random.get_rng_state())  # the noise of a run is not changed


def test_a_recall_of_no_faces_is_unknown():
    chances = torch.eye(7)[torch.tensor([0, 0, 1])]
    scores = classification.score(chances, torch.tensor([0, 0, 1]), NAMES)
    assert scores.per_class["c"].recall.ci95 == (0.0, 1.0)
    assert scores.per_class["a"].recall.ci95 == pytest.approx(tuple(wilson(2, 2)))


def case(seed):
    """Return random predictions of a few hundred faces, sharp or flat, with ties for even seeds."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(150, 600, (1,), generator=generator))
    chances = ((1 + seed % 4) * torch.randn(count, 7, generator=generator, dtype=torch.float64)).softmax(1)
    if seed % 2:
        chances = (20 * chances).round().clamp(min=1) / 20  # ties
        chances = chances / chances.sum(1, keepdim=True)
    targets = torch.randint(7, (count,), generator=generator)
    targets[:7] = torch.arange(7)  # of every class
    return chances, targets


@pytest.mark.parametrize("seed", range(8))
def test_metrics_equal_those_of_scikit_learn(seed):
    chances, targets = case(seed)
    p, y, guess = chances.numpy(), targets.numpy(), chances.argmax(1).numpy()
    expected = {
        "accuracy": theirs.accuracy_score(y, guess),
        "macro_f1": theirs.f1_score(y, guess, average="macro"),
        "balanced_accuracy": theirs.balanced_accuracy_score(y, guess),
        "kappa": theirs.cohen_kappa_score(y, guess),
        "nll": theirs.log_loss(y, p),
        "brier": float(((p - np.eye(7)[y]) ** 2).sum(1).mean()),
        "roc_auc": theirs.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "average_precision": theirs.average_precision_score(np.eye(7)[y], p, average="macro"),
    }
    if seed % 2 == 0:  # with ties the two most probable classes are not unique
        expected["top2"] = theirs.top_k_accuracy_score(y, p, k=2)
    scores = classification.score(chances, targets, NAMES)
    for name, value in expected.items():
        assert scores.metrics[name].value == pytest.approx(value, abs=1e-6), name
    precision, recall, f1, _ = theirs.precision_recall_fscore_support(y, guess, zero_division=0)
    for label, name in enumerate(NAMES):
        own = scores.per_class[name]
        assert [own.precision.value, own.recall.value, own.f1.value] == pytest.approx(
            [precision[label], recall[label], f1[label]], abs=1e-6
        )
        assert own.roc_auc.value == pytest.approx(theirs.roc_auc_score(y == label, p[:, label]), abs=1e-6)
        assert own.average_precision.value == pytest.approx(
            theirs.average_precision_score(y == label, p[:, label]), abs=1e-6
        )


def test_weights_are_repetitions():
    """A face of weight 3 counts as three faces, one of weight 0 as none."""
    chances, targets = case(1)
    weights = torch.randint(4, (len(targets),), generator=torch.Generator().manual_seed(9))
    repeated = weights.repeat_interleave(weights) * 0 + torch.arange(len(targets)).repeat_interleave(weights)
    weighted = classification.Weighted(chances, targets)(weights[None].double())
    whole = classification.score(chances[repeated], targets[repeated], NAMES)
    for name in SAMPLED:
        assert float(weighted[name]) == pytest.approx(whole.metrics[name].value, abs=1e-9), name


def test_a_metric_that_is_undefined_for_these_faces_is_null():
    """A class without faces has no curve, and a single class no agreement beyond chance."""
    chances, _ = predictions(50, 3)
    scores = classification.score(chances, torch.zeros(50, dtype=torch.long), NAMES)
    assert scores.metrics["roc_auc"].value is None
    assert scores.metrics["kappa"].value == pytest.approx(0)
    assert scores.per_class["b"].roc_auc.value is None
    json.dumps(plain(scores), allow_nan=False)


def test_a_paired_difference_is_that_of_the_metrics_and_narrower_than_both():
    first, targets = predictions(1500, 5)
    second = (first.log() + 0.3 * torch.randn(first.shape, generator=torch.Generator().manual_seed(6))).softmax(1)
    one, other = (classification.score(p, targets, NAMES).metrics for p in (first, second))
    result = classification.paired(first, second, targets)
    for name in SAMPLED:
        gap, (low, high) = result.differences[name].difference, result.differences[name].ci95
        assert gap == pytest.approx(one[name].value - other[name].value, abs=1e-6), name
        assert low <= gap <= high
        assert high - low < one[name].ci95.high - one[name].ci95.low, name
    right = [(p.argmax(1) == targets) for p in (first, second)]
    assert result.mcnemar.first == int((right[0] & ~right[1]).sum())


def test_a_network_differs_from_itself_in_nothing():
    chances, targets = predictions(300, 7)
    result = classification.paired(chances, chances, targets)
    assert {result.differences[name].difference for name in SAMPLED} == {0.0}
    assert result.differences["accuracy"].ci95 is None
    assert result.mcnemar.p == 1
