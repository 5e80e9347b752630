"""The types of ``metrics.json``: what is read is written again, key by key."""

import json
from pathlib import Path

import pytest

from fer.config.errors import FerError
from fer.metrics import results

ROOT = Path(__file__).parents[2]
RECORDED = sorted([*(ROOT / "docs" / "results").rglob("*.json"), *(ROOT / "tests" / "fixtures").rglob("metrics.json")])
ADDED = {"weights_sha256": None, "trained": None, "temperature": 1.0}  # of a member, where an older file lacks it


def contents(file):
    return json.loads(file.read_text(encoding="utf-8"))


def completed(member):
    """A member of an older evaluation with what it lacks. Members of a campaign's ensemble have no architecture."""
    return {**ADDED, **member} if "architecture" in member else member


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: "/".join(file.parts[-3:]))
def test_nothing_is_lost(file):
    stored = contents(file)
    if "split" not in stored:
        pytest.skip("no metrics.json")
    again = results.plain(results.of(stored))
    if "members" in stored:
        stored["members"] = [completed(member) for member in stored["members"]]
    if stored.get("sets") and "by" not in stored["sets"]:  # of before there were thresholds for each emotion
        thresholds = {**stored["sets"]["thresholds"], "by_class": []}
        stored["sets"] = {**stored["sets"], "thresholds": thresholds, "by": "all", "unpromised": []}
    assert {key: again[key] for key in stored} == stored
    assert all(again[key] in (None, "", 0, "predictions") for key in again.keys() - stored.keys())


@pytest.mark.parametrize("name", ["campaign_small/test_ten_crop", "h100_small/val_ten_crop", "h100_student_0/test"])
def test_an_evaluation_of_today_is_written_as_it_was(name):
    stored = contents(ROOT / "docs" / "results" / f"{name}.json")
    assert json.dumps(results.plain(results.of(stored))) == json.dumps(stored)


def test_a_training_of_today_is_written_as_it_was(tmp_path):
    file = ROOT / "tests" / "fixtures" / "format_1" / "run" / "metrics.json"
    results.write(tmp_path / "metrics.json", results.read(file))
    assert (tmp_path / "metrics.json").read_bytes() == file.read_bytes()


def test_values_have_types():
    stored = results.of(contents(ROOT / "tests" / "fixtures" / "format_1" / "run" / "metrics.json"))
    accuracy = stored.scores.accuracy
    assert accuracy.ci95.low < accuracy.value < accuracy.ci95.high
    assert stored.scores.per_class["happy"].recall.ci95.high <= 1
    assert stored.metrics["ece"].if_calibrated > 0
    assert stored.training.best_epoch <= stored.training.epochs
    assert (stored.evaluation, stored.comparison, stored.tta, stored.members) == (None, None, "none", ())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda record: record.pop("split"), "no 'split'"),
        (lambda record: record.update(dataset=[]), "no mapping"),
        (lambda record: record["per_class"]["happy"].pop("recall"), "no 'recall'"),
    ],
)
def test_damage_is_named_with_its_file(spoil, words, tmp_path):
    stored = contents(ROOT / "tests" / "fixtures" / "format_1" / "run" / "metrics.json")
    spoil(stored)
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(stored))
    with pytest.raises(FerError, match=words) as raised:
        results.read(file)
    assert str(file) in str(raised.value)
