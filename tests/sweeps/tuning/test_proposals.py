"""Optuna's side: what is drawn is keyed, storage survives, importance says how sure it is."""

import random

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from fer.config.errors import FerError
from fer.config.settings import TuneSettings
from fer.sweeps.tuning.proposals import (
    JOURNAL,
    drawn,
    drop_partial_line,
    importances,
    opened,
    pruner,
    prunes,
    sampler,
    trials,
)
from fer.sweeps.tuning.space import Parameter, Span, read
from fer.sweeps.tuning.workers import Workers

SECTION = {
    "optimizer": ["adamw", "sgd"],
    "optimizer.lr": {"low": 0.0001, "high": 0.1, "log": True},
    "optimizer.momentum": {"low": 0.8, "high": 0.9, "when": {"optimizer": "sgd"}},
    "model.dropout": {"low": 0.0, "high": 0.5, "step": 0.05},
}
SPACE = read(SECTION, {})


def study_in(folder, baseline=None, **settings):
    return opened(Workers(folder), TuneSettings(**settings), "accuracy/val", 10, baseline or {})


def ask(study, settings, number, space=SPACE):
    study.sampler = sampler(settings, number)
    trial = study.ask()
    return trial, drawn(trial, space)


def searched(folder, count, settings):
    """Return what ``count`` trials drew, opening the storage anew before each."""
    proposed = []
    for number in range(count):
        trial, texts = ask(study := opened(Workers(folder), settings, "accuracy/val", 10, {}), settings, number)
        study.tell(trial, -abs(float(texts["optimizer.lr"]) - 0.003))
        proposed.append(texts)
    return proposed


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_what_is_drawn_is_a_function_of_seed_number_and_history(tmp_path, name):
    settings = TuneSettings(sampler=name, random_trials=3, sampler_seed=5)
    runs = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        runs.append(searched(folder, 6, settings))
    assert runs[0] == runs[1]
    assert len({texts["optimizer.lr"] for texts in runs[0]}) == 6
    (tmp_path / "c").mkdir()
    assert searched(tmp_path / "c", 2, TuneSettings(sampler=name, sampler_seed=6)) != runs[0][:2]


def test_conditions_hold_in_what_is_drawn(tmp_path):
    settings = TuneSettings()
    study = study_in(tmp_path)
    for number in range(8):
        trial, texts = ask(study, settings, number)
        assert ("optimizer.momentum" in texts) == (texts["optimizer"] == "sgd")
        study.tell(trial, 0.5)
    assert {texts.texts["optimizer"] for texts in trials(study, SPACE)} == {"adamw", "sgd"}


def test_every_kind_of_value_is_drawn_as_an_override_spells_it(tmp_path):
    space = [
        Parameter("model.depth", span=Span(1, 3), whole=True),
        Parameter("data.batch_size", span=Span(16, 64, step=16), whole=True),
        Parameter("model.hidden", [[16], [32, 16]]),
        Parameter("trainer.gradient_clip", [None, 1.0]),
    ]
    study, proposed = study_in(tmp_path), []
    for number in range(30):
        trial, texts = ask(study, TuneSettings(sampler="random"), number, space)
        study.tell(trial, 0.0)
        proposed.append(texts)
    assert {texts["model.depth"] for texts in proposed} == {"1", "2", "3"}
    assert {texts["data.batch_size"] for texts in proposed} == {"16", "32", "48", "64"}
    assert {texts["model.hidden"] for texts in proposed} == {"[16]", "[32,16]"}
    assert {texts["trainer.gradient_clip"] for texts in proposed} == {"null", "1.0"}
    assert [dict(trial.texts) for trial in trials(study, space)] == proposed


def test_the_first_trial_has_the_configured_values_and_draws_the_rest(tmp_path):
    study = study_in(tmp_path, {"optimizer": "sgd", "optimizer.lr": 0.002})
    _, texts = ask(study, TuneSettings(), 0)
    assert (texts["optimizer"], texts["optimizer.lr"]) == ("sgd", "0.002")
    assert {"optimizer.momentum", "model.dropout"} < set(texts)
    again = study_in(tmp_path, {"optimizer": "sgd", "optimizer.lr": 0.002})
    assert len(again.get_trials(deepcopy=False)) == 1  # it is put into the queue once


def test_an_open_trial_is_found_again_with_its_values(tmp_path):
    settings = TuneSettings()
    study = study_in(tmp_path)
    trial, texts = ask(study, settings, 0)
    trial.report(0.3, 1)
    trial.set_user_attr("folders", ["0"])
    later = study_in(tmp_path)
    (frozen,) = later.get_trials(states=(TrialState.RUNNING,))
    again = optuna.Trial(later, frozen._trial_id)
    assert drawn(again, SPACE) == texts
    (loaded,) = trials(later, SPACE)
    assert (loaded.state, loaded.value, loaded.epochs, loaded.folders) == ("running", 0.3, 1, ["0"])
    again.report(0.4, 2)
    later.tell(again, state=TrialState.PRUNED)
    assert trials(study_in(tmp_path), SPACE)[0].state == "pruned"
    assert trials(study_in(tmp_path), SPACE)[0].value == 0.4


