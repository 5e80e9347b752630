"""Trainings and evaluations with FER+'s votes, through the commands."""

import csv
import json

import numpy as np
import pytest
from conftest import SMALL, metrics
from test_train import write_csv

import fer
from fer.data.labels import FERPLUS_COLUMNS, FERPLUS_EMOTIONS

COLUMN_OF = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
USAGES = ["Training"] * 112 + ["PublicTest"] * 14 + ["PrivateTest"] * 14


@pytest.fixture
def voted(tmp_path):
    """A table with votes, see ``write_votes``; its labels."""
    return write_votes(tmp_path)


def write_votes(tmp_path):
    """Write a table, and votes: mostly the labels', every tenth face contempt's, every twentieth no face."""
    _, targets = write_csv(tmp_path / "fer2013.csv")
    lines = ["Usage,Image name," + ",".join(FERPLUS_COLUMNS)]
    for row, target in enumerate(targets):
        votes = dict.fromkeys(FERPLUS_COLUMNS, 0)
        name = FERPLUS_EMOTIONS[target]
        votes[COLUMN_OF.get(name, name)] = 7
        votes["neutral"] += 3
        if row % 10 == 1:
            votes = votes | dict.fromkeys(FERPLUS_COLUMNS, 0) | {"contempt": 10}
        if row % 20 == 3:
            votes = dict.fromkeys(FERPLUS_COLUMNS, 0) | {"NF": 10}
        lines.append(f"{USAGES[row]},fer{row:07}.png," + ",".join(str(votes[name]) for name in FERPLUS_COLUMNS))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    return targets


VOTED = (*SMALL[2:], "data.path=fer2013.csv", "data.votes=votes.csv", "data.labels=ferplus", "hydra.run.dir=run")


@pytest.mark.parametrize("loss", ["soft_cross_entropy", "label_drawing"])
def test_soft_targets_of_eight_classes_go_all_the_way(train, scores, voted, tmp_path, loss):
    ended = train(*VOTED, "data.ferplus_rule=soft", "data.classes=8", f"loss={loss}")
    assert ended.code == 0, ended.err
    assert "7 of 140 faces left out" in ended.out
    results = metrics(tmp_path / "run")
    assert results["dataset"]["labels"] == "ferplus soft, 8 classes"
    assert list(results["per_class"]) == list(FERPLUS_EMOTIONS)
    assert results["dataset"]["counts"]["train"]["contempt"] == 12
    assert results["soft"]["cross_entropy"] > results["soft"]["entropy"] > 0
    with open(tmp_path / "run" / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [name for name in rows[0] if name.startswith(("p_", "t_"))] == [
        *(f"p_{name}" for name in FERPLUS_EMOTIONS),
        *(f"t_{name}" for name in FERPLUS_EMOTIONS),
    ]
    assert sum(float(rows[0][f"t_{name}"]) for name in FERPLUS_EMOTIONS) == pytest.approx(1)
    assert fer.load(tmp_path / "run").num_classes == 8
    assert scores("run", "--split", "test").code == 0
    assert len(metrics(tmp_path / "run" / "evaluations" / "test")["confusion"]) == 8


def test_a_run_with_soft_targets_resumes_to_the_bit(train, voted, tmp_path):
    """Labels are drawn from the step's own noise."""
    whole = [*VOTED[:-1], "data.ferplus_rule=soft", "loss=label_drawing", "trainer.threads=1"]
    for name in ("one", "two"):
        assert train(*whole, f"hydra.run.dir={name}").code == 0
    first, second = ((tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "two"))
    assert first == second


@pytest.mark.slow
def test_a_network_is_compared_with_the_annotators(train, evaluate, voted, tmp_path):
    assert train(*SMALL[2:], "data.path=fer2013.csv", "hydra.run.dir=plain").code == 0
    ended = evaluate("plain", "--votes", "votes.csv")
    assert ended.code == 0, ended.err
    assert "these are not the data" not in ended.err + ended.out  # votes change no label
    assert "annotators agree with the label" in ended.out
    results = metrics(tmp_path / "plain" / "evaluations" / "val")
    assert results["accuracy"] == metrics(tmp_path / "plain")["accuracy"]
    assert results["crowd"]["faces"] == 14
    assert results["crowd"]["annotator"]["labels"] > 0.5
    assert (
        sum(value for key, value in results["crowd"]["errors"].items() if key != "all")
        == results["crowd"]["errors"]["all"]
    )
    assert "FER+ annotators" in (tmp_path / "plain" / "evaluations" / "val" / "report.html").read_text()
    ended = evaluate(
        "plain", "--votes", "votes.csv", "--labels", "ferplus", "--ferplus-rule", "argmax", "--split", "test"
    )
    assert ended.code == 0, ended.err
    results = metrics(tmp_path / "plain" / "evaluations" / "test")
    assert results["dataset"]["labels"] == "ferplus argmax, 7 classes"
    assert results["n"] == 14 - sum(row % 10 == 1 or row % 20 == 3 for row in range(126, 140))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data.classes=8"], "labels no face as contempt; FER+ does"),
        (["data.labels=ferplus"], "has no votes; name FER+'s file with data.votes="),
        (["loss=soft_cross_entropy"], "needs soft targets; set data.labels=ferplus data.ferplus_rule=soft"),
        (["data.labels=ferplus", "data.votes=votes.csv", "loss=label_drawing"], "needs soft targets"),
        (
            ["data.labels=ferplus", "data.votes=votes.csv", "data.ferplus_rule=soft"],
            "loss=cross_entropy learns the class with the most votes alone; set loss=soft_cross_entropy",
        ),
        (["data.ferplus_rule=most"], "did you mean"),
        (["data.sampler=balance"], "did you mean 'balanced'"),
    ],
)
def test_labels_that_cannot_be_had_are_one_line(train, voted, arguments, says):
    ended = train(*SMALL[2:], "data.path=fer2013.csv", *arguments)
    assert ended.code == 1
    assert says in ended.line


def test_a_balanced_training_runs(train, tmp_path):
    assert train(*SMALL, "data.sampler=balanced", "hydra.run.dir=out").code == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["epochs"] == 3
    assert np.isfinite(metrics(tmp_path / "out")["nll"])
