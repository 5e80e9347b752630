"""A small part of the faults that ``make faults`` tries by the thousand: kills, signals, damaged inputs."""

import pytest
from faults import fuzz, kills, stops, trainings


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return trainings.whole(tmp_path_factory.mktemp("whole"))


def held(rows):
    """Return the rows after a check that each try held."""
    rows = list(rows)
    assert [failure for row in rows for failure in row.failures] == []
    return rows


def test_damaged_inputs_are_refused_in_one_line(tmp_path, trained_once):
    rows = held(fuzz.fuzzed(tmp_path, trained_once, 4, seed=7))
    assert [row.tried for row in rows] == [4] * 10
    assert all(row.facts["refused"] > 0 for row in rows)


@pytest.mark.slow
def test_more_damaged_inputs_are_refused_in_one_line(tmp_path, trained_once):
    held(fuzz.fuzzed(tmp_path, trained_once, 40, seed=8))


@pytest.mark.slow
def test_no_kill_loses_a_checkpoint(tmp_path, whole):
    rows = held(kills.kills(tmp_path, whole, 4, seed=7))
    assert [row.tried for row in rows] == [2, 2]
    assert held(kills.two_processes(tmp_path, whole, 1, seed=7))[0].tried == 1


@pytest.mark.slow
def test_a_signal_in_any_phase_loses_nothing(tmp_path, whole):
    rows = held(stops.stops(tmp_path, whole, 6, seed=7))
    assert [row.tried for row in rows] == [1] * 6


def test_the_harness_notices_a_reader_that_raises(tmp_path, trained_once, monkeypatch):
    read = fuzz.exclude.read

    def reads(file):
        if file.parent.name != "sound":
            raise ZeroDivisionError("in the reader")
        return read(file)

    monkeypatch.setattr(fuzz.exclude, "read", reads)
    monkeypatch.setattr(fuzz, "PHASES", fuzz.PHASES[:1])  # shrinking takes hundreds of tries
    (row,) = fuzz.fuzzed(tmp_path, trained_once, 3, names=("audit.csv",))
    assert row.held < row.tried
    assert "ZeroDivisionError: in the reader" in row.failures[0]
