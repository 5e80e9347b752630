"""Folded batch normalisation predicts the same, in fewer layers."""

import pytest
import torch
from torch import nn

from fer.data.labels import EMOTIONS
from fer.models import create
from fer.models.folding import folded


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ({"name": "resnet9", "width": 4, "stride": 2}, 0),
        ({"name": "vgg19", "channels": [4, 8], "depths": [1, 2]}, 0),
        ({"name": "preact_resnet"}, 9),  # which come before their convolution
    ],
)
def test_the_predictions_stay(model, left):
    torch.manual_seed(0)
    network = create(model, classes=list(EMOTIONS), image_size=32)
    faces = torch.rand(8, 1, 32, 32)
    with torch.no_grad():
        network.train()
        for _ in range(3):  # running statistics that are not 0 and 1
            network.logits_of_crops(faces)
        expected = network.eval().logits_of_crops(faces)
        fewer = folded(network)
        assert torch.allclose(fewer.logits_of_crops(faces), expected, atol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fewer.modules()) == left
