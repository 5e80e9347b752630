"""What a network returns is checked before its training."""

import pytest
import torch
from torch import nn

from fer.config.errors import FerError
from fer.models import EmotionClassifier
from fer.models.output_check import check_output


class Returning(EmotionClassifier):
    """A network that returns what its test asks for."""

    def __init__(self, returned, **contract):
        super().__init__(**contract)
        self.returned, self.net = returned, nn.Flatten()

    def logits_of_crops(self, images):
        """Return what was asked for."""
        return self.returned(images)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda images: (torch.zeros(2, 7), None), "returns a tuple"),
        (lambda images: torch.zeros(2, 8), "returns (2, 8) for 2 faces; expected (2, 7)"),
        (lambda images: None + 1, "cannot take faces of shape (2, 1, 48, 48)"),
        (lambda images: images.reshape(3, 5), "cannot take faces of shape (2, 1, 48, 48)"),
    ],
)
def test_anything_but_a_logit_a_class_is_one_line(returned, words):
    model = Returning(returned, classes=list("abcdefg"), image_size=48)
    with pytest.raises(FerError) as caught:
        check_output(model, 48)
    assert words in str(caught.value)
