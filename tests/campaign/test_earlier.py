"""Networks of earlier campaigns, runs and results that may join an ensemble."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fer.campaign import earlier, ensemble, results
from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.labels import EMOTIONS
from fer.metrics.statistics import wilson
from fer.runs import predictions


def evaluated(folder, split, seed=0):
    """Make the files of an evaluation with ten crops of twenty faces."""
    folder = folder / "evaluations" / f"{split}_ten_crop"
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(seed)
    chances = drawn.dirichlet(np.ones(7), 20).astype(np.float32)
    scored = predictions.Scored(
        np.zeros((20, 4, 4), np.uint8), drawn.integers(0, 7, 20), chances, np.arange(20), list(EMOTIONS)
    )
    predictions.write(folder / "predictions.csv", split, scored)
    about = {"dataset": {"fingerprint": "abc", "path": "/home/somebody/faces.csv"}, "tta": "ten_crop", "split": split}
    (folder / "metrics.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    for split in ("val", "test"):
        evaluated(folder, split)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "history.csv").write_text("epoch\n1\n")
    return folder


def test_a_run_brings_its_weights_and_predictions(run):
    (found,), notes = earlier.candidates_of([run])
    assert found.name == f"run@{run.parent.name}"  # no network of a campaign has such a name
    assert found.teaches
    assert found.val == run / "evaluations" / "val_ten_crop" / "predictions.csv"
    assert not notes


def test_results_are_written_small_and_bring_predictions_alone(run, tmp_path):
    written = results.write("net", run, run / "evaluations", tmp_path / "results")
    names = {file.name for file in written.iterdir()}
    assert names == {
        "history.csv",
        "test_ten_crop.csv.gz",
        "test_ten_crop.json",
        "val_ten_crop.csv.gz",
        "val_ten_crop.json",
    }
    text = gzip.decompress((written / "val_ten_crop.csv.gz").read_bytes())
    assert text == (run / "evaluations" / "val_ten_crop" / "predictions.csv").read_bytes()
    assert "somebody" not in (written / "val_ten_crop.json").read_text()
    first = (written / "val_ten_crop.csv.gz").read_bytes()
    results.write("net", run, run / "evaluations", tmp_path / "results")
    assert (written / "val_ten_crop.csv.gz").read_bytes() == first
    (found,), _ = earlier.candidates_of([tmp_path / "results" / "net"])
    assert not found.teaches
    assert found.test == written / "test_ten_crop.csv.gz"
    several, _ = earlier.candidates_of([tmp_path / "results", run])
    assert [one.name.partition("@")[0] for one in several] == ["net", "run"]


def test_a_network_that_is_named_twice_is_taken_once(run, tmp_path):
    (tmp_path / "link").symlink_to(run.parent)
    (found,), (note,) = earlier.candidates_of([run, tmp_path / "link" / "run"])
    assert found.network == run
    assert f"run@link of {tmp_path}" in note
    assert "twice" in note


def test_two_of_one_name_are_kept_apart(run, tmp_path):
    for parent in ("one/same", "two/same"):
        shutil.copytree(run, tmp_path / parent / "run")
    several, _ = earlier.candidates_of([tmp_path / parent / "run" for parent in ("one/same", "two/same")])
    assert [one.name for one in several] == ["run@same", "run@same_2"]


def test_what_has_no_predictions_of_val_is_noted(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "val.csv.gz").touch()
    found, (note,) = earlier.candidates_of([tmp_path / "old"])
    assert not found
    assert "old" in note
    assert "val with ten crops" in note


def test_a_folder_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(FerError, match="--with .*missing: no such folder"):
        earlier.candidates_of([tmp_path / "missing"])
    with pytest.raises(FerError, match="--with .*: holds no network"):
        earlier.candidates_of([tmp_path])


def stated(folder, split, seen):
    file = folder / "evaluations" / f"{split}_ten_crop" / "metrics.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seen_in_training": seen}))


def scored(folder, data, split, labels=None):
    """Make an evaluation with ten crops of a split of a data set."""
    folder = folder / "evaluations" / f"{split}_ten_crop"
    folder.mkdir(parents=True)
    index = data.indices(split)
    targets = data.faces.targets[index].astype(np.int64) if labels is None else labels
    chances = np.full((len(index), 7), 1 / 7, np.float32)
    faces = predictions.Scored(
        data.faces.images[index], targets, chances, data.faces.rows[index], list(data.faces.classes)
    )
    predictions.write(folder / "predictions.csv", split, faces)
    (folder / "metrics.json").write_text(json.dumps({"seen_in_training": 0}))


def test_networks_of_other_faces_labels_or_trainings_are_left_out(tmp_path):
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=140, image_size=24, cache=None))
    data.setup("fit")
    scored(tmp_path / "run", data, "val")
    scored(tmp_path / "run", data, "test")
    (found,), _ = earlier.candidates_of([tmp_path / "run"])
    assert ensemble.mismatch(found, data) == ""
    stated(tmp_path / "run", "test", 5)
    assert "trained on 5 of the test faces" in ensemble.mismatch(found, data)
    stated(tmp_path / "run", "test", None)
    assert "does not state" in ensemble.mismatch(found, data)
    stated(tmp_path / "run", "test", 0)
    labels = np.zeros(len(data.indices("val")), np.int64)
    scored(tmp_path / "labels", data, "val", labels)
    (found,), _ = earlier.candidates_of([tmp_path / "labels"])
    assert "other faces or labels than val" in ensemble.mismatch(found, data)
    evaluated(tmp_path / "rows", "val")
    (found,), _ = earlier.candidates_of([tmp_path / "rows"])
    assert "other faces or labels than val" in ensemble.mismatch(found, data)


def test_an_ensemble_on_faces_of_people_has_intervals_for_other_people(tmp_path):
    """The predictions of its networks name no people; the data do."""
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=700, image_size=24, split="holdout"))
    people = np.arange(700, dtype=np.int32) % 100
    data.__dict__["faces"] = replace(data.faces, group=people)
    data.setup("fit")
    val, rows = data.split("val"), data.faces.rows[data.indices("val")]
    candidates = []
    for name, seed in (("one", 0), ("two", 1)):
        right = np.random.default_rng(seed).random(len(val)) < 0.5 + 0.4 * (val.groups % 2)
        chances = np.full((len(val), 7), 0.05, np.float32)
        chances[np.arange(len(val)), np.where(right, val.targets, (val.targets + 1) % 7)] = 0.7
        file = tmp_path / name / "predictions.csv"
        file.parent.mkdir()
        scored = predictions.Scored(val.grey, val.targets, chances, rows, list(EMOTIONS))
        predictions.write(file, "val", scored)
        candidates.append(earlier.Candidate(name, None, file, None))
    kept, choice = ensemble.chosen(candidates)
    folder = ensemble.write(kept, choice, "val", data, tmp_path / "ensemble", "fer best")
    results = json.loads((folder / "metrics.json").read_text())
    assert results["groups"] == 20
    low, high = results["accuracy_ci95"]
    assert high - low > np.subtract(*wilson(round(results["accuracy"] * results["n"]), results["n"])[::-1])
