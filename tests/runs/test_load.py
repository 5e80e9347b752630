"""From run folders to tables: what is read, what is passed over and reported, what the files hold."""

import csv
import json
import shutil

import numpy as np
import pytest
from conftest import SMALL

from fer.config.errors import FerError
from fer.reports.compare import leaderboard
from fer.runs import load
from fer.runs.ranking import rankings
from fer.train import main

SETTINGS = {
    "a0": ("seed=0",),
    "a1": ("seed=1",),
    "b0": ("seed=0", "model.hidden=[8]", "scheduler=none"),
    "c0": ("seed=0", "data.split=holdout"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of one configuration, another configuration, and a run of another split."""
    folder = tmp_path_factory.mktemp("trained")
    for name, settings in SETTINGS.items():
        assert main([*SMALL, "data.cache=null", *settings, f"hydra.run.dir={folder / name}"]) == 0
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(trained, tmp_path / "runs", ignore=shutil.ignore_patterns("checkpoints"))


def edited(file, **figures):
    """Change figures in a ``metrics.json``."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **figures}))


EXCLUDED = {"fingerprint": "x", "excluded": {"file": 7, "rows_sha256": 7}}


def printed(*folders):
    """What the terminal would print about runs."""
    gathered = load.gather(folders)
    return leaderboard.text(rankings(gathered.runs), gathered, ())


def read(folder):
    with open(folder / "leaderboard.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_is_read_as_it_was_written(trained):
    run = load.load(trained / "b0")
    recorded = json.loads((trained / "b0" / "metrics.json").read_text())
    assert (run.seed, run.metrics.accuracy) == (0, recorded["accuracy"])
    assert run.correct.mean() == pytest.approx(recorded["accuracy"])
    assert run.choices["scheduler"] == "none"
    assert {"model", "model.hidden", "scheduler", "seed"} <= run.overridden
    assert run.settings["model.hidden"] == [8]
    assert run.settings["augment.rotate_degrees"] == 0  # 0.0 and 0 are one
    assert not {"seed", "data.path", "data.split", "data.cache", "trainer.threads", "logger.report"} & set(run.settings)
    assert "data.batch_size" in run.settings
    assert len(run.history) == 3
    assert run.setting.fingerprint == recorded["dataset"]["fingerprint"]


def test_an_older_run_that_does_not_know_a_key_did_what_is_the_default(runs):
    file = runs / "a1" / ".hydra" / "config.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("early_stopping", "lr_finder"))]
    file.write_text("\n".join(lines))
    loaded = load.gather([runs / "a0", runs / "a1"]).runs
    assert loaded[0].configuration == loaded[1].configuration


def test_a_leaderboard_is_published(runs, tmp_path):
    published = leaderboard.publish([runs], tmp_path / "out")
    assert published.page == tmp_path / "out" / "compare.html"
    assert "2 configurations, 3 runs, 1 pair tested" in published.text
    assert "split holdout" in published.text
    assert "different split: official; holdout, drawn with seed 0" in published.text
    rows = read(tmp_path / "out")
    assert [(row["ranking"], row["counts"]) for row in rows] == [("1", "1")] * 3 + [("2", "1")]
    assert {row["run"] for row in rows} == {f"../runs/{name}" for name in SETTINGS}
    for row in rows:
        recorded = json.loads((tmp_path / "out" / row["run"] / "metrics.json").read_text())
        assert float(row["accuracy"]) == recorded["accuracy"]  # to the last digit
        assert [float(row["accuracy_low"]), float(row["accuracy_high"])] == pytest.approx(recorded["accuracy_ci95"])
        assert int(row["seed"]) == recorded["seed"]
    by_run = {row["run"][-2:]: row for row in rows}
    assert (by_run["a0"]["model.hidden"], by_run["b0"]["model.hidden"]) == ("[16]", "[8]")
    assert (by_run["a0"]["scheduler"], by_run["b0"]["scheduler"]) == ("cosine", "none")
    assert not {"seed_1", "model.dropout", "optimizer.lr"} & set(rows[0])  # what does not differ is left out
    markdown = (tmp_path / "out" / "leaderboard.md").read_text()
    assert markdown.count("| # |") == 2
    assert "## Not ranked together" in markdown


def test_mean_and_spread_are_those_of_the_seeds(runs):
    values = [json.loads((runs / name / "metrics.json").read_text())["accuracy"] for name in ("a0", "a1")]
    assert f" {100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f} " in printed(runs / "a0", runs / "a1")


def test_a_seed_run_twice_counts_once_and_is_reported(runs, tmp_path):
    shutil.copytree(runs / "a0", runs / "a0-again")
    edited(runs / "a0-again" / "metrics.json", finished="2999-01-01T00:00:00+00:00")
    shutil.rmtree(runs / "c0")
    published = leaderboard.publish([runs], tmp_path / "out")
    assert f"Repeated later with the same seed, not counted: 1\n  {runs / 'a0'}" in published.text
    marks = {row["run"]: row["counts"] for row in read(tmp_path / "out")}
    assert (marks["../runs/a0"], marks["../runs/a0-again"]) == ("0", "1")
    assert "3 runs" in published.text
    assert "repeated later: does not count" in published.page.read_text()


def test_a_run_named_twice_is_one_run(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    loaded = load.gather([runs, runs / "a0", runs.relative_to(runs.parent) / "a0"])
    assert len(loaded.runs) == 4


def cut(file, lines):
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run / "metrics.json").write_text('{"schema": 1,'), "metrics.json: cannot be read"),
        (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json: cannot be read"),
        (
            lambda run: edited(run / "metrics.json", accuracy=float("nan")),
            "metrics.json: cannot be read (NaN is no finite",
        ),
        (
            lambda run: edited(run / "metrics.json", best_epoch="first"),
            "metrics.json: cannot be read (must be real number",
        ),
        (
            lambda run: edited(run / "metrics.json", train_seconds=None),
            "metrics.json: cannot be read (must be real number",
        ),
        (lambda run: edited(run / "metrics.json", hardware="fast"), "cannot be read (hardware is no mapping)"),
        (lambda run: (run / "metrics.json").write_text("[" * 100_000), "metrics.json: cannot be read"),
        (lambda run: edited(run / "metrics.json", dataset={}), "metrics.json: cannot be read (no 'fingerprint')"),
        (
            lambda run: edited(run / "metrics.json", split="test"),
            "metrics.json: has metrics of test; only metrics of val",
        ),
        (lambda run: edited(run / "metrics.json", accuracy=1e308), "metrics.json: cannot be read (accuracy is 1e+308"),
        (
            lambda run: edited(run / "metrics.json", dataset=EXCLUDED),
            "metrics.json: cannot be read",
        ),
        (lambda run: edited(run / "metrics.json", accuracy=0.0), "faces right, but metrics.json has 0 of 14"),
        (lambda run: cut(run / "predictions.csv", 9), "of 8 faces right"),
        (lambda run: (run / "predictions.csv").unlink(), "predictions.csv: cannot be read (No such file or directory)"),
        (lambda run: (run / "predictions.csv").write_bytes(b"\xff\xfe\x00"), "predictions.csv: cannot be read"),
        (lambda run: cut(run / "history.csv", 1), "history.csv: has no epoch"),
        (lambda run: (run / "history.csv").write_text("epoch\n1\n"), "history.csv: cannot be read (no 'accuracy/val')"),
        (lambda run: (run / ".hydra" / "config.yaml").write_text("a: [1"), ".hydra/config.yaml: cannot be read"),
        (
            lambda run: (run / ".hydra" / "config.yaml").write_text("loss: {1e999: null}"),
            ".hydra/config.yaml: cannot be read (the key inf is no text)",
        ),
        (lambda run: (run / ".hydra" / "hydra.yaml").write_text("{}"), ".hydra/hydra.yaml: cannot be read (no choices"),
        (lambda run: (run / ".hydra" / "overrides.yaml").unlink(), ".hydra/overrides.yaml: cannot be read"),
        (lambda run: (run / "metrics.json").unlink(), "not finished (no metrics.json)"),
    ],
)
def test_a_damaged_run_is_left_out_and_reported(runs, damage, reason):
    damage(runs / "b0")
    text = printed(runs)
    assert "Left out: 1\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {runs / 'b0'}: ")]
    assert reason in line
    assert "1 configuration, 2 runs" in text


