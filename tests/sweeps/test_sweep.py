"""Sweeps: jobs are processes, and one that dies takes nothing with it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import SMALL, in_a_terminal, metrics
from omegaconf import OmegaConf

from fer.config.conf import quoted, unquoted
from fer.config.settings import SweepSettings
from fer.sweeps import jobs
from fer.system.locks import hold

HOSTILE = "a, b=c 'd' [e]"  # a folder's name
COMMAND = [sys.executable, "-m", "fer.train", "-m"]

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
        if how == "leave":
            sys.exit(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_sweep_runs_every_job_whatever_happens_to_one(train, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DIES)
    monkeypatch.syspath_prepend(tmp_path)
    fixed = (*SMALL[:4], *SMALL[6:], "trainer.max_epochs=1", "trainer.threads=1")
    ended = train(
        "-m",
        *fixed,
        "plugins=[dying]",
        "model=dies",
        "model.how=exception,exit,kill,leave,not",
        "hydra.sweep.dir=sweep",
    )
    assert ended.code == 1
    assert "5 jobs, 4 failed" in ended.out
    assert "killed by signal 9" in ended.out
    assert "called exit(3)" in ended.out
    assert "called exit(0)" in ended.out
    assert "RuntimeError: out of something" in ended.out
    codes = [json.loads((tmp_path / "sweep" / str(job) / "job.json").read_text())["exit_code"] for job in range(5)]
    assert codes[1:] == [1, -9, 1, 0]
    assert codes[0] != 0
    assert metrics(tmp_path / "sweep" / "4")["architecture"] == "dies"


@pytest.mark.slow
def test_a_sweep_over_settings_ends_well(train, tmp_path):
    ended = train(
        "-m", *SMALL, "trainer.max_epochs=1", "scheduler=none,plateau", "augment=none,strong", "hydra.sweep.dir=s"
    )
    assert ended.code == 0, ended.out + ended.err
    assert "4 jobs, 0 failed" in ended.out
    assert "#0" not in ended.out  # Hydra's own lines
    commands = [metrics(tmp_path / "s" / str(job))["command"] for job in range(4)]
    assert len(set(commands)) == 4
    assert "scheduler=plateau" in commands[2]
    assert not any("sweep" in command for command in commands)
    begun = [line for line in ended.out.splitlines() if re.match(r"job \d starts  scheduler=\w+ augment=\w+$", line)]
    lines = [line for line in ended.out.splitlines() if re.match(r"job \d \(\d:\d\d\)  sch.* augm\S+: [\d.]+ %$", line)]
    assert (len(begun), len(lines)) == (4, 4), ended.out
    for name in ("leaderboard.csv", "leaderboard.md", "compare.html"):
        assert (tmp_path / "s" / name).exists()
        assert f"s/{name}" in ended.out
    assert "4 jobs, 0 failed" in (tmp_path / "s" / "sweep.log").read_text()
    config = OmegaConf.load(tmp_path / "s" / "0" / ".hydra" / "config.yaml")
    assert config.sweep == asdict(SweepSettings())


def test_a_sweep_never_draws_faces_in_place_of_data(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = train("-m", *SMALL[1:], "seed=0,1", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "no data" in ended.line
    assert not (tmp_path / "s").exists()


def test_an_experiment_never_draws_faces_in_place_of_data(train, tmp_path, monkeypatch):
    monkeypatch.setattr("fer.data.locate.data_folders", lambda: [tmp_path / "none"])
    ended = train("experiment=study/mlp", "hydra.run.dir=out")
    assert ended.code == 1
    assert "no data" in ended.line


def test_a_choice_that_is_not_there_stops_a_sweep_before_its_first_job(train, tmp_path):
    ended = train("-m", *SMALL, "scheduler=none,cosin", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "did you mean 'cosine'?" in ended.line
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("given", ["sweep=schedules", "sweep=augmentation", "sweep.jobs=2", "sweep.resume=x"])
def test_a_sweep_without_its_option_is_an_error(train, tmp_path, given):
    ended = train(*SMALL, given, "hydra.run.dir=out")
    assert ended.code == 1
    assert "applies to a sweep only: add -m" in ended.line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["plain", "with space", "a,b=c", "it's", "[x]{y}", "Zoë", "a: b"])
def test_quoting_survives_hydras_grammar(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={quoted(value)}")
    assert parsed.value() == value
    assert unquoted(quoted(value)) == value


def test_two_processes_do_not_work_on_one_sweep(train, tmp_path):
    (tmp_path / "s").mkdir()
    with open(tmp_path / "s" / "sweep.log", "a") as log:
        hold(log)
        ended = train("-m", *SMALL, "hydra.sweep.dir=s")
    assert ended.code == 1
    assert ended.line == f"fer.train: {tmp_path}/s/sweep.log: a process still writes it"


@pytest.mark.slow
def test_one_missing_path_fails_one_job(train, tmp_path):
    ended = train("-m", *SMALL[1:], "data.path=synthetic,/nope.csv", "trainer.max_epochs=1", "hydra.sweep.dir=s")
    assert ended.code == 1
    assert "2 jobs, 1 failed" in ended.out
    assert re.search(r"^1 +data.path=/nope.csv +s/1/console.log +data.path=/nope.csv: no such", ended.out, re.MULTILINE)
    assert "no such file" in (tmp_path / "s" / "1" / "console.log").read_text()
    again = train("-m", *SMALL, "hydra.sweep.dir=s")
    assert "a sweep is in it already" in again.line


def exit_codes(folder: Path) -> list[int | None]:
    files = sorted(folder.glob("*/job.json"), key=lambda file: int(file.parent.name))
    return [json.loads(file.read_text())["exit_code"] for file in files]


def started(*arguments: str, until: Path) -> subprocess.Popen[str]:
    """Start a sweep and return its process once a file is there."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 180
    while not until.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_with_its_job_saved_and_no_next_one(tmp_path, number):
    settings = (*SMALL, "trainer.max_epochs=100000", "seed=0,1", "sweep.jobs=1", "hydra.sweep.dir=s")
    process = started(*settings, until=tmp_path / "s" / "0" / "checkpoints" / "last.ckpt")
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert exit_codes(tmp_path / "s") == [128 + number]
    assert not (tmp_path / "s" / "1").exists()
    assert re.search(r"^0 +seed=0 +interrupted, saved$", said, re.MULTILINE)
    assert re.search(r"^1 +seed=1 +not started$", said, re.MULTILINE)
    assert "-m sweep.resume=s" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_interrupted_and_a_killed_sweep_go_on_where_they_were(train, tmp_path):
    """Its jobs are then as those of a sweep that nothing ended, and more of them are added."""
    few = (*SMALL, "trainer.max_epochs=40", "trainer.threads=1")
    folder = tmp_path / HOSTILE
    settings = (*few, "seed=0,1", "optimizer.lr=0.01,-1", "sweep.jobs=1", f"hydra.sweep.dir={quoted(HOSTILE)}")
    process = started(*settings, until=folder / "0" / "checkpoints" / "last.ckpt")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert exit_codes(folder) == [143]

    process = started(f"sweep.resume={folder}", until=folder / "2" / "checkpoints" / "last.ckpt")
    process.kill()  # its job saves itself, and nobody notes that
    process.communicate(timeout=120)
    while jobs.lives(folder / "2"):
        time.sleep(0.1)
    assert exit_codes(folder) == [0, 1, None]

    ended = train("-m", f"sweep.resume={folder}", "sweep.jobs=2")
    assert ended.code == 1, ended.out + ended.err
    assert "4 jobs: 1 done, 1 to resume, 2 to run" in ended.out
    assert "job 1 failed or has no checkpoint: it starts anew as job 3" in ended.out
    assert "4 jobs, 2 failed" in ended.out
    assert [metrics(folder / job)["epochs"] for job in ("0", "2")] == [40] * 2
    assert "resuming from" in (folder / "0" / "console.log").read_text()
    assert (folder / "0" / "console.log").read_text().startswith("data:")  # what it said before is kept

    written = (folder / "0" / "metrics.json").stat().st_mtime_ns
    ended = train("-m", f"sweep.resume={folder}", "seed=0,1,2", "optimizer.lr=0.01")
    assert ended.code == 0, ended.out + ended.err
    assert "3 jobs: 2 done, 0 to resume, 1 to run" in ended.out
    assert (folder / "0" / "metrics.json").stat().st_mtime_ns == written
    whole = train(*few, "seed=0", "optimizer.lr=0.01", "hydra.run.dir=whole")
    assert whole.code == 0
    assert metrics(folder / "0")["confusion"] == metrics(tmp_path / "whole")["confusion"]
    assert metrics(folder / "0")["nll"] == metrics(tmp_path / "whole")["nll"]


