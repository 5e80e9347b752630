"""Resampled faces, compared with torchvision to the byte."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from fer.data.resize import resampled

WITH_AVX2 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.skipif(not WITH_AVX2, reason="torchvision resamples in float32 on other processors")
@pytest.mark.parametrize("shape", [(2, 48, 48), (9, 100, 100), (5, 3, 20, 20)])
def test_faces_are_those_of_torchvision(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for side in (20, 24, 40, 44, 47, 48, 64, 96, 224):
        expected = v2.functional.resize(torch.from_numpy(images), [side, side], antialias=True)
        np.testing.assert_array_equal(resampled(images, side), expected.numpy(), err_msg=f"{side} pixels")


def test_a_flat_face_stays_flat():
    for side in (20, 47, 224):
        assert set(resampled(np.full((1, 48, 48), 255, np.uint8), side).ravel()) == {255}