def test_a_learning_rate_finder_is_no_run(runs):
    (runs / "b0" / "metrics.json").rename(runs / "b0" / "lr_finder.json")
    assert load.gather([runs]).skipped == {runs / "b0": "a learning-rate finder, which trains nothing"}


def test_nothing_that_can_be_read_is_an_error(runs):
    for name in SETTINGS:
        (runs / name / "history.csv").unlink()
    with pytest.raises(FerError, match=r"^none of 4 runs can be read; the first: history\.csv: cannot be read"):
        load.gather([runs])


def test_evaluations_are_never_opened(runs, tmp_path):
    folder = runs / "a0" / "evaluations" / "test"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"split": "test", "accuracy": 0.98765}')
    (folder / "predictions.csv").write_text("not to be read")
    published = leaderboard.publish([runs], tmp_path / "out")
    assert "Left out" not in published.text
    for file in (published.page, published.table, published.markdown):
        assert "98.7" not in file.read_text()
        assert "0.98765" not in file.read_text()


@pytest.mark.parametrize(
    "results", [{"split": "test", "accuracy": 0.5}, {"split": "test", "n": 3, "accuracy": 0.5, "accuracy_ci95": 7}]
)
def test_a_damaged_evaluation_on_test_is_named(runs, results):
    folder = runs / "a0" / "evaluations" / "test"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(results))
    with pytest.raises(FerError, match=r"evaluations/test/metrics\.json: cannot be read"):
        load.evaluations_on_test(runs / "a0")


def test_a_damaged_record_of_looks_is_named(runs):
    (runs / "a0" / "test_opened.json").write_text('[{"accuracy": null}]')
    with pytest.raises(FerError, match=r"test_opened\.json: cannot be read"):
        load.evaluations_on_test(runs / "a0")


def test_a_second_leaderboard_takes_the_place_of_the_first(runs, tmp_path):
    leaderboard.publish([runs], tmp_path / "out")
    leaderboard.publish([runs / "c0"], tmp_path / "out")
    assert [row["run"] for row in read(tmp_path / "out")] == ["../runs/c0"]


def test_the_terminals_table_fits(runs):
    for number in range(30):
        name = f"b{number + 1}"
        shutil.copytree(runs / "b0", runs / name)
        file = runs / name / ".hydra" / "config.yaml"
        text = file.read_text().replace("label_smoothing: 0.1", f"label_smoothing: 0.{number + 11}")
        file.write_text(text.replace("weight_decay: 0.05", f"weight_decay: 0.0{number + 1}"))
    text = printed(runs)
    assert max(map(len, text.splitlines())) <= leaderboard.WIDE
    assert "model" not in text.splitlines()[1]  # it does not differ
    assert "32 configurations, 33 runs, 496 pairs tested" in text


def test_times_of_different_machines_are_warned_of(runs):
    hardware = json.loads((runs / "a1" / "metrics.json").read_text())["hardware"]
    assert "machines" not in printed(runs)
    edited(runs / "a1" / "metrics.json", hardware={**hardware, "gpu": "NVIDIA H200"})
    assert "Times of different machines are not comparable" in printed(runs)
