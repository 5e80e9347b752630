"""``ema``: the average of the weights is evaluated and saved, and does not change the training."""

from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL, metrics
from launches import Launches
from pytorch_lightning.callbacks import WeightAveraging

import fer
from fer.models import checkpoints, create
from fer.training.callbacks.ema import Averaging

PLUGIN = """
import os, signal
import torch
from torch import nn
from fer.models import EmotionClassifier, register

@register("counting")
class Counting(EmotionClassifier):
    def __init__(self, **contract):
        super().__init__(**contract)
        head = nn.Linear(4 * (self.input_size - 2) ** 2, self.num_classes)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), head)
        self.register_buffer("range", torch.zeros(2))

    def training_step(self, batch, batch_idx):
        if os.environ.get("STOP_AT") == str(self.global_step):
            os.kill(os.getpid(), signal.SIGINT)
        self.range = torch.maximum(self.range, torch.stack([batch.images.mean(), batch.images.std()]))  # a new tensor
        return super().training_step(batch, batch_idx)
"""
COUNTING = (*SMALL[:4], "plugins=[counting_plugin]", "model=counting", *SMALL[6:], "ema=0.9")


class Walking(WeightAveraging):
    """A moving average that walks through the whole network at each step, by Lightning's own code."""

    def __init__(self, decay):
        super().__init__(avg_fn=self.moved)
        self.decay = decay

    def moved(self, average, value, count):
        if not average.is_floating_point():
            return value
        return torch.lerp(average, value, 1 - min(self.decay, (1 + int(count)) / (10 + int(count))))


def test_the_average_is_the_moving_one_with_a_warm_beginning():
    averaging = Averaging(0.9)
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(5, generator=generator) for _ in range(120)]
    average, expected = [steps[0].clone()], steps[0].clone()
    for number, weights in enumerate(steps[1:], start=1):
        averaging._latest_update_step = number
        averaging.update(average, [weights])
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(average[0], expected, atol=1e-6)


def test_what_is_scored_and_kept_is_the_average(train, tmp_path):
    assert train(*SMALL, "hydra.run.dir=plain").code == 0
    assert train(*SMALL, "ema=0.9", "hydra.run.dir=averaged").code == 0
    raw = checkpoints.read(tmp_path / "plain" / "checkpoints" / "last.ckpt")
    kept = checkpoints.read(tmp_path / "averaged" / "checkpoints" / "last.ckpt")
    for name, value in raw["state_dict"].items():
        assert torch.equal(kept["current_model_state"][name], value), name
    changed = [name for name in raw["state_dict"] if not torch.equal(kept["state_dict"][name], raw["state_dict"][name])]
    assert [name for name in changed if name.endswith("weight")]
    best = checkpoints.read(tmp_path / "averaged" / "checkpoints" / "best.ckpt")
    model = fer.load(tmp_path / "averaged")
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in model.state_dict().items())
    history = (tmp_path / "averaged" / "history.csv").read_text().splitlines()
    scored = {row.split(",")[history[0].split(",").index("accuracy/val")] for row in history[1:]}
    assert f"{metrics(tmp_path / 'averaged')['accuracy']:.6g}" in scored


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "much"])
def test_a_decay_is_between_0_and_1(train, value):
    ended = train(*SMALL, f"ema={value}")
    assert ended.code == 1
    assert "ema=" in ended.line


@pytest.mark.parametrize("stop_at", [pytest.param(None, marks=pytest.mark.slow), "9"])
def test_the_average_is_the_one_of_a_walk_at_each_step_to_the_bit(train, tmp_path, monkeypatch, stop_at):
    """Counters, a buffer that the network replaces at each step, and a checkpoint within an epoch included."""
    (tmp_path / "counting_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    if stop_at:
        monkeypatch.setenv("STOP_AT", stop_at)
    code = 130 if stop_at else 0
    assert train(*COUNTING, "hydra.run.dir=kept").code == code
    monkeypatch.setattr("fer.training.trainers.Averaging", Walking)
    assert train(*COUNTING, "hydra.run.dir=walked").code == code
    kept, walked = (checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("kept", "walked"))
    assert kept["state_dict"]["net.1.num_batches_tracked"] == (10 if stop_at else 21)
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert kept[part].keys() == walked[part].keys()
        for name, value in walked[part].items():
            assert torch.equal(kept[part][name], value), (part, name)


@pytest.mark.parametrize("name", ["resnet9", "preact_resnet", "residual_masking"])
def test_a_step_moves_the_average_by_one_launch(name):
    meta = torch.device("meta")
    with meta:
        model = create({"name": name}, classes=[str(number) for number in range(7)], image_size=48, mean=0.5, std=0.25)
    averaging, trainer = Averaging(0.9), SimpleNamespace(global_step=0, strategy=SimpleNamespace(root_device=meta))
    averaging.setup(trainer, model, "fit")
    for trainer.global_step in (1, 2):
        with Launches() as launches:
            averaging.on_train_batch_end(trainer, model, None, None, 0)
        assert launches.total == 1, launches.counts
    with Launches() as launches:
        averaging.on_validation_epoch_start(trainer, model)
    assert launches.total <= 8, launches.counts  # the copy of what counts, and the swap
