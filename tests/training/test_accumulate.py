"""``trainer.accumulate``: several small batches make one step of the optimizer."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL
from torch import nn

from fer.config.errors import FerError
from fer.config.settings import AugmentSettings, DataSettings, TrainerSettings, TrainSettings
from fer.data.datamodule import FERDataModule
from fer.models import checkpoints, create
from fer.runs.run_folder import configuration_of, identity
from fer.training import trainers
from fer.training.callbacks.checkpointing import between_steps

FACES = DataSettings(path="synthetic", synthetic_count=140, image_size=24, split="holdout")  # 112 train


class Rates(pl.Callback):
    """Records the learning rate after each batch, and where a step has ended."""

    def __init__(self):
        self.rates, self.ended = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.ended.append(between_steps(trainer, batch_idx))


@pytest.fixture(scope="module")
def faces():
    return FERDataModule(FACES).faces


def trained(faces, tmp_path, batch, accumulate, *, scheduler=None, limit=1.0):
    """Return a trained network of dense layers without batch normalisation, and the rates after each batch."""
    data = DataSettings(**{**FACES.__dict__, "batch_size": batch})
    settings = TrainSettings(
        data=data, model={"name": "mlp"}, loss={"name": "cross_entropy"}, optimizer={"name": "sgd", "lr": 0.1},
        scheduler=scheduler or {"name": "none"}, augment=AugmentSettings(),
        trainer=TrainerSettings(accumulate=accumulate, max_epochs=2, accelerator="cpu", limit_train=limit),
    )  # fmt: skip
    module = FERDataModule(data, seed=3)
    module.__dict__["faces"] = faces
    module.setup("fit")
    torch.manual_seed(0)
    model = create({"name": "mlp", "hidden": [8], "dropout": 0.0}, image_size=24)
    model.net[2] = nn.Identity()  # batch normalisation looks at the batch
    model.prepare(
        loss=settings.loss, optimizer=settings.optimizer, scheduler=settings.scheduler, class_counts=torch.ones(7)
    )
    rates = Rates()
    sizes = {split: len(dataset) for split, dataset in module.datasets.items()}
    instead = {"logger": False, "enable_checkpointing": False, "plugins": []}
    trainer = trainers.build(settings, tmp_path, [rates], sizes, **instead)
    trainer.fit(model, datamodule=module)
    return model, rates, trainer


def largest_difference(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((first - second).abs().max().item() for first, second in pairs)


@pytest.mark.parametrize(("batch", "accumulate"), [(16, 2), (8, 4)])
def test_small_batches_step_as_a_large_one(faces, tmp_path, batch, accumulate):
    """112 faces: the last step of an epoch has 16 faces of 32, fewer batches than the others."""
    whole, rates, trainer = trained(faces, tmp_path, 32, 1, scheduler={"name": "cosine"})
    parts, slower, steps = trained(faces, tmp_path, batch, accumulate, scheduler={"name": "cosine"})
    other, _, _ = trained(faces, tmp_path, 16, 1, scheduler={"name": "cosine"})
    assert largest_difference(whole, other) > 1e-3  # what is compared depends on the faces of a step
    assert largest_difference(whole, parts) < 1e-6
    assert trainer.global_step == steps.global_step == 8
    assert slower.rates[accumulate - 1 :: accumulate][:3] == pytest.approx(rates.rates[:3], rel=1e-9)
    assert slower.rates[-1] == pytest.approx(rates.rates[-1], abs=1e-12)


def test_a_smaller_last_batch_counts_by_its_faces(faces, tmp_path):
    """112 faces in batches of 15 leave one of 7; of 3 batches a step, the last has 15 and 7 faces."""
    whole, _, _ = trained(faces, tmp_path, 45, 1)
    parts, _, steps = trained(faces, tmp_path, 15, 3)
    assert steps.global_step == 6
    assert largest_difference(whole, parts) < 1e-6


def test_a_checkpoint_within_an_epoch_is_written_between_steps(faces, tmp_path):
    _, recorder, _ = trained(faces, tmp_path, 16, 3)  # 7 batches
    assert recorder.ended[:7] == [False, False, True, False, False, True, False]


def test_a_limited_epoch_ends_with_a_smaller_step(faces, tmp_path):
    _, recorder, steps = trained(faces, tmp_path, 16, 3, limit=0.6)  # 4 batches
    assert len(recorder.rates) == 8
    assert steps.global_step == 4


def test_what_needs_the_whole_batch_is_refused():
    sections = {"model": {}, "loss": {}, "optimizer": {}, "scheduler": {}}
    with pytest.raises(FerError, match="trainer.accumulate=2: sam=0.05"):
        TrainSettings(data=DataSettings(), trainer=TrainerSettings(accumulate=2), sam=0.05, **sections)
    with pytest.raises(FerError, match=r"trainer.gradient_checkpointing=true: trainer.compile=true"):
        TrainSettings(
            data=DataSettings(), trainer=TrainerSettings(gradient_checkpointing=True, compile=True), **sections
        )


def test_a_run_states_its_rates_and_recomputes_to_the_bit(train, tmp_path):
    keys = ("trainer.accumulate=2", "optimizer.layer_decay=0.5", "optimizer=muon", "ema=0.9", "trainer.max_epochs=1")
    ended = train(*SMALL, *keys, "hydra.run.dir=plain")
    assert ended.code == 0, ended.err
    stated = "optimizer.layer_decay=0.5: learning rates of the layers, from the faces to the logits: 0.01, 0.002\n"
    assert stated in ended.out  # of Muon, and of AdamW, which has the layer of the logits
    assert train(*SMALL, *keys, "trainer.gradient_checkpointing=true", "hydra.run.dir=blocks").code == 0
    first, second = (
        checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("plain", "blocks")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    configurations = [configuration_of(tmp_path / name) for name in ("plain", "blocks")]
    assert identity(configurations[0]) == identity(configurations[1])  # it computes the same


def test_older_runs_keep_their_identity():
    younger = {"trainer": {"accumulate": 1}, "optimizer": {"lr": 0.1, "layer_decay": 1.0}}
    assert identity(younger) == identity({"trainer": {}, "optimizer": {"lr": 0.1}})
    assert identity(younger) != identity({"trainer": {"accumulate": 2}, "optimizer": {"lr": 0.1}})


def test_the_last_layer_alone_is_trained_on_cached_features(train, small_run, tmp_path):
    keys = (*SMALL, f"init_from={small_run}", "trainer.freeze_trunk=true", "augment=none", "optimizer.lr=0.1")
    ended = train(*keys, "hydra.run.dir=head")
    assert ended.code == 0, ended.err
    assert "126 different faces: 126 computed" in ended.out
    before, after = (
        checkpoints.read(folder / "checkpoints" / "best.ckpt")["state_dict"]
        for folder in (small_run, tmp_path / "head")
    )
    changed = {key for key in before if key.startswith("net.") and not torch.equal(before[key], after[key])}
    assert changed == {"net.5.weight", "net.5.bias"}  # neither weights nor statistics of the layers before
    assert train(*SMALL, "trainer.freeze_trunk=true").line.endswith("set init_from to a trained network")
    with pytest.raises(FerError, match="trainer.freeze_trunk=true: model=convnext has no layers one after another"):
        create({"name": "convnext", "channels": [8], "depths": [2]}).freeze_trunk()
