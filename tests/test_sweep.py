"""Sweeps: jobs are processes, and one that dies takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import SMALL, metrics

from fer.configuration import quoted, unquoted

DIES = """
import os, signal, sys
from fer.models import register
from fer.models.mlp import MLP

@register("dies")
class Dies(MLP):
    def __init__(self, how: str = "not", **contract):
        super().__init__(hidden=(4,), **contract)
        if how == "exception":
            raise RuntimeError("out of something")
        if how == "exit":
            sys.exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_sweep_runs_every_job_whatever_happens_to_one(train, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    fixed = (*SMALL[:4], *SMALL[6:], "trainer.max_epochs=1", "trainer.threads=1")
    ended = train(
        "-m", *fixed, "plugins=[dying]", "model=dies", "model.how=exception,exit,kill,not", "hydra.sweep.dir=sweep"
    )
    assert ended.code == 1
    assert "4 jobs, 3 failed" in ended.out
    assert "killed by signal 9" in ended.out
    assert "RuntimeError: out of something" in ended.out
    codes = [json.loads((tmp_path / "sweep" / str(job) / "job.json").read_text())["exit_code"] for job in range(4)]
    assert codes[1:] == [3, -9, 0]
    assert codes[0] != 0
    assert metrics(tmp_path / "sweep" / "3")["architecture"] == "dies"


@pytest.mark.slow
def test_a_sweep_over_settings_ends_well(train, tmp_path):
    ended = train(
        "-m", *SMALL, "trainer.max_epochs=1", "scheduler=none,plateau", "augment=none,strong", "hydra.sweep.dir=s"
    )
    assert ended.code == 0, ended.out + ended.err
    assert "4 jobs, 0 failed" in ended.out
    commands = [metrics(tmp_path / "s" / str(job))["command"] for job in range(4)]
    assert len(set(commands)) == 4
    assert "scheduler=plateau" in commands[2]


def test_a_sweep_never_draws_faces_in_place_of_data(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folder", lambda: tmp_path / "none")
    ended = train("-m", *SMALL[1:], "seed=0,1", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "2 jobs, 2 failed" in ended.out
    assert "no data" in ended.out
    assert not list((tmp_path / "s").glob("*/checkpoints"))


def test_a_choice_that_is_not_there_stops_a_sweep_before_its_first_job(train, tmp_path):
    ended = train("-m", *SMALL, "scheduler=none,cosin", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "did you mean 'cosine'?" in ended.line
    assert not list((tmp_path / "s").glob("*/job.json"))


@pytest.mark.parametrize("value", ["plain", "with space", "a,b=c", "it's", "[x]{y}", "Zoë", "a: b"])
def test_quoting_survives_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quoted(value)}")
    assert parsed.value() == value
    assert unquoted(quoted(value)) == value


@pytest.mark.slow
def test_one_missing_path_fails_one_job(train, tmp_path):
    ended = train("-m", *SMALL[1:], "data.path=synthetic,/nope.csv", "trainer.max_epochs=1", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "2 jobs, 1 failed" in ended.out
    assert "/nope.csv: no such file" in ended.out
    again = train("-m", *SMALL, "hydra.sweep.dir=s")
    assert "holds a sweep already" in again.line


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_with_its_job_saved_and_no_next_one(tmp_path, number):
    command = [
        sys.executable,
        "-m",
        "fer.train",
        "-m",
        *SMALL,
        "trainer.max_epochs=100000",
        "seed=0,1",
        "hydra.sweep.dir=s",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while not (tmp_path / "s" / "0" / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert json.loads((tmp_path / "s" / "0" / "job.json").read_text())["exit_code"] == 128 + number
    assert not (tmp_path / "s" / "1").exists()
    assert "Traceback" not in said
