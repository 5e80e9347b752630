"""Losses compared with torch's and with formulas by hand."""

import math

import pytest
import torch
from torch.nn import functional

from fer.config.errors import FerError
from fer.optim.losses import LOSSES, disagreement, weights

COUNTS = torch.tensor([3995, 436, 4097, 7215, 4830, 3171, 4965])


def build(**section):
    builder, arguments = LOSSES.arguments({"name": "cross_entropy", **section})
    return builder(COUNTS, **arguments)


def test_label_smoothing_is_szegedys():
    logits, targets = torch.randn(5, 7), torch.randint(7, (5,))
    soft = torch.full((5, 7), 0.1 / 7)
    soft[torch.arange(5), targets] += 0.9
    expected = -(soft * functional.log_softmax(logits, 1)).sum(1).mean()
    assert torch.allclose(build(label_smoothing=0.1)(logits, targets), expected)


def test_balanced_weights_give_every_class_the_same_influence():
    balanced = weights(COUNTS, "balanced")
    shares = balanced * COUNTS
    assert torch.allclose(shares, shares[0].expand(7))
    assert float((balanced * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1)
    rooted = weights(COUNTS, "sqrt")
    assert float((rooted * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1)
    assert 1 < float(rooted[1] / rooted[3]) < float(balanced[1] / balanced[3])
    assert weights(COUNTS, "none") is None


@pytest.mark.parametrize("rule", ["balanced", "sqrt"])
def test_a_class_without_training_faces_is_not_learned_through_label_smoothing(rule):
    counts = torch.tensor([40, 30, 20, 10, 0])
    assert float(weights(counts, rule)[4]) == 1
    builder, arguments = LOSSES.arguments({"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": rule})
    logits = torch.zeros(100, 5, requires_grad=True)
    builder(counts, **arguments)(logits, torch.repeat_interleave(torch.arange(5), counts)).backward()
    slopes = logits.grad.sum(0)
    assert slopes[4] > 0  # descent lowers the logit of the class that no face has
    assert slopes.argmax() == 4


def test_weights_stay_out_of_the_checkpoint_and_follow_the_network():
    loss = build(class_weights="balanced")
    assert loss.state_dict() == {}
    assert loss.to("meta").weight.device.type == "meta"


def test_half_precision_logits_give_a_full_precision_loss():
    assert build()(torch.randn(4, 7).bfloat16(), torch.randint(7, (4,))).dtype == torch.float32


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"name": "crossentropy"}, "did you mean 'cross_entropy'"),
        ({"name": "cross_entropy", "smoothing": 0.1}, "loss.smoothing: no such key"),
        ({"name": "cross_entropy", "label_smoothing": 1.0}, "out of range"),
        ({"name": "cross_entropy", "label_smoothing": "a"}, "expected a number"),
        ({"name": "cross_entropy", "class_weights": "balance"}, "did you mean 'balanced'"),
        ({}, "loss.name is missing"),
    ],
)
def test_faulty_sections_are_named(section, says):
    with pytest.raises(FerError, match=says):
        LOSSES.arguments(section)


# --- others ---------------------------------------------------------------------------------------------------------


def case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(64, 7, generator=generator, dtype=torch.float64)
    return logits.float(), torch.randint(7, (64,), generator=generator)


def named(name, **section):
    builder, arguments = LOSSES.arguments({"name": name, **section})
    return builder(COUNTS, **arguments)


def by_hand(formula):
    """Return the mean over faces of a formula of the probability of the target class."""
    logits, targets = case()
    chances = logits.double().softmax(1)[torch.arange(64), targets].tolist()
    return sum(map(formula, chances)) / len(chances)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (named("focal", gamma=2.0), lambda p: -((1 - p) ** 2) * math.log(p)),
        (named("focal", gamma=0.5), lambda p: -((1 - p) ** 0.5) * math.log(p)),
        (named("focal", gamma=0.0), lambda p: -math.log(p)),
        (named("generalized_cross_entropy", q=0.7), lambda p: (1 - p**0.7) / 0.7),
        (named("generalized_cross_entropy", q=1.0), lambda p: 1 - p),
        (named("symmetric_cross_entropy", alpha=0.1, beta=1.0), lambda p: -0.1 * math.log(p) + 4 * (1 - p)),
    ],
)
def test_losses_are_their_formulas(loss, formula):
    assert float(loss(*case())) == pytest.approx(by_hand(formula), rel=1e-5)


