"""The networks among which a campaign chooses teachers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fer.campaign.earlier import Candidate
from fer.campaign.record import Ensemble, Member, Network, Record, Request
from fer.campaign.selection import Context, Selection
from fer.config.errors import FerError
from fer.config.settings import DataSettings
from fer.data.datamodule import FERDataModule
from fer.data.labels import EMOTIONS, SPLITS
from fer.metrics.results import SelectionRecord
from fer.runs import predictions


class Written:
    """Evaluations whose networks are right with the probabilities ``right``; those without one fail."""

    def __init__(self, data, right):
        val = data.splits == SPLITS.index("val")
        self.rows, self.images = data.faces.rows[val], data.faces.images[val]
        self.targets = data.faces.targets[val].astype(np.int64)
        self.classes, self.right, self.ran = list(data.faces.classes), right, []

    def run(self, evaluations, seconds, ended):
        failed = {}
        for one in evaluations:
            self.ran.append(one)
            if one.name not in self.right:
                failed[one] = "no time was left for it"
                continue
            one.folder.mkdir(parents=True)
            known = np.random.default_rng(len(one.name)).random(len(self.targets)) < self.right[one.name]
            chances = np.full((len(known), 7), 0.05, np.float32)
            chances[np.arange(len(known)), np.where(known, self.targets, (self.targets + 1) % 7)] = 0.7
            scored = predictions.Scored(self.images, self.targets, chances, self.rows, self.classes)
            predictions.write(one.folder / "predictions.csv", "val", scored)
            (one.folder / "metrics.json").write_text(json.dumps({"seen_in_training": 0}))
        return failed


@pytest.fixture
def choose(tmp_path):
    data = FERDataModule(DataSettings(path="synthetic", synthetic_count=700, image_size=24))
    data.setup("fit")

    def choose(right, first="tiny"):
        record = Record(Request(1.0, "synthetic", "official"), "fer best", "2026-01-01T00:00:00+00:00")
        record.first_teacher = first
        record.networks = [
            Network(name, "member", [], 1, 0.0, 1.0, state="done", epochs_done=1) for name in ("mixup", "cutmix")
        ]
        for network in record.networks:
            (tmp_path / network.name / "checkpoints").mkdir(parents=True, exist_ok=True)
        context = Context(record, tmp_path, data, SimpleNamespace(report=print), lambda: 60.0)
        evaluations = Written(data, right)
        return Selection(context, evaluations).teachers(60.0, 3), record, evaluations

    return choose


@pytest.mark.parametrize(("channels", "able"), [(1, True), (3, False)])
def test_an_earlier_network_of_other_channels_does_not_teach(channels, able, tmp_path):
    record = Record(Request(1.0, "synthetic"), "fer best", "")
    data = SimpleNamespace(faces=SimpleNamespace(classes=EMOTIONS), data=SimpleNamespace(channels=channels))
    selection = Selection(Context(record, tmp_path, data, None, None), None)
    selection.before = [Candidate("tiny@earlier", Path("tiny"), None, None)]
    assert bool(selection._able(selection.before)) == able
    assert bool(record.notes) != able
    if not able:
        assert "tiny@earlier: does not teach: takes 1 channels" in record.notes[0]


@pytest.mark.parametrize("now", [None, "refused"])
def test_an_ensemble_that_is_no_longer_chosen_leaves_the_record(now, tmp_path, monkeypatch):
    record = Record(Request(1.0, "synthetic"), "fer best", "")
    report = SelectionRecord(given=2, left_out=(), steps=(), best_alone_val=0.5, all_equal_val=0.6)
    record.ensemble = Ensemble((Member("mixup", 0.5, 1.0), Member("cutmix", 0.5, 1.0)), 1.0, report)
    left = tmp_path / "ensemble" / "evaluations" / "test_ten_crop" / "metrics.json"
    left.parent.mkdir(parents=True)
    left.touch()

    def choose(self, with_test):
        if now == "refused":
            raise FerError("predictions are damaged")

    monkeypatch.setattr(Selection, "_choose_ensemble", choose)
    Selection(Context(record, tmp_path, None, None, None), None).ensemble(with_test=True)
    assert record.ensemble is None
    assert not left.exists()


def test_the_network_that_taught_the_members_may_teach_the_students_too(choose, tmp_path):
    teachers, record, evaluations = choose({"mixup": 0.3, "cutmix": 0.5, "tiny": 0.9})
    assert teachers[0] == "tiny"
    (own,) = [one for one in evaluations.ran if one.name == "tiny"]
    assert (str(own.network), own.data, own.rule) == ("tiny", "synthetic", "official")
    assert own.folder.is_relative_to(tmp_path)  # the package's network has no folder to write to
    assert not record.notes


def test_a_better_member_teaches_before_it(choose):
    assert choose({"mixup": 0.9, "cutmix": 0.5, "tiny": 0.3})[0][0] == "mixup"


def test_without_its_evaluation_the_members_teach(choose):
    teachers, record, _ = choose({"mixup": 0.6, "cutmix": 0.9})
    assert teachers[0] == "cutmix"
    assert "tiny" not in teachers
    assert any("tiny was not evaluated on val" in note for note in record.notes)


def test_members_that_nothing_taught_are_chosen_among_alone(choose):
    _, _, evaluations = choose({"mixup": 0.6, "cutmix": 0.9}, first="")
    assert {one.name for one in evaluations.ran} == {"mixup", "cutmix"}
