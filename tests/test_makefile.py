"""``make best``: it goes on where it stopped, and opens test once for each line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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
    record = tmp_path / "record"
    record.write_text('#!/bin/sh\necho "$@" >> "$0.log"\n')
    asked = ("-C", str(ROOT), "best", f"BEST={best}", f"RUN=sh {record}", "INSTALLED=")
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE")
    }  # of a make around the tests
    ended = subprocess.run(["make", *asked], env=own, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
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
