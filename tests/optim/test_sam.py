"""``sam``: sharpness-aware minimisation."""

import pytest
import torch
from conftest import SMALL, metrics
from torch import nn

from fer.optim.sam import raised, sharpness_aware


class Bowl(nn.Module):
    """A loss of two weights that is steep along the first."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.losses = []

    def closure(self):
        self.weights.grad = None
        loss = (torch.tensor([10.0, 1.0]) * self.weights**2).sum()
        loss.backward()
        self.losses.append(loss.item())
        return loss


def test_gradients_are_those_of_the_point_above_and_the_weights_stay():
    bowl = Bowl()
    loss = sharpness_aware(bowl, bowl.closure, 0.5)()
    gradient = torch.tensor([20.0, 4.0])  # at (1, 2)
    point = torch.tensor([1.0, 2.0]) + 0.5 * gradient / gradient.norm()
    assert loss.item() == pytest.approx(14.0)  # at the current weights
    assert bowl.losses[1] > bowl.losses[0]
    assert torch.allclose(bowl.weights.grad, torch.tensor([20.0, 2.0]) * point)
    assert bowl.weights.tolist() == [1.0, 2.0]


def test_weights_come_back_after_an_exception():
    bowl = Bowl()
    bowl.closure()
    moved = []

    def fail():
        moved.extend(bowl.weights.tolist())
        raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"), raised(bowl, 1.0):
        fail()
    assert moved != [1.0, 2.0]
    assert bowl.weights.tolist() == [1.0, 2.0]


def test_batch_normalisation_and_metrics_use_the_first_pass_alone():
    class Normed(nn.Sequential):
        seen = ()

        def closure(self):
            self.seen = (*self.seen, self.climbing)
            return self(torch.arange(12.0).view(4, 3)).square().sum().backward()

        climbing = False

    model, once = Normed(nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    once(torch.arange(12.0).view(4, 3))
    sharpness_aware(model, model.closure, 0.1)()
    assert model.seen == (False, True)
    assert not model.climbing
    assert torch.equal(model[0].running_mean, once.running_mean)
    assert (model[0].num_batches_tracked, model[0].momentum) == (1, 0.1)


def test_a_run_with_sam_differs_and_counts_each_face_once(train, tmp_path):
    network = (*SMALL[:4], "model=resnet9", "model.width=4", *SMALL[6:], "trainer.max_epochs=2")
    for folder, sam in (("plain", 0), ("sam", 0.2)):
        assert train(*network, f"sam={sam}", f"hydra.run.dir={folder}").code == 0
    plain, aware = (metrics(tmp_path / folder) for folder in ("plain", "sam"))
    assert plain["nll"] != aware["nll"]
    rows = [(tmp_path / folder / "history.csv").read_text().splitlines() for folder in ("plain", "sam")]
    assert len(rows[0]) == len(rows[1]) == 3
    heads = rows[0][0].split(",")
    accuracy = float(rows[1][1].split(",")[heads.index("accuracy/train")])
    assert (accuracy * 112) == pytest.approx(round(accuracy * 112), abs=1e-3)  # of 112 faces, each once


def test_resumed_to_the_bit(train, interrupt_at, tmp_path):
    network = (*SMALL, "sam=0.1", "ema=0.9")
    assert train(*network, "hydra.run.dir=whole").code == 0
    interrupt_at(10)
    assert train(*network, "hydra.run.dir=cut").code == 130
    assert train("resume=cut").code == 0
    states = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "cut")]
    assert all(torch.equal(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items())
