"""Leakage: an evaluation opens each table once, and compares baselines with the batch size that was asked for."""

import pytest

from fer.evaluation import request


@pytest.fixture
def opened(monkeypatch):
    """The data settings of each table that is opened."""
    settings = []

    class Counted(request.FERDataModule):
        def __init__(self, data):
            settings.append(data)
            super().__init__(data)

    monkeypatch.setattr(request, "FERDataModule", Counted)
    return settings


def test_an_evaluation_opens_each_table_once(scores, small_run, another_run, opened):
    ended = scores(str(small_run), "--split", "test", "--against", str(another_run), "--batch-size", "32")
    assert ended.code == 0, ended.err
    assert len(opened) == len({repr(data) for data in opened})
    assert {data.batch_size for data in opened} == {32}


def test_a_choice_among_networks_opens_each_table_once(evaluate, small_run, another_run, opened):
    asked = ("--choose", "--error-rate", "0.9", "--no-report", "--out", "out")
    ended = evaluate(str(small_run), str(another_run), *asked)
    assert ended.code == 0, ended.err
    assert len(opened) == len({repr(data) for data in opened})
