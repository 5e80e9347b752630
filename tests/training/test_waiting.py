"""No step waits for the device: on a GPU, reading one value takes longer than the step.

Tensors of the device "meta" have shapes and no values: code that reads a value, or needs one for the size of a
result, fails. Data, augmentation, network, loss, metrics and callbacks after each step run on it.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from fer.config.settings import AugmentSettings, DataSettings
from fer.data import datamodule
from fer.data.datamodule import FERDataModule
from fer.data.samples import augmented_samples, first_batch
from fer.data.transforms import mixup
from fer.data.transforms.augment import build
from fer.data.transforms.mixup import Mixing
from fer.models import create
from fer.optim.losses import LOSSES
from fer.training.callbacks.ema import Averaging
from fer.training.callbacks.guards import CHECK_EVERY, FiniteLoss

META = torch.device("meta")
EVERYTHING = AugmentSettings(0.5, 10.0, 0.1, 0.1, 2, 0.2, 0.2, 0.5)
MIXING = Mixing(0.2, 1.0)
TRAINER = {"training": True, "current_epoch": 0, "overfit_batches": 0, "state": SimpleNamespace(fn="fit")}


def served(monkeypatch, augment=EVERYTHING, mixed=None, **changes):
    """Return the data module, and a training batch on the device."""
    monkeypatch.setattr(datamodule, "seed_noise", lambda device, seed: None)  # of a device that has no generator
    settings = DataSettings(path="synthetic", synthetic_count=140, image_size=24, cache=None, **changes)
    data = FERDataModule(settings, build(augment), stages=[[20, 1], [24, 1]], mixing=mixed)
    data.setup("fit")
    data.trainer = SimpleNamespace(**TRAINER)
    for dataset in data.datasets.values():
        dataset.keep_on(META)
    batch = next(iter(data.train_dataloader()))
    return data, data.on_after_batch_transfer(batch, 0)


def network(name, loss="cross_entropy"):
    model = create({"name": name}, classes=[str(number) for number in range(7)], image_size=24, mean=0.5, std=0.25)
    model.prepare(
        loss={"name": loss},
        optimizer={"name": "sgd", "lr": 0.1},
        scheduler={"name": "cosine"},
        class_counts=torch.arange(7) + 10,
    )
    return model


def step(model, batch):
    """Run a step as Lightning does, without the optimizer, whose kernels need values; return the loss."""
    loss = model.training_step(batch, 0)
    assert isinstance(loss, Tensor)
    assert loss.device == META
    loss.backward()
    return loss


@pytest.mark.parametrize("name", ["cnn", "resnet9", "resnet18", "mini_xception"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_step_reads_no_value(name, deterministic, monkeypatch):
    _, batch = served(monkeypatch)
    assert batch.images.device == META
    assert batch.images.shape == (112, 1, 20, 20)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)  # which counts by other kernels
    try:
        step(network(name).to(META), batch)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("loss", LOSSES.names())
def test_no_loss_reads_a_value(loss, monkeypatch):
    _, batch = served(monkeypatch)
    step(network("cnn", loss).to(META), batch._replace(soft=torch.empty(len(batch.targets), 7, device=META)))


@pytest.mark.parametrize("sampler", ["shuffle", "balanced"])
def test_no_sampler_reads_a_value(sampler, monkeypatch):
    step(network("cnn").to(META), served(monkeypatch, sampler=sampler)[1])


def test_mixing_reads_no_value(monkeypatch):
    # torch draws Beta's numbers by a kernel that "meta" has not
    monkeypatch.setattr(mixup, "share", lambda count, alpha, like: torch.empty(count, device=like.device))
    _, batch = served(monkeypatch, mixed=MIXING)
    assert batch.mixed
    step(network("cnn").to(META), batch)


def test_what_is_called_after_a_step_reads_no_value(monkeypatch):
    _, batch = served(monkeypatch)
    model, finite, averaging = network("cnn"), FiniteLoss(), Averaging(0.9)
    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(root_device=META))
    averaging.setup(trainer, model, "fit")  # as Lightning does, before the network is where it will be
    model.to(META)
    finite.on_train_start(trainer, model)
    for index in range(CHECK_EVERY - 2, CHECK_EVERY + 1):
        outputs = {"loss": step(model, batch)}
        trainer.global_step += 1
        for callback in (finite, averaging):
            callback.on_train_batch_end(trainer, model, outputs, batch, index)
    with pytest.raises((RuntimeError, NotImplementedError)):  # the check at an epoch's end waits
        finite.check(trainer)


def test_a_step_that_looks_is_found(monkeypatch):
    _, batch = served(monkeypatch)
    model = network("cnn").to(META)
    monkeypatch.setattr(model.train_scores, "update", lambda logits, targets, loss: loss.item())
    with pytest.raises((RuntimeError, NotImplementedError)):
        step(model, batch)


def test_pictures_of_a_batch_are_drawn_of_faces_that_lie_on_the_device(monkeypatch):
    data, batch = served(monkeypatch)
    data.mixing = MIXING
    assert first_batch(data).shape == tuple(batch.images[:, 0].shape)
    assert augmented_samples(data, 2, 3)[1].shape == (2, 3, 24, 24)


def test_faces_are_served_from_where_they_are_kept():
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24, cache=None))
    data.setup("fit")
    dataset = data.datasets["train"]
    before = dataset.__getitems__([3, 1, 2])
    dataset.keep_on(torch.device("cpu"))
    after = dataset.__getitems__([3, 1, 2])
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.targets, after.targets)
    assert before.key == after.key == 3
