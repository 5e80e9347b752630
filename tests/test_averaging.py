"""``ema``: an average of the weights is scored and kept, and the weights themselves train on as if there were none."""

import pytest
import torch
from conftest import SMALL, metrics

import fer
from fer import checkpoints
from fer.callbacks import Averaging


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
    counts = [torch.tensor(3)]
    averaging.update(counts, [torch.tensor(7)])
    assert counts[0] == 7


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
