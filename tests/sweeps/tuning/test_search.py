"""A search as it runs: what is reported, ended early, failed, repeated, cut off and gone on with.

The runs are real processes; a few lines of Python stand in for the training, so that its curve is known.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest

from fer.config.conf import plain
from fer.config.errors import Interrupted
from fer.config.hydra import composed
from fer.config.settings import TuneSettings
from fer.sweeps.jobs import Job
from fer.sweeps.tuning.proposals import opened
from fer.sweeps.tuning.search import Search, Task
from fer.sweeps.tuning.space import read
from fer.sweeps.tuning.workers import Workers

# accuracy rises towards optimizer.lr itself; a rate above 0.9 fails, and "slow" takes its time for each epoch
RUN = """
import csv, os, pathlib, signal, sys, time
given = dict(text.partition("=")[::2] for text in sys.argv[1:])
folder = pathlib.Path(given["hydra.run.dir"].strip("'"))
rate, epochs, seed = float(given["optimizer.lr"]), int(given["trainer.max_epochs"]), int(given.get("seed", 0))
pace = float(os.environ.get("PACE", 0))
history = folder / "history.csv"
def save(number, frame):
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
if rate > 0.9:
    sys.exit("no such rate")
rows = list(csv.DictReader(open(history))) if history.exists() else []
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / ".hydra").mkdir(exist_ok=True)
(folder / ".hydra" / "config.yaml").touch()
for epoch in range(len(rows) + 1, epochs + 1):
    time.sleep(pace)
    accuracy = rate * (1 - 0.5 ** epoch) + 0.01 * seed
    rows.append({"epoch": epoch, "accuracy/val": accuracy, "loss/val": 1 - rate, "seconds": 1})
    with open(folder / "part", "w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(folder / "part", history)
    (folder / "checkpoints" / "last.ckpt").write_text(str(epoch))
(folder / "predictions.csv").touch()
kept = int(os.environ.get("KEPT", len(rows)))
accuracy = float(rows[kept - 1]["accuracy/val"])
(folder / "metrics.json").write_text('{"accuracy": %r, "best_epoch": %d}' % (accuracy, kept))
"""
FIXED = ["model=mlp", "data=synthetic", "trainer.accelerator=cpu", "trainer.max_epochs=6"]
SPACE = {"optimizer.lr": {"low": 0.1, "high": 0.8}}


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    def command(job):
        folder = f"hydra.run.dir={job.folder.absolute()}"
        return [sys.executable, "-c", RUN, *FIXED, *job.overrides, folder]

    monkeypatch.setattr(Job, "_command", command)


def prepared(folder, *, space=None, slots=1, monitor="accuracy/val", given=(), baseline=None, **settings):
    """Return a search in a folder, new or gone on with."""
    folder.mkdir(exist_ok=True)
    chosen = TuneSettings(**{"trials": 4, "pruner": "none", "sampler": "random", **settings})
    overrides = [*FIXED, f"monitor={monitor}", *given]
    parameters = read(space or SPACE, {})
    task = Task(folder, chosen, parameters, overrides, plain(composed(overrides)), {}, [{}] * slots)
    workers = Workers(folder)
    with workers.turn():
        study = opened(workers, chosen, monitor, 6, baseline or {})
    return Search(study, task, lambda: None, workers)


def searched(folder, **options):
    search = prepared(folder, **options)
    search.run()
    return search.trials()


def test_trials_are_runs_and_their_best_epoch_is_their_value(tmp_path):
    trials = searched(tmp_path)
    assert [trial.state for trial in trials] == ["complete"] * 4
    for trial in trials:
        assert trial.value == pytest.approx(float(trial.texts["optimizer.lr"]) * (1 - 0.5**6))
        assert (trial.epochs, trial.folders) == (6, [str(trial.number)])
        assert json.loads((tmp_path / str(trial.number) / "job.json").read_text())["exit_code"] == 0


def test_the_value_is_that_of_the_epoch_that_a_run_keeps(tmp_path, monkeypatch):
    """With ``stages`` an epoch of an earlier stage may be better than every epoch of the last one."""
    monkeypatch.setenv("KEPT", "4")
    for trial in searched(tmp_path):
        assert trial.value == pytest.approx(float(trial.texts["optimizer.lr"]) * (1 - 0.5**4))


def test_a_loss_is_searched_for_downward(tmp_path):
    for trial in searched(tmp_path, monitor="loss/val"):
        assert trial.value == pytest.approx(1 - float(trial.texts["optimizer.lr"]))


@pytest.mark.slow
def test_what_is_bad_is_ended_early_and_what_is_pruned_does_not_depend_on_the_pace(tmp_path, monkeypatch):
    settings = {"trials": 7, "pruner": "median", "startup_trials": 2, "warmup_epochs": 1}
    quick = searched(tmp_path / "quick", **settings)
    monkeypatch.setenv("PACE", "0.15")
    slow = searched(tmp_path / "slow", **settings)
    assert [(t.state, t.value, t.epochs, t.texts) for t in quick] == [
        (t.state, t.value, t.epochs, t.texts) for t in slow
    ]
    pruned = [trial for trial in slow if trial.state == "pruned"]
    assert pruned
    assert all(trial.epochs == 2 for trial in pruned)
    recorded = json.loads((tmp_path / "slow" / pruned[0].folders[0] / "job.json").read_text())
    assert recorded["exit_code"] == 143
    assert not (tmp_path / "slow" / pruned[0].folders[0] / "metrics.json").exists()


def test_a_failed_trial_is_kept_with_its_reason_and_the_search_goes_on(tmp_path):
    trials = searched(tmp_path, space={"optimizer.lr": [0.2, 0.95, 0.4]}, trials=6, baseline={"optimizer.lr": "0.95"})
    assert trials[0].state == "failed"
    assert trials[0].reason == "exit 1: no such rate"
    assert {trial.state for trial in trials} == {"failed", "complete"}
    assert len(trials) == 6


def test_values_that_are_good_alone_and_not_together_fail_without_a_run(tmp_path):
    space = {"augment.crop_padding": [0, 24], "data.image_size": [16, 48]}
    first = {"augment.crop_padding": "24", "data.image_size": "16"}
    given = ["optimizer.lr=0.5"]
    trials = searched(tmp_path, space=space, given=given, trials=2, baseline=first)
    assert trials[0].state == "failed"
    assert "augment.crop_padding=24: out of range" in trials[0].reason
    assert not (tmp_path / "0").exists()


def test_a_configuration_that_was_tried_is_not_tried_again(tmp_path, caplog):
    caplog.set_level("INFO")
    trials = searched(tmp_path, space={"optimizer.lr": [0.2, 0.4]}, trials=6)
    firsts = [trial for trial in trials if trial.same_as is None]
    assert len(firsts) == 2
    again = [trial for trial in trials if trial.same_as is not None]
    for trial in again:
        first = trials[trial.same_as]
        assert (trial.value, trial.texts, trial.folders) == (first.value, first.texts, first.folders)
        assert f"the same as trial {first.number}, whose" in caplog.text
    assert len([entry for entry in tmp_path.iterdir() if entry.name.isdecimal()]) == 2


def test_several_seeds_are_a_mean(tmp_path):
    trials = searched(tmp_path, seeds=3, trials=2, given=["seed=4"])
    for trial in trials:
        rate = float(trial.texts["optimizer.lr"])
        expected = [rate * (1 - 0.5**6) + 0.01 * seed for seed in (4, 5, 6)]
        assert trial.values == pytest.approx(expected)
        assert trial.value == pytest.approx(sum(expected) / 3)
        assert trial.folders == [f"{trial.number}_seed{seed}" for seed in (4, 5, 6)]
        assert trial.epochs == 3 * 6


def test_trials_run_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setenv("PACE", "0.1")
    search = prepared(tmp_path, slots=2, trials=4)
    most = []
    polled = search.polled
    search.polled = lambda running: (most.append(len(running)), polled(running))[1]
    search.run()
    assert max(most) == 2
    assert [trial.state for trial in search.trials()] == ["complete"] * 4


def test_no_trial_begins_after_the_hours(tmp_path, monkeypatch):
    monkeypatch.setenv("PACE", "0.1")
    trials = searched(tmp_path, trials=50, hours=0.5 / 3600)
    assert len(trials) == 1
    assert trials[0].state == "complete"  # what runs comes to its end


def interrupt(search, when, number=signal.SIGINT):
    """Run a search and send a signal once ``when`` holds."""

    def send():
        deadline = time.monotonic() + 30
        while not when() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    watch = threading.Thread(target=send)
    watch.start()
    try:
        with pytest.raises(Interrupted) as raised:
            search.run()
    finally:
        watch.join()
    assert raised.value.code == 128 + number


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, monkeypatch, number):
    monkeypatch.setenv("PACE", "0.12")
    settings = {"trials": 5, "pruner": "median", "startup_trials": 1, "warmup_epochs": 2, "sampler": "tpe"}
    whole = searched(tmp_path / "whole", random_trials=2, **settings)
    search = prepared(tmp_path / "cut", random_trials=2, **settings)
    interrupt(search, lambda: (tmp_path / "cut" / "2" / "history.csv").exists(), number)
    before = search.trials()
    assert [trial.state for trial in before] == [*[trial.state for trial in whole[:2]], "running"]
    epochs = int((tmp_path / "cut" / "2" / "checkpoints" / "last.ckpt").read_text())
    assert epochs < 6
    after = searched(tmp_path / "cut", random_trials=2, **settings)
    resumed = [(trial.number, trial.state, trial.value, trial.epochs, trial.texts, trial.folders) for trial in after]
    assert resumed == [(t.number, t.state, t.value, t.epochs, t.texts, t.folders) for t in whole]
    assert "pruned" in {trial.state for trial in whole}


def test_a_trial_that_left_nothing_begins_anew_beside_it(tmp_path):
    search = prepared(tmp_path, trials=1)
    search.next_job()  # its run has a folder, and never begins
    assert search.trials()[0].folders == ["0"]
    (tmp_path / "0" / "checkpoints").mkdir()
    (trial,) = searched(tmp_path, trials=1)
    assert (trial.state, trial.folders) == ("complete", ["0_2"])


def test_seeds_that_ended_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PACE", "0.05")
    search = prepared(tmp_path, trials=1, seeds=3)
    interrupt(search, lambda: (tmp_path / "0_seed1" / "history.csv").exists())
    assert len(search.trials()[0].values) == 1
    (trial,) = searched(tmp_path, trials=1, seeds=3)
    assert (trial.state, len(trial.values)) == ("complete", 3)
    assert trial.folders == ["0_seed0", "0_seed1", "0_seed2"]


def test_a_trial_cut_off_while_it_was_being_ended_is_ended(tmp_path):
    settings = {"trials": 3, "pruner": "median", "startup_trials": 1, "warmup_epochs": 0}
    rates = {"optimizer.lr": [0.8, 0.1]}
    search = prepared(tmp_path, space=rates, baseline={"optimizer.lr": "0.8"}, **settings | {"trials": 1})
    search.run()
    search.study.enqueue_trial({"optimizer.lr": "0.1"})
    trial = search.study.ask()
    trial.suggest_categorical("optimizer.lr", ["0.8", "0.1"])
    trial.report(0.05, 1)  # whoever ran it was killed here
    trials = searched(tmp_path, space=rates, **settings | {"trials": 2})
    assert (trials[1].state, trials[1].epochs) == ("pruned", 1)
    assert not (tmp_path / "1").exists()


def test_the_time_left_is_that_of_the_trials_to_come(tmp_path):
    search = prepared(tmp_path, trials=10, slots=2)
    assert search.left([], [], time.time()) is None
    over = [replace(trial, seconds=30.0) for trial in searched(tmp_path / "other", trials=2)]
    assert search.left(over, [], time.time()) == pytest.approx(8 * 30 / 2)
    bounded = prepared(tmp_path, trials=10, slots=2, hours=60 / 3600)
    assert bounded.left(over, [], time.time()) == pytest.approx(60, abs=2)


def test_the_live_line_shows_how_it_goes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PACE", "0.1")
    monkeypatch.setenv("COLUMNS", "150")
    search = prepared(tmp_path, trials=3, pruner="median", startup_trials=1, warmup_epochs=1)
    search.line.live = True
    search.run()
    said = capsys.readouterr().out
    assert "0/3 trials  #0 starts" in said
    assert "2/3 trials" in said
    assert " left  best " in said
    assert "best: optimizer.lr=" in said