def test_a_journal_cut_off_in_a_line_is_repaired(tmp_path, caplog):
    study = study_in(tmp_path)
    trial, _ = ask(study, TuneSettings(), 0)
    study.tell(trial, 0.5)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 5, "wor')
    assert len(study_in(tmp_path).trials) == 1
    assert "incomplete last line" in caplog.text
    assert journal.read_bytes().startswith(whole + b"{")
    drop_partial_line(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_data_base_serves_as_storage(tmp_path):
    settings = {"storage": f"sqlite:///{tmp_path / 'tune.db'}"}
    study = study_in(tmp_path / "one", **settings)
    study.tell(ask(study, TuneSettings(), 0)[0], 0.5)
    assert len(study_in(tmp_path / "one", **settings).trials) == 1
    assert len(study_in(tmp_path / "two", **settings).trials) == 0  # another folder is another search


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_a_start_that_was_killed_before_its_first_trial_is_begun_again(tmp_path, storage):
    settings = TuneSettings(storage=storage and f"sqlite:///{tmp_path / 'tune.db'}")
    for _ in range(2):
        study = opened(Workers(tmp_path), settings, "accuracy/val", 10, {"optimizer.lr": 0.002}, begun=False)
        assert len(study.get_trials(deepcopy=False)) == 1


@pytest.mark.parametrize("storage", ["nonsense", "postgresql+nosuchdriver://host/name", "sqlite:////nowhere/at/all.db"])
def test_a_storage_that_cannot_be_used_is_reported_in_a_line(tmp_path, storage):
    with pytest.raises(FerError, match="no storage for a search") as raised:
        study_in(tmp_path, storage=storage)
    assert "\n" not in str(raised.value)


def test_a_journal_that_is_none_is_reported_in_a_line(tmp_path):
    (tmp_path / JOURNAL).write_text("hello\n")
    with pytest.raises(FerError, match="no storage for a search"):
        study_in(tmp_path)


def curve(study, settings, values):
    """Report an accuracy after each epoch, and return after which one the trial is ended; 0 for none."""
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    for epoch, value in enumerate(values, start=1):
        trial.report(value, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, max(values))
    return 0


def test_median_spares_the_warm_up_and_the_first_trials(tmp_path):
    settings = TuneSettings(startup_trials=2, warmup_epochs=3)
    study = opened(Workers(tmp_path), settings, "accuracy/val", 10, {})
    good, bad = [0.3 + 0.01 * epoch for epoch in range(10)], [0.1] * 10
    assert curve(study, settings, bad) == 0
    assert curve(study, settings, good) == 0
    assert curve(study, settings, good) == 0
    assert curve(study, settings, bad) == 4
    assert curve(study, settings, good) == 0


def test_less_is_better_where_a_loss_is_searched_for(tmp_path):
    settings = TuneSettings(startup_trials=1, warmup_epochs=0)
    study = opened(Workers(tmp_path), settings, "loss/val", 10, {})
    assert curve(study, settings, [1.0] * 10) == 0
    assert curve(study, settings, [2.0] * 10) == 1
    assert curve(study, settings, [0.5] * 10) == 0
    assert trials(study, [])[1].value == 2.0


def test_hyperband_ends_trials_after_the_warm_up(tmp_path):
    settings = TuneSettings(pruner="hyperband", warmup_epochs=1)
    study = opened(Workers(tmp_path), settings, "accuracy/val", 18, {})
    rng = random.Random(0)
    ends = [curve(study, settings, [rng.random()] * 18) for _ in range(30)]
    assert {0} < set(ends)
    assert min(end for end in ends if end) >= 2


def test_nothing_is_pruned_where_no_epoch_is_left_for_it():
    assert not prunes(TuneSettings(warmup_epochs=3), 4)
    assert prunes(TuneSettings(warmup_epochs=3), 5)
    assert isinstance(pruner(TuneSettings(pruner="hyperband", warmup_epochs=5), 3), optuna.pruners.NopPruner)
    assert isinstance(pruner(TuneSettings(pruner="none"), 30), optuna.pruners.NopPruner)


@pytest.mark.slow
def test_importance_finds_what_matters_and_says_how_sure_it_is(tmp_path):
    settings = TuneSettings(sampler="random")
    study, rng = study_in(tmp_path), np.random.default_rng(0)
    for number in range(40):
        trial, texts = ask(study, settings, number)
        study.tell(trial, -abs(np.log(float(texts["optimizer.lr"]) / 0.003)) + 0.01 * rng.random())
    shares, top = importances(study)
    assert top == 5
    assert max(shares, key=lambda key: shares[key].value) == "optimizer.lr"
    assert sum(share.value for share in shares.values()) == pytest.approx(1)
    low, high = shares["optimizer.lr"].low, shares["optimizer.lr"].high
    assert 0.2 < low < high <= 1
    assert importances(study) == (shares, top)


def test_a_handful_of_trials_says_nothing_of_importance(tmp_path):
    settings = TuneSettings()
    study = study_in(tmp_path)
    for number in range(3):
        study.tell(ask(study, settings, number)[0], 0.1 * number)
    assert importances(study) == ({}, 0)
