"""Losses against torch's and against formulas by hand."""

import pytest
import torch
from torch.nn import functional

from fer.errors import FerError
from fer.losses import LOSSES, weights

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


def test_balanced_weights_give_every_class_the_same_say():
    balanced = weights(COUNTS, "balanced")
    shares = balanced * COUNTS
    assert torch.allclose(shares, shares[0].expand(7))
    assert float((balanced * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1)
    rooted = weights(COUNTS, "sqrt")
    assert float((rooted * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1)
    assert 1 < float(rooted[1] / rooted[3]) < float(balanced[1] / balanced[3])
    assert weights(COUNTS, "none") is None


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
