"""Schedules compared with torch's, step by step."""

import pytest
import torch
from torch.optim import lr_scheduler

from fer.config.errors import FerError
from fer.optim.schedulers import SCHEDULES, Plateau, Timeline

EPOCHS, STEPS = 10, 20


def factors(name: str, **arguments: float) -> list[float]:
    builder, checked = SCHEDULES.arguments({"name": name, **arguments})
    schedule = builder(EPOCHS, **checked)
    return [schedule(step / STEPS) for step in range(EPOCHS * STEPS + 1)]


def torchs(make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(EPOCHS * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "arguments", "make"),
    [
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS)),
        ("cosine", {"final": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS, eta_min=0.1)),
        ("step", {"step_epochs": 3, "gamma": 0.1}, lambda o: lr_scheduler.StepLR(o, 3 * STEPS, 0.1)),
        ("exponential", {"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9 ** (1 / STEPS))),
        ("none", {}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_agrees_with_torch(name, arguments, make):
    assert factors(name, **arguments)[:-1] == pytest.approx(torchs(make), abs=1e-9)


def test_onecycle_is_torchs_but_for_its_last_step():
    # torch reaches the end one step early, so that its cycle is a step shorter
    theirs = torchs(lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=EPOCHS * STEPS + 1, cycle_momentum=False))
    ours = factors("onecycle")
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=False)) < 0.02
    assert ours[0] == pytest.approx(0.04)
    assert max(ours) == pytest.approx(1)
    assert ours[-1] == pytest.approx(4e-6)


def test_warm_up_rises_linearly_and_then_follows():
    warm, plain = factors("step", step_epochs=4, warmup_epochs=2), factors("step", step_epochs=4)
    assert warm[STEPS] == pytest.approx(0.5)
    assert warm[0] == pytest.approx(0.01)
    assert warm[2 * STEPS :] == plain[2 * STEPS :]


def test_a_step_may_begin_after_constant_epochs():
    by_step = factors("step", step_epochs=2, gamma=0.5, hold_epochs=3)
    by_epoch = [by_step[epoch * STEPS] for epoch in range(len(by_step) // STEPS)]
    assert by_epoch == [0.5 ** (max(0, epoch - 3) // 2) for epoch in range(len(by_epoch))]
    assert by_epoch[:6] == [1, 1, 1, 1, 1, 0.5]


def test_plateau_is_torchs():
    builder, arguments = SCHEDULES.arguments({"name": "plateau", "patience": 5})
    assert builder(EPOCHS, **arguments) == Plateau(0.5, 5, 0.001)


def test_a_plateau_that_lowers_nothing_is_refused():
    with pytest.raises(FerError, match=r"scheduler.factor=1.*at most 0.999"):
        SCHEDULES.arguments({"name": "plateau", "factor": 1.0})


@pytest.mark.parametrize(("name", "arguments"), [("cosine", {}), ("step", {"step_epochs": 2}), ("exponential", {})])
def test_a_warm_up_as_long_as_the_run_is_refused(name, arguments):
    with pytest.raises(FerError, match="scheduler.warmup_epochs=.*expected less than trainer.max_epochs="):
        factors(name, **arguments, warmup_epochs=EPOCHS)


def test_a_timeline_has_no_jump_and_always_reaches_the_end():
    timeline = Timeline(10)
    assert [timeline.at(epoch) for epoch in (0, 2.5, 10, 11)] == [0, 2.5, 10, 10]
    timeline.end_at(4, 6)  # 6 epochs of schedule in 2
    assert [timeline.at(epoch) for epoch in (2, 4, 5, 6)] == [2, 4, 7, 10]
    timeline.end_at(5, 8)  # what is left of it in 3
    assert timeline.epochs == 8
    assert [timeline.at(epoch) for epoch in (4.5, 5, 6.5, 8)] == [5.5, 7, 8.5, 10]
    assert Timeline.of(timeline.knots).at(6.5) == 8.5
    timeline.end_at(6, 6)  # no time is left
    assert (timeline.epochs, timeline.at(6)) == (6, 8)
