"""``trainer.profile=true``: where a step's time goes."""

import gzip
import json
import math

import pytest
import torch
from conftest import SMALL

from fer.training import profiler
from fer.training.profiler import (
    BACKWARD,
    CHECKPOINTS,
    FETCH,
    FORWARD,
    LOOPS,
    OTHER,
    STEP,
    VALIDATION,
    Phases,
    phase_of,
)


@pytest.fixture
def clock(monkeypatch):
    """Return phases on a clock that shows a second more at every look, and records no operators."""
    looks = iter(range(1000))
    monkeypatch.setattr(Phases, "_now", lambda self: float(next(looks)))
    monkeypatch.setattr(profiler.Operators, "switch", lambda self, on, done: False)
    phases = Phases()
    phases.begin()
    return phases


def found(folder):
    contents = json.loads((folder / "profile.json").read_text())
    return contents, {row["phase"]: row for row in contents["phases"]}


def test_a_phase_has_its_own_time_and_not_that_of_the_phases_within(clock):
    clock.start("[LightningModule]MLP.optimizer_step")  # a second of other
    clock.start("[Strategy]SingleDeviceStrategy.training_step")  # a second of the optimizer
    clock.stop("[Strategy]SingleDeviceStrategy.training_step")
    clock.start("[Strategy]SingleDeviceStrategy.backward")
    clock.stop("[Strategy]SingleDeviceStrategy.backward")
    clock.stop("[LightningModule]MLP.optimizer_step")
    clock.end()
    assert dict(clock.seconds) == {OTHER: 2, STEP: 3, FORWARD: 1, BACKWARD: 1}
    assert clock.total == 7


def test_uneven_stops_lose_no_time(clock):
    clock.start("run_training_epoch")
    clock.start("[Strategy]S.training_step")
    clock.stop("run_training_epoch")  # what an exception leaves open is closed with what holds it
    clock.stop("[Strategy]S.training_step")
    clock.stop("never started")
    clock.end()
    assert dict(clock.seconds) == {OTHER: 4, LOOPS: 1, FORWARD: 1}


def test_a_validation_is_one_phase_but_for_callbacks_and_checkpoints(clock):
    clock.start("run_training_epoch")
    clock.start("[LightningModule]MLP.on_validation_model_zero_grad")
    clock.stop("[LightningModule]MLP.on_validation_model_zero_grad")
    clock.start("[LightningDataModule]FERDataModule.on_after_batch_transfer")
    clock.stop("[LightningDataModule]FERDataModule.on_after_batch_transfer")
    clock.start("[Callback]Stopwatch.on_validation_start")
    clock.stop("[Callback]Stopwatch.on_validation_start")
    clock.start("[LightningModule]MLP.on_validation_model_train")
    clock.stop("[LightningModule]MLP.on_validation_model_train")
    clock.start("[_TrainingEpochLoop].train_dataloader_next")
    clock.end()
    assert clock.seconds["callback Stopwatch"] == 1
    assert clock.seconds[VALIDATION] == 6
    assert clock.seconds[FETCH] == 1
    assert clock.seconds[LOOPS] == 2


@pytest.mark.parametrize(
    ("action", "around", "phase"),
    [
        ("[Callback]Patience{'monitor': 'accuracy/val', 'mode': 'max'}.on_train_start", OTHER, "callback Patience"),
        ("[Callback]Saver.on_save_checkpoint", CHECKPOINTS, CHECKPOINTS),
        ("save_checkpoint", "callback Saver", CHECKPOINTS),
        ("[Callback]Signals.on_before_backward", BACKWARD, "callback Signals"),
        ("[LightningModule]MLP.a_hook_of_tomorrow", FORWARD, LOOPS),
    ],
)
def test_names_become_phases(action, around, phase):
    assert phase_of(action, around) == phase


def test_a_run_ends_with_a_table_whose_shares_are_the_whole(train, tmp_path):
    ended = train(*SMALL, "data.batch_size=8", "trainer.profile=true", "trainer.gradient_clip=1", "hydra.run.dir=out")
    assert (ended.code, ended.err) == (0, "")
    contents, phases = found(tmp_path / "out")
    assert sum(row["share"] for row in phases.values()) == pytest.approx(1)
    assert sum(row["seconds"] for row in phases.values()) == pytest.approx(contents["total_seconds"])
    assert contents["steps"] == phases[FORWARD]["calls"] == phases[BACKWARD]["calls"] == 3 * 14
    assert {"fetching the batch", "augmentation", "gradient clipping", "zero_grad", VALIDATION} <= set(phases)
    assert {"callback History", "callback Saver", "callback Progress", "callback FiniteLoss"} <= set(phases)
    assert phases[CHECKPOINTS]["seconds"] > 0
    assert phases[OTHER]["share"] < 0.2
    assert "where the time went" in ended.out
    assert "100.0 %" in ended.out


