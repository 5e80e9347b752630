"""``lr_finder=true``: the learning-rate range test."""

import json
import math
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from conftest import SMALL

from fer.reports.theme import PAPER
from fer.training.lr_finder import HIGHEST, LOWEST, STEPS, Curve, rate_at, smoothed_last, suggest, train_command

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


def test_the_steepest_descent_is_suggested():
    curve = curve_of(descent(60))
    rate, reason = suggest(curve)
    assert reason == ""
    assert 60 < curve.rates.index(rate) < 75  # smoothing lags


def test_what_falls_again_after_a_leap_recommends_nothing():
    losses = descent(50)[:110] + [4.0] * 10 + [1.5] * 30
    rate, _ = suggest(curve_of(losses))
    assert rate is not None
    assert rate < rate_at(75)


def test_a_test_that_finds_nothing_says_why():
    assert suggest(curve_of([2.0] * STEPS)) == (None, "the loss fell by 0.0 %; 5 % at least would be a descent")
    assert suggest(curve_of([2 - step * 0.03 for step in range(20)] + [math.inf]))[0] is not None
    assert (
        "only 12 steps were made, 20 are needed: the loss became NaN" in suggest(curve_of([2.0] * 12 + [math.nan]))[1]
    )
    assert (
        "the loss was lowest after 13 steps already"
        in suggest(curve_of([2 - 0.1 * s for s in range(13)] + [3.0] * 99))[1]
    )


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
    assert contents["suggestion"] in contents["rates"]
    assert contents["suggestion"] < contents["lowest_loss_at"]
    assert contents["configured"] == 0.002
    assert contents["seed"] == 0
    assert "lr_finder=true" in contents["command"]
    suggested = f"optimizer.lr={contents['suggestion']:.1e}"
    assert f"train with it:  python -m fer.train {shlex.join(SMALL)} {suggested}" in ended.out
    assert f"suggested rate    {contents['suggestion']:.1e}" in ended.out
    assert "configured        2.0e-03" in ended.out
    assert "out\n" in ended.out
    names = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()} - {"train.log"}
    assert names == {"lr_finder.json", "lr_finder.png", "lr_finder.svg", "config.yaml", "overrides.yaml", "hydra.yaml"}


@pytest.mark.slow
def test_the_command_that_it_names_trains(train, tmp_path):
    assert train(*TEST, "optimizer.lr=0.5").code == 0
    words = shlex.split(found(tmp_path / "out")["train_command"])
    assert [word for word in words if word.startswith("optimizer.lr")] == [words[-1]]
    assert train(*words[3:], "trainer.max_epochs=1", "hydra.run.dir=trained").code == 0
    assert (tmp_path / "trained" / "metrics.json").exists()


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
    assert contents["suggestion"] is not None or contents["reason"]


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


@pytest.mark.parametrize("at_step", [0, 1, 9, 60])
def test_a_loss_that_is_no_number_ends_it_in_words(train, tmp_path, ending, at_step):
    ended = train(*ending, f"model.at_step={at_step}")
    assert (ended.code, ended.err) == (0, "")
    contents = found(tmp_path / "out")
    assert len(contents["rates"]) == at_step
    assert "the loss became NaN or infinite at a rate of" in ended.out
    if at_step < 20:
        assert contents["suggestion"] is contents["train_command"] is None
        assert f"no suggestion: only {at_step} steps were made" in ended.out
        assert "train with it" not in ended.out
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
    assert (process.returncode, said.strip().splitlines()) == (130, ["fer.train: interrupted"])


@pytest.mark.slow
def test_a_run_is_not_resumed_into_it_nor_it_into_a_run(train, small_run, tmp_path):
    refused = train(f"resume={small_run}", "lr_finder=true")
    assert refused.code == 1
    assert "the run has lr_finder=False, now it is True" in refused.line
    assert train(*TEST).code == 0
    assert "lr_finder=true trains nothing; there is nothing to go on with" in train("resume=out").line


@pytest.mark.slow
def test_it_starts_from_given_weights(train, small_run, tmp_path):
    assert train(*TEST, f"init_from={small_run}").code == 0
    assert train(*TEST[:-1], "hydra.run.dir=fresh").code == 0
    assert found(tmp_path / "out")["losses"][0] != found(tmp_path / "fresh")["losses"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trainer.profile=true"], "trainer.profile=true measures a training"),
        (["scheduler.warmup_epochs=99"], "no shorter than trainer.max_epochs=3"),
        (["lr_finder=maybe"], "expected true or false"),
    ],
)
def test_a_mistake_is_one_line(train, arguments, says):
    ended = train(*TEST, *arguments)
    assert ended.code == 1
    assert says in ended.line


def test_the_figure_keeps_to_the_themes_colours_and_marks_what_it_must(train, tmp_path):
    assert train(*TEST).code == 0
    drawn = (tmp_path / "out" / "figures" / "lr_finder.svg").read_text()
    assert {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", drawn)} <= set(PAPER.values())
    for text in ("learning rate", "training loss", "each batch", "smoothed", "configured: 2.0e-03", "suggested: "):
        assert text in drawn


def test_the_users_own_words_are_kept():
    before = "python -m fer.train model=mlp 'data.path=my faces.csv' lr_finder=true optimizer.lr=0.1 seed=3"
    after = "python -m fer.train model=mlp 'data.path=my faces.csv' seed=3 optimizer.lr=1.2e-03"
    assert train_command(before, 0.00123) == after


@pytest.mark.slow
def test_a_sweep_shows_each_suggestion(train, tmp_path):
    ended = train("-m", *SMALL, "lr_finder=true", "model.hidden=[8],[16]", "hydra.sweep.dir=s")
    assert ended.code == 0, ended.out + ended.err
    assert "2 jobs, 0 failed" in ended.out
    rates = [f"{found(tmp_path / 's' / str(job))['suggestion']:.1e}" for job in range(2)]
    for rate in rates:
        assert f"suggested optimizer.lr={rate}" in ended.out
