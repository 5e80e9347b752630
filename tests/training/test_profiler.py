"""``trainer.profile=true``: where a step's time goes."""

import gzip
import json

import pytest
import torch
from conftest import SMALL

from fer.training.profiler import RECORDED, WARM_UP, StepProfiler, step_rows

FORWARD, BACKWARD, REST = "forward, loss, scores", "backward", "callbacks, Lightning's loops"


def found(folder):
    contents = json.loads((folder / "profile.json").read_text())
    return contents, {row["name"]: row for row in contents["rows"]}


def test_the_rows_of_a_step_add_up_to_its_time():
    labels = {"train_dataloader_next": 1.0, "run_training_batch": 6.0, "training_step": 2.0, "backward": 3.0}
    rows = step_rows(labels, whole=8.0, steps=4)
    assert [(row.name, row.ms_per_step, row.share) for row in rows] == [
        ("fetching the batch", 250, 1 / 8),
        (FORWARD, 500, 2 / 8),
        (BACKWARD, 750, 3 / 8),
        ("optimizer, hooks", 250, 1 / 8),
        (REST, 250, 1 / 8),
    ]


def test_a_run_ends_with_a_table_ten_operators_and_a_trace(train, tmp_path):
    ended = train(
        *SMALL, "data.batch_size=4", "trainer.profile=true", "trainer.max_epochs=1", "trainer.gradient_clip=1",
        "hydra.run.dir=out",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    contents, rows = found(tmp_path / "out")
    assert contents["recorded_steps"] == [6, 15]
    assert {"fetching the batch", "to the device, augmentation", "gradient clipping", "zero_grad"} <= set(rows)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["ms_per_step"] for row in rows.values()) == pytest.approx(100 * contents["seconds"])
    assert all(row["ms_per_step"] > 0 for row in rows.values())
    assert "where the time of steps 6 to 15 went" in ended.out
    assert "aten::" in ended.out
    with gzip.open(tmp_path / "out" / "profile_trace.json.gz", "rt") as stream:
        names = [event.get("name", "") for event in json.load(stream)["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") == names.count("training_step") == 10
    assert not list((tmp_path / "out").glob("*part*"))


def test_a_validation_is_not_recorded(train, tmp_path):
    assert train(*SMALL, "trainer.profile=true", "hydra.run.dir=out").code == 0
    assert found(tmp_path / "out")[0]["recorded_steps"] == [6, 7]  # of an epoch's 7 steps
    with gzip.open(tmp_path / "out" / "profile_trace.json.gz", "rt") as stream:
        names = {event.get("name", "") for event in json.load(stream)["traceEvents"]}
    assert "training_step" in names
    assert "validation_step" not in names


def test_a_run_that_is_over_before_recording_would_begin_says_so(train, tmp_path):
    ended = train(
        *SMALL, "trainer.profile=true", "trainer.limit_train=0.5", "trainer.max_epochs=1", "hydra.run.dir=out"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "no step recorded: the run had no more than 5 steps" in ended.out
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


@pytest.mark.parametrize(
    ("how", "code"), [("bad", 1), ("signal", 130), pytest.param("error", None, marks=pytest.mark.slow)]
)
def test_a_run_that_is_cut_short_is_reported_too(train, tmp_path, monkeypatch, how, code):
    (tmp_path / "ending.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    run = (*SMALL[:3], "data.batch_size=8", "plugins=[ending]", "model=ends", f"model.how={how}", *SMALL[6:])
    if code is None:
        with pytest.raises(RuntimeError, match="out of something"):
            train(*run, "trainer.profile=true", "hydra.run.dir=out")
    else:
        ended = train(*run, "trainer.profile=true", "hydra.run.dir=out")
        assert ended.code == code
        assert "where the time of steps 6 to " in ended.out
    contents, rows = found(tmp_path / "out")
    first, last = contents["recorded_steps"]
    assert first == 6
    assert last in (10, 14)  # a bad loss is looked for at the epoch's end
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)


def test_a_gpu_is_waited_for_at_both_ends_of_a_label(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    profiler = StepProfiler(on_gpu=True)
    for _ in range(WARM_UP + 1):
        profiler.start("[_TrainingEpochLoop].train_dataloader_next")
        profiler.stop("[_TrainingEpochLoop].train_dataloader_next")
    assert len(waits) == 3  # as recording begins, and round the one recorded label
    profiler.stop("never started")
    profiler.finish()
    assert (len(waits), profiler.steps) == (4, 1)
    for _ in range(2 * RECORDED):
        profiler.start("[_TrainingEpochLoop].train_dataloader_next")
    assert (len(waits), profiler.steps) == (4, 1)  # it records once


@pytest.mark.slow
def test_a_measured_run_that_was_interrupted_goes_on_to_the_same_end(train, tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    run = (*SMALL[:4], "plugins=[ending]", "model=ends", *SMALL[6:], "trainer.profile=true")
    assert train(*run, "model.how=signal", "hydra.run.dir=cut").code == 130
    monkeypatch.setattr("os.kill", lambda *_: None)
    assert train("resume=cut", "plugins=[ending]").code == 0
    assert train(*run, "model.how=signal", "hydra.run.dir=whole").code == 0
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("cut", "whole")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