def test_ten_operators_and_their_trace_are_recorded(train, tmp_path):
    ended = train(*SMALL, "data.batch_size=4", "trainer.profile=true", "trainer.max_epochs=1", "hydra.run.dir=out")
    contents, _ = found(tmp_path / "out")
    assert contents["recorded_steps"] == [6, 15]
    assert len(contents["operators"]) == 10
    times = [row["ms_per_step"] for row in contents["operators"]]
    assert times == sorted(times, reverse=True)
    assert sum(row["share"] for row in contents["operators"]) <= 1
    assert "steps 6 to 15" in ended.out
    with gzip.open(tmp_path / "out" / "profile_trace.json.gz", "rt") as stream:
        names = [event.get("name", "") for event in json.load(stream)["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") == 10
    assert not list((tmp_path / "out").glob("*part*"))


def test_an_epoch_that_is_over_before_recording_would_begin_is_said(train, tmp_path):
    ended = train(
        *SMALL, "trainer.profile=true", "trainer.limit_train=0.5", "trainer.max_epochs=1", "hydra.run.dir=out"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "no operators recorded" in ended.out
    assert not (tmp_path / "out" / "profile_trace.json.gz").exists()


@pytest.mark.slow
def test_measuring_changes_no_bit_of_the_result(train, tmp_path):
    states = []
    for profile in ("true", "false"):
        assert (
            train(*SMALL, "data.batch_size=8", f"trainer.profile={profile}", f"hydra.run.dir=run_{profile}").code == 0
        )
        states.append(
            torch.load(tmp_path / f"run_{profile}" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        )
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    predictions = [(tmp_path / f"run_{profile}" / "predictions.csv").read_text() for profile in ("true", "false")]
    assert predictions[0] == predictions[1]


ENDS = """
import os, signal
from torch import nn
from fer.models import EmotionClassifier, register

@register("ends")
class Ends(EmotionClassifier):
    def __init__(self, how: str = "bad", **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(self.image_size**2, self.num_classes))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 9 and self.hparams["how"] == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        if self.global_step == 9 and self.hparams["how"] == "error":
            raise RuntimeError("out of something")
        return loss * float("nan") if self.global_step == 9 and self.hparams["how"] == "bad" else loss
"""


@pytest.mark.parametrize(("how", "code"), [("bad", 1), ("signal", 130), ("error", None)])
def test_a_run_that_is_cut_short_is_reported_too(train, tmp_path, monkeypatch, how, code):
    (tmp_path / "ending.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    run = (*SMALL[:4], "plugins=[ending]", "model=ends", f"model.how={how}", *SMALL[6:])
    if code is None:
        with pytest.raises(RuntimeError, match="out of something"):
            train(*run, "trainer.profile=true", "hydra.run.dir=out")
    else:
        ended = train(*run, "trainer.profile=true", "hydra.run.dir=out")
        assert ended.code == code
        assert "where the time went" in ended.out
    contents, phases = found(tmp_path / "out")
    assert contents["steps"] in (10, 14)  # a bad loss is looked for at the epoch's end
    assert sum(row["share"] for row in phases.values()) == pytest.approx(1)
    assert all(math.isfinite(row["seconds"]) and row["seconds"] >= 0 for row in phases.values())
    assert contents["operators"]


def test_a_gpu_is_waited_for_at_both_ends_of_a_phase(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    phases = Phases(on_gpu=True)
    phases.begin()
    phases.start("[Strategy]S.training_step")
    phases.stop("[Strategy]S.training_step")
    phases.end()
    assert len(waits) == 4


@pytest.mark.slow
def test_a_measured_run_that_was_interrupted_goes_on_to_the_same_end(train, tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    run = (*SMALL[:4], "plugins=[ending]", "model=ends", *SMALL[6:], "trainer.profile=true")
    assert train(*run, "model.how=signal", "hydra.run.dir=cut").code == 130
    monkeypatch.setattr("os.kill", lambda *_: None)
    assert train("resume=cut").code == 0
    assert train(*run, "model.how=signal", "hydra.run.dir=whole").code == 0
    assert found(tmp_path / "cut")[0]["steps"] == 21 - 10
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("cut", "whole")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
