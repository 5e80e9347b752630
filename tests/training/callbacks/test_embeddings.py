"""Embeddings of faces."""

import torch

from fer.models import EmotionClassifier
from fer.training.callbacks.tensorboard import embeddings_of


def test_embeddings_are_what_the_last_linear_layer_is_given(small_run):
    import fer

    model = fer.load(small_run)
    faces = torch.randint(256, (9, 1, 24, 24), dtype=torch.uint8)
    given = embeddings_of(model, faces, batch_size=4, device=torch.device("cpu"))
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
    given = embeddings_of(model, faces, batch_size=4, device=torch.device("cpu"))
    with torch.inference_mode():
        assert torch.allclose(given, model.head(model.tokens(faces[:, 0].float()).mean(1)), atol=1e-5)
