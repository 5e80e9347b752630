"""``python -m fer.evaluate`` as a user meets it."""

import csv

import pytest
import torch
from conftest import SMALL, metrics
from test_train import write_csv

import fer


def test_val_again_gives_the_runs_own_figures(evaluate, small_run):
    ended = evaluate(str(small_run), "--split", "val")
    assert ended.code == 0, ended.err
    own, again = metrics(small_run), metrics(small_run / "evaluations" / "val")
    for name in ("n", "accuracy", "accuracy_ci95", "macro_f1", "nll", "ece", "confusion", "per_class"):
        assert own[name] == again[name], name
    assert (small_run / "predictions.csv").read_bytes() == (
        small_run / "evaluations" / "val" / "predictions.csv"
    ).read_bytes()


def test_test_is_scored_and_never_overwritten(evaluate, small_run):
    for folder in ("test", "test_2"):
        assert evaluate(str(small_run), "--split", "test").code == 0
        assert metrics(small_run / "evaluations" / folder)["split"] == "test"


def test_a_checkpoint_alone_is_enough(evaluate, small_run, tmp_path):
    alone = tmp_path / "alone" / "net.ckpt"
    alone.parent.mkdir()
    (small_run / "checkpoints" / "best.ckpt").rename(alone)
    assert evaluate(str(alone), "--split", "val").code == 0
    assert metrics(tmp_path / "alone" / "evaluations" / "val")["accuracy"] == metrics(small_run)["accuracy"]


def test_results_go_where_they_are_told(evaluate, small_run, tmp_path, monkeypatch):
    assert evaluate(str(small_run), "--out", str(tmp_path / "elsewhere")).code == 0
    assert metrics(tmp_path / "elsewhere" / "val")["n"] == 14
    monkeypatch.chdir(small_run / "checkpoints")
    assert evaluate("best.ckpt").code == 0
    assert (small_run / "evaluations" / "val" / "metrics.json").exists()


def test_other_data_are_told(evaluate, small_run, tmp_path):
    write_csv(tmp_path / "other.csv")
    ended = evaluate(str(small_run), "--data", "other.csv", "--split", "test")
    assert ended.code == 0, ended.err
    assert "these are not the data of the training" in ended.err + ended.out
    with open(small_run / "evaluations" / "test" / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in rows] == list(range(126, 140))
    model = fer.load(small_run)
    assert model.image_size == 24  # the 48-pixel faces were resized to what the network takes


@pytest.mark.slow
def test_batch_size_does_not_change_the_figures(evaluate, small_run):
    for size in ("1", "5", "1000"):
        assert evaluate(str(small_run), "--split", "test", "--batch-size", size).code == 0
    first, second, third = (metrics(small_run / "evaluations" / name) for name in ("test", "test_2", "test_3"))
    assert first["confusion"] == second["confusion"] == third["confusion"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such checkpoint or run folder"),
        (["{run}", "--data", "nowhere.csv"], "nowhere.csv: no such file or folder"),
        (["{run}", "--batch-size", "0"], "--batch-size=0"),
        (["{run}", "--plugins", "no_such_module"], "could not be imported"),
        (["{run}", "--rule", "holdout", "--split", "test"], "no test split under data.split=holdout"),
        (["{run}", "--device", "gpu"], "sees no GPU"),
        (["{run}", "--split", "tset"], "--split"),
        (["{run}", "--colour"], "--colour"),
    ],
)
def test_a_users_mistake_is_one_line(evaluate, small_run, monkeypatch, arguments, says):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended = evaluate(*(argument.format(run=small_run) for argument in arguments))
    assert ended.code == 1
    assert says in ended.line
    assert not (small_run / "evaluations").exists()


def test_data_that_have_gone_are_never_replaced_by_drawn_faces(train, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folder", lambda: tmp_path / "none")
    write_csv(tmp_path / "fer2013.csv")
    assert train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=out").code == 0
    (tmp_path / "fer2013.csv").unlink()
    ended = evaluate("out", "--split", "test")
    assert ended.code == 1
    assert "fer2013.csv, which is not there any more; name the data with --data" in ended.line
