"""Leakage: an evaluation opens each table once, and compares baselines with the batch size that was asked for."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fer.config.errors import FerError
from fer.evaluation import request
from fer.evaluation.leakage import not_trained_on


@pytest.fixture
def opened(monkeypatch):
    """The data settings of each table that is opened."""
    settings = []

    class Counted(request.Table):
        def __init__(self, data):
            settings.append(data)
            super().__init__(data)

    monkeypatch.setattr(request, "Table", Counted)
    return settings


def test_an_evaluation_opens_each_table_once(scores, small_run, another_run, opened):
    ended = scores(str(small_run), "--split", "test", "--against", str(another_run), "--batch-size", "32")
    assert ended.code == 0, ended.err
    assert len(opened) == len({repr(data) for data in opened})
    assert {data.batch_size for data in opened} == {32}


def test_a_choice_among_networks_opens_each_table_once(evaluate, small_run, another_run, opened):
    options = ("--choose", "--error-rate", "0.9", "--no-report", "--out", "out")
    ended = evaluate(str(small_run), str(another_run), *options)
    assert ended.code == 0, ended.err
    assert len(opened) == len({repr(data) for data in opened})


OFFICIAL = {"name": "fer2013", "split": "official", "counts": {"train": {"happy": 28_709}}}
SEVERAL = {
    "sets": [OFFICIAL, {"name": "b", "split": "holdout"}],
    "settings": {
        "path": "/gone/a", "class_names": {"1": "happy"}, "votes": "v.csv", "labels": "ferplus",
        "more": [{"path": "/gone/b", "class_names": {"2": "sad"}}],
    },
}  # fmt: skip


@pytest.mark.parametrize(("dataset", "known"), [(OFFICIAL, True), (SEVERAL, False)])
def test_faces_are_known_by_content_where_all_training_faces_were_fer2013s(dataset, known):
    """Those of another data set that is gone may be among the scored ones."""

    class Gone(SimpleNamespace):
        def trained_on(self, image_size):
            raise FerError("it is gone")

    images, copies = np.zeros((3, 8, 8), np.uint8), np.array([True, False, False])
    kept = not_trained_on(Gone(datasets=[dataset]), images, copies)
    assert (kept.tolist() if known else kept) == ([False, True, True] if known else None)


def test_one_of_several_data_sets_is_read_as_in_the_training(tmp_path):
    member = request.Member(Path("x"), SimpleNamespace(provenance=SimpleNamespace(dataset=SEVERAL)))
    first = request.rule_of_set(member, "/gone/a")
    assert (first["class_names"], first["votes"], first["labels"]) == ({"1": "happy"}, "v.csv", "ferplus")
    moved = {"split": "holdout", "class_names": {"2": "sad"}}
    assert request.rule_of_set(member, "/gone/b") == request.rule_of_set(member, str(tmp_path / "b")) == moved
    assert request.rule_of_set(member, "/gone/c") == {}
