"""The founding study's table: which runs are whose, what is said of them, what is left out."""

import csv
import json

import numpy as np
import pytest
from conftest import SMALL, Ended, metrics, runner

from fer.config.conf import plain
from fer.config.hydra import composed
from fer.metrics.statistics import Interval
from fer.reports.study.tables import ROWS, of_sum

DRAWN = ("data=synthetic", "data.synthetic_count=140", "data.image_size=24", "data.batch_size=16", "logger=none",
         "trainer.accelerator=cpu", "trainer.max_epochs=2")  # fmt: skip


@pytest.fixture
def study(capfd):
    from fer.study import main

    return runner(main, capfd)


@pytest.fixture
def make(train, tmp_path):
    def run(folder: str, experiment: str, *more: str) -> Ended:
        ended = train(f"experiment=study/{experiment}", *DRAWN, *more, f"hydra.run.dir={tmp_path / folder}")
        assert ended.code == 0, ended.err
        return ended

    return run


@pytest.fixture
def several(make):
    """Two seeds of the CNN and of the CNN with augmentation, one of both; one CNN under the other protocol."""
    small = ("model.channels=[4,8]", "model.hidden=8")
    for seed in (0, 1):
        make(f"runs/a{seed}", "cnn", *small, f"seed={seed}", "data.split=holdout")
        make(f"runs/b{seed}", "cnn_augment", *small, f"seed={seed}", "data.split=holdout")
    make("runs/d", "cnn_both", *small, "data.split=holdout")
    make("runs/c", "cnn", *small, "data.split=official")


def last_val(name, folder):
    """Mean over the two seeds of what val gave after the last epoch."""
    histories = [list(csv.DictReader(open(folder / "runs" / f"{name}{seed}" / "history.csv"))) for seed in (0, 1)]
    return np.mean([float(history[-1]["accuracy/val"]) for history in histories])


@pytest.mark.renders
def test_the_table_has_the_runs_metrics_and_reports_what_is_left_out(several, make, train, study, tmp_path):
    assert train(*SMALL, f"hydra.run.dir={tmp_path / 'runs' / 'other'}").code == 0
    make("runs/longer", "mlp", "trainer.max_epochs=3", "model.hidden=[4]")
    ended = study("runs")
    assert ended.code == 0, ended.err
    assert "not the experiments as published" in ended.out
    assert "trainer.max_epochs=2" in ended.out
    assert "1 other run of no experiment of the study left out" in ended.out
    assert "1 run with data: synthetic at 24x24" in ended.out
    rows = list(csv.DictReader(open(tmp_path / "runs" / "study.csv")))
    assert [(row["experiment"], row["protocol"], row["seed"]) for row in rows] == [
        ("study/cnn", "holdout", "0"), ("study/cnn", "holdout", "1"), ("study/cnn_augment", "holdout", "0"),
        ("study/cnn_augment", "holdout", "1"), ("study/cnn_both", "holdout", "0"), ("study/cnn", "official", "0"),
    ]  # fmt: skip
    accuracies = [100 * metrics(tmp_path / "runs" / name)["accuracy"] for name in ("a0", "a1")]
    page = (tmp_path / "runs" / "study.md").read_text()
    written = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f} %"
    assert written in page
    assert written in ended.out
    assert f"{np.mean(accuracies) - 63.08:+.2f} [" in page  # to the study
    gained = [100 * metrics(tmp_path / "runs" / name)["accuracy"] for name in ("b0", "b1")]
    assert (
        f"| augmentation | CNN | holdout | 2 and 2 | 2 and 2 | {np.mean(gained) - np.mean(accuracies):+.2f} |" in page
    )
    assert f"| {100 * (last_val('b', tmp_path) - last_val('a', tmp_path)):+.2f} |" in page  # where no epoch is chosen
    assert "| schedule | CNN + augmentation | holdout | 1 and 2 |" in page
    assert "official" in page
    for name in ("study", "courses_holdout", "courses_official"):
        assert (tmp_path / "runs" / "figures" / f"{name}.png").stat().st_size > 5000


def test_a_seed_run_again_counts_once(make, study, tmp_path):
    make("runs/first", "mlp", "model.hidden=[4]")
    make("runs/second", "mlp", "model.hidden=[4]")
    study("runs")
    (row,) = csv.DictReader(open(tmp_path / "runs" / "study.csv"))
    assert row["run"].endswith("second")


@pytest.mark.slow
def test_where_a_seed_was_trained_does_not_part_it_from_the_others(make, study, tmp_path):
    for seed, accelerator in ((0, "cpu"), (1, "auto"), (2, "auto")):
        make(f"runs/{seed}", "linear", f"seed={seed}", f"trainer.accelerator={accelerator}")
    assert study("runs").code == 0
    assert [row["seed"] for row in csv.DictReader(open(tmp_path / "runs" / "study.csv"))] == ["0", "1", "2"]


def test_only_imagenets_weights_are_laid_beside_the_studys(make, study, tmp_path):
    """Weights are known by the name that a run gives them, which only the genuine file gets."""
    make("runs/a", "linear")
    known = tmp_path / "runs" / "a" / "metrics.json"
    hydra = tmp_path / "runs" / "a" / ".hydra" / "hydra.yaml"
    hydra.write_text(hydra.read_text().replace("study/linear", "study/vgg16"))
    for name, counted in (("mine.pth", False), ("VGG16_Weights.IMAGENET1K_V1", True)):
        known.write_text(json.dumps({**json.loads(known.read_text()), "pretrained": {"name": name}}))
        ended = study("runs")
        assert len(list(csv.DictReader(open(tmp_path / "runs" / "study.csv")))) == counted
        assert ("from weights mine.pth, not ImageNet's, left out" in ended.out) != counted


@pytest.mark.parametrize(("runs", "says"), [("nowhere", "no such folder"), ("run", "holds no run of the study")])
def test_nothing_to_show_is_one_line(small_run, study, runs, says):
    ended = study(runs)
    assert ended.code == 1
    assert says in ended.line


def test_an_experiment_never_draws_faces_in_place_of_data(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = train("experiment=study/mlp", "hydra.run.dir=out")
    assert ended.code == 1
    assert "no data" in ended.line


def test_the_baselines_differ_from_the_others_in_what_their_names_say():
    def settings_of(name: str) -> dict:
        return plain(composed([f"experiment=study/{name}"]))

    base = settings_of("cnn")
    schedule, augment, both = settings_of("cnn_schedule"), settings_of("cnn_augment"), settings_of("cnn_both")
    assert {key for key in base if base[key] != schedule[key]} == {"scheduler"}
    assert {key for key in base if base[key] != augment[key]} == {"augment", "trainer"}
    assert {key for key in augment if augment[key] != both[key]} == {"scheduler"}
    assert base["scheduler"] == {"name": "none"}
    assert not any(value for key, value in base["augment"].items() if key not in ("erase_area", "strength", "views"))
    assert augment["trainer"] == base["trainer"] | {"max_epochs": augment["trainer"]["max_epochs"]}


def test_every_experiment_of_the_study_is_in_the_table():
    from fer.config.conf import conf_folder

    files = (conf_folder() / "experiment" / "study").iterdir()
    assert {row.experiment for row in ROWS} == {f"study/{file.stem}" for file in files}


def test_the_arms_of_independent_intervals_add_by_squares():
    gain = of_sum(0.5, [Interval(0.47, 0.53), Interval(0.46, 0.54)])
    assert gain == pytest.approx((0.45, 0.55))
