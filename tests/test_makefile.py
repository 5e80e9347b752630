"""``make best``: it goes on where it stopped, and opens test once for each line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def made(tmp_path, best, record="#!/bin/sh"):
    """``make best`` with a script in place of Python, which records how it is called."""
    (tmp_path / "record").write_text(f'echo "$@" >> "$0.log"\n{record}\n')
    asked = ("-C", str(ROOT), "best", f"BEST={best}", f"RUN=sh {tmp_path / 'record'}", "INSTALLED=")
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of one around the tests
    return subprocess.run(["make", *asked], env=own, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_best_recipes_go_on_past_what_failed_or_was_cut_off(tmp_path):
    best = tmp_path / "best"
    for name in ("single/0", "single/2", "members/0", "members/1", "distilled/0", "literature/0"):
        (best / name).mkdir(parents=True)
        (best / name / "metrics.json").touch()
    (best / "single/1").mkdir()  # of a job that failed, done again as 2
    (best / "single/0/evaluations/test").mkdir(parents=True)
    (best / "single/0/evaluations/test/metrics.json").touch()
    cut_off = best / "single/2/evaluations/test"
    cut_off.mkdir(parents=True)
    (cut_off / "predictions.csv").touch()
    assert made(tmp_path, best).returncode == 0
    told = (tmp_path / "record.log").read_text().replace(f"{best}/", "").splitlines()
    looks = [line.removeprefix("-m fer.evaluate ") for line in told if "fer.evaluate" in line]
    assert looks[:3] == [
        "single/0 --tta ten_crop --split test",
        "single/2 --split test",
        "single/2 --tta ten_crop --split test",
    ]
    ensemble = f"single/0 single/2 members/0 members/1 --choose --tta ten_crop --out {best}/ensemble --split test"
    assert looks[3] == ensemble.replace(f"{best}/", "")
    assert not cut_off.exists()
    assert (best / "single/0/evaluations/test/metrics.json").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("status", "goes_on"), [(1, True), (130, False)])
def test_what_fails_for_good_does_not_keep_the_rest_from_being_done(tmp_path, status, goes_on):
    best = tmp_path / "best"
    for name in ("single/0", "literature/0"):
        (best / name).mkdir(parents=True)
        (best / name / "metrics.json").touch()
    ended = made(tmp_path, best, f'case "$*" in *sweep=ensemble*|*--choose*) exit {status};; esac')
    told = (tmp_path / "record.log").read_text()
    assert ended.returncode != 0  # make's own code says that something failed, not what
    assert "single/0 --split test" in told
    assert ("literature/0 --tta ten_crop --split test" in told) == goes_on
    assert "distilled" not in told  # of an ensemble that is not there
