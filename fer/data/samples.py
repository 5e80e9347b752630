"""Training faces as pictures, for TensorBoard and the report: shown, and not trained on.

The state of the training's random numbers stays as it is, so that a run with and without them has the same weights.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fer.data.datamodule import FERDataModule
from fer.data.dataset import to_unit
from fer.data.noise import noise_seed
from fer.data.samplers import EpochShuffle
from fer.data.transforms.size import reduced, stage_size


def first_batch(data: FERDataModule) -> NDArray[np.uint8]:
    """Return the first augmented training batch, (B, T, T), with the noise that it has in the training."""
    dataset = data.datasets["train"]
    indices = data.order().indices()[: data.data.faces_a_step]
    size = stage_size(data.stages, 0) if data.stages else data.data.image_size
    return _augmented(data, dataset.images[indices], noise_seed(data.seed, 0, dataset.key(indices)), size)


def augmented_samples(data: FERDataModule, count: int, variants: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return random training faces (K, S, S), and augmented variants of each (K, M, T, T).

    Args:
        data: with train in memory.
        count: number of faces, K.
        variants: augmented variants of each face, M.
    """
    dataset = data.datasets["train"]
    chosen = EpochShuffle(len(dataset), data.seed).indices()[:count]
    images = dataset.images[chosen]
    repeats = images.repeat_interleave(variants, 0)
    augmented = _augmented(data, repeats, noise_seed(data.seed, 0, -2), data.data.image_size)
    return dataset.grey[chosen.numpy()], augmented.reshape(len(images), variants, *augmented.shape[1:])


def _augmented(data: FERDataModule, images: Tensor, seed: int, size: int) -> NDArray[np.uint8]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed = to_unit(images) if data.augment is None else data.augment(to_unit(images))
        changed = reduced(changed, data.data.input_side(size))
        if data.mixing:
            changed, _ = data.mixing(changed, torch.zeros(len(changed), 1))
    return luma(changed).mul(255).round_().clamp_(0, 255).to(torch.uint8).numpy()


def luma(images: Tensor) -> Tensor:
    """Return grey images (N, S, S) of images (N, 1, S, S), or (N, 3, S, S) red, green and blue (ITU-R 601)."""
    if images.shape[1] == 1:
        return images[:, 0]
    weights = torch.tensor((0.299, 0.587, 0.114), dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", images, weights)
