"""Suspect labels: ``fer.audit --predictions`` with runs that were trained, and with predictions written by hand."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import metrics

from fer.config.settings import DataSettings
from fer.data.labels import EMOTIONS, FERPLUS_COLUMNS
from fer.data.readers.drawing import draw_faces
from fer.reports.compare import leaderboard

COUNT = 210
USAGES = ["Training"] * 150 + ["PublicTest"] * 30 + ["PrivateTest"] * 30
WRONG = {3: 5, 60: 0, 155: 3, 190: 1}  # place -> how far its label is moved on
QUICK = ("model=mlp", "model.hidden=[8]", "trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=none")


@pytest.fixture
def labels(tmp_path):
    """Write ``fer.csv`` with some labels wrong; return the true ones and those that are given."""
    images, true = draw_faces(COUNT, seed=1)
    given = true.copy()
    for row, by in WRONG.items():
        given[row] = (true[row] + 1 + by) % 7
    rows = (f"{t},{' '.join(map(str, i.ravel()))},{u}" for i, t, u in zip(images, given, USAGES, strict=True))
    (tmp_path / "fer.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    return true, given


def chances(true):
    """Return (N, 7) probabilities of a network that is sure of the truth and knows no label."""
    made = np.full((len(true), 7), 0.01)
    made[np.arange(len(true)), true] = 0.94
    return made


def finished(folder, faces, given, predicted, rows, **changes):
    """Write what a finished run leaves that predicted some rows."""
    (folder / ".hydra").mkdir(parents=True)
    recorded = {"fingerprint": faces, "split": "folds", "folds": 3, "fold": 0} | changes
    (folder / "metrics.json").write_text(json.dumps({"architecture": "oracle", "epochs": 1, "dataset": recorded}))
    with open(folder / "predictions.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "split", "target", "predicted", *(f"p_{name}" for name in EMOTIONS)])
        for row in rows:
            best = EMOTIONS[predicted[row].argmax()]
            writer.writerow([row, "val", EMOTIONS[given[row]], best, *(f"{p:.6g}" for p in predicted[row])])


@pytest.fixture
def runs(labels, tmp_path):
    """Write three runs that have predicted a third of the faces each, and return their folder."""
    from fer.data.load import read_faces

    true, given = labels
    fingerprint = read_faces(DataSettings(path="fer.csv", cache=None)).fingerprint()
    for number in range(3):
        finished(tmp_path / "runs" / str(number), fingerprint, given, chances(true), range(number, COUNT, 3))
    return tmp_path / "runs"


def facts(folder):
    return json.loads((folder / "audit.json").read_text())


def advised(folder):
    with open(folder / "audit.csv", newline="") as stream:
        next(stream)
        return [row for row in csv.DictReader(stream) if row["reason"] == "suspect label"]


def test_wrong_labels_are_found_and_what_they_may_be(audit, labels, runs, tmp_path):
    true, given = labels
    ended = audit("fer.csv", "--quick", "--predictions", "runs", "--out", "out")
    assert ended.code == 0, ended.err
    suspects = facts(tmp_path / "out")["suspects"]
    assert (suspects["covered"], suspects["suspects"], len(suspects["runs"])) == (COUNT, len(WRONG), 3)
    assert suspects["accuracy"] == pytest.approx(1 - len(WRONG) / COUNT)
    assert suspects["by_split"] == {"train": 2, "val": 1, "test": 1}
    rows = advised(tmp_path / "out")
    assert {int(row["row"]): row["suggestion"] for row in rows} == {
        index: f"relabel:{EMOTIONS[true[index]]}" for index in WRONG
    }
    assert all(row["label"] == EMOTIONS[given[int(row["row"])]] for row in rows)
    assert all(float(row["score"]) == pytest.approx(0.01, abs=1e-4) for row in rows)
    assert f"{len(WRONG)} of {COUNT} predicted faces are suspect" in ended.out
    assert facts(tmp_path / "out")["advice"]["exclude"]["faces"] == 0  # a suspect label is not left out
    page = (tmp_path / "out" / "audit.html").read_text()
    for index in WRONG:
        assert f"{EMOTIONS[given[index]]}, or {EMOTIONS[true[index]]}?" in page


def test_the_least_likely_comes_first(audit, labels, runs, tmp_path):
    true, given = labels
    predicted = chances(true)
    predicted[190, given[190]] = 0.001
    predicted[190] /= predicted[190].sum()
    shutil.rmtree(runs / "1")
    finished(runs / "1", metrics(runs / "0")["dataset"]["fingerprint"], given, predicted, range(1, COUNT, 3))
    assert audit("fer.csv", "--quick", "--predictions", "runs", "--out", "out").code == 0
    page = (tmp_path / "out" / "audit.html").read_text()
    assert page.partition('id="suspects"')[2].partition("row ")[2].startswith("190")


def test_what_is_not_predicted_is_reported_and_not_suspect(audit, runs, tmp_path):
    ended = audit("fer.csv", "--quick", "--predictions", "runs/0", "--predictions", "runs/2", "--out", "out")
    assert ended.code == 0, ended.err
    suspects = facts(tmp_path / "out")["suspects"]
    assert (suspects["covered"], suspects["suspects"]) == (140, len([row for row in WRONG if row % 3 != 1]))
    assert "of 140 predicted faces are suspect (210 faces in all); 2 runs" in ended.out


def test_votes_that_side_with_the_label_make_it_a_face_to_look_at(audit, labels, runs, tmp_path):
    true, given = labels
    columns = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    lines = ["Usage,Image name," + ",".join(FERPLUS_COLUMNS)]
    for index, usage in enumerate(USAGES):
        answer = columns[given[index] if index == 60 else true[index]]
        lines.append(f"{usage},x.png," + ",".join("9" if name == answer else "0" for name in FERPLUS_COLUMNS))
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    ended = audit("fer.csv", "--quick", "--votes", "votes.csv", "--predictions", "runs", "--out", "out")
    assert ended.code == 0, ended.err
    votes = facts(tmp_path / "out")["suspects"]["votes"]
    assert votes["suspects"] == {"faces": 4, "as_given": 1, "as_predicted": 3, "neither": 0}
    assert votes["others"] == {"faces": COUNT - 4, "as_given": COUNT - 4, "as_predicted": COUNT - 4, "neither": 0}
    suggestions = {int(row["row"]): row["suggestion"] for row in advised(tmp_path / "out")}
    assert suggestions[60] == "look"
    assert sum(text.startswith("relabel:") for text in suggestions.values()) == 3
    assert "FER+ agrees with the label of 25.0 % of the suspects, with the network on 75.0 %" in ended.out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda runs: shutil.copytree(runs / "0", runs / "again"), "is predicted by runs/0 and by runs/again"),
        (lambda runs: (runs / "1" / "predictions.csv").unlink(), "runs/1/predictions.csv: cannot be read"),
        (lambda runs: change(runs / "1" / "metrics.json", '"fingerprint": "', '"fingerprint": "0'), "is of other data"),
        (lambda runs: change(runs / "1" / "predictions.csv", "p_sad", "p_blue"), "predictions.csv: cannot be read"),
        (lambda runs: change(runs / "1" / "predictions.csv", "0.94", "nan"), "its values are no probabilities"),
        (lambda runs: relabelled(runs / "1" / "predictions.csv"), "which is not its label here"),
        (lambda runs: [emptied(runs / str(n) / "predictions.csv") for n in range(3)], "no faces of two labels"),
        (lambda runs: shutil.rmtree(runs), "runs: no such folder"),
        (lambda runs: [(runs / str(n) / "metrics.json").unlink() for n in range(3)], "no finished run in it"),
    ],
)
def test_predictions_that_cannot_serve_are_refused_in_a_line(audit, runs, tmp_path, spoil, says):
    spoil(runs)
    ended = audit("fer.csv", "--quick", "--predictions", "runs")
    assert ended.code == 1
    assert says in ended.line
    assert not (tmp_path / "outputs").exists()


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def emptied(file):
    file.write_text(file.read_text().splitlines()[0] + "\n")


def test_what_cleanlab_warns_of_is_said_in_a_line(audit, labels, runs, tmp_path):
    _, given = labels
    fingerprint = metrics(runs / "0")["dataset"]["fingerprint"]
    finished(
        tmp_path / "few",
        fingerprint,
        given,
        chances(given),
        [*np.flatnonzero(given == 3)[:4], *np.flatnonzero(given == 4)[:1]],
    )
    ended = audit("fer.csv", "--quick", "--predictions", "few", "--out", "out")
    assert ended.code == 0, ended.err
    assert "cleanlab warns" in ended.out + ended.err
    assert "Warning" not in ended.err
    assert facts(tmp_path / "out")["suspects"]["covered"] == 5


def relabelled(file):
    lines = file.read_text().splitlines()
    row, split, target, rest = lines[1].split(",", 3)
    lines[1] = ",".join([row, split, "sad" if target != "sad" else "happy", rest])
    file.write_text("\n".join(lines) + "\n")


def test_without_cleanlab_it_says_how_to_get_it(audit, runs, monkeypatch):
    monkeypatch.setattr("fer.evaluation.label_errors.importlib.util.find_spec", lambda name: None)
    ended = audit("fer.csv", "--quick", "--predictions", "runs")
    assert ended.code == 1
    assert "pip install 'fer-lightning[labels]'" in ended.line


@pytest.mark.slow
def test_folds_that_were_trained_serve_and_are_not_ranked_together(audit, train, labels, tmp_path):
    for fold in range(2):
        settings = ("data.path=fer.csv", "data.split=folds", "data.folds=2", f"data.fold={fold}")
        ended = train(*settings, *QUICK, f"hydra.run.dir=runs/{fold}")
        assert ended.code == 0, ended.err
        recorded = metrics(tmp_path / "runs" / str(fold))
        assert (recorded["dataset"]["folds"], recorded["dataset"]["fold"]) == (2, fold)
        assert abs(recorded["n"] - COUNT / 2) <= 3
        assert "test" not in recorded["dataset"]["counts"]
    ended = audit("fer.csv", "--predictions", "runs", "--quick", "--out", "audit")
    assert ended.code == 0, ended.err
    suspects = facts(tmp_path / "audit")["suspects"]
    assert suspects["covered"] == COUNT
    assert suspects["settings"] == "mlp, 2 epochs, split folds"
    scored = [metrics(tmp_path / "runs" / str(fold)) for fold in range(2)]
    assert suspects["accuracy"] == pytest.approx(
        sum(recorded["accuracy"] * recorded["n"] for recorded in scored) / COUNT
    )
    text = leaderboard.publish([tmp_path / "runs"], tmp_path / "out").text
    assert f"split folds, fold 0 of 2, {scored[0]['n']} faces of val: 1 configuration, 1 run" in text
    assert "not ranked together" in text


@pytest.mark.slow
def test_a_sweep_over_the_folds_finds_wrong_labels(tmp_path):
    """A small network, three times without the faces that it predicts; most planted labels are among the suspects."""
    images, true = draw_faces(1400, seed=2)
    wrong = np.random.default_rng(0).permutation(1400)[:70]
    given = true.copy()
    given[wrong] = (true[wrong] + 3) % 7
    rows = (f"{t},{' '.join(map(str, i.ravel()))},Training" for i, t in zip(images, given, strict=True))
    (tmp_path / "fer.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    network = ("model=resnet9", "model.width=8", "model.stride=2", "optimizer=muon", "scheduler=onecycle")
    settings = ("data.path=fer.csv", "data.batch_size=32", "augment=none", "trainer.max_epochs=8", *network)
    where = (
        "trainer.threads=1",
        "trainer.accelerator=cpu",
        "logger=none",
        "hydra.sweep.dir=folds",
        "data.image_size=24",
    )
    folds = ("data.folds=3", "data.fold=0,1,2")
    line = [sys.executable, "-m", "fer.train", "-m", "sweep=folds", *folds, *settings, *where]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    line = [
        sys.executable,
        "-m",
        "fer.audit",
        "fer.csv",
        "--quick",
        "--predictions",
        "folds",
        "--out",
        "out",
        "--image-size",
        "24",
    ]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    suspects = {int(row["row"]) for row in advised(tmp_path / "out")}
    hits = len(suspects & set(wrong.tolist()))
    assert hits / len(wrong) > 2 * len(suspects) / 1400  # far more often than a face at random (measured: 2.9 times)
