"""Ranks that share a batch: their faces, noise, losses and gradients together are those of one process."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from fer.config.settings import AugmentSettings, DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.noise import Part, parted, shared
from fer.data.samplers import EpochBatches, drops_last
from fer.data.transforms import augment
from fer.data.transforms.mixup import Mixing
from fer.models import create
from fer.models.layers import Dropout
from fer.optim.losses import drawn
from fer.system.ranks import Rank

RANKS = (Rank(), Rank(0, 3), Rank(1, 3), Rank(2, 3))  # one process, and three that share its batches
AFFINE = {"rotate_degrees": 10, "zoom": 0.1, "shift": 0.1, "brightness": 0.2, "contrast": 0.2, "erase": 0.5}


def module(rank, *, views=1, mixing=(0, 0), sampler="shuffle", **changes):
    """Return the data of a process in its second epoch; 112 faces of train, 25 a step."""
    settings = DataSettings(
        path="synthetic", synthetic_count=140, image_size=24, batch_size=25, sampler=sampler, cache=None
    )
    transform = augment.build(AugmentSettings(flip=0.5, **changes))
    data = FERDataModule(settings, transform, 3, mixing=Mixing(*mixing), views=views, rank=rank)
    data.setup("fit")
    data.trainer = SimpleNamespace(training=True, current_epoch=1, overfit_batches=0, limit_val_batches=1.0)
    return data


def network(data, views):
    torch.manual_seed(0)
    model = create(
        {"name": "mlp", "hidden": [16], "dropout": 0.3}, classes=data.faces.classes, image_size=24, crop=None,
        mean=0.5, std=0.25,
    )  # fmt: skip
    model.prepare(
        loss={"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
        optimizer={"name": "adam", "lr": 1e-3}, scheduler={"name": "none"}, class_counts=data.class_counts(),
        views=views, consistency=0.5 if views > 1 and not data.mixing else 0.0,
    )  # fmt: skip
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eval()
    return model


def gradient(model, batch):
    torch.manual_seed(7)
    model.zero_grad()
    model.training_step(batch, 0).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "given",
    [
        AFFINE,
        {"views": 2, "crop_padding": 2},
        {"mixing": (1.0, 1.0), **AFFINE},
        {"mixing": (0.5, 0), "views": 2},
        {"sampler": "balanced", "crop_padding": 2},
    ],
)
def test_the_ranks_batches_and_gradients_are_those_of_one_process(given):
    views = given.get("views", 1)
    processes = [module(rank, **given) for rank in RANKS]
    model = network(processes[0], views)
    loaders = [data.train_dataloader() for data in processes]
    for loader in loaders:
        loader.batch_sampler.sampler.set_epoch(1)
    assert [len(loader) for loader in loaders] == [5] * 4
    for served in zip(*loaders, strict=True):
        whole, *parts = [data.on_after_batch_transfer(batch, 0) for data, batch in zip(processes, served, strict=True)]
        for name in ("images", "targets", "soft"):
            if getattr(whole, name) is not None:
                drawn = [getattr(part, name).unflatten(0, (views, -1)) for part in parts]
                assert torch.equal(torch.cat(drawn, 1).flatten(0, 1), getattr(whole, name))
        assert {batch.key for batch in parts} == {whole.key}
        mean = sum(gradient(model, part) for part in parts) / len(parts)
        assert torch.allclose(mean, gradient(model, whole), atol=1e-6)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "layer",
    [
        Dropout(0.3),
        nn.Dropout(0.3),
        nn.Dropout2d(0.3),
        StochasticDepth(0.4, "row"),
        drawn,
        lambda inputs: inputs + torch.rand(len(inputs), 3, 4, 4) + torch.randint(9, (len(inputs), 1, 1, 1)),
    ],
)
def test_a_part_has_its_rows_of_the_whole_batchs_noise(layer, order):
    inputs = torch.rand(7, 3, 4, 4).add_(0.1).to(memory_format=order)
    torch.manual_seed(1)
    whole = layer(inputs)
    after = torch.rand(3)
    for rank in range(2):
        part = Part(*parted(7, rank, 2), 7, 2)
        torch.manual_seed(1)
        with shared(part):
            output = layer(part.rows(inputs).contiguous(memory_format=order))
        assert torch.allclose(output, part.rows(whole), rtol=1e-6)
        assert torch.equal(torch.rand(3), after)  # what is drawn next is the same too


def test_val_is_split_without_repeated_faces():
    """14 faces in batches of 9, for 6 ranks: the last batch has none for one of them."""
    faces = module(Rank()).datasets["val"]
    assert len(faces) == 14
    shares = [EpochBatches(faces, 9, rank=Rank(number, 6)) for number in range(6)]
    served = [torch.cat([indices.host for indices in share]) for share in shares]
    assert torch.cat(served).sort().values.tolist() == list(range(14))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [1, 2, 2, 2, 2, 2]


def test_a_last_batch_with_less_than_two_faces_a_rank_is_left_out():
    assert [drops_last(100 + rest, 50, drop_last=False, ranks=4) for rest in (0, 1, 7, 8)] == [
        False,
        True,
        True,
        False,
    ]
    assert [drops_last(100 + rest, 50, drop_last=False) for rest in (0, 1, 2)] == [False, True, False]