@pytest.mark.slow
def test_in_a_terminal_one_line_shows_how_the_sweep_goes(tmp_path):
    settings = (*SMALL, "trainer.max_epochs=60", "optimizer.lr=0.01,-1,0.02", "hydra.sweep.dir=s")
    code, said = in_a_terminal(80, *COMMAND, *settings)
    assert code == 1
    plain = said.replace("\r\x1b[K", "\n")
    drawn = [text.split("\r")[0] for text in said.split("\r\x1b[K")[1:]]
    lines = [text for text in drawn if re.match(r"\d/3 done", text) and "\n" not in text]
    assert len(lines) >= 4, said
    assert max(map(len, lines)) < 80
    assert any(re.search(r"#\d \d+/60 \d+\.\d %", line) for line in lines), lines
    assert any(re.search(r"1 failed.* left  best \d+\.\d\d % \(#\d\)", line) for line in lines), lines
    assert re.search(r"^job 1 \(\d:\d\d\)  optimizer.lr=-1: exit 1: .*out of range", plain, re.MULTILINE)
    assert "starts  optimizer" not in said


@pytest.mark.slow
def test_hydras_other_launchers_run_the_same_jobs(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    settings = (*SMALL, "trainer.max_epochs=1", "optimizer.lr=0.01,-1", "hydra.sweep.dir=s")
    more = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    command = [*COMMAND, *settings, *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "2 jobs, 1 failed" in ended.stdout
    assert f"sweep.resume=s {' '.join(more)}" in ended.stdout
    assert exit_codes(tmp_path / "s") == [0, 1]
    resumed = subprocess.run([*COMMAND, "sweep.resume=s", *more], capture_output=True, text=True, check=False)
    assert "2 jobs: 1 done, 0 to resume, 1 to run, by Hydra's launcher" in resumed.stdout
