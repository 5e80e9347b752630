"""Intervals of the headline figures."""

import numpy as np
import pytest
import torch

from fer import scoring
from fer.models import EmotionClassifier


def predictions(count, seed, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    chances = (sharpness * torch.randn(count, 7, generator=generator)).softmax(1)
    return chances, torch.multinomial(chances, 1, generator=generator)[:, 0]  # calibrated by construction


def test_the_interval_of_the_nll_is_that_of_a_mean():
    chances, targets = predictions(2000, 0)
    losses = -chances[torch.arange(2000), targets].log()
    half = 1.96 * float(losses.std()) / 2000**0.5
    low, high = scoring.bootstrap(chances, targets)["nll_ci95"]
    assert (low, high) == pytest.approx((float(losses.mean()) - half, float(losses.mean()) + half), abs=half / 8)


def test_the_interval_of_balanced_accuracy_is_that_of_independent_recalls():
    chances, targets = predictions(2000, 1)
    right = (chances.argmax(1) == targets).double()
    recalls = [right[targets == label] for label in range(7)]
    half = 1.96 * float(sum(r.var() / len(r) for r in recalls) ** 0.5) / 7
    mean = float(np.mean([float(r.mean()) for r in recalls]))
    low, high = scoring.bootstrap(chances, targets)["balanced_accuracy_ci95"]
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=half / 5)


@pytest.mark.slow
def test_intervals_hold_what_a_large_sample_says():
    """Of 20 samples, at least 16 intervals hold the figure of 100,000 faces (of 95 % nominally)."""
    truth = scoring.score(*predictions(100_000, 99), list("abcdefg"))
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "nll"):
        inside = 0
        for seed in range(20):
            figures = scoring.score(*predictions(800, seed), list("abcdefg"))
            low, high = figures[f"{name}_ci95"]
            assert low <= figures[name] <= high
            inside += low <= truth[name] <= high
        assert inside >= 16, name


def sharpened(count, seed):
    chances, targets = predictions(count, seed)
    return (2.5 * chances.log()).softmax(1), targets


def test_a_calibrated_networks_ece_is_what_chance_makes_it():
    """Of 60 samples of a calibrated network 95 % lie below; of an overconfident one none."""
    cases = [predictions(500, seed) for seed in range(60)]
    above = sum(
        scoring.expected_error(scoring.bins_of(p.numpy(), t.numpy())) > scoring.ece_if_calibrated(p) for p, t in cases
    )
    assert above <= 8
    chances, targets = sharpened(500, 0)
    assert scoring.expected_error(scoring.bins_of(chances.numpy(), targets.numpy())) > scoring.ece_if_calibrated(
        chances
    )


def test_few_errors_or_few_hits_have_no_interval():
    targets = torch.arange(210) % 7
    right = torch.eye(7)[targets]
    for wrong, held in ((0, False), (9, False), (10, True), (201, False)):
        chances = right.clone()
        chances[:wrong] = right[:wrong].roll(1, 1)
        assert (scoring.bootstrap(chances, targets)["macro_f1_ci95"] is not None) == held


def test_intervals_are_the_same_every_time():
    chances, targets = predictions(300, 4)
    state = torch.random.get_rng_state()
    assert scoring.bootstrap(chances, targets) == scoring.bootstrap(chances, targets)
    assert torch.equal(state, torch.random.get_rng_state())  # the run's own noise is left alone


def test_a_recall_of_no_faces_is_unknown():
    chances = torch.eye(7)[torch.tensor([0, 0, 1])]
    figures = scoring.score(chances, torch.tensor([0, 0, 1]), list("abcdefg"))
    assert figures["per_class"]["c"]["recall_ci95"] == [0.0, 1.0]
    assert figures["per_class"]["a"]["recall_ci95"] == pytest.approx(scoring.wilson(2, 2))


def test_embeddings_are_what_the_last_linear_layer_is_given(small_run):
    import fer

    model = fer.load(small_run)
    faces = torch.randint(256, (9, 1, 24, 24), dtype=torch.uint8)
    given = scoring.embeddings(model, faces, batch_size=4, device=torch.device("cpu"))
    last = [module for module in model.net.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.inference_mode():
        expected = model(faces)
        assert torch.allclose(last(given), expected, atol=1e-5)
    assert given.shape == (9, 16)
    assert not last._forward_pre_hooks


class Twice(EmotionClassifier):
    """A head that is used twice, and a linear layer over tokens that comes before it."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.tokens = torch.nn.Linear(7, 7), torch.nn.Linear(24, 7)

    def forward(self, images):
        return self.head(self.head(self.tokens(images[:, 0].float()).mean(1)))


def test_embeddings_are_those_of_the_layer_that_runs_last():
    model = Twice()
    faces = torch.randint(256, (9, 1, 24, 24), dtype=torch.uint8)
    given = scoring.embeddings(model, faces, batch_size=4, device=torch.device("cpu"))
    with torch.inference_mode():
        assert torch.allclose(given, model.head(model.tokens(faces[:, 0].float()).mean(1)), atol=1e-5)
