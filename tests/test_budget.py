"""``budget.hours``: epochs by the speed that is measured, kept on resume, and nothing else changed."""

import pytest
import torch
from conftest import SMALL, metrics

from fer import budget, checkpoints
from fer.budget import AFTERWARDS, BESIDES, divided


def hours(seconds):
    """A budget that leaves so many seconds for epochs."""
    return f"budget.hours={(seconds + AFTERWARDS) / (1 - BESIDES) / 3600:.6f}"


@pytest.fixture
def a_second_an_epoch(monkeypatch):
    monkeypatch.setattr(budget, "epoch_seconds", lambda settings, data, model, size: 1.0)


def weights(folder):
    return checkpoints.read(folder / "checkpoints" / "last.ckpt")["state_dict"]


def test_as_many_epochs_as_fit_and_the_same_network_as_without(train, tmp_path):
    ended = train(*SMALL, hours(2), "hydra.run.dir=planned")
    assert ended.code == 0, ended.err
    plan = metrics(tmp_path / "planned")["budget"]
    assert plan["epochs"] == metrics(tmp_path / "planned")["epochs"]
    assert plan["epochs"] * plan["epoch_seconds"]["24"] <= 2 < (plan["epochs"] + 1) * plan["epoch_seconds"]["24"]
    assert f"{plan['epochs']} epochs (" in ended.out
    assert "until about" in ended.out
    assert train(*SMALL, f"trainer.max_epochs={plan['epochs']}", "hydra.run.dir=told").code == 0
    first, second = weights(tmp_path / "planned"), weights(tmp_path / "told")
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_stages_keep_their_shares(train, tmp_path, a_second_an_epoch):
    network = ("model=resnet9", "model.width=2", "stages=[[16,1],[24,2]]")
    ended = train(*SMALL[:4], *SMALL[6:], *network, "trainer.max_epochs=3", hours(6.5), "hydra.run.dir=staged")
    assert ended.code == 0, ended.err
    found = metrics(tmp_path / "staged")
    assert found["budget"]["stages"] == [[16, 2], [24, 4]]
    assert found["epochs"] == 6
    assert found["best_epoch"] > 2  # of the last stage


def test_a_resumed_run_keeps_its_plan(train, tmp_path, monkeypatch, a_second_an_epoch, interrupt_at):
    assert train(*SMALL, hours(3.5), "hydra.run.dir=whole").code == 0
    interrupt_at(9)
    assert train(*SMALL, hours(3.5), "hydra.run.dir=cut").code == 130
    monkeypatch.setattr(budget, "epoch_seconds", None)  # nothing is measured again
    interrupt_at(16)
    assert train("resume=cut").code == 130
    assert train("resume=cut").code == 0
    assert metrics(tmp_path / "cut")["budget"] == metrics(tmp_path / "whole")["budget"]
    assert metrics(tmp_path / "cut")["epochs"] == 3
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("budget.hours=0", "budget.hours=0"),
        ("budget.hours=-1", "budget.hours=-1"),
        ("budget.hours=0.001", "budget.hours=0.001: the report takes 30 s"),
    ],
)
def test_a_budget_that_cannot_be_is_one_line(train, asked, says):
    ended = train(*SMALL, asked)
    assert ended.code == 1
    assert says in ended.line


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [(10, [0.5, 0.5], [5, 5]), (7, [0.3, 0.3, 0.4], [2, 2, 3]), (3, [0.9, 0.05, 0.05], [1, 1, 1]), (4, [1.0], [4])],
)
def test_epochs_are_divided_by_shares_and_none_is_lost(total, shares, parts):
    assert divided(total, shares) == parts
