"""A small part of the faults that ``make faults`` tries by the thousand: kills, signals, damaged inputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import fuzz


def checked(rows):
    """Return the rows after a check that each try held."""
    rows = list(rows)
    assert [failure for row in rows for failure in row.failures] == []
    return rows


def test_damaged_inputs_are_refused_in_one_line(tmp_path, trained_once):
    rows = checked(fuzz.fuzzed(tmp_path, trained_once, 4, seed=7))
    assert [row.tried for row in rows] == [4] * 10
    assert all(row.facts["refused"] > 0 for row in rows)


@pytest.mark.slow
def test_more_damaged_inputs_are_refused_in_one_line(tmp_path, trained_once):
    checked(fuzz.fuzzed(tmp_path, trained_once, 40, seed=8))


@pytest.mark.slow
def test_no_kill_and_no_signal_loses_a_checkpoint(tmp_path):
    """In a process of its own: it forks, which torch forbids where a test has computed gradients before."""
    arguments = (
        "kills",
        "two",
        "signals",
        "--kills",
        "4",
        "--two",
        "1",
        "--signals",
        "6",
        "--seed",
        "7",
        "--out",
        "t.json",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}
    ended = subprocess.run(
        [sys.executable, "-m", "faults", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert [(row["tried"], row["held"]) for row in rows] == [(2, 2), (2, 2), *[(1, 1)] * 7]


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