def test_generalized_cross_entropy_tends_to_cross_entropy():
    assert float(named("generalized_cross_entropy", q=1e-3)(*case())) == pytest.approx(
        float(functional.cross_entropy(*case())), rel=0.01
    )


def test_bootstrapping_mixes_the_label_with_the_prediction():
    """Reed et al. 2015, hard: beta for the label, the rest for the network's prediction."""
    logits, targets = case()
    logs = logits.log_softmax(1)
    expected = functional.nll_loss(logs, targets) * 0.8 + functional.nll_loss(logs, logs.argmax(1)) * 0.2
    assert float(named("bootstrapped", beta=0.8)(logits, targets)) == pytest.approx(float(expected), rel=1e-6)
    assert float(named("bootstrapped", beta=1.0)(logits, targets)) == pytest.approx(
        float(functional.cross_entropy(logits, targets)), rel=1e-6
    )


def test_disagreement_is_the_mean_jensen_shannon_divergence_of_the_views():
    first, second = case(0)[0], case(1)[0]
    chances = torch.stack([first.softmax(1), second.softmax(1)]).double()
    mean = chances.mean(0)
    expected = (chances * (chances / mean).log()).sum(2).mean()
    assert float(disagreement(torch.cat([first, second]), 2)) == pytest.approx(float(expected), rel=1e-5)
    assert float(disagreement(torch.cat([first, first, first]), 3)) == pytest.approx(0, abs=1e-6)
    sure = 100 * torch.eye(7)
    assert float(disagreement(torch.cat([sure, sure.roll(1, 0)]), 2)) == pytest.approx(math.log(2), rel=1e-5)


def test_logit_adjustment_adds_the_logarithm_of_the_frequencies():
    logits, targets = case()
    expected = functional.cross_entropy(logits + 0.5 * (COUNTS / COUNTS.sum()).log(), targets)
    assert float(named("logit_adjusted", tau=0.5)(logits, targets)) == pytest.approx(float(expected), rel=1e-6)
    assert float(named("logit_adjusted", tau=0.0)(logits, targets)) == pytest.approx(
        float(functional.cross_entropy(logits, targets)), rel=1e-6
    )


def test_weighted_losses_weigh_each_face_by_its_class():
    logits, targets = case()
    weight = weights(COUNTS, "balanced")
    chances = logits.double().softmax(1)[torch.arange(64), targets]
    expected = (weight[targets] * (1 - chances) ** 2 * -chances.log()).mean()
    focal = named("focal", class_weights="balanced")
    assert float(focal(logits, targets)) == pytest.approx(float(expected), rel=1e-5)
    assert focal.state_dict() == {}


@pytest.mark.parametrize(
    "name", ["focal", "generalized_cross_entropy", "symmetric_cross_entropy", "logit_adjusted", "bootstrapped"]
)
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_slopes_are_finite_at_every_confidence(name, gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    section = {"gamma": gamma} if name == "focal" else {}
    builder, arguments = LOSSES.arguments({"name": name, **section})
    value = builder(torch.tensor([5, 5]), **arguments)(logits, torch.tensor([0, 0, 1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_soft_cross_entropy_is_the_mean_over_the_votes():
    logits, _ = case()
    soft = torch.rand(64, 7).softmax(1)
    expected = -(soft * logits.log_softmax(1)).sum(1).mean()
    assert float(named("soft_cross_entropy")(logits, soft)) == pytest.approx(float(expected), rel=1e-6)


def test_label_drawing_draws_in_training_and_not_in_validation():
    logits, _ = case()
    soft = torch.rand(64, 7).softmax(1)
    loss = named("label_drawing")
    drawn = []
    for seed in range(400):
        torch.manual_seed(seed)
        drawn.append(float(loss(logits, soft)))
    torch.manual_seed(7)
    assert float(loss(logits, soft)) == drawn[7]
    whole = float(named("soft_cross_entropy")(logits, soft))
    error = float(torch.tensor(drawn).std()) / 20
    assert abs(sum(drawn) / 400 - whole) < 4 * error
    assert float(loss.eval()(logits, soft)) == pytest.approx(whole)
