"""``lr_finder=true``: the learning-rate range test."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from conftest import SMALL

from fer.reports.theme import PAPER
from fer.training.lr_finder import HIGHEST, LOWEST, SKIPPED, STEPS, Curve, RangeTest, rate_at, smoothed_last

TEST = (*SMALL, "lr_finder=true", "hydra.run.dir=out")


def found(folder):
    return json.loads((folder / "lr_finder.json").read_text())


def curve_of(losses):
    curve = Curve()
    for step, loss in enumerate(losses):
        curve.add(rate_at(step), loss)
    return curve


def descent(middle):
    """Return losses that fall from 2 to 1 about a step and rise from step 130 on."""
    return [2 - 1 / (1 + math.exp(-(step - middle) / 5)) + max(0, step - 130) * 0.3 for step in range(STEPS)]


def test_rates_rise_evenly_in_their_logarithm():
    rates = [rate_at(step) for step in range(STEPS)]
    assert rates[0] == LOWEST
    assert rates[-1] == pytest.approx(HIGHEST)
    assert all(after / before == pytest.approx(rates[1] / rates[0]) for before, after in pairwise(rates))


def test_the_smoothed_loss_begins_at_the_first_loss():
    assert smoothed_last([3.0]) == 3
    assert smoothed_last([3.0, 1.0]) == pytest.approx((0.95 * 3 + 1) / 1.95)
    assert smoothed_last([2.0] * 50) == pytest.approx(2)


def test_the_lowest_point_of_the_smoothed_loss_is_found():
    curve = curve_of(descent(60))
    assert 100 < curve.lowest() <= 131  # the losses rise from step 130 on
    assert curve.smoothed[curve.lowest()] == min(curve.smoothed)


def test_the_first_steps_are_not_the_lowest_unless_there_are_no_others():
    assert curve_of([0.1] + [2.0] * 30).lowest() >= SKIPPED
    assert curve_of([2.0, 1.0, 0.5]).lowest() == 2


def test_a_divergence_ends_it():
    curve = Curve()
    for step, loss in enumerate([2.0] * 30 + [500.0] * 9):
        curve.add(rate_at(step), loss)
        if curve.ended:
            break
    assert len(curve.rates) == 31
    assert curve.ended == "the loss diverged at a rate of 2.6e-05"


def test_it_draws_says_writes_and_trains_nothing(train, tmp_path):
    ended = train(*TEST)
    assert (ended.code, ended.err) == (0, "")
    contents = found(tmp_path / "out")
    count = len(contents["rates"])
    assert 20 < count == len(contents["losses"]) == len(contents["smoothed"])
    assert contents["lowest_loss_at"] == contents["rates"][contents["smoothed"].index(min(contents["smoothed"][10:]))]
    assert not {"suggestion", "train_command"} & contents.keys()
    assert contents["configured"] == 0.002
    assert contents["seed"] == 0
    assert "lr_finder=true" in contents["command"]
    assert f"lowest loss at    {contents['lowest_loss_at']:.1e}" in ended.out
    assert "suggest" not in ended.out
    assert "configured        2.0e-03" in ended.out
    assert "out\n" in ended.out
    names = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()} - {"train.log", "status.json"}
    assert names == {"lr_finder.json", "lr_finder.png", "lr_finder.svg", "config.yaml", "overrides.yaml", "hydra.yaml"}


def test_accumulated_batches_are_one_point_with_the_loss_of_the_step(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 12)
    curves = []
    for number, keys in enumerate((("data.batch_size=56",), ("data.batch_size=28", "trainer.accumulate=2"))):
        assert train(*TEST[:-1], *keys, "augment=none", f"hydra.run.dir=out{number}").code == 0
        curves.append(found(tmp_path / f"out{number}"))
    assert len(set(curves[1]["rates"])) == len(curves[1]["rates"]) == 12
    assert curves[1]["losses"][0] == pytest.approx(curves[0]["losses"][0], rel=0.3)  # about log(7), not a half
    assert [curve["batch_size"] for curve in curves] == [56, 56]


def test_the_configured_rate_is_the_scaled_one(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 3)
    ended = train(*TEST, "data.batch_size=64", "trainer.accumulate=4", "trainer.lr_scaling=linear")
    assert ended.code == 0, ended.err
    contents = found(tmp_path / "out")
    assert (contents["configured"], contents["lr_factor"]) == (pytest.approx(0.004), 2)
    assert "configured        4.0e-03  (optimizer.lr times 2, by trainer.lr_scaling)" in ended.out
    assert "optimizer.lr=0.004 for 256 faces" in ended.out


def test_the_rate_is_the_optimizers_whatever_group_comes_first(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 3)
    seen = []
    real = RangeTest.on_train_batch_start

    def noted(self, trainer, module, *args):
        real(self, trainer, module, *args)
        seen.append({group["initial_lr"]: group["lr"] for group in trainer.optimizers[0].param_groups})

    monkeypatch.setattr(RangeTest, "on_train_batch_start", noted)
    keys = ("optimizer=muon", "optimizer.layer_decay=0.75", "model.hidden=[16]")
    assert train(*TEST[:-1], *keys, "hydra.run.dir=out").code == 0
    rate = found(tmp_path / "out")["rates"][1]
    of_adamw = {0.002 * 0.75**distance for distance in range(3)}
    muons = {initial: lr for initial, lr in seen[1].items() if initial not in of_adamw}
    assert all(lr == pytest.approx(rate * initial / 0.02) for initial, lr in muons.items())
    assert len(muons) > 0
    assert all(lr == initial for initial, lr in seen[1].items() if initial in of_adamw)  # optimizer.adam_lr stays


@pytest.mark.slow
def test_it_is_a_function_of_the_seed(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 30)
    curves = []
    for number, seed in enumerate((3, 3, 4)):
        assert train(*TEST[:-1], f"seed={seed}", "augment=strong", f"hydra.run.dir=out{number}").code == 0
        curves.append(found(tmp_path / f"out{number}")["losses"])
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["optimizer=sgd", "scheduler=plateau"],
        ["optimizer=adam", "scheduler=onecycle", "trainer.gradient_clip=1"],
        ["optimizer=adamw", "scheduler=step", "loss.class_weights=balanced"],
        ["scheduler=exponential", "trainer.overfit_batches=1"],
        ["scheduler=none", "trainer.limit_train=0.01", "trainer.channels_last=false"],
        ["model=cnn", "model.channels=[4]", "data.batch_size=112", "early_stopping=2"],
    ],
)
def test_every_choice_runs_to_the_end(train, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 40)
    groups = [text for text in arguments if text.startswith("model")]
    base = [*TEST[:4], *groups, *TEST[6:]] if groups else TEST
    ended = train(*base, *[text for text in arguments if text not in groups])
    assert (ended.code, ended.err) == (0, "")
    contents = found(tmp_path / "out")
    assert len(contents["rates"]) > 30
    assert contents["lowest_loss_at"] in contents["rates"]


@pytest.mark.slow
def test_the_schedule_takes_no_part(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.training.lr_finder.STEPS", 30)
    curves = []
    for name in ("none", "onecycle"):
        assert train(*TEST[:-1], f"scheduler={name}", f"hydra.run.dir={name}_").code == 0
        curves.append(found(tmp_path / f"{name}_")["losses"])
    assert curves[0] == curves[1]


ENDS = """
import os, signal
from torch import nn
from fer.models import EmotionClassifier, register

@register("ends")
class Ends(EmotionClassifier):
    def __init__(self, at_step: int = 9, how: str = "bad", **contract):
        super().__init__(**contract)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(self.image_size**2, self.num_classes))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_step < self.hparams["at_step"]:
            return loss
        if self.hparams["how"] != "bad":
            os.kill(os.getpid(), getattr(signal, self.hparams["how"]))
        return loss * float("nan")
"""


@pytest.fixture
def ending(tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text(ENDS)
    monkeypatch.syspath_prepend(tmp_path)
    return (*TEST[:4], "plugins=[ending]", "model=ends", *TEST[6:])


@pytest.mark.parametrize("at_step", [0, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 9)), 60])
def test_a_loss_that_is_no_number_ends_it_in_words(train, tmp_path, ending, at_step):
    ended = train(*ending, f"model.at_step={at_step}")
    assert (ended.code, ended.err) == (0, "")
    contents = found(tmp_path / "out")
    assert len(contents["rates"]) == at_step
    assert "the loss became NaN or infinite at a rate of" in ended.out
    assert (contents["lowest_loss_at"] is None) == (at_step == 0)
    assert ("lowest loss at" in ended.out) == (at_step > 0)
    assert (tmp_path / "out" / "figures" / "lr_finder.png").exists() == (at_step > 1)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_it_in_one_line(train, tmp_path, ending, name, code):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    ended = train(*ending, f"model.how={name}")
    assert (ended.code, ended.line) == (code, "fer.train: interrupted")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not (tmp_path / "out" / "lr_finder.json").exists()


@pytest.mark.slow
def test_ctrl_c_while_it_prepares_is_one_line_too(tmp_path):
    command = [sys.executable, "-m", "fer.train", *TEST, "data.synthetic_count=70000", "data.image_size=48"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "train.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (130, 1)
    assert said.startswith("fer.train: interrupted")


@pytest.mark.slow
def test_a_run_is_not_resumed_into_it_nor_it_into_a_run(train, small_run, tmp_path):
    refused = train(f"resume={small_run}", "lr_finder=true")
    assert refused.code == 1
    assert "the run has lr_finder=False, now it is True" in refused.line
    assert train(*TEST).code == 0
    assert "lr_finder=true trains nothing" in train("resume=out").line


@pytest.mark.slow
def test_it_starts_from_given_weights(train, small_run, tmp_path):
    assert train(*TEST, f"init_from={small_run}").code == 0
    assert train(*TEST[:-1], "hydra.run.dir=fresh").code == 0
    assert found(tmp_path / "out")["losses"][0] != found(tmp_path / "fresh")["losses"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trainer.profile=true"], "trainer.profile=true: lr_finder=true"),
        (["scheduler.warmup_epochs=99"], "expected less than trainer.max_epochs=3"),
        (["lr_finder=maybe"], "expected true or false"),
    ],
)
def test_a_mistake_is_one_line(train, arguments, says):
    ended = train(*TEST, *arguments)
    assert ended.code == 1
    assert says in ended.line


@pytest.mark.renders
def test_the_figure_keeps_to_the_themes_colours_and_marks_the_configured_rate(train, tmp_path):
    assert train(*TEST).code == 0
    drawn = (tmp_path / "out" / "figures" / "lr_finder.svg").read_text()
    assert {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", drawn)} <= set(PAPER.values())
    for text in ("learning rate", "training loss", "each batch", "smoothed", "configured: 2.0e-03"):
        assert text in drawn
    assert "suggested" not in drawn


@pytest.mark.slow
def test_a_sweep_states_each_lowest_point(train, tmp_path):
    ended = train("-m", *SMALL, "lr_finder=true", "model.hidden=[8],[16]", "hydra.sweep.dir=s")
    assert ended.code == 0, ended.out + ended.err
    assert "2 jobs, 0 failed" in ended.out
    rates = [f"{found(tmp_path / 's' / str(job))['lowest_loss_at']:.1e}" for job in range(2)]
    for rate in rates:
        assert f"lowest loss at a rate of {rate}" in ended.out
